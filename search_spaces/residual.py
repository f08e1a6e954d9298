"""Residual networks (He et al., CVPR 2016, arXiv 1512.03385) for images of any size: 5,120 of three stages."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

from torch import Tensor, nn

from search_spaces.architecture import ImageShape, Keyed, check_buildable
from search_spaces.decisions import Choice
from search_spaces.layers import StagedNetwork, classifier, convolution
from search_spaces.product import check, keyed_space

# 3x3; 5x5; 3x3 with stride 2; 7x7 with stride 2 and a 3x3 max-pool with stride 2, as published, for photos.
STEMS = ("conv3", "conv5", "half", "quarter")
BLOCKS = ("basic", "bottleneck")
OPTIONS: Mapping[str, tuple[Choice, ...]] = {
    "width": (16, 24, 32, 48, 64),
    **{f"depth{stage}": (1, 2, 3, 4) for stage in (1, 2, 3)},
    "stem": STEMS,
    "block": BLOCKS,
    "kernel": (3, 5),
}
# Shrunk networks are half as wide, which the space itself may not be.
KNOWN: Mapping[str, tuple[Choice, ...]] = {**OPTIONS, "width": (8, 12, *OPTIONS["width"])}
NARROW = 4  # a bottleneck's middle is so many times narrower than its outside, which is four times the width


@dataclass(frozen=True)
class ResidualNet(Keyed):
    """One residual network: `depthN` blocks in stage N, whose channels double and whose side halves from the first.

    Batch norm and ReLU. `width`: channels of the first stage (of its middle, with bottlenecks). Raises ValueError for a
    choice that does not exist.
    """

    space: ClassVar[str] = "residual"
    width: int = 32
    depth1: int = 2
    depth2: int = 2
    depth3: int = 2
    stem: str = "conv3"
    block: str = "basic"
    kernel: int = 3

    def __post_init__(self) -> None:
        check(self.space, self.choices, KNOWN)

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


class ResidualNetwork(StagedNetwork):
    """Stem, three stages, global average pooling, linear."""

    def __init__(self, net: ResidualNet, channels: int, num_classes: int) -> None:
        super().__init__()
        kernel, stride = {"conv3": (3, 1), "conv5": (5, 1), "half": (3, 2), "quarter": (7, 2)}[net.stem]
        self.stem = nn.Sequential(*convolution(channels, net.width, kernel, stride), nn.ReLU())
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
        self.head = nn.Sequential(*classifier(before, num_classes))


class ResidualBlock(nn.Module):
    """Two convolutions, or three around a narrow middle, beside a shortcut, which is 1x1 where the shape changes."""

    def __init__(self, before: int, middle: int, after: int, kernel: int, stride: int, bottleneck: bool) -> None:
        super().__init__()
        if bottleneck:
            inside = (*convolution(before, middle, 1), nn.ReLU(), *convolution(middle, middle, kernel, stride))
            self.body = nn.Sequential(*inside, nn.ReLU(), *convolution(middle, after, 1))
        else:
            first = convolution(before, middle, kernel, stride)
            self.body = nn.Sequential(*first, nn.ReLU(), *convolution(middle, after, kernel))
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or before != after:
            self.shortcut = nn.Sequential(*convolution(before, after, 1, stride))
        self.activation = nn.ReLU()

    def forward(self, images: Tensor) -> Tensor:
        out: Tensor = self.activation(self.body(images) + self.shortcut(images))
        return out


RESIDUAL = keyed_space("residual", OPTIONS, lambda choices: ResidualNet(**choices), ResidualNet().choices, KNOWN)
