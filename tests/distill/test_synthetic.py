from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from sklearn.datasets import load_digits

from distill.images.preprocess import fit_preprocess
from distill.recipe import PREPROCESSES
from distill.synthetic import SyntheticSet

in_one_folder = settings(
    max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def make(kind: str = "standardize", soft: bool = False, **changes: Any) -> SyntheticSet:
    """Twelve real digits of the classes 0 to 3, as 2-channel images of 4 x 3."""
    digits = load_digits()
    chosen = np.concatenate([np.flatnonzero(digits.target == label)[:3] for label in range(4)])
    pixels = (digits.images[chosen] * 255 / 16).astype(np.uint8)[:, None, 2:6, 2:5].repeat(2, axis=1)
    preprocess = fit_preprocess(kind, pixels)
    hard = torch.from_numpy(digits.target[chosen])
    labels = torch.nn.functional.one_hot(hard, 4).float() * 0.7 + 0.075 if soft else hard
    fields: dict[str, Any] = {
        "images": preprocess.apply(pixels),
        "labels": labels,
        "step_size": 0.017,
        "preprocess": preprocess,
        "augment": "color_crop",
        "backbone": "convnet:width=32",
        "class_names": ("zero", "one", "zwei", "三"),
        "ipc": 3,
        "target_size": 64,
        "provenance": {"method": "ftd", "losses": [[0, 0.9], [10, 0.4]], "note": "größer"},
    }
    return SyntheticSet(**(fields | changes))


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("saved") / "set.safetensors"
    make().save(path)
    return path.read_bytes()


def same(one: SyntheticSet, other: SyntheticSet) -> bool:
    names = ("step_size", "augment", "backbone", "class_names", "ipc", "target_size", "provenance")
    return (
        torch.equal(one.images, other.images)
        and torch.equal(one.labels, other.labels)
        and one.preprocess.fingerprint == other.preprocess.fingerprint
        and all(getattr(one, name) == getattr(other, name) for name in names)
    )


@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("kind", [kind for kind in PREPROCESSES if kind != "published"])  # which is stored as another
def test_round_trip_and_equal_bytes(kind: str, soft: bool, tmp_path: Path) -> None:
    made = make(kind, soft)
    made.save(tmp_path / "new" / "one.safetensors")
    loaded = SyntheticSet.load(tmp_path / "new" / "one.safetensors")
    assert same(loaded, made)
    assert loaded.equal(made)
    assert loaded.hard_labels is not soft
    assert (loaded.num_classes, loaded.image_shape) == (4, (2, 4, 3))
    make(kind, soft).save(tmp_path / "two.safetensors")
    assert (tmp_path / "two.safetensors").read_bytes() == (tmp_path / "new" / "one.safetensors").read_bytes()
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["one.safetensors"]  # nothing half-written beside


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@in_one_folder
@given(
    values=st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=6, max_size=6),
    labels=st.lists(st.integers(0, 2), min_size=3, max_size=3),
    step_size=st.floats(min_value=0, exclude_min=True, allow_infinity=False),
    names=st.lists(st.text(min_size=1).filter(lambda name: name.isprintable()), min_size=3, max_size=3, unique=True),
    target=st.none() | st.integers(1, 10**6),
    provenance=st.dictionaries(st.text(), json_values, max_size=3),
)
def test_any_valid_set_comes_back(
    values: list[float],
    labels: list[int],
    step_size: float,
    names: list[str],
    target: int | None,
    provenance: dict[str, Any],
    tmp_path: Path,
) -> None:
    made = make(
        "none",
        images=torch.tensor(values).view(3, 1, 2, 1),
        labels=torch.tensor(labels),
        step_size=step_size,
        class_names=tuple(names),
        target_size=target,
        provenance=provenance,
    )
    made.save(tmp_path / "set.safetensors")
    loaded = SyntheticSet.load(tmp_path / "set.safetensors")
    assert same(loaded, made)
    assert loaded.identity == made.identity
    assert loaded.provenance == provenance


