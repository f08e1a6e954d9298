from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw, ImageFont

from distill.synthetic import SyntheticSet
from ftdnas.sets import figures
from ftdnas.sets.figures import FONT, MARGIN, MAX_HEIGHT, MAX_WIDTH, TITLE, contact_sheet, curve, layout, pixels

MakeSet = Callable[..., SyntheticSet]


def read(path: Path) -> np.ndarray:
    """The PNG at `path` as uint8 (H, W, 3)."""
    with Image.open(path, formats=["PNG"]) as image:
        return np.asarray(image.convert("RGB"))


BEFORE = int(ImageFont.truetype(FONT, 11).getlength("digit 0")) + 8  # the room for a name


def shown_at(sheet: np.ndarray, down: int, columns: int, label: int, column: int) -> np.ndarray:
    """The image of 8 x 8 pixels of a class and column as drawn on a sheet, one pixel for each of its own."""
    block, place = divmod(label, down)
    top, left = TITLE + place * 50 + 1, MARGIN + block * (BEFORE + columns * 50 + MARGIN) + BEFORE + column * 50 + 1
    large = sheet[top : top + 48, left : left + 48]
    small = large[::6, ::6]
    np.testing.assert_array_equal(large, small.repeat(6, axis=0).repeat(6, axis=1))  # pixels stay pixels
    return small


