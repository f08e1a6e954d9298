from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from distill.synthetic import SyntheticSet
from ftdnas.cli.main import run
from ftdnas.cli.sets import shown
from ftdnas.service.client import Client
from ftdnas.sets.library import Library

MakeSet = Callable[..., SyntheticSet]
Ftdnas = Callable[..., tuple[int, str, str]]


@pytest.fixture
def library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Library:
    monkeypatch.setenv("FTDNAS_HOME", str(tmp_path / "home"))
    return Library(tmp_path / "home" / "sets")


@pytest.fixture
def ftdnas(library: Library, capsys: pytest.CaptureFixture[str]) -> Ftdnas:  # noqa: ARG001
    """ftdnas("list", ...): exit code, stdout and stderr of `ftdnas sets list ...` on a library of the test's own."""

    def command(*arguments: str | Path) -> tuple[int, str, str]:
        code = run(["sets", *map(str, arguments)])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return command


def test_an_empty_library_says_what_to_do(ftdnas: Ftdnas) -> None:
    assert ftdnas("list") == (0, "the library is empty: ftdnas distill makes a set\n", "")
    assert ftdnas("list", "--json") == (0, "[]\n", "")
    code, out, err = ftdnas("show", "x")
    assert (code, out) == (2, "")
    assert err.startswith("ftdnas: no set 'x': the library ")
    assert err.count("\n") == 1


def test_list_shows_every_set_in_one_line(ftdnas: Ftdnas, library: Library, make_set: MakeSet) -> None:
    name = f"a-set-with-[bold]a-long-name-{'x' * 60}"
    library.add(make_set().with_provenance(validation_accuracy=0.4567), name)
    library.add(make_set(classes=10, ipc=3, kind="zca"), "zebra")
    code, out, err = ftdnas("list")
    assert (code, err) == (0, "")
    heading, first, second = out.splitlines()
    assert heading.split() == ["name", "images", "classes", "size", "preprocess", "step", "size", "validation"]
    assert first.split() == [name, "6", "3", "8", "x", "8", "standardize", "0.02", "45.7", "%"]
    assert second.split() == ["zebra", "30", "10", "8", "x", "8", "zca", "0.02", "-"]
    rows = json.loads(ftdnas("list", "--json")[1])
    assert [row["name"] for row in rows] == [name, "zebra"]
    assert rows[0]["validation_accuracy"] == 0.4567


def test_show_tells_all_and_json_tells_more(ftdnas: Ftdnas, library: Library, make_set: MakeSet) -> None:
    synthetic = make_set(classes=20, target_size=224).with_provenance(
        validation_accuracy=0.4567, seconds={"experts": 12.3456789, "matching": 7}, notes=["one\x1b[31m", "two"]
    )
    path = library.add(synthetic, "mine")
    code, out, _ = ftdnas("show", "mi")
    assert code == 0
    lines = {line.partition(":")[0]: line.partition(":")[2].strip() for line in out.splitlines()}
    assert lines["name"] == "mine"
    assert lines["dataset"] == "digits"
    assert lines["validation accuracy"] == "45.7 %"
    assert lines["target size"] == "224"
    assert lines["source"] == "-"
    assert lines["class names"].endswith("digit 11, ... (20)")
    assert lines["seconds"] == "experts 12.3457, matching 7"
    assert lines["notes"] == "one [31m, two"  # a stranger's file cannot steer the terminal
    assert lines["contact sheet"] == str(path.with_suffix(".png"))
    assert lines["curve"] == "-"
    told = json.loads(ftdnas("show", path, "--json")[1])
    assert told["provenance"] == synthetic.provenance
    assert told["identity"] == synthetic.identity
    assert told["class_names"] == list(synthetic.class_names)


