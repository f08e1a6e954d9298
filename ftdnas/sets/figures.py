"""Figures of a synthetic set as PNG files: its images in true colours, and how the distillation went."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, TypeGuard

import matplotlib
import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from distill.files import whole_file
from distill.synthetic import SyntheticSet

THUMBNAIL = 48  # pixels a small image is enlarged to, about
GAP = 2  # pixels around an image
MARGIN = 12
TITLE = 46  # pixels for the two lines above the images
MIN_WIDTH, MAX_WIDTH, MAX_HEIGHT = 420, 1700, 3400  # pixels of a sheet
MAX_COLUMNS = 20
TALL = 850  # pixels of one block of classes before a second one is begun beside it
NAME_LETTERS = 18
SMOOTHED = 100  # more losses than this are also drawn as a running mean
FONT = Path(matplotlib.get_data_path()) / "fonts/ttf/DejaVuSans.ttf"  # which knows many scripts

Pixels = NDArray[np.uint8]
Line = NDArray[np.float64]


def pixels(images: Tensor) -> Pixels:
    """Images (N, C, H, W) in [0, 1], others clipped, as uint8 (N, H, W, 3); other than 3 channels become their mean."""
    levels = (images.clamp(0, 1) * 255).round()
    if images.shape[1] != 3:
        levels = levels.mean(1, keepdim=True).round().expand(-1, 3, -1, -1)
    shown: Pixels = levels.to(torch.uint8).permute(0, 2, 3, 1).contiguous().numpy()
    return shown


def classes_of(synthetic: SyntheticSet) -> Tensor:
    """The class of every image, int64 (N,): the likeliest where labels are soft."""
    return synthetic.labels if synthetic.hard_labels else synthetic.labels.argmax(1)


def contact_sheet(synthetic: SyntheticSet, path: Path) -> None:
    """Write the images, preprocessing inverted, as a PNG with one row per class and its name before it.

    Of a large set as much is shown as stays readable, and the sheet says how much that is.
    """
    shown = pixels(synthetic.preprocess.invert(synthetic.images))
    labels, classes = classes_of(synthetic).numpy(), synthetic.num_classes
    rows = [np.flatnonzero(labels == label) for label in range(classes)]
    most = max(map(len, rows))
    names = [name if len(name) <= NAME_LETTERS else f"{name[: NAME_LETTERS - 1]}…" for name in synthetic.class_names]
    font = ImageFont.truetype(FONT, 11)
    before = int(max(map(font.getlength, names))) + 8
    scale = max(1, round(THUMBNAIL / max(shown.shape[1:3])))  # a whole number: pixels stay pixels
    height, width = (scale * edge + GAP for edge in shown.shape[1:3])
    columns, down, blocks = layout(classes, most, (height, width), before)
    size = max(MARGIN + blocks * (before + columns * width + MARGIN), MIN_WIDTH), TITLE + down * height + MARGIN
    sheet = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(sheet)
    said = _shown(synthetic, most, columns, down * blocks)
    draw.multiline_text((MARGIN, 6), f"{_title(synthetic)}\n{said}", "black", ImageFont.truetype(FONT, 12), spacing=5)
    for label, row in enumerate(rows[: down * blocks]):
        block, place = divmod(label, down)
        left, top = MARGIN + block * (before + columns * width + MARGIN), TITLE + place * height
        draw.text((left, top + height / 2), names[label], "black", font, anchor="lm")
        for column, index in enumerate(row[:columns]):
            image = Image.fromarray(shown[index].repeat(scale, axis=0).repeat(scale, axis=1))
            sheet.paste(image, (left + before + column * width + GAP // 2, top + GAP // 2))
    with whole_file(path) as beside:
        sheet.save(beside, format="PNG")


def layout(classes: int, most: int, cell: tuple[int, int], before: int) -> tuple[int, int, int]:
    """How many images of a class are shown, how many classes below each other, and how many such blocks side by side.

    `most`: images of a class; `cell`: (H, W) of an image with its gap, and `before` the room for a name, in pixels. As
    many classes as possible come before as many images of each.
    """
    height, width = cell
    fitting = max(1, (MAX_HEIGHT - TITLE - MARGIN) // height)
    for columns in range(min(most, MAX_COLUMNS), 0, -1):
        most_blocks = (MAX_WIDTH - MARGIN) // (before + columns * width + MARGIN)
        if classes <= fitting * most_blocks:
            break
    # Beside each other only as far as one block would be tall.
    blocks = max(1, min(most_blocks, -(-classes * height // TALL)))
    return columns, min(fitting, -(-classes // blocks)), blocks


def curve(synthetic: SyntheticSet, path: Path) -> bool:
    """Write the matching loss and the validation accuracy over the outer steps, as far as the provenance has them.

    False, and no file, where it has neither: a set that was chosen, not distilled.
    """
    provenance = synthetic.provenance
    losses, validation = _series(provenance.get("losses"), 1), provenance.get("validation")
    raw, averaged = _series(validation, 1), _series(validation, 2)
    panels: list[Callable[[Any], None]] = []
    if len(losses):
        panels.append(partial(_draw_losses, losses))
    if len(raw) or len(averaged):
        panels.append(partial(_draw_validation, raw, averaged, provenance.get("validation_accuracy")))
    if not panels:
        return False
    figure = Figure(figsize=(7.5, 2.6 * len(panels) + 0.6), dpi=100, layout="constrained")
    figure.suptitle(_title(synthetic), size=10, parse_math=False)
    axes = figure.subplots(len(panels), 1, sharex=True, squeeze=False)[:, 0]
    for axis, draw in zip(axes, panels, strict=True):
        axis.grid(alpha=0.3)
        draw(axis)
    axes[-1].set_xlabel("outer step")
    # Names may be in any script: a letter that the font lacks is drawn as a box, which needs no warning.
    with whole_file(path) as beside, warnings.catch_warnings(action="ignore"):
        figure.savefig(beside, format="png")
    return True


def _draw_losses(line: Line, axis: Any) -> None:
    smooth = len(line) > SMOOTHED
    axis.plot(line[:, 0], line[:, 1], color="tab:blue", alpha=0.3 if smooth else 1, marker="." if not smooth else "")
    if smooth:
        window = len(line) // 20
        means = np.convolve(line[:, 1], np.ones(window) / window, mode="valid")
        axis.plot(line[window - 1 :, 0], means, color="tab:blue", label=f"mean of {window}")
        axis.legend(loc="best", fontsize=8)
    axis.set_ylabel("matching loss")


def _draw_validation(raw: Line, averaged: Line, published: object, axis: Any) -> None:
    for line, label in ((raw, "raw images"), (averaged, "averaged images")):
        if len(line):
            axis.plot(line[:, 0], 100 * line[:, 1], marker=".", label=label)
    if _is_number(published):
        percent = 100 * published
        axis.axhline(percent, color="tab:gray", linestyle=":", label=f"published: {percent:.1f} %")
    axis.legend(loc="best", fontsize=8)
    axis.set_ylabel("validation accuracy, %")


def _series(rows: object, column: int) -> Line:
    """Points (N, 2) of rows [outer step, value, ...] and one of their columns; what is no number is left out."""
    whole = [row for row in rows if isinstance(row, list) and len(row) > column] if isinstance(rows, list) else []
    points = [(row[0], row[column]) for row in whole if _is_number(row[0]) and _is_number(row[column])]
    return np.array(points, dtype=np.float64).reshape(-1, 2)


def _is_number(value: object) -> TypeGuard[float]:
    # The bound keeps a stranger's provenance from overflowing the axes.
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e30


def _title(synthetic: SyntheticSet) -> str:
    made = [str(synthetic.provenance[key])[:60] for key in ("dataset", "method") if synthetic.provenance.get(key)]
    return f"{', '.join(made) or 'synthetic set'}, {synthetic.ipc} per class"


def _shown(synthetic: SyntheticSet, most: int, columns: int, fitting: int) -> str:
    _, height, width = synthetic.image_shape
    count, classes = len(synthetic.images), synthetic.num_classes
    left_out = [f"the first {columns} of {most} images of a class"] if most > columns else []
    left_out += [f"the first {fitting} of {classes:,} classes"] if classes > fitting else []
    said = f"{count:,} images of {width} x {height} pixels in {classes:,} classes"
    return said + (f"; shown: {' and '.join(left_out)}" if left_out else "")
