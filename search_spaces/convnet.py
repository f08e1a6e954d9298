"""The ConvNets of the dataset-condensation papers: the backbone of experts, and a space of 720 candidates.

Blocks of conv 3x3 (padding 1, bias), norm, activation, pool; then flatten and one linear layer.
"""

from __future__ import annotations

import itertools
import math
from collections import OrderedDict
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, fields, replace
from typing import get_type_hints

from torch import nn

from search_spaces.architecture import Architecture, Described, ImageShape, check_buildable
from search_spaces.decisions import Choice, Decisions
from search_spaces.messages import hint

WIDTHS = (32, 64, 128, 256)
DEPTHS = (1, 2, 3, 4)
NORMS = ("none", "batch", "layer", "instance", "group")
ACTIVATIONS = ("sigmoid", "relu", "leakyrelu")
POOLINGS = ("none", "max", "avg")
OPTIONS: Mapping[str, tuple[Choice, ...]] = {
    "width": WIDTHS,
    "depth": DEPTHS,
    "norm": NORMS,
    "activation": ACTIVATIONS,
    "pooling": POOLINGS,
}
GROUPS = 4  # of norm=group
LARGEST = {"width": 4096, "depth": 16}  # of a backbone; the space itself is smaller


@dataclass(frozen=True)
class ConvNet(Described):
    """One ConvNet. The space has widths 32 .. 256 and depths 1 .. 4; backbones may have others (depth 5 at 128 pixels).

    `norm`: none, batch, layer (over C, H, W), instance (GroupNorm(C, C), affine) or group (4 groups). `pooling` is 2x2
    and halves the side, rounding down, in every block. Raises ValueError for a choice that does not exist.
    """

    width: int = 128
    depth: int = 3
    norm: str = "instance"
    activation: str = "relu"
    pooling: str = "avg"

    def __post_init__(self) -> None:
        for key, largest in LARGEST.items():
            value = getattr(self, key)
            if not 1 <= value <= largest:
                raise ValueError(f"convnet: {key}={value} is not between 1 and {largest}")
        for key, known in (("norm", NORMS), ("activation", ACTIVATIONS), ("pooling", POOLINGS)):
            value = getattr(self, key)
            if value not in known:
                raise ValueError(f"convnet: unknown {key} {value!r}: {hint(value, known)}")
        if self.norm == "group" and self.width % GROUPS:
            raise ValueError(f"convnet: width={self.width} cannot be split into the {GROUPS} groups of norm=group")

    @property
    def space(self) -> str:
        return "convnet"

    @property
    def name(self) -> str:
        return "convnet:" + ",".join(f"{key}={value}" for key, value in self.choices.items())

    @property
    def choices(self) -> Mapping[str, Choice]:
        return {field.name: getattr(self, field.name) for field in fields(self)}

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
            layers[f"activation{block}"] = _activation(self.activation)
            if self.pooling != "none":
                layers[f"pool{block}"] = nn.MaxPool2d(2) if self.pooling == "max" else nn.AvgPool2d(2)
                height, width = height // 2, width // 2
        layers["flatten"] = nn.Flatten()
        layers["linear"] = nn.Linear(channels * height * width, num_classes)
        return nn.Sequential(layers)


@dataclass(frozen=True)
class ConvNetSpace:
    """The 720 ConvNets of the paper: width x depth x norm x activation x pooling."""

    name: str = "convnet"
    code: str = ""

    @property
    def size(self) -> int:
        return math.prod(len(choices) for choices in OPTIONS.values())

    def suggest(self, decisions: Decisions) -> ConvNet:
        return ConvNet(**{key: decisions.suggest_categorical(key, list(few)) for key, few in OPTIONS.items()})

    def architectures(self) -> tuple[ConvNet, ...]:
        return tuple(itertools.starmap(ConvNet, itertools.product(*OPTIONS.values())))

    def neighbours(self, architecture: Architecture) -> tuple[ConvNet, ...]:
        own = architecture.choices
        return tuple(
            other
            for other in self.architectures()
            if sum(own[key] != value for key, value in other.choices.items()) == 1
        )

    def parse(self, text: str) -> ConvNet:
        """`key=value` pairs joined by commas, in any order; what is left out takes the default."""
        types = get_type_hints(ConvNet)
        given: dict[str, Choice] = {}
        for pair in text.split(",") if text.strip() else ():
            key, equals, value = (part.strip() for part in pair.partition("="))
            if not equals:
                raise ValueError(f"convnet: {pair.strip()!r} is not key=value with a key of {', '.join(types)}")
            if key not in types:
                raise ValueError(f"convnet: unknown key {key!r}: {hint(key, types)}")
            if key in given:
                raise ValueError(f"convnet: {key} is given twice")
            if types[key] is int and not (value.isascii() and value.isdigit()):
                raise ValueError(f"convnet: {key}={value} is not a whole number between 1 and {LARGEST[key]}")
            given[key] = int(value) if types[key] is int else value
        return replace(ConvNet(), **given)  # type: ignore[arg-type]


def _norm(kind: str, channels: int, height: int, width: int) -> nn.Module:
    if kind == "batch":
        return nn.BatchNorm2d(channels)
    if kind == "layer":
        return nn.LayerNorm([channels, height, width])
    return nn.GroupNorm(channels if kind == "instance" else GROUPS, channels)


def _activation(kind: str) -> nn.Module:
    # Never in place: the functional and double-backward uses need the inputs.
    if kind == "sigmoid":
        return nn.Sigmoid()
    return nn.ReLU() if kind == "relu" else nn.LeakyReLU(0.01)
