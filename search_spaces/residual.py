"""Residual networks (He et al., CVPR 2016, arXiv 1512.03385) for images of any size: 5,120 of three stages."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor, nn

from search_spaces.architecture import Described, ImageShape, check_buildable
from search_spaces.decisions import Choice
from search_spaces.product import ProductSpace, check

# 3x3; 5x5; 3x3 with stride 2; 7x7 with stride 2 and a 3x3 max-pool with stride 2, as published, for photos.
STEMS = ("conv3", "conv5", "half", "quarter")
BLOCKS = ("basic", "bottleneck")
OPTIONS: Mapping[str, tuple[Choice, ...]] = {
    "width": (16, 24, 32, 48, 64),
    "depth1": (1, 2, 3, 4),
    "depth2": (1, 2, 3, 4),
    "depth3": (1, 2, 3, 4),
    "stem": STEMS,
    "block": BLOCKS,
    "kernel": (3, 5),
}
# Shrunk networks are half as wide, which the space itself may not be.
KNOWN: Mapping[str, tuple[Choice, ...]] = {**OPTIONS, "width": (8, 12, *OPTIONS["width"])}
DEFAULTS: Mapping[str, Choice] = {
    "width": 32,
    "depth1": 2,
    "depth2": 2,
    "depth3": 2,
    "stem": "conv3",
    "block": "basic",
    "kernel": 3,
}
NARROW = 4  # a bottleneck's middle is so many times narrower than its outside, which is four times the width


@dataclass(frozen=True)
class ResidualNet(Described):
    """One residual network: `depthN` blocks in stage N, whose channels double and whose side halves from the first.

    Batch norm and ReLU. `width`: channels of the first stage (of its middle, with bottlenecks). Raises ValueError for a
    choice that does not exist.
    """

    width: int
    depth1: int
    depth2: int
    depth3: int
    stem: str
    block: str
    kernel: int

    def __post_init__(self) -> None:
        check("residual", self.choices, KNOWN)

    @property
    def space(self) -> str:
        return "residual"

    @property
    def name(self) -> str:
        return "residual:" + ",".join(f"{key}={value}" for key, value in self.choices.items())

    @property
    def choices(self) -> Mapping[str, Choice]:
        return {key: getattr(self, key) for key in OPTIONS}

    def obstacle(self, image_shape: ImageShape) -> str | None:  # noqa: ARG002
        return None  # strides round up, so that a pixel is left of any side

    def build(self, image_shape: ImageShape, num_classes: int) -> nn.Module:
        check_buildable(self, image_shape, num_classes)
        return ResidualNetwork(self, image_shape[0], num_classes)

    def shrunk(self) -> ResidualNet | None:
        """Half the width, of which the least is 8, and half the blocks of each stage, rounded up."""
        smaller = replace(
            self,
            width=max(int(width) for width in KNOWN["width"] if int(width) <= max(8, self.width // 2)),
            depth1=(self.depth1 + 1) // 2,
            depth2=(self.depth2 + 1) // 2,
            depth3=(self.depth3 + 1) // 2,
        )
        return None if smaller == self else smaller


class ResidualNetwork(nn.Module):
    """Stem, three stages, global average pooling, linear."""

    def __init__(self, net: ResidualNet, channels: int, num_classes: int) -> None:
        super().__init__()
        kernel, stride = {"conv3": (3, 1), "conv5": (5, 1), "half": (3, 2), "quarter": (7, 2)}[net.stem]
        self.stem = nn.Sequential(*_convolution(channels, net.width, kernel, stride), nn.ReLU())
        if net.stem == "quarter":
            self.stem.append(nn.MaxPool2d(3, stride=2, padding=1))
        layers: list[nn.Module] = []
        before = net.width
        for stage, depth in enumerate((net.depth1, net.depth2, net.depth3)):
            middle = net.width * 2**stage
            after = middle * (NARROW if net.block == "bottleneck" else 1)
            for place in range(depth):
                stride = 2 if stage and not place else 1
                layers.append(ResidualBlock(before, middle, after, net.kernel, stride, net.block == "bottleneck"))
                before = after
        self.layers = nn.Sequential(*layers)
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(before, num_classes))

    def forward(self, images: Tensor) -> Tensor:
        scores: Tensor = self.head(self.layers(self.stem(images)))
        return scores

    def blocks(self) -> list[nn.Module]:
        """The stem, then what follows it block by block: what training-free measures look at."""
        return [self.stem, *self.layers]


class ResidualBlock(nn.Module):
    """Two convolutions, or three around a narrow middle, beside a shortcut, which is 1x1 where the shape changes."""

    def __init__(self, before: int, middle: int, after: int, kernel: int, stride: int, bottleneck: bool) -> None:
        super().__init__()
        if bottleneck:
            body = [
                *_convolution(before, middle, 1, 1),
                nn.ReLU(),
                *_convolution(middle, middle, kernel, stride),
                nn.ReLU(),
                *_convolution(middle, after, 1, 1),
            ]
        else:
            body = [
                *_convolution(before, middle, kernel, stride),
                nn.ReLU(),
                *_convolution(middle, after, kernel, 1),
            ]
        self.body = nn.Sequential(*body)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or before != after:
            self.shortcut = nn.Sequential(*_convolution(before, after, 1, stride))
        self.activation = nn.ReLU()

    def forward(self, images: Tensor) -> Tensor:
        out: Tensor = self.activation(self.body(images) + self.shortcut(images))
        return out


def _convolution(before: int, after: int, kernel: int, stride: int) -> tuple[nn.Module, nn.Module]:
    return (
        nn.Conv2d(before, after, kernel, stride=stride, padding=kernel // 2, bias=False),
        nn.BatchNorm2d(after),
    )


def _make(choices: Mapping[str, Any]) -> ResidualNet:
    return ResidualNet(**choices)


RESIDUAL = ProductSpace("residual", OPTIONS, _make, DEFAULTS, KNOWN)
