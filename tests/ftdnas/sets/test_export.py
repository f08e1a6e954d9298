from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import load_file

from distill.synthetic import SyntheticSet
from ftdnas.cli import sets as command
from ftdnas.sets.export import FORMATS, export_set, folder_names

MakeSet = Callable[..., SyntheticSet]


def test_the_command_offers_every_format() -> None:
    assert tuple(FORMATS) == command.FORMATS


def test_a_set_exported_as_a_set_is_the_same_file(make_set: MakeSet, tmp_path: Path) -> None:
    make_set().save(tmp_path / "one.safetensors")
    export_set(make_set(), "set", tmp_path / "new" / "two.safetensors")
    assert (tmp_path / "new" / "two.safetensors").read_bytes() == (tmp_path / "one.safetensors").read_bytes()


@pytest.mark.parametrize("kind", ["standardize", "zca"])
def test_plain_tensors_need_nothing_of_ours(kind: str, make_set: MakeSet, tmp_path: Path) -> None:
    synthetic = make_set(kind=kind)
    export_set(synthetic, "tensors", tmp_path / "plain.safetensors")
    plain = load_file(tmp_path / "plain.safetensors")
    assert torch.equal(plain["images"], synthetic.images)
    assert torch.equal(plain["labels"], synthetic.labels)
    assert plain["step_size"].item() == synthetic.step_size
    assert (plain["pixels"] - make_set(kind="none").images).abs().max() < 1e-5


@pytest.mark.parametrize(("channels", "mode"), [(1, "L"), (3, "RGB")])
@pytest.mark.parametrize("soft", [False, True])
def test_a_folder_holds_every_image_in_its_class(
    channels: int, mode: str, soft: bool, make_set: MakeSet, tmp_path: Path
) -> None:
    names = ("zero", "../one", "two/2")
    export_set(make_set(channels=channels, soft=soft, class_names=names), "folder", tmp_path / "out" / "images")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out"]
    found = sorted((tmp_path / "out" / "images").rglob("*.png"))
    folders = ["0001 _one", "0002 two_2", "zero"]
    assert [path.parent.name for path in found] == [name for name in folders for _ in range(2)]
    true = make_set(channels=channels, kind="none").images
    for path in found:
        with Image.open(path) as image:
            assert image.mode == mode
            shown = np.asarray(image).reshape(8, 8, channels)
        expected = (true[int(path.stem)] * 255).round().permute(1, 2, 0).numpy()
        assert np.abs(shown - expected).max() <= 1


def test_a_sheet_is_a_picture(make_set: MakeSet, tmp_path: Path) -> None:
    export_set(make_set(), "sheet", tmp_path / "sheet.png")
    with Image.open(tmp_path / "sheet.png", formats=["PNG"]) as image:
        image.load()


@pytest.mark.parametrize("form", list(FORMATS))
def test_nothing_is_overwritten(form: str, make_set: MakeSet, tmp_path: Path) -> None:
    place = tmp_path / "there"
    export_set(make_set(), form, place)
    with pytest.raises(ValueError, match="there exists: choose another place"):
        export_set(make_set(), form, place)
    assert list(tmp_path.iterdir()) == [place]  # and nothing half-written beside it


def test_a_failed_export_leaves_nothing(make_set: MakeSet, tmp_path: Path) -> None:
    with pytest.raises(LookupError, match="unknown format 'gif': choose from set, tensors, sheet, folder"):
        export_set(make_set(), "gif", tmp_path / "x.gif")
    with pytest.raises(OSError, match=r"."):
        export_set(make_set(class_names=("a", "b", "c")), "folder", tmp_path / ("n" * 300))
    assert not list(tmp_path.iterdir())


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    st.lists(
        st.text(st.sampled_from("aAbß猫 ._-01/\\:*?<>|"), min_size=1, max_size=90), min_size=1, max_size=12, unique=True
    )
)
def test_folder_names_stay_inside_and_apart(class_names: list[str]) -> None:
    names = folder_names(class_names)
    assert len({name.casefold() for name in names}) == len(class_names)
    for name in names:
        assert Path("root", name).parent == Path("root")
        assert name not in ("", ".", "..")
        assert not set(name) & set('/\\:*?"<>|')
        assert len(name.encode()) <= 255


def test_ordinary_class_names_are_the_folders() -> None:
    ordinary = ["cat", "Große Katze", "n01440764", "猫", "maple_tree", "t-shirt (grey)"]
    assert folder_names(ordinary) == ordinary
    assert folder_names(["Cat", "cat"]) == ["Cat", "0001 cat"]
    assert folder_names(["0001 a_", "a/", "..", "a/ "]) == ["0001 a_", "0001 a__", "0002", "0003 a_"]