@in_one_folder
@given(data=st.data())
def test_damaged_bytes_are_refused_by_value_error_only(data: st.DataObject, saved: bytes, tmp_path: Path) -> None:
    damage = data.draw(st.sampled_from(["cut", "change", "insert", "append", "random"]))
    place = data.draw(st.integers(0, len(saved) - 1))
    if damage == "cut":
        content = saved[:place]
    elif damage == "change":
        other = data.draw(st.integers(0, 255).filter(lambda byte: byte != saved[place]))
        content = saved[:place] + bytes([other]) + saved[place + 1 :]
    elif damage == "insert":
        content = saved[:place] + data.draw(st.binary(min_size=1, max_size=9)) + saved[place:]
    elif damage == "append":
        content = saved + data.draw(st.binary(min_size=1, max_size=9))
    else:
        content = data.draw(st.binary(max_size=200))
    path = tmp_path / "set.safetensors"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"set\.safetensors: ."):
        SyntheticSet.load(path)


def test_every_single_byte_counts(saved: bytes, tmp_path: Path) -> None:
    path = tmp_path / "set.safetensors"
    for place in range(len(saved)):
        path.write_bytes(saved[:place] + bytes([saved[place] ^ 1]) + saved[place + 1 :])
        with pytest.raises(ValueError, match=r"set\.safetensors: ."):
            SyntheticSet.load(path)


def rewrite(saved: bytes, path: Path, change: Callable[[dict[str, Any]], object], text: str | None = None) -> None:
    """The same tensors under other metadata."""
    path.write_bytes(saved)
    header = json.loads(saved[8 : 8 + int.from_bytes(saved[:8], "little")])
    members = json.loads(header["__metadata__"]["ftdnas"])
    change(members)
    save_file({name: t.clone() for name, t in load_file(path).items()}, path, {"ftdnas": text or json.dumps(members)})


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"format": 3}, "format 3 is none of those"),
        ({"format": None}, "format None is none of those"),
        ({"surprise": 1}, "missing or unknown members: surprise"),
        ({"preprocess": "pca"}, "unknown preprocess 'pca'"),
        ({"preprocess": ["none"]}, "preprocess is a list"),
        ({"preprocess": "zca"}, "preprocess zca needs tensors"),
        ({"class_names": "abcd"}, "class_names is a str"),
        ({"class_names": [1, 2, 3, 4]}, "class name 1 is not"),
        ({"class_names": ["a", "b", "b", "c"]}, "'b' occurs twice"),
        ({"class_names": ["a", "b", "c"]}, r"label 3 is outside 0 \.\. 2"),
        ({"class_names": []}, "at least one name"),
        ({"class_names": ["a", "b", "c", "d\n"]}, "not printable"),
        ({"step_size": -0.1}, "step size -0.1 is not"),
        ({"step_size": 0.0}, "step size 0.0 is not"),
        ({"step_size": float("inf")}, "step size inf is not"),
        ({"step_size": float("nan")}, "step size nan is not"),
        ({"step_size": "0.1"}, "step size '0.1' is not"),
        ({"step_size": True}, "step size True is not"),
        ({"step_size": 0.018}, "checksum does not fit"),
        ({"ipc": 0}, "ipc 0 is not"),
        ({"ipc": True}, "ipc True is not"),
        ({"ipc": 2}, "12 images are more than 2 for each of 4"),
        ({"ipc": 4}, "checksum does not fit"),
        ({"target_size": 0}, "target size 0 is neither"),
        ({"target_size": "64"}, "target size '64' is neither"),
        ({"augment": "blur"}, "unknown augmentation 'blur'"),
        ({"augment": None}, "augment None is not"),
        ({"backbone": 3}, "backbone 3 is not"),
        ({"provenance": [1]}, "provenance is a list"),
        ({"provenance": {"loss": float("nan")}}, "provenance cannot be written as JSON"),
        ({"provenance": {"note": "\ud800"}}, "provenance cannot be written as JSON"),
        ({"provenance": {}}, "checksum does not fit"),
        ({"checksum": 1}, "checksum does not fit"),
    ],
)
def test_metadata_is_checked(change: dict[str, Any], reason: str, saved: bytes, tmp_path: Path) -> None:
    path = tmp_path / "set.safetensors"
    rewrite(saved, path, lambda members: members.update(change))
    with pytest.raises(ValueError, match=rf"set\.safetensors: .*{reason}"):
        SyntheticSet.load(path)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[]", "a list, not a JSON object"),
        ("{", "the metadata is not JSON"),
        ("[" * 100_000, "the metadata is not JSON"),
        ("1" * 10_000, "the metadata is not JSON"),
    ],
)
def test_metadata_that_is_no_object_is_refused(text: str, reason: str, saved: bytes, tmp_path: Path) -> None:
    path = tmp_path / "set.safetensors"
    rewrite(saved, path, lambda members: None, text)  # noqa: ARG005
    with pytest.raises(ValueError, match=reason):
        SyntheticSet.load(path)


