from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from distill.synthetic import SyntheticSet
from ftdnas.runtime.home import home
from ftdnas.sets.library import Library, NameTaken, curve_of, facts, set_name, sheet_of

MakeSet = Callable[..., SyntheticSet]


@pytest.fixture
def library(tmp_path: Path) -> Library:
    return Library(tmp_path / "sets")


def test_home_is_the_folder_named_by_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("FTDNAS_HOME", str(tmp_path))
    assert home() == tmp_path
    monkeypatch.setenv("FTDNAS_HOME", "")
    monkeypatch.setenv("HOME", str(tmp_path / "user"))
    assert home() == tmp_path / "user" / ".ftdnas"


def test_a_set_comes_back_as_it_went_in_with_its_figures(library: Library, make_set: MakeSet) -> None:
    synthetic = make_set().with_provenance(losses=[[0, 1.0], [10, 0.5]])
    path = library.add(synthetic)
    assert path == library.folder / f"digits-ipc2-ftd-quick-{synthetic.identity[:6]}.safetensors"
    loaded = library.load(path.stem)
    assert loaded.equal(synthetic)
    assert loaded.provenance == synthetic.provenance
    assert library.verify(path.stem) == synthetic.identity
    assert sorted(library.folder.iterdir()) == sorted([path, sheet_of(path), curve_of(path)])
    for figure in (sheet_of(path), curve_of(path)):
        with Image.open(figure, formats=["PNG"]) as image:
            image.load()


def test_a_set_that_was_not_distilled_has_no_curve(library: Library, make_set: MakeSet) -> None:
    path = library.add(make_set())
    assert sheet_of(path).exists()
    assert not curve_of(path).exists()


@pytest.mark.parametrize(
    ("provenance", "expected"),
    [
        ({}, "unknown-ipc2-unknown-custom-"),
        ({"dataset": "My Photos (2)/é", "method": "K-Means", "recipe": "own"}, "my-photos-2-é-ipc2-k-means-own-"),
        ({"dataset": "../../etc", "method": None, "recipe": {}}, "etc-ipc2-unknown-custom-"),
        ({"dataset": ["x" * 99], "recipe": {"name": 3}}, f"{'x' * 24}-ipc2-unknown-3-"),
    ],
)
def test_names_are_made_of_what_is_known(
    provenance: dict[str, object], expected: str, library: Library, make_set: MakeSet
) -> None:
    synthetic = make_set(provenance=provenance)
    assert set_name(synthetic) == expected + synthetic.identity[:6]
    assert library.add(synthetic).parent == library.folder


def test_identity_depends_on_everything_but_provenance(make_set: MakeSet) -> None:
    one = make_set()
    assert replace(one, provenance={}).identity == one.identity
    changed = [
        replace(one, ipc=9),
        replace(one, augment="none"),
        replace(one, backbone="convnet:width=32,depth=1"),
        replace(one, class_names=one.class_names[::-1]),
        replace(one, target_size=32),
        replace(one, images=one.images + 1),
        replace(one, labels=one.labels.flip(0)),
        replace(one, step_size=0.03),
        replace(one, preprocess=make_set(kind="none").preprocess),
    ]
    assert len({one.identity, *(other.identity for other in changed)}) == 10
    earlier = replace(one, format=1)  # what studies of earlier versions name it by
    assert replace(earlier, ipc=9, augment="none").identity == earlier.identity != one.identity


def test_a_set_is_found_by_name_beginning_and_path(library: Library, make_set: MakeSet) -> None:
    one = library.add(make_set(), "cats-a")
    two = library.add(make_set(ipc=1), "cats-b")
    library.add(make_set(ipc=3), "cats")
    assert library.names() == ["cats", "cats-a", "cats-b"]
    assert library.path("cats-b") == two
    assert library.path("cats-a") == library.path(one) == library.path(str(one)) == one
    assert library.path("cats") == library.folder / "cats.safetensors"  # the whole name comes before a beginning
    with pytest.raises(LookupError, match="'cats-' begins the names of 2 sets, give more of one: cats-a, cats-b"):
        library.path("cats-")


def test_an_unknown_name_is_answered_with_near_ones(library: Library, make_set: MakeSet) -> None:
    with pytest.raises(LookupError, match=r"no set 'x': the library .*sets is empty"):
        library.path("x")
    for name in ("cifar10-ipc10-ftd", "digits-ipc1-ftd"):
        library.add(make_set(), name)
    with pytest.raises(LookupError, match="no set 'cifra10-ipc10' in the library: did you mean cifar10-ipc10-ftd"):
        library.path("cifra10-ipc10")
    with pytest.raises(LookupError, match=r"did you mean digits-ipc1-ftd$"):
        library.path("IPC1-ftd")
    with pytest.raises(LookupError, match=r"it has cifar10-ipc10-ftd, digits-ipc1-ftd$"):
        library.path("zzz")
    with pytest.raises(LookupError, match="no set ''"):
        library.path("")
    with pytest.raises(FileNotFoundError, match=r"no synthetic set at .*cifar10\.safetensors"):
        library.path(library.folder / "cifar10.safetensors")
    with pytest.raises(FileNotFoundError, match="no synthetic set at elsewhere/cifar10"):
        library.load("elsewhere/cifar10")


