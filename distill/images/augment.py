"""Differentiable Siamese augmentation (DSA, Zhao & Bilen, ICML 2021, arXiv 2102.08259): six operations on images.

A batch gets one operation, chosen uniformly, or several that are joined by "+", one after the other; its parameters are
independent per image. The draw is kept apart from its
application, so that it can be applied again: matching replays it to send a gradient back to the synthetic images.
Every operation is affine in the images and works in preprocessed space.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

from distill.randomness import moved

BRIGHTNESS = 0.5  # brightness is shifted by U(-0.5, 0.5)
SATURATION = 2.0  # saturation is scaled by U(0, 2)
CONTRAST = 0.5  # contrast is scaled by U(0.5, 1.5)
CROP = 0.125  # largest shift, as a fraction of the side
CUTOUT = 0.5  # side of the square, as a fraction of the image's
SCALE = 1.2  # each axis is scaled by U(1 / 1.2, 1.2)
ROTATE = 15.0  # degrees

Parameters = Mapping[str, Tensor]


@dataclass(frozen=True)
class Draw:
    """One operation ("none": the identity) and its parameters, each (N,) or (N, 1, 1, 1), on the images' device."""

    operation: str
    parameters: Parameters = field(default_factory=dict)


def parse_augment(text: str) -> tuple[str, ...]:
    """The operations of "color_crop_cutout_flip_scale_rotate" or of any part of it; "none" has none.

    "crop+flip" is one operation, the first and then the second, which is how networks are trained for their own sake.
    Raises ValueError for an unknown or repeated name.
    """
    if text == "none":
        return ()
    names = tuple(text.split("_"))
    for name in "+".join(names).split("+"):
        if name not in OPERATIONS:
            raise ValueError(f"unknown augmentation {name!r} in {text!r}: join {', '.join(OPERATIONS)} by _, or none")
    if len(set(names)) < len(names):
        raise ValueError(f"augmentation {text!r} names an operation twice")
    return names


def draw(
    operations: tuple[str, ...],
    count: int,
    image_shape: tuple[int, int, int],
    generator: torch.Generator,
    device: torch.device | str = "cpu",
) -> Draw:
    """Draw one operation for a batch of `count` images (C, H, W), and its parameters.

    The draws are made on the CPU, in float64 where they are real, so they are the same on every device.
    """
    if not operations:
        return Draw("none")
    choice = int(torch.randint(len(operations), (1,), generator=generator))
    operation = operations[choice]
    parameters: dict[str, Tensor] = {}
    for part in operation.split("+"):
        parameters |= OPERATIONS[part][0](count, image_shape, generator)
    return Draw(operation, {name: moved(value, device) for name, value in parameters.items()})


def augment(images: Tensor, drawn: Draw) -> Tensor:
    """Apply a draw to images (N, C, H, W); differentiable in the images."""
    if drawn.operation == "none":
        return images
    for part in drawn.operation.split("+"):
        images = OPERATIONS[part][1](images, drawn.parameters)
    return images


def _uniform(count: int, low: float, high: float, generator: torch.Generator) -> Tensor:
    return torch.rand(count, generator=generator, dtype=torch.float64) * (high - low) + low


def _integers(count: int, low: int, high: int, generator: torch.Generator) -> Tensor:
    """Integers from low to high, both included."""
    return torch.randint(low, high + 1, (count,), generator=generator)


def _per_image(values: Tensor, images: Tensor) -> Tensor:
    return values.to(images.dtype).view(-1, 1, 1, 1)


def _draw_color(count: int, image_shape: tuple[int, int, int], generator: torch.Generator) -> Parameters:  # noqa: ARG001
    return {
        "brightness": _uniform(count, -BRIGHTNESS, BRIGHTNESS, generator),
        "saturation": _uniform(count, 0.0, SATURATION, generator),
        "contrast": _uniform(count, 1 - CONTRAST, 1 + CONTRAST, generator),
    }