@pytest.mark.parametrize("kind", ["none", "standardize", "zca"])
@pytest.mark.parametrize("channels", [1, 3])
def test_the_sheet_shows_every_pixel_in_its_true_colour(
    kind: str, channels: int, make_set: MakeSet, tmp_path: Path
) -> None:
    synthetic = make_set(classes=10, ipc=3, channels=channels, kind=kind)
    contact_sheet(synthetic, tmp_path / "sheet.png")
    sheet = read(tmp_path / "sheet.png")
    columns, down, _ = layout(10, 3, (50, 50), BEFORE)
    assert sheet.shape[0] == TITLE + down * 50 + MARGIN
    true = make_set(classes=10, ipc=3, channels=channels, kind="none").images  # the digits themselves, in [0, 1]
    for index in range(30):
        expected = (true[index] * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
        small = shown_at(sheet, down, columns, index // 3, index % 3)
        assert np.abs(small.astype(int) - expected).max() <= 1  # rounding of the inverted preprocessing
    assert [path.name for path in tmp_path.iterdir()] == ["sheet.png"]


def test_soft_labels_are_shown_under_their_likeliest_class(make_set: MakeSet, tmp_path: Path) -> None:
    for name, soft in (("hard", False), ("soft", True)):
        contact_sheet(make_set(soft=soft), tmp_path / f"{name}.png")
    assert (tmp_path / "hard.png").read_bytes() == (tmp_path / "soft.png").read_bytes()


def test_a_class_without_images_keeps_its_row(make_set: MakeSet, tmp_path: Path) -> None:
    whole = make_set(classes=3, ipc=2)
    keep = whole.labels != 1
    contact_sheet(
        make_set(images=whole.images[keep], labels=whole.labels[keep], preprocess=whole.preprocess),
        tmp_path / "sheet.png",
    )
    sheet = read(tmp_path / "sheet.png")
    assert (shown_at(sheet, 3, 2, 1, 0) == 255).all()
    assert (shown_at(sheet, 3, 2, 2, 1) != 255).any()


@pytest.mark.parametrize("names", [("一", "二", "三"), ("$x$", "a_b^c", "<b>"), ("e" * 300, "f", "\\frac{1}")])
def test_class_names_in_any_script(names: tuple[str, ...], make_set: MakeSet, tmp_path: Path) -> None:
    contact_sheet(make_set(class_names=names), tmp_path / "sheet.png")
    assert read(tmp_path / "sheet.png").shape[1] <= MAX_WIDTH


@pytest.mark.parametrize("cell", [(50, 50), (34, 34), (66, 66), (226, 226), (30, 62)])
@pytest.mark.parametrize("classes", [2, 10, 100, 200, 1000])
@pytest.mark.parametrize("most", [1, 10, 50])
def test_layout_fits_and_leaves_out_as_little_as_it_must(cell: tuple[int, int], classes: int, most: int) -> None:
    columns, down, blocks = layout(classes, most, cell, 130)
    assert MARGIN + blocks * (130 + columns * cell[1] + MARGIN) <= MAX_WIDTH
    assert TITLE + down * cell[0] + MARGIN <= MAX_HEIGHT
    assert 1 <= columns <= most
    assert down * blocks - classes < blocks  # no block stands empty
    if columns < min(most, figures.MAX_COLUMNS):  # then one more image per class would lose classes
        wider = 130 + (columns + 1) * cell[1] + MARGIN
        tallest = (MAX_HEIGHT - TITLE - MARGIN) // cell[0]
        assert (MAX_WIDTH - MARGIN) // wider * tallest < classes
    if down * blocks < classes:
        assert columns == 1


def test_images_too_large_for_a_sheet_are_still_shown(make_set: MakeSet, tmp_path: Path) -> None:
    huge = torch.full((2, 1, 8, 1800), 0.5)
    synthetic = make_set(classes=2, ipc=1, kind="none", images=huge)
    contact_sheet(synthetic, tmp_path / "sheet.png")
    sheet = read(tmp_path / "sheet.png")[..., 0]
    left = MARGIN + BEFORE + 1
    assert (sheet[TITLE:, left : left + 1800] == 128).sum() == 2 * 8 * 1800


@pytest.mark.parametrize(
    ("classes", "ipc", "said"),
    [
        (10, 1, "10 images of 8 x 8 pixels in 10 classes"),
        (10, 50, "500 images of 8 x 8 pixels in 10 classes; shown: the first 20 of 50 images of a class"),
        (100, 1, "100 images of 8 x 8 pixels in 100 classes"),
        (70, 2, "shown: the first 1 of 2 images of a class and the first 60 of 70 classes"),
    ],
)
def test_the_sheet_says_what_it_leaves_out(
    classes: int, ipc: int, said: str, make_set: MakeSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if classes == 70:
        monkeypatch.setattr(figures, "MAX_HEIGHT", 270)  # four rows
        monkeypatch.setattr(figures, "TALL", 200)
    texts: list[str] = []

    def listening(draw: Callable[..., None]) -> Callable[..., None]:
        def listen(self: ImageDraw.ImageDraw, xy: Any, text: str, *more: Any, **how: Any) -> None:
            texts.append(text)
            draw(self, xy, text, *more, **how)

        return listen

    for kind in ("text", "multiline_text"):
        monkeypatch.setattr(ImageDraw.ImageDraw, kind, listening(getattr(ImageDraw.ImageDraw, kind)))
    contact_sheet(make_set(classes=classes, ipc=ipc), tmp_path / "sheet.png")
    assert said in texts[0]
    assert texts[0].startswith(f"digits, ftd, {ipc} per class\n")
    if "shown" not in said:
        assert len(set(texts)) == classes + 1


def test_pixels_clip_and_turn_other_channels_grey() -> None:
    images = torch.tensor([[-0.5, 0.5], [2.0, 1.0]]).view(1, 2, 1, 2)
    assert pixels(images).tolist() == [[[[128, 128, 128], [192, 192, 192]]]]
    colours = torch.tensor([0.0, 0.2, 1.5]).view(1, 3, 1, 1)
    assert pixels(colours).tolist() == [[[[0, 51, 255]]]]
    assert pixels(torch.full((1, 1, 1, 1), 0.2)).tolist() == [[[[51, 51, 51]]]]


def colour_share(path: Path, red: int, green: int, blue: int) -> float:
    return float((np.abs(read(path).astype(int) - [red, green, blue]).max(-1) < 40).mean())


def test_the_curve_draws_losses_and_both_accuracies(make_set: MakeSet, tmp_path: Path) -> None:
    losses = [[step, math.exp(-step / 1000)] for step in range(0, 5000, 10)]
    validation = [[step, 0.2 + step / 20_000, 0.1 + step / 20_000] for step in range(0, 5000, 500)]
    both = make_set().with_provenance(losses=losses, validation=validation, validation_accuracy=0.44)
    assert curve(both, tmp_path / "both.png")
    assert curve(both.with_provenance(validation=[]), tmp_path / "losses.png")
    assert curve(both.with_provenance(losses=[]), tmp_path / "validation.png")
    heights = {path.stem: len(read(path)) for path in tmp_path.iterdir()}
    assert heights["both"] > heights["losses"] == heights["validation"]
    orange = (255, 127, 14)
    assert colour_share(tmp_path / "both.png", *orange) > 0.001  # the averaged images
    assert colour_share(tmp_path / "losses.png", *orange) == 0


def test_the_curve_of_averaged_images_alone(make_set: MakeSet, tmp_path: Path) -> None:
    assert curve(make_set().with_provenance(validation=[[0, None, 0.1], [9, None, 0.3]]), tmp_path / "curve.png")


@pytest.mark.parametrize(
    "provenance",
    [
        {},
        {"losses": [], "validation": []},
        {"losses": None, "validation": "none"},
        {"losses": {"0": 1}, "validation": [1, [], ["a", "b"], [True, 1], [0], [0, None], [1e200, 1e200]]},
    ],
)
def test_no_curve_of_what_was_not_distilled(provenance: dict[str, Any], make_set: MakeSet, tmp_path: Path) -> None:
    assert not curve(make_set(provenance=provenance), tmp_path / "curve.png")
    assert not list(tmp_path.iterdir())
