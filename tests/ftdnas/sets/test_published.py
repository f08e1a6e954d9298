from __future__ import annotations

import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from distill.images.preprocess import PUBLISHED, fit_preprocess
from distill.synthetic import SyntheticSet
from ftdnas.sets.images import images_of
from ftdnas.sets.library import Library
from ftdnas.sets.published import import_set, read_published
from ftdnas.sets.request import ImportRequest

MakeSet = Callable[..., SyntheticSet]
in_one_folder = settings(
    max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@pytest.fixture(autouse=True)
def own_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("FTDNAS_HOME", str(tmp_path / "home"))


@pytest.fixture
def folder(make_set: MakeSet, tmp_path: Path) -> Path:
    """What a trajectory matching run of the field leaves behind: two .pt tensors and a pickled float."""
    published = make_set(classes=10)
    place = tmp_path / "logged"
    place.mkdir()
    torch.save(published.images, place / "images_best.pt")
    torch.save(published.labels, place / "labels_best.pt")
    torch.save(0.0312, place / "lr_best.pt")
    return place


def test_a_folder_of_tensors_becomes_a_set(folder: Path, make_set: MakeSet) -> None:
    read = read_published(ImportRequest(images=folder))
    assert torch.equal(read.images, make_set(classes=10).images)
    assert torch.equal(read.labels, make_set(classes=10).labels)
    assert read.step_size == 0.0312
    assert read.ipc == 2
    assert read.class_names == tuple("0123456789")
    assert read.preprocess.kind == "none"
    assert read.augment == "color_crop_cutout_flip_scale_rotate"
    assert read.provenance == {"method": "imported", "notes": ["imported from images_best.pt; made by others"]}


def test_the_data_set_gives_preprocessing_names_and_where_it_is(folder: Path) -> None:
    read = read_published(ImportRequest(images=folder, preprocess="zca", dataset="digits"))
    real = images_of(read)  # found again by the provenance, and the fingerprint is the same
    assert len(real.validation) == 0  # the papers hold none back
    assert read.class_names == real.class_names
    assert read.preprocess.fingerprint == fit_preprocess("zca", real.train.images).fingerprint
    assert read.provenance["dataset"] == "digits"
    assert read.provenance["data_fingerprint"] == real.fingerprint
    own = read_published(
        ImportRequest(images=folder, preprocess="standardize", dataset="digits", class_names=tuple("abcdefghij"))
    )
    assert own.class_names == tuple("abcdefghij")
    assert own.preprocess.fingerprint == fit_preprocess("standardize", real.train.images).fingerprint


def test_published_images_are_in_the_space_of_published_constants(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = ImportRequest(images=folder, preprocess="published", dataset="digits")
    with pytest.raises(ValueError, match="no published constants for data set 'digits'"):
        read_published(request)
    monkeypatch.setitem(PUBLISHED, "digits", ((0.3,), (0.25,)))
    read = read_published(request)
    assert torch.allclose(read.preprocess.invert(read.images), read.images * 0.25 + 0.3)


def test_mean_and_deviation_give_the_preprocessing(folder: Path) -> None:
    read = read_published(ImportRequest(images=folder, preprocess="standardize", mean=(0.3,), std=(0.25,)))
    assert torch.allclose(read.preprocess.invert(read.images), read.images * 0.25 + 0.3)


def test_files_may_be_anywhere_and_of_any_number_type(folder: Path, tmp_path: Path, make_set: MakeSet) -> None:
    made = make_set(classes=10)
    torch.save(torch.nn.Parameter(made.images.double()), tmp_path / "x.pt")
    torch.save(made.labels.to(torch.int32), tmp_path / "y.pt")
    torch.save(torch.tensor([0.5]), tmp_path / "rate.pt")
    read = read_published(ImportRequest(images=tmp_path / "x.pt", labels=tmp_path / "y.pt", lr=tmp_path / "rate.pt"))
    assert torch.equal(read.images, made.images)
    assert torch.equal(read.labels, made.labels)
    assert read.step_size == 0.5
    again = read_published(ImportRequest(images=folder / "images_best.pt", step_size=0.7))
    assert again.step_size == 0.7


def test_soft_labels_as_distributions_and_as_logits(folder: Path, make_set: MakeSet) -> None:
    soft = make_set(classes=10, soft=True).labels
    torch.save(soft, folder / "labels_best.pt")
    assert torch.equal(read_published(ImportRequest(images=folder)).labels, soft)
    logits = soft.log() + 3
    torch.save(logits, folder / "labels_best.pt")
    with pytest.raises(ValueError, match="do not sum to 1 for each image: if they are logits, say so"):
        read_published(ImportRequest(images=folder))
    read = read_published(ImportRequest(images=folder, logits=True))
    assert torch.allclose(read.labels, soft, atol=1e-6)
    assert read.ipc == 2


def test_other_names_in_the_folder(folder: Path) -> None:
    for word in ("images", "labels", "lr"):
        (folder / f"{word}_best.pt").rename(folder / f"{word}_5000.pt")
    assert len(read_published(ImportRequest(images=folder)).images) == 20
    (folder / "images_1000.pt").write_bytes((folder / "images_5000.pt").read_bytes())
    with pytest.raises(ValueError, match=r"has 2 files images\*\.pt: name the one"):
        read_published(ImportRequest(images=folder))
    (folder / "images_5000.pt").rename(folder / "images.pt")
    with pytest.raises(FileNotFoundError, match=r"no labels file .*looked for labels\.pt beside it\): give --labels"):
        read_published(ImportRequest(images=folder))


def test_what_is_missing_is_said(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no images_best\.pt, images\.pt or images\*\.pt in "):
        read_published(ImportRequest(images=tmp_path))
    with pytest.raises(FileNotFoundError, match=r"no file .*none\.pt"):
        read_published(ImportRequest(images=tmp_path / "none.pt"))
    (folder / "lr_best.pt").unlink()
    with pytest.raises(FileNotFoundError, match=r"no lr file .*: give --lr or --step-size"):
        read_published(ImportRequest(images=folder))
    (folder / "images_best.pt").rename(folder / "set.pt")
    with pytest.raises(FileNotFoundError, match=r"no labels file for .*set\.pt: give --labels"):
        read_published(ImportRequest(images=folder / "set.pt"))
    with pytest.raises(ValueError, match="preprocess standardize needs --mean and --std, or the real images"):
        read_published(
            ImportRequest(
                images=folder / "set.pt", labels=folder / "labels_best.pt", step_size=1.0, preprocess="standardize"
            )
        )


@pytest.mark.parametrize(
    ("file", "content", "reason"),
    [
        ("images", {"images": torch.zeros(2)}, "holds a dict that is not one dense tensor"),
        ("images", {"data": [[torch.zeros(2), torch.zeros(2)]]}, "as DatasetCondensation releases them"),
        ("images", {"images": np.zeros(2)}, "more than plain tensors, which is not read, for it could run code"),
        ("images", torch.zeros(20, 8, 8, 1), r"whose channels stand last: images are \(N, C, H, W\)"),
        ("images", torch.zeros(20, 64), r"holds a tensor \(20, 64\), not images"),
        ("images", torch.zeros(20, 1, 8, 8).to_sparse(), "not one dense tensor"),
        ("images", torch.zeros(20, 1, 8, 8, dtype=torch.complex64), "not one dense tensor"),
        ("images", torch.zeros(19, 1, 8, 8), r"labels are int64 \(20,\), not int64 \(19,\)"),
        ("images", torch.full((20, 1, 8, 8), torch.nan), "images hold values that are not finite"),
        ("images", torch.zeros(0, 1, 8, 8), "images are float32"),
        ("labels", [0] * 20, "holds a list"),
        ("labels", torch.zeros(20), r"labels are torch\.float32 \(20,\), not whole numbers"),
        ("labels", torch.full((20,), torch.inf), "not whole numbers"),
        ("labels", torch.zeros(20, 10, dtype=torch.int64), "not whole numbers"),
        ("labels", torch.full((20, 10), torch.nan), "do not sum to 1"),
        ("labels", torch.full((20,), -1), "label -1 is no class number"),
        ("labels", torch.full((20,), 10**12), "label 1000000000000 is no class number"),
        ("labels", torch.zeros(0, dtype=torch.int64), "labels are int64"),
        ("lr", "0.1", "holds a str, not one finite number"),
        ("lr", torch.zeros(2), "holds a Tensor, not one finite number"),
        ("lr", float("nan"), "not one finite number"),
        ("lr", True, "holds a bool, not one finite number"),
        ("lr", 0.0, "step size 0.0 is not a positive"),
        ("lr", -1, "step size -1.0 is not a positive"),
    ],
)
def test_wrong_contents_are_refused(file: str, content: Any, reason: str, folder: Path) -> None:
    torch.save(content, folder / f"{file}_best.pt")
    with pytest.raises(ValueError, match=reason):
        read_published(ImportRequest(images=folder))


@pytest.mark.parametrize(
    ("told", "reason"),
    [
        ({"preprocess": "zca"}, "preprocess zca needs the real images to fit it on"),
        ({"mean": (0.5,), "std": (0.2,)}, "mean and std belong to preprocess standardize, not to none"),
        ({"preprocess": "standardize", "mean": (0.5,)}, "preprocess standardize: std is"),
        ({"preprocess": "standardize", "mean": (0.5,) * 3, "std": (0.2,) * 3}, r"mean is float32 \(3,\), not"),
        ({"preprocess": "pca"}, "pca"),
        ({"augment": "blur"}, "unknown augmentation 'blur'"),
        ({"class_names": ("a", "b")}, "label 2 is outside"),
        ({"step_size": -0.5}, "step size -0.5 is not"),
    ],
)
def test_what_does_not_fit_together_is_refused(told: dict[str, Any], reason: str, folder: Path) -> None:
    with pytest.raises(ValueError, match=reason):
        read_published(ImportRequest(images=folder, **told))


class Attack:
    """Unpickling it the ordinary way would make a folder."""

    def __init__(self, place: Path):
        self.place = place

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, (str(self.place),)


@pytest.mark.parametrize("file", ["images", "labels", "lr"])
def test_a_hostile_file_executes_nothing(file: str, folder: Path, tmp_path: Path) -> None:
    torch.save(Attack(tmp_path / "pwned"), folder / f"{file}_best.pt")
    with pytest.raises(ValueError, match=rf"{file}_best\.pt: not plain tensors as torch\.save writes them"):
        read_published(ImportRequest(images=folder))
    assert not (tmp_path / "pwned").exists()
    torch.load(folder / f"{file}_best.pt", weights_only=False)  # the attack was a real one
    assert (tmp_path / "pwned").exists()


@in_one_folder
@given(data=st.data())
def test_damaged_files_raise_value_error_only(data: st.DataObject, folder: Path, make_set: MakeSet) -> None:
    path = folder / "labels_best.pt"
    buffer = io.BytesIO()
    torch.save(make_set(classes=10).labels, buffer)
    whole = buffer.getvalue()
    place = data.draw(st.integers(0, len(whole) - 1))
    if data.draw(st.booleans()):
        path.write_bytes(whole[:place])
    else:
        path.write_bytes(whole[:place] + data.draw(st.binary(min_size=1, max_size=4)) + whole[place + 1 :])
    try:
        read = read_published(ImportRequest(images=folder))
    except ValueError:
        return
    assert isinstance(read, SyntheticSet)  # the format has no checksum over everything


def test_a_set_file_keeps_its_name_in_the_library(make_set: MakeSet, tmp_path: Path) -> None:
    library = Library(tmp_path / "sets")
    make_set().save(tmp_path / "from a friend.safetensors")
    path = import_set(library, ImportRequest(images=tmp_path / "from a friend.safetensors"))
    assert path.name == "from a friend.safetensors"
    assert library.load(path).equal(make_set())
    other = import_set(library, ImportRequest(images=tmp_path / "from a friend.safetensors", name="mine"))
    assert other.name == "mine.safetensors"
    with pytest.raises(ValueError, match=r"from a friend\.safetensors says itself how it was made"):
        import_set(library, ImportRequest(images=tmp_path / "from a friend.safetensors", preprocess="zca"))


def test_published_tensors_get_a_name(folder: Path, tmp_path: Path) -> None:
    library = Library(tmp_path / "sets")
    path = import_set(library, ImportRequest(images=folder, dataset="digits"))
    assert path.name.startswith("digits-ipc2-imported-custom-")
    assert import_set(library, ImportRequest(images=folder, name="theirs")).name == "theirs.safetensors"
    assert len(library.names()) == 2