def test_what_a_set_shows_of_photos_is_said_before_it_is_sent(
    ftdnas: Ftdnas, library: Library, make_set: MakeSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    count = {"pointing": 4, "images": 6, "control": 5, "held_out": 100, "photos": 900, "bound": 0.8}
    library.add(make_set().with_provenance(nearest_photo=count), "near")
    library.add(make_set(ipc=1).with_provenance(nearest_photo={**count, "pointing": 0}), "far")
    library.add(make_set(ipc=3).with_provenance(published="real images"), "photos")
    told = "4 of 6 images (67%) point to one training photo; of real images that were not trained on, 5% do"
    assert f"privacy:             {told}" in ftdnas("show", "near")[1].splitlines()
    shown = json.loads(ftdnas("show", "near", "--json")[1])
    assert shown["nearest_photo"] == count
    assert not shown["real_photos"]
    assert "real photos: all 9 are training photos as they are" in ftdnas("show", "photos")[1]
    assert json.loads(ftdnas("show", "photos", "--json")[1])["real_photos"]
    sent: list[tuple[str, str]] = []

    def upload(_: Client, path: Path, name: str) -> dict[str, Any]:
        sent.append((path.stem, name))
        return {"name": name, "identity": "", "new": True}

    monkeypatch.setattr(Client, "upload", upload)
    address = "http://127.0.0.1:1"
    monkeypatch.setattr(sys, "stdin", io.StringIO(""))  # nobody answers
    code, _, err = ftdnas("push", "near", address)
    assert code == 1
    assert f"warning: {told}" in err
    assert "nothing was sent" in err
    assert not sent
    code, out, err = ftdnas("push", "near", address, "--as", "there", "--yes")
    assert code == 0
    assert "ftdnas --server http://127.0.0.1:1 search --set there" in out
    code, out, err = ftdnas("push", "far", address, "--json")  # nothing to warn of, nothing to ask
    assert (code, json.loads(out)["warnings"]) == (0, [])
    assert sent == [("near", "there"), ("far", "far")]


def test_verify_finds_the_damaged_one(ftdnas: Ftdnas, library: Library, make_set: MakeSet) -> None:
    identity = make_set().identity
    library.add(make_set(), "sound")
    assert ftdnas("verify") == (0, f"sound  sound, identity {identity[:12]}\n", "")
    broken = library.add(make_set(ipc=1), "broken")
    broken.write_bytes(broken.read_bytes()[:-5])
    code, out, err = ftdnas("verify")
    assert (code, err) == (1, "")
    assert out.splitlines()[0].startswith(f"broken  {broken}: not a readable safetensors file")
    assert ftdnas("verify", "sound")[0] == 0
    code, out, _ = ftdnas("verify", "broken", "--json")
    assert code == 1
    assert "not a readable" in json.loads(out)[0]["problem"]
    code, out, err = ftdnas("list")
    assert code == 0
    assert out.splitlines()[1].split() == ["broken", "damaged"]
    assert err.startswith(f"{broken}: ")
    code, _, err = ftdnas("show", "broken")
    assert code == 2
    assert err.startswith(f"ftdnas: {broken}: not a readable safetensors file")


@pytest.mark.parametrize("form", ["set", "tensors", "sheet", "folder"])
def test_export(form: str, ftdnas: Ftdnas, library: Library, make_set: MakeSet, tmp_path: Path) -> None:
    library.add(make_set(), "mine")
    place = tmp_path / "out"
    assert ftdnas("export", "mine", place, "--as", form) == (0, f"written to {place}\n", "")
    assert place.is_dir() is (form == "folder")
    if form == "set":
        assert SyntheticSet.load(place).equal(make_set())
    if form == "sheet":
        with Image.open(place, formats=["PNG"]) as image:
            image.load()
    code, _, err = ftdnas("export", "mine", place, "--as", form)
    assert (code, err) == (2, f"ftdnas: {place} exists: choose another place or remove it\n")
    assert json.loads(ftdnas("export", "mine", tmp_path / "new", "--as", form, "--json")[1])["form"] == form


def test_import_of_a_set_file(ftdnas: Ftdnas, library: Library, make_set: MakeSet, tmp_path: Path) -> None:
    make_set().save(tmp_path / "friend.safetensors")
    code, out, _ = ftdnas("import", tmp_path / "friend.safetensors")
    assert code == 0
    assert out == f"friend\ncontact sheet: {library.folder / 'friend.png'}\n"
    assert library.load("friend").equal(make_set())
    told = json.loads(ftdnas("import", tmp_path / "friend.safetensors", "--name", "again", "--json")[1])
    assert told["name"] == "again"
    assert Path(told["contact_sheet"]).exists()


def test_import_of_published_tensors(ftdnas: Ftdnas, library: Library, make_set: MakeSet, tmp_path: Path) -> None:
    made = make_set(classes=10, channels=1)
    torch.save(made.images, tmp_path / "images_best.pt")
    torch.save(made.labels, tmp_path / "labels_best.pt")
    standardized = ("--preprocess", "standardize", "--mean", "0.3", "--std", "0.25")
    code, out, err = ftdnas("import", tmp_path, *standardized)
    assert (code, out) == (2, "")
    assert "lr_best.pt" in err
    code, out, err = ftdnas(
        "import", tmp_path / "images_best.pt", *standardized, "--step-size", "0.02", "--name", "theirs",
        "--class-names", "zero, one,2,3,4,5,6,7,8,9", "--augment", "none", "--backbone", "convnet:depth=2",
    )  # fmt: skip
    assert (code, err) == (0, "")
    assert out.startswith("theirs\n")
    read = library.load("theirs")
    assert torch.equal(read.images, made.images)
    assert read.class_names[:2] == ("zero", "one")
    assert (read.augment, read.backbone, read.step_size) == ("none", "convnet:depth=2", 0.02)
    assert torch.allclose(read.preprocess.tensors["std"], torch.tensor([0.25]))
    code, out, _ = ftdnas(
        "import", tmp_path, "--step-size", "0.02", "--dataset", "digits", "--preprocess", "zca", "--json"
    )
    assert code == 0
    told = json.loads(out)
    assert told["name"] == f"digits-ipc2-imported-custom-{told['identity'][:6]}"
    code, _, err = ftdnas("import", tmp_path, "--mean", "0.3;0.2")
    assert code == 2
    assert "'0.3;0.2' is not numbers with commas between them" in err


def answering(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO(text))


def test_remove_asks_first(
    ftdnas: Ftdnas, library: Library, make_set: MakeSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("one", "two", "three"):
        library.add(make_set(), name)
    for answer in ("n\n", ""):
        answering(monkeypatch, answer)
        code, out, err = ftdnas("remove", "one")
        assert (code, out) == (1, "")
        assert f"Delete {library.path('one')}? [y/N]" in err
        assert err.endswith("ftdnas: nothing was removed\n")
    answering(monkeypatch, "y\n")
    code, out, _ = ftdnas("remove", "one")
    assert (code, out) == (0, f"removed {library.folder}/one.safetensors\nremoved {library.folder}/one.png\n")
    code, out, _ = ftdnas("remove", "tw", "three", "two", "--yes", "--json")
    assert code == 0
    assert len(json.loads(out)["removed"]) == 4
    assert library.names() == []


def test_nothing_is_removed_where_one_name_is_wrong(ftdnas: Ftdnas, library: Library, make_set: MakeSet) -> None:
    library.add(make_set(), "one")
    code, _, err = ftdnas("remove", "--yes", "one", "eno")
    assert code == 2
    assert "no set 'eno'" in err
    assert library.names() == ["one"]


def test_a_file_elsewhere_never_stands_for_the_library_s_own(
    ftdnas: Ftdnas, library: Library, make_set: MakeSet, tmp_path: Path
) -> None:
    library.add(make_set(), "one")
    outside = tmp_path / "one.safetensors"
    make_set().save(outside)
    code, _, err = ftdnas("remove", "--yes", str(outside))
    assert code == 2
    assert f"{outside} is not in the library" in err
    assert library.names() == ["one"]
    assert outside.exists()


@pytest.mark.parametrize(
    ("key", "value", "text"),
    [
        ("x", None, "-"),
        ("validation_accuracy", 0.5, "50.0 %"),
        ("validation_accuracy", "high", "high"),
        ("step_size", 0.0200000001, "0.02"),
        ("x", ["a", 1], "a, 1"),
        ("x", {}, ""),
    ],
)
def test_shown(key: str, value: Any, text: str) -> None:
    assert shown(key, value) == text
