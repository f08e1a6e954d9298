"""The ConvNets of the dataset-condensation papers: the backbone of experts, and a space of 720 candidates.

Blocks of conv 3x3 (padding 1, bias), norm, activation, pool; then flatten and one linear layer.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from search_spaces.architecture import ImageShape, Keyed, check_buildable
from search_spaces.decisions import Choice
from search_spaces.product import check, keyed_space

# Never in place: the functional and double-backward uses need the inputs.
ACTIVATIONS: dict[str, type[nn.Module]] = {
    "sigmoid": nn.Sigmoid,
    "relu": nn.ReLU,
    "leakyrelu": nn.LeakyReLU,
}  # which has a slope of 0.01
OPTIONS: Mapping[str, tuple[Choice, ...]] = {
    "width": (32, 64, 128, 256),
    "depth": (1, 2, 3, 4),
    "norm": ("none", "batch", "layer", "instance", "group"),
    "activation": tuple(ACTIVATIONS),
    "pooling": ("none", "max", "avg"),
}
KNOWN: Mapping[str, Sequence[Choice]] = {**OPTIONS, "width": range(1, 4097), "depth": range(1, 17)}  # of a backbone
GROUPS = 4  # of norm=group


@dataclass(frozen=True)
class ConvNet(Keyed):
    """One ConvNet. The space has widths 32 .. 256 and depths 1 .. 4; backbones may have others (depth 5 at 128 pixels).

    `norm`: none, batch, layer (over C, H, W), instance (GroupNorm(C, C), affine) or group (4 groups). `pooling` is 2x2
    and halves the side, rounding down, in every block. Raises ValueError for a choice that does not exist.
    """

    space: ClassVar[str] = "convnet"
    width: int = 128
    depth: int = 3
    norm: str = "instance"
    activation: str = "relu"
    pooling: str = "avg"

    def __post_init__(self) -> None:
        check(self.space, self.choices, KNOWN)
        if self.norm == "group" and self.width % GROUPS:
            raise ValueError(f"convnet: width={self.width} cannot be split into the {GROUPS} groups of norm=group")

    @property
    def cost_key(self) -> Hashable:
        return self.width, self.depth, self.norm != "none", self.norm == "layer", self.pooling != "none"

    def obstacle(self, image_shape: ImageShape) -> str | None:
        _, height, width = image_shape
        if self.pooling == "none" or min(height, width) >> self.depth >= 1:
            return None
        return (
            f"{self.depth} times 2x2 pooling leaves less than one pixel "
            f"(needs a side of at least {2**self.depth}, or a smaller depth, or pooling=none)"
        )

    def build(self, image_shape: ImageShape, num_classes: int) -> nn.Sequential:
        check_buildable(self, image_shape, num_classes)
        channels, height, width = image_shape
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        for block in range(1, self.depth + 1):
            layers[f"conv{block}"] = nn.Conv2d(channels, self.width, kernel_size=3, padding=1)
            channels = self.width
            if self.norm != "none":
                layers[f"norm{block}"] = _norm(self.norm, channels, height, width)
            layers[f"activation{block}"] = ACTIVATIONS[self.activation]()
            if self.pooling != "none":
                layers[f"pool{block}"] = nn.MaxPool2d(2) if self.pooling == "max" else nn.AvgPool2d(2)
                height, width = height // 2, width // 2
        layers["flatten"] = nn.Flatten()
        layers["linear"] = nn.Linear(channels * height * width, num_classes)
        return nn.Sequential(layers)


def _norm(kind: str, channels: int, height: int, width: int) -> nn.Module:
    if kind == "batch":
        return nn.BatchNorm2d(channels)
    if kind == "layer":
        return nn.LayerNorm([channels, height, width])
    return nn.GroupNorm(channels if kind == "instance" else GROUPS, channels)


CONVNET = keyed_space("convnet", OPTIONS, lambda choices: ConvNet(**choices), ConvNet().choices, KNOWN)