def _color(images: Tensor, parameters: Parameters) -> Tensor:
    images = images + _per_image(parameters["brightness"], images)
    grey = images.mean(dim=1, keepdim=True)
    images = (images - grey) * _per_image(parameters["saturation"], images) + grey
    mean = images.mean(dim=(1, 2, 3), keepdim=True)
    return (images - mean) * _per_image(parameters["contrast"], images) + mean


def _draw_crop(count: int, image_shape: tuple[int, int, int], generator: torch.Generator) -> Parameters:
    _, height, width = image_shape
    down, right = int(CROP * height + 0.5), int(CROP * width + 0.5)
    return {"down": _integers(count, -down, down, generator), "right": _integers(count, -right, right, generator)}


def _crop(images: Tensor, parameters: Parameters) -> Tensor:
    for dim, shift in ((2, parameters["down"]), (3, parameters["right"])):
        side = images.shape[dim]
        source = torch.arange(side, device=images.device) + shift[:, None]
        inside = (source >= 0) & (source < side)
        shape = (-1, 1, side, 1) if dim == 2 else (-1, 1, 1, side)
        index = source.clamp(0, side - 1).view(shape).expand_as(images)
        images = images.gather(dim, index) * inside.view(shape).to(images.dtype)
    return images


def _draw_cutout(count: int, image_shape: tuple[int, int, int], generator: torch.Generator) -> Parameters:
    """The square's centre: between two pixels, the border's outer sides included, or a pixel where its side is odd."""
    _, *sides = image_shape
    last_row, last_column = (side - int(CUTOUT * side + 0.5) % 2 for side in sides)
    return {"row": _integers(count, 0, last_row, generator), "column": _integers(count, 0, last_column, generator)}


def _cutout(images: Tensor, parameters: Parameters) -> Tensor:
    spared = []
    for dim, centre in ((2, parameters["row"]), (3, parameters["column"])):
        side = images.shape[dim]
        cut = int(CUTOUT * side + 0.5)
        first = centre[:, None] - cut // 2
        position = torch.arange(side, device=images.device)
        spared.append((position < first) | (position >= first + cut))
    keep = spared[0][:, None, :, None] | spared[1][:, None, None, :]
    return images * keep.to(images.dtype)


def _flip(images: Tensor, parameters: Parameters) -> Tensor:
    return torch.where(parameters["flipped"].view(-1, 1, 1, 1), images.flip(3), images)


def _scale(images: Tensor, parameters: Parameters) -> Tensor:
    sx, sy = parameters["sx"], parameters["sy"]
    zero = torch.zeros_like(sx)
    return _resample(images, (sx, zero, zero, sy))


def _rotate(images: Tensor, parameters: Parameters) -> Tensor:
    angle = torch.deg2rad(parameters["degrees"])
    return _resample(images, (angle.cos(), -angle.sin(), angle.sin(), angle.cos()))


def _resample(images: Tensor, matrix: tuple[Tensor, Tensor, Tensor, Tensor]) -> Tensor:
    """Bilinear sampling on the grid of a 2 x 2 matrix per image about the centre; zeros outside."""
    a, b, c, d = matrix
    zero = torch.zeros_like(a)
    theta = torch.stack([a, b, zero, c, d, zero], dim=1).view(-1, 2, 3).to(images.dtype)
    grid = F.affine_grid(theta, list(images.shape), align_corners=True)
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="zeros", align_corners=True)


Drawer = Callable[[int, tuple[int, int, int], torch.Generator], Parameters]
Operation = Callable[[Tensor, Parameters], Tensor]

OPERATIONS: dict[str, tuple[Drawer, Operation]] = {
    "color": (_draw_color, _color),
    "crop": (_draw_crop, _crop),
    "cutout": (_draw_cutout, _cutout),
    "flip": (lambda count, _, draws: {"flipped": torch.rand(count, generator=draws) < 0.5}, _flip),
    "scale": (
        lambda count, _, draws: {axis: _uniform(count, 1 / SCALE, SCALE, draws) for axis in ("sx", "sy")},
        _scale,
    ),
    "rotate": (lambda count, _, draws: {"degrees": _uniform(count, -ROTATE, ROTATE, draws)}, _rotate),
}
