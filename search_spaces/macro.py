"""NAS-Bench-Macro (Su et al., CVPR 2021, arXiv 2103.11922): 6,561 chains of MobileNet-like layers."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace

from torch import Tensor, nn

from search_spaces.architecture import Architecture, ImageShape, check_buildable
from search_spaces.decisions import Choice, Decisions
from search_spaces.product import LazySequence

STAGES = (2, 3, 3)  # layers of each
KINDS = ("0", "1", "2")  # identity; inverted residual 3x3, expansion 3; inverted residual 5x5, expansion 6
LAYERS = sum(STAGES)
SHRUNK = 2  # channels are divided by it


@dataclass(frozen=True)
class Chain:
    """One architecture: eight digits, one a layer. `divisor` of the channels: 1 in the benchmark, 2 when shrunk."""

    layers: str
    divisor: int = 1

    def __post_init__(self) -> None:
        if len(self.layers) != LAYERS or not set(self.layers) <= set(KINDS):
            raise ValueError(f"macro: {self.layers!r} is not {LAYERS} digits of 0, 1 and 2, such as 01220012")
        if self.divisor not in (1, SHRUNK):
            raise ValueError(f"macro: channels=1/{self.divisor}: only 1/{SHRUNK} is known")

    @property
    def space(self) -> str:
        return "macro"

    @property
    def name(self) -> str:
        return f"macro:{'' if self.divisor == 1 else f'channels=1/{self.divisor}:'}{self.layers}"

    @property
    def choices(self) -> Mapping[str, Choice]:
        return {_layer(number): kind for number, kind in enumerate(self.layers)}

    @property
    def cost_key(self) -> Hashable:
        """The first layer of a stage, and how many of each kind follow it."""
        parts, start = [], 0
        for length in STAGES:
            rest = self.layers[start + 1 : start + length]
            parts.append((self.layers[start], rest.count("1"), rest.count("2")))
            start += length
        return self.divisor, tuple(parts)

    @property
    def code(self) -> str:
        return ""

    def obstacle(self, image_shape: ImageShape) -> str | None:
        _, height, width = image_shape
        smallest = 2 ** len(STAGES)
        return (
            None
            if min(height, width) >= smallest
            else f"three stages halve the side (needs at least {smallest} pixels)"
        )

    def build(self, image_shape: ImageShape, num_classes: int) -> ChainNetwork:
        check_buildable(self, image_shape, num_classes)
        return ChainNetwork(self.layers, self.divisor, image_shape[0], num_classes)

    def shrunk(self) -> Chain | None:
        """Half the channels."""
        return None if self.divisor == SHRUNK else replace(self, divisor=SHRUNK)

    def representative(self) -> Chain:
        """The one whose identities come first in each stage, after its first layer, which halves the side."""
        parts, start = [], 0
        for length in STAGES:
            rest = self.layers[start + 1 : start + length]
            kept = rest.replace("0", "")
            parts.append(self.layers[start] + "0" * (len(rest) - len(kept)) + kept)
            start += length
        return replace(self, layers="".join(parts))


@dataclass(frozen=True)
class Macro:
    """The whole space, counted in base three."""

    name: str = "macro"
    code: str = ""

    @property
    def size(self) -> int:
        return int(len(KINDS) ** LAYERS)

    def suggest(self, decisions: Decisions) -> Chain:
        return Chain("".join(decisions.suggest_categorical(_layer(number), list(KINDS)) for number in range(LAYERS)))

    def architectures(self) -> Sequence[Chain]:
        return LazySequence(self.size, _chain)

    def neighbours(self, architecture: Architecture) -> tuple[Chain, ...]:
        assert isinstance(architecture, Chain)
        own = architecture.layers
        return tuple(
            replace(architecture, layers=own[:number] + kind + own[number + 1 :])
            for number in range(LAYERS)
            for kind in KINDS
            if kind != own[number]
        )

    def parse(self, text: str) -> Chain:
        """Eight digits, after "channels=1/2:" where it is shrunk."""
        shrunk, rest = f"channels=1/{SHRUNK}:", text.strip()
        return Chain(rest.removeprefix(shrunk), SHRUNK if rest.startswith(shrunk) else 1)


class ChainNetwork(nn.Module):
    """Stem, eight layers, head."""

    stages = ((64, 2), (128, 3), (256, 3))  # channels, layers; the stem has half of the first
    widest = 1280

    def __init__(self, layers: str, divisor: int, channels: int, num_classes: int) -> None:
        super().__init__()
        before = self.stages[0][0] // 2 // divisor
        self.stem = nn.Sequential(
            nn.Conv2d(channels, before, 3, padding=1, bias=False), nn.BatchNorm2d(before), nn.ReLU()
        )
        built: list[nn.Module] = []
        kinds = iter(layers)
        for full, length in self.stages:
            for place in range(length):
                width = full // divisor
                built.append(_build(next(kinds), before, width, stride=1 if place else 2))
                before = width
        self.layers = nn.Sequential(*built)
        head = self.widest // divisor
        self.head = nn.Sequential(
            nn.Conv2d(before, head, 1, bias=False),
            nn.BatchNorm2d(head),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(head, num_classes),
        )

    def forward(self, images: Tensor) -> Tensor:
        scores: Tensor = self.head(self.layers(self.stem(images)))
        return scores

    def blocks(self) -> list[nn.Module]:
        """The stem, then what follows it block by block: what training-free measures look at."""
        return [self.stem, *self.layers]


class InvertedResidual(nn.Module):
    """1x1 expand, depthwise, 1x1 project; with a shortcut where the shape is kept."""

    def __init__(self, before: int, width: int, kernel: int, expansion: int, stride: int) -> None:
        super().__init__()
        wide = before * expansion
        self.kept = stride == 1 and before == width
        self.body = nn.Sequential(
            nn.Conv2d(before, wide, 1, bias=False),
            nn.BatchNorm2d(wide),
            nn.ReLU(),
            nn.Conv2d(wide, wide, kernel, stride=stride, padding=kernel // 2, groups=wide, bias=False),
            nn.BatchNorm2d(wide),
            nn.ReLU(),
            nn.Conv2d(wide, width, 1, bias=False),
            nn.BatchNorm2d(width),
        )

    def forward(self, images: Tensor) -> Tensor:
        changed: Tensor = self.body(images)
        return images + changed if self.kept else changed


def _build(kind: str, before: int, width: int, stride: int) -> nn.Module:
    if kind == "0":
        if stride == 1:
            return nn.Identity()
        return nn.Sequential(nn.Conv2d(before, width, 1, stride=stride, bias=False), nn.BatchNorm2d(width))
    kernel, expansion = (3, 3) if kind == "1" else (5, 6)
    return InvertedResidual(before, width, kernel, expansion, stride)


def _layer(number: int) -> str:
    return f"layer{number + 1}"


def _chain(index: int) -> Chain:
    digits = []
    for _ in range(LAYERS):
        index, digit = divmod(index, len(KINDS))
        digits.append(KINDS[digit])
    return Chain("".join(reversed(digits)))