def test_a_missing_member_is_named(saved: bytes, tmp_path: Path) -> None:
    path = tmp_path / "set.safetensors"
    rewrite(saved, path, lambda members: members.pop("backbone"))
    with pytest.raises(ValueError, match="missing or unknown members: backbone"):
        SyntheticSet.load(path)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"images": None}, "no tensor images"),
        ({"images": torch.zeros(12, 2, 4, 3, dtype=torch.float64)}, r"images are float64 \(12, 2, 4, 3\)"),
        ({"images": torch.zeros(12, 24)}, r"images are float32 \(12, 24\)"),
        ({"images": torch.zeros(0, 2, 4, 3)}, "images are float32"),
        ({"images": torch.full((12, 2, 4, 3), torch.inf)}, "images hold values that are not finite"),
        ({"images": torch.zeros(12, 3, 4, 3)}, "not float32"),  # the preprocessing is of two channels
        ({"labels": None}, "no tensor labels"),
        ({"labels": torch.zeros(11, dtype=torch.int64)}, r"labels are int64 \(11,\)"),
        ({"labels": torch.zeros(12, dtype=torch.int32)}, r"labels are int32 \(12,\)"),
        ({"labels": torch.full((12,), -1)}, "label -1 is outside"),
        ({"labels": torch.full((12, 4), 0.3)}, "not distributions"),
        ({"labels": torch.full((12, 4), torch.nan)}, "not distributions"),
        ({"labels": torch.tensor([2.0, -1.0, 0.0, 0.0]).repeat(12, 1)}, "not distributions"),
        ({"labels": torch.full((12, 2), 0.5)}, r"labels are float32 \(12, 2\)"),
        ({"preprocess.std": None}, "needs tensors"),
        ({"preprocess.std": torch.zeros(2)}, "std is not positive"),
        ({"other": torch.zeros(2)}, "unknown tensors other"),
        ({"images": torch.zeros(12, 2, 4, 3)}, "checksum does not fit"),
    ],
)
def test_tensors_are_checked(change: dict[str, torch.Tensor | None], reason: str, saved: bytes, tmp_path: Path) -> None:
    path = tmp_path / "set.safetensors"
    path.write_bytes(saved)
    header = json.loads(saved[8 : 8 + int.from_bytes(saved[:8], "little")])
    tensors = {name: t.clone() for name, t in load_file(path).items()} | change
    save_file({name: t for name, t in tensors.items() if t is not None}, path, header["__metadata__"])
    with pytest.raises(ValueError, match=rf"set\.safetensors: .*{reason}"):
        SyntheticSet.load(path)