def test_many_names_are_cut_short(library: Library, make_set: MakeSet) -> None:
    path = library.add(make_set(), "set-00")
    for number in range(1, 12):
        path.with_name(f"set-{number:02}.safetensors").write_bytes(path.read_bytes())
    with pytest.raises(LookupError, match=r"of 12 sets, .* set-07 and 4 more$"):
        library.path("set")


def test_a_name_is_not_taken_from_another_set(library: Library, make_set: MakeSet) -> None:
    path = library.add(make_set(), "mine")
    library.check_free("yours")
    with pytest.raises(ValueError, match="has a set mine"):
        library.check_free("mine")
    for other in (make_set(ipc=1), replace(make_set(), augment="none"), make_set(class_names=("a", "b", "c"))):
        with pytest.raises(NameTaken, match="has a set mine of other content: choose another name, or remove it"):
            library.add(other, "mine")
    seconds = make_set().with_provenance(run="1", seconds=7)
    with pytest.raises(NameTaken, match="has a set mine of other provenance"):
        library.add(seconds, "mine", run="1")
    assert library.load("mine").checksum == make_set().checksum
    library.add(make_set().with_provenance(run="1", seconds=6), "repeated", run="1")
    library.add(seconds, "repeated", run="1")  # a run that was killed before it had written down that it ended
    assert library.load("repeated").provenance["seconds"] == 7
    path.write_bytes(path.read_bytes()[:-1])
    library.add(make_set(ipc=1), "mine")  # nothing is lost with a damaged file
    assert library.load("mine").equal(make_set(ipc=1))
    assert path.with_name("mine.safetensors.damaged").exists()


@pytest.mark.parametrize("name", ["", "../x", "a/b", ".x", "a\nb", " a", "a.safetensors", "a\\b", "a*", "x" * 121])
def test_names_that_are_no_names_are_refused(name: str, library: Library, make_set: MakeSet) -> None:
    with pytest.raises(ValueError, match=r"no name for a set|longer than 120 bytes"):
        library.add(make_set(), name)
    assert not library.folder.exists()


def test_removing_takes_the_set_and_its_figures(library: Library, make_set: MakeSet, tmp_path: Path) -> None:
    path = library.add(make_set().with_provenance(losses=[[0, 1.0]]), "gone")
    kept = library.add(make_set(), "kept")
    assert library.remove("go") == [path, sheet_of(path), curve_of(path)]
    assert library.names() == ["kept"]
    assert sheet_of(kept).exists()
    outside = tmp_path / "other.safetensors"
    make_set().save(outside)
    with pytest.raises(ValueError, match="is not in the library"):
        library.remove(str(outside))
    assert outside.exists()


def test_damaged_sets_are_listed_refused_and_removable(library: Library, make_set: MakeSet) -> None:
    sound = library.add(make_set(), "sound")
    broken = library.add(make_set(ipc=1), "broken")
    content = bytearray(broken.read_bytes())
    content[-1] ^= 1
    broken.write_bytes(content)
    first, second = library.list()
    assert (first.name, second.name) == ("broken", "sound")
    assert first.facts == {}
    assert first.problem is not None
    assert "broken.safetensors" in first.problem
    assert second.problem is None
    assert second.to_json() == {"name": "sound", "path": str(sound), "problem": None, **facts(make_set())}
    with pytest.raises(ValueError, match=r"broken\.safetensors: "):
        library.verify("broken")
    library.remove("broken")
    assert library.names() == ["sound"]


def test_what_was_half_written_is_no_set(library: Library, make_set: MakeSet) -> None:
    path = library.add(make_set(), "whole")
    (library.folder / ".part.safetensors.99").write_bytes(b"x")
    (library.folder / ".hidden.safetensors").write_bytes(b"x")
    assert library.names() == [path.stem]


def test_facts_say_what_a_set_is(make_set: MakeSet) -> None:
    known = facts(make_set(soft=True, target_size=224).with_provenance(validation_accuracy=0.5, published="raw"))
    assert known["dataset"] == "digits"
    assert known["recipe"] == "quick"
    assert known["validation_accuracy"] == 0.5
    assert (known["images"], known["classes"], known["ipc"], known["labels"]) == (6, 3, 2, "soft")
    assert (known["channels"], known["height"], known["width"], known["target_size"]) == (1, 8, 8, 224)
