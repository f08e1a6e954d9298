"""NAS-Bench-Macro (Su et al., CVPR 2021, arXiv 2103.11922): 6,561 chains of MobileNet-like layers."""

from __future__ import annotations

import itertools
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

from torch import nn

from search_spaces.architecture import Architecture, ImageShape, check_buildable
from search_spaces.decisions import Choice
from search_spaces.layers import InvertedResidual, StagedNetwork, classifier, convolution
from search_spaces.product import ProductSpace

STAGES = (2, 3, 3)  # layers of each
KINDS = ("0", "1", "2")  # identity; inverted residual 3x3, expansion 3; inverted residual 5x5, expansion 6
LAYERS = sum(STAGES)
OPTIONS: Mapping[str, tuple[Choice, ...]] = {f"layer{number}": KINDS for number in range(1, LAYERS + 1)}
SHRUNK = 2  # channels are divided by it


@dataclass(frozen=True)
class Chain(Architecture):
    """One architecture: eight digits, one a layer. `divisor` of the channels: 1 in the benchmark, 2 when shrunk."""

    space: ClassVar[str] = "macro"
    layers: str
    divisor: int = 1

    def __post_init__(self) -> None:
        if len(self.layers) != LAYERS or not set(self.layers) <= set(KINDS):
            raise ValueError(f"macro: {self.layers!r} is not {LAYERS} digits of 0, 1 and 2, such as 01220012")
        if self.divisor not in (1, SHRUNK):
            raise ValueError(f"macro: channels=1/{self.divisor}: only 1/{SHRUNK} is known")

    @property
    def name(self) -> str:
        return f"macro:{'' if self.divisor == 1 else f'channels=1/{self.divisor}:'}{self.layers}"

    @property
    def choices(self) -> Mapping[str, Choice]:
        return dict(zip(OPTIONS, self.layers, strict=True))

    @property
    def cost_key(self) -> Hashable:
        """The first layer of each stage, and how many of each kind follow it."""
        return self.divisor, tuple((first, rest.count("1"), rest.count("2")) for first, rest in self._stages())

    def obstacle(self, image_shape: ImageShape) -> str | None:
        _, height, width = image_shape
        smallest = 2 ** len(STAGES)
        if min(height, width) >= smallest:
            return None
        return f"three stages halve the side (needs at least {smallest} pixels)"

    def build(self, image_shape: ImageShape, num_classes: int) -> ChainNetwork:
        check_buildable(self, image_shape, num_classes)
        return ChainNetwork(self.layers, self.divisor, image_shape[0], num_classes)

    def shrunk(self) -> Chain | None:
        """Half the channels."""
        return None if self.divisor == SHRUNK else replace(self, divisor=SHRUNK)

    def representative(self) -> Chain:
        """The one whose identities come first in each stage, after its first layer, which halves the side."""
        parts = [first + "0" * rest.count("0") + rest.replace("0", "") for first, rest in self._stages()]
        return replace(self, layers="".join(parts))

    def _stages(self) -> list[tuple[str, str]]:
        """The first layer of each stage, and those that follow it."""
        ends = itertools.accumulate(STAGES)
        stages = [self.layers[end - length : end] for end, length in zip(ends, STAGES, strict=True)]
        return [(stage[0], stage[1:]) for stage in stages]


class ChainNetwork(StagedNetwork):
    """Stem, eight layers, head."""

    stages = ((64, 2), (128, 3), (256, 3))  # channels, layers; the stem has half of the first
    widest = 1280

    def __init__(self, layers: str, divisor: int, channels: int, num_classes: int) -> None:
        super().__init__()
        before = self.stages[0][0] // 2 // divisor
        self.stem = nn.Sequential(*convolution(channels, before, 3), nn.ReLU())
        built: list[nn.Module] = []
        kinds = iter(layers)
        for full, length in self.stages:
            for place in range(length):
                width = full // divisor
                built.append(_build(next(kinds), before, width, stride=1 if place else 2))
                before = width
        self.layers = nn.Sequential(*built)
        head = self.widest // divisor
        self.head = nn.Sequential(*convolution(before, head, 1), nn.ReLU(), *classifier(head, num_classes))


def _build(kind: str, before: int, width: int, stride: int) -> nn.Module:
    if kind == "0":
        if stride == 1:
            return nn.Identity()
        return nn.Sequential(*convolution(before, width, 1, stride))
    kernel, expansion = (3, 3) if kind == "1" else (5, 6)
    return InvertedResidual(before, width, kernel, expansion, stride)


def _parsed(text: str) -> Chain:
    """Eight digits, after "channels=1/2:" where it is shrunk."""
    shrunk, rest = f"channels=1/{SHRUNK}:", text.strip()
    return Chain(rest.removeprefix(shrunk), SHRUNK if rest.startswith(shrunk) else 1)


def _make(choices: Mapping[str, Choice]) -> Chain:
    return Chain("".join(map(str, choices.values())))


MACRO = ProductSpace("macro", OPTIONS, _make, _parsed)