def test_other_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no synthetic set at .*none\.safetensors"):
        SyntheticSet.load(tmp_path / "none.safetensors")
    with pytest.raises(FileNotFoundError):
        SyntheticSet.load(tmp_path)
    save_file({"images": torch.zeros(1, 1, 2, 2)}, tmp_path / "weights.safetensors")
    with pytest.raises(ValueError, match="without ftdnas metadata"):
        SyntheticSet.load(tmp_path / "weights.safetensors")
    torch.save({"images": torch.zeros(2)}, tmp_path / "set.pt")
    with pytest.raises(ValueError, match=r"set\.pt: not a readable safetensors file"):
        SyntheticSet.load(tmp_path / "set.pt")


def test_wrong_sets_cannot_be_made() -> None:
    made = make()
    with pytest.raises(ValueError, match="labels are a list, not a tensor"):
        make(labels=[0, 1])
    with pytest.raises(ValueError, match="2 channels, got images of 1"):
        replace(made, images=made.images[:, :1])
    with pytest.raises(ValueError, match="preprocess is a str"):
        make(preprocess="none")
    with pytest.raises(ValueError, match="tuple of at least one name"):
        make(class_names=["a", "b", "c", "d"])
    with pytest.raises(ValueError, match="provenance cannot be written as JSON"):
        made.with_provenance(device=torch.device("cpu"))
    circle: dict[str, Any] = {}
    circle["circle"] = circle
    with pytest.raises(ValueError, match="provenance cannot be written as JSON"):
        make(provenance=circle)


def test_a_set_does_not_share_memory_with_what_made_it_or_reads_it() -> None:
    images = make().images.requires_grad_()
    made = make(images=images)
    kept = made.images.clone()
    with torch.no_grad():
        images += 1
    assert torch.equal(made.images, kept)
    assert not made.images.requires_grad
    copied, labels, step_size = made.as_tensors()
    assert torch.equal(copied, kept)
    assert torch.equal(labels, made.labels)
    assert step_size == made.step_size
    copied += 1
    labels += 1
    assert torch.equal(made.images, kept)
    assert torch.equal(made.labels, make().labels)


def test_a_loaded_set_outlives_its_file(saved: bytes, tmp_path: Path) -> None:
    path = tmp_path / "set.safetensors"
    path.write_bytes(saved)
    loaded = SyntheticSet.load(path)
    path.write_bytes(b"\xff" * len(saved))  # in place: a memory map would show it
    assert same(loaded, make())


def test_equal_looks_at_what_training_depends_on() -> None:
    made = make()
    assert made.equal(made.with_provenance(seed=3))
    assert not made.equal(replace(made, step_size=0.018))
    assert not made.equal(replace(made, images=made.images + 1e-6))
    assert not made.equal(replace(made, labels=made.labels.flip(0)))
    assert not made.equal(make("none", images=made.images))


def test_with_provenance_adds_and_overwrites() -> None:
    made = make().with_provenance(method="mtt", seed=3, pair=(1, 2))
    assert made.provenance == {**make().provenance, "method": "mtt", "seed": 3, "pair": [1, 2]}


def test_an_interrupted_write_leaves_the_old_file(tmp_path: Path) -> None:
    folder = tmp_path / "set.safetensors"
    folder.mkdir()  # a folder in the way: the rename fails after the bytes were written
    with pytest.raises(OSError, match=r"set\.safetensors"):
        make().save(folder)
    assert [path.name for path in tmp_path.iterdir()] == ["set.safetensors"]


def test_teachers_are_part_of_a_set(tmp_path: Path) -> None:
    weights = torch.randn(2, 7, generator=torch.Generator().manual_seed(0))
    without, taught = make(), make(teachers=weights)
    taught.save(tmp_path / "taught.safetensors")
    loaded = SyntheticSet.load(tmp_path / "taught.safetensors")
    assert loaded.teachers is not None
    assert torch.equal(loaded.teachers, weights)
    assert loaded.equal(taught)
    assert not taught.equal(without)
    assert not taught.equal(make(teachers=weights + 1))
    for wrong in (weights.double(), weights[0], weights[:0], weights / 0):
        with pytest.raises(ValueError, match="teachers"):
            make(teachers=wrong)
