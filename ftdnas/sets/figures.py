"""Figures of a synthetic set as PNG files: its images in true colours, and how the distillation went.

Matplotlib's object interface with the Agg canvas: no pyplot, no global state, no window.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor

from distill.files import whole_file
from distill.synthetic import SyntheticSet

DPI = 100
THUMBNAIL = 48  # pixels a small image is enlarged to, about
GAP = 2  # pixels around an image
MARGIN = 12
TITLE = 46  # pixels for the two lines above the images
MIN_WIDTH, MAX_WIDTH, MAX_HEIGHT = 420, 1700, 3400  # pixels of a sheet
MAX_COLUMNS = 20
TALL = 850  # pixels of one block of classes before a second one is begun beside it
NAME_LETTERS = 18
LETTER = 7  # pixels, about, at 8 points
SMOOTHED = 100  # more losses than this are also drawn as a running mean

Pixels = NDArray[np.uint8]
Line = NDArray[np.float64]


@dataclass(frozen=True)
class Layout:
    """What of a set fits on a sheet: `columns` images of a class, `rows` classes in each of `blocks` side by side.

    `cell` (height, width) is an enlarged image with its gap and `name_width` the room for a class name, in pixels.
    """

    columns: int
    rows: int
    blocks: int
    cell: tuple[int, int]
    name_width: int

    @property
    def classes(self) -> int:
        """How many classes there is room for."""
        return self.rows * self.blocks

    @property
    def block_width(self) -> int:
        return self.name_width + self.columns * self.cell[1] + MARGIN


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
    labels = classes_of(synthetic).numpy()
    rows = [np.flatnonzero(labels == label) for label in range(synthetic.num_classes)]
    most = max(len(row) for row in rows)
    names = [_short(name) for name in synthetic.class_names]
    plan = layout(synthetic.num_classes, most, shown.shape[1:3], max(map(len, names)))
    height = TITLE + plan.rows * plan.cell[0] + MARGIN
    width = max(MARGIN + plan.blocks * plan.block_width, MIN_WIDTH)
    canvas = np.full((height, width, 3), 255, dtype=np.uint8)
    # A hundredth of a pixel more: the canvas rounds down, and 609.9999 would lose a row.
    figure = Figure(figsize=((width + 0.01) / DPI, (height + 0.01) / DPI), dpi=DPI)
    for label, row in enumerate(rows[: plan.classes]):
        top = TITLE + (label % plan.rows) * plan.cell[0]
        left = MARGIN + (label // plan.rows) * plan.block_width
        y, x = 1 - (top + plan.cell[0] / 2) / height, left / width
        figure.text(x, y, names[label], size=8, va="center", parse_math=False)
        for column, index in enumerate(row[: plan.columns]):
            _paste(canvas, shown[index], top, left + plan.name_width + column * plan.cell[1], plan.cell)
    figure.figimage(canvas, origin="upper")
    said = f"{_title(synthetic)}\n{_shown(synthetic, plan, most)}"
    figure.text(MARGIN / width, 1 - 6 / height, said, size=9, va="top", parse_math=False)
    _write(figure, path)


def layout(classes: int, most: int, side: tuple[int, int], letters: int) -> Layout:
    """Room for `classes` classes of at most `most` images of `side` (H, W) pixels, and names of `letters` letters.

    As many classes as possible come before as many images of each.
    """
    height, width = (edge * _scale(side) + GAP for edge in side)
    name_width = letters * LETTER + 8
    fitting = max(1, (MAX_HEIGHT - TITLE - MARGIN) // height)
    for columns in range(min(most, MAX_COLUMNS), 0, -1):
        most_blocks = (MAX_WIDTH - MARGIN) // (name_width + columns * width + MARGIN)
        if classes <= fitting * most_blocks:
            break
    # Beside each other only as far as one block would be tall.
    blocks = max(1, min(most_blocks, -(-classes * height // TALL)))
    return Layout(columns, min(fitting, -(-classes // blocks)), blocks, (height, width), name_width)


def curve(synthetic: SyntheticSet, path: Path) -> bool:
    """Write the matching loss and the validation accuracy over the outer steps, as far as the provenance has them.

    False, and no file, where it has neither: a set that was chosen, not distilled.
    """
    losses = _series(synthetic.provenance, "losses")[:1]
    validation = _series(synthetic.provenance, "validation")[:2]
    drawn = ((_draw_losses, losses), (_draw_validation, validation))
    panels = [(draw, lines) for draw, lines in drawn if any(len(line) for line in lines)]
    if not panels:
        return False
    figure = Figure(figsize=(7.5, 2.6 * len(panels) + 0.6), dpi=DPI, layout="constrained")
    figure.suptitle(_title(synthetic), size=10, parse_math=False)
    axes = figure.subplots(len(panels), 1, sharex=True, squeeze=False)[:, 0]
    for axis, (draw, lines) in zip(axes, panels, strict=True):
        axis.grid(alpha=0.3)
        draw(axis, lines, synthetic.provenance.get("validation_accuracy"))
    axes[-1].set_xlabel("outer step")
    _write(figure, path)
    return True


def _draw_losses(axis: Any, lines: list[Line], published: object) -> None:  # noqa: ARG001
    (line,) = lines
    smooth = len(line) > SMOOTHED
    axis.plot(line[:, 0], line[:, 1], color="tab:blue", alpha=0.3 if smooth else 1, marker="." if not smooth else "")
    if smooth:
        window = len(line) // 20
        means = np.convolve(line[:, 1], np.ones(window) / window, mode="valid")
        axis.plot(line[window - 1 :, 0], means, color="tab:blue", label=f"mean of {window}")
        axis.legend(loc="best", fontsize=8)
    axis.set_ylabel("matching loss")


def _draw_validation(axis: Any, lines: list[Line], published: object) -> None:
    for line, label in zip(lines, ("raw images", "averaged images"), strict=False):
        if len(line):
            axis.plot(line[:, 0], 100 * line[:, 1], marker=".", label=label)
    if _is_number(published):
        percent = 100 * published
        axis.axhline(percent, color="tab:gray", linestyle=":", label=f"published: {percent:.1f} %")
    axis.legend(loc="best", fontsize=8)
    axis.set_ylabel("validation accuracy, %")


def _series(provenance: Mapping[str, Any], key: str) -> list[Line]:
    """One line (points, 2) per value column of rows [outer step, value, ...]; what is no number is left out."""
    rows = provenance.get(key)
    rows = [row for row in rows if isinstance(row, list) and row] if isinstance(rows, list) else []
    columns = max((len(row) for row in rows), default=1) - 1
    series = []
    for column in range(1, columns + 1):
        points = [(row[0], row[column]) for row in rows if len(row) > column]
        series.append(np.array([p for p in points if all(map(_is_number, p))], dtype=np.float64).reshape(-1, 2))
    return series


def _is_number(value: object) -> TypeGuard[float]:
    # The bound keeps a stranger's provenance from overflowing the axes.
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e30


def _title(synthetic: SyntheticSet) -> str:
    made = [str(synthetic.provenance[key])[:60] for key in ("dataset", "method") if synthetic.provenance.get(key)]
    return f"{', '.join(made) or 'synthetic set'}, {synthetic.ipc} per class"


def _shown(synthetic: SyntheticSet, plan: Layout, most: int) -> str:
    _, height, width = synthetic.image_shape
    count, classes = len(synthetic.images), synthetic.num_classes
    said = f"{count:,} images of {width} x {height} pixels in {classes:,} classes"
    left_out = []
    if most > plan.columns:
        left_out.append(f"the first {plan.columns} of {most} images of a class")
    if classes > plan.classes:
        left_out.append(f"the first {plan.classes} of {classes:,} classes")
    return said + (f"; shown: {' and '.join(left_out)}" if left_out else "")


def _short(name: str) -> str:
    return name if len(name) <= NAME_LETTERS else name[: NAME_LETTERS - 1] + "…"


def _scale(side: tuple[int, int]) -> int:
    """The whole factor by which images are enlarged, so that pixels stay pixels."""
    return max(1, round(THUMBNAIL / max(side)))


def _paste(canvas: Pixels, image: Pixels, top: int, left: int, cell: tuple[int, int]) -> None:
    factor = (cell[0] - GAP) // image.shape[0]
    large = image.repeat(factor, axis=0).repeat(factor, axis=1)
    top, left = top + GAP // 2, left + GAP // 2
    canvas[top : top + large.shape[0], left : left + large.shape[1]] = large


@contextmanager
def _missing_letters_allowed() -> Iterator[None]:
    """Class names may be in any script; a letter that the font lacks is drawn as a box, without a warning."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r"Glyph .* missing from", category=UserWarning)
        yield


def _write(figure: Figure, path: Path) -> None:
    with whole_file(path) as beside, _missing_letters_allowed():
        figure.savefig(beside, format="png", dpi=DPI)
