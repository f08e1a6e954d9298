from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image

from distill.synthetic import SyntheticSet
from ftdnas.sets import figures
from ftdnas.sets.figures import MARGIN, MAX_HEIGHT, MAX_WIDTH, TITLE, contact_sheet, curve, layout, pixels

MakeSet = Callable[..., SyntheticSet]


def read(path: Path) -> np.ndarray:
    """The PNG at `path` as uint8 (H, W, 3)."""
    with Image.open(path, formats=["PNG"]) as image:
        return np.asarray(image.convert("RGB"))


def shown_at(sheet: np.ndarray, plan: figures.Layout, label: int, column: int, side: int) -> np.ndarray:
    """The image of a class and column as drawn on a sheet, one pixel for each of its own."""
    top = TITLE + (label % plan.rows) * plan.cell[0] + 1
    left = MARGIN + (label // plan.rows) * plan.block_width + plan.name_width + column * plan.cell[1] + 1
    large = sheet[top : top + plan.cell[0] - 2, left : left + plan.cell[1] - 2]
    factor = (plan.cell[0] - 2) // side
    small = large[::factor, ::factor]
    np.testing.assert_array_equal(large, small.repeat(factor, axis=0).repeat(factor, axis=1))  # pixels stay pixels
    return small


@pytest.mark.parametrize("kind", ["none", "standardize", "zca"])
@pytest.mark.parametrize("channels", [1, 3])
def test_the_sheet_shows_every_pixel_in_its_true_colour(
    kind: str, channels: int, make_set: MakeSet, tmp_path: Path
) -> None:
    synthetic = make_set(classes=10, ipc=3, channels=channels, kind=kind)
    contact_sheet(synthetic, tmp_path / "sheet.png")
    sheet = read(tmp_path / "sheet.png")
    plan = layout(10, 3, (8, 8), len("digit 0"))
    assert sheet.shape[0] == TITLE + plan.rows * plan.cell[0] + MARGIN
    true = make_set(classes=10, ipc=3, channels=channels, kind="none").images  # the digits themselves, in [0, 1]
    for index in range(30):
        expected = (true[index] * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
        small = shown_at(sheet, plan, index // 3, index % 3, 8)
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
    plan = layout(3, 2, (8, 8), len("digit 0"))
    assert (shown_at(sheet, plan, 1, 0, 8) == 255).all()
    assert (shown_at(sheet, plan, 2, 1, 8) != 255).any()


@pytest.mark.parametrize("names", [("一", "二", "三"), ("$x$", "a_b^c", "<b>"), ("e" * 300, "f", "\\frac{1}")])
def test_class_names_in_any_script(names: tuple[str, ...], make_set: MakeSet, tmp_path: Path) -> None:
    contact_sheet(make_set(class_names=names), tmp_path / "sheet.png")
    assert read(tmp_path / "sheet.png").shape[1] <= MAX_WIDTH


@pytest.mark.parametrize("side", [(8, 8), (32, 32), (64, 64), (224, 224), (28, 60)])
@pytest.mark.parametrize("classes", [2, 10, 100, 200, 1000])
@pytest.mark.parametrize("most", [1, 10, 50])
def test_layout_fits_and_leaves_out_as_little_as_it_must(side: tuple[int, int], classes: int, most: int) -> None:
    plan = layout(classes, most, side, 18)
    assert MARGIN + plan.blocks * plan.block_width <= MAX_WIDTH
    assert TITLE + plan.rows * plan.cell[0] + MARGIN <= MAX_HEIGHT
    assert 1 <= plan.columns <= most
    assert max(plan.cell) >= 34  # an image of at least 32 pixels can be seen
    assert plan.classes - classes < plan.blocks  # no block stands empty
    if plan.columns < min(most, figures.MAX_COLUMNS):  # then one more image per class would lose classes
        wider = plan.block_width + plan.cell[1]
        tallest = (MAX_HEIGHT - TITLE - MARGIN) // plan.cell[0]
        assert (MAX_WIDTH - MARGIN) // wider * tallest < classes
    if plan.classes < classes:
        assert plan.columns == 1


def test_images_too_large_for_a_sheet_are_still_shown(make_set: MakeSet, tmp_path: Path) -> None:
    huge = torch.full((2, 1, 8, 1800), 0.5)
    synthetic = make_set(classes=2, ipc=1, kind="none", images=huge)
    contact_sheet(synthetic, tmp_path / "sheet.png")
    sheet = read(tmp_path / "sheet.png")[..., 0]
    left = MARGIN + layout(2, 1, (8, 1800), len("digit 0")).name_width + 1
    assert (sheet[TITLE:, left : left + 1800] == 128).sum() == 2 * 8 * 1800


@pytest.mark.parametrize(
    ("classes", "ipc", "said"),
    [
        (10, 1, "10 images of 8 x 8 pixels in 10 classes"),
        (10, 50, "500 images of 8 x 8 pixels in 10 classes; shown: the first 20 of 50 images of a class"),
        (100, 1, "100 images of 8 x 8 pixels in 100 classes"),
        (60, 2, "shown: the first 1 of 2 images of a class and the first 52 of 60 classes"),
    ],
)
def test_the_sheet_says_what_it_leaves_out(
    classes: int, ipc: int, said: str, make_set: MakeSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if classes == 60:
        monkeypatch.setattr(figures, "MAX_HEIGHT", 270)  # four rows: a sheet of a thousand classes takes seconds
        monkeypatch.setattr(figures, "TALL", 200)
    texts: list[str] = []
    draw = Figure.text

    def listen(figure: Any, x: float, y: float, text: str, **how: Any) -> Any:
        texts.append(text)
        return draw(figure, x, y, text, **how)

    monkeypatch.setattr(Figure, "text", listen)
    contact_sheet(make_set(classes=classes, ipc=ipc), tmp_path / "sheet.png")
    assert any(said in text for text in texts), texts[-1]
    assert texts[-1].startswith(f"digits, ftd, {ipc} per class\n")
    if "shown" not in texts[-1]:
        assert len(texts) == classes + 1


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
