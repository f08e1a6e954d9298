"""MobileNets (Sandler et al., CVPR 2018, arXiv 1801.04381; squeeze-excite of 1905.02244): 69,984 of three stages."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from search_spaces.architecture import Described, ImageShape, check_buildable
from search_spaces.decisions import Choice
from search_spaces.product import ProductSpace, check

STAGES = 3
WIDTHS = (24, 40, 80)  # channels of the stages at width 1; each stage halves the side
STEM, HEAD = 16, 320
ROUNDED = 8  # channels are multiples of it, at least one
SQUEEZED = 4  # the middle of squeeze-excite is so many times narrower
OPTIONS: Mapping[str, tuple[Choice, ...]] = {
    "width": ("0.5", "1", "1.5"),
    "stem": ("full", "half"),  # 3x3 with stride 1, or 2 for photos
    "se": (0, 1),
    **{f"depth{stage}": (1, 2, 3) for stage in range(1, STAGES + 1)},
    **{f"kernel{stage}": (3, 5, 7) for stage in range(1, STAGES + 1)},
    **{f"expansion{stage}": (3, 6) for stage in range(1, STAGES + 1)},
}
NARROWER = {"1.5": "0.75", "1": "0.5", "0.5": "0.25"}  # when shrunk
KNOWN: Mapping[str, tuple[Choice, ...]] = {**OPTIONS, "width": ("0.25", "0.5", "0.75", "1", "1.5")}
DEFAULTS: Mapping[str, Choice] = {
    "width": "1",
    "stem": "full",
    "se": 0,
    **{f"depth{stage}": 2 for stage in range(1, STAGES + 1)},
    **{f"kernel{stage}": 3 for stage in range(1, STAGES + 1)},
    **{f"expansion{stage}": 6 for stage in range(1, STAGES + 1)},
}


@dataclass(frozen=True)
class MobileNet(Described):
    """One MobileNet: inverted residuals, `depthN` in stage N with `kernelN` and `expansionN`; `se`: squeeze-excite.

    `width` is the factor of all channels. Batch norm and ReLU6, as published. Raises ValueError for a choice that does
    not exist.
    """

    settings: tuple[tuple[str, Choice], ...]

    def __post_init__(self) -> None:
        check("mobilenet", self.choices, KNOWN)

    @property
    def space(self) -> str:
        return "mobilenet"

    @property
    def name(self) -> str:
        return "mobilenet:" + ",".join(f"{key}={value}" for key, value in self.settings)

    @property
    def choices(self) -> Mapping[str, Choice]:
        return dict(self.settings)

    def obstacle(self, image_shape: ImageShape) -> str | None:  # noqa: ARG002
        return None  # strides round up, so that a pixel is left of any side

    def build(self, image_shape: ImageShape, num_classes: int) -> nn.Module:
        check_buildable(self, image_shape, num_classes)
        return MobileNetwork(self.choices, image_shape[0], num_classes)

    def shrunk(self) -> MobileNet | None:
        """Half the width, and half the blocks of each stage, rounded up."""
        own = self.choices
        if own["width"] not in NARROWER:
            return None
        fewer = {f"depth{stage}": (int(own[f"depth{stage}"]) + 1) // 2 for stage in range(1, STAGES + 1)}
        return _make({**own, "width": NARROWER[str(own["width"])], **fewer})


class MobileNetwork(nn.Module):
    """Stem, three stages of inverted residuals, 1x1 to the head's channels, global average pooling, linear."""

    def __init__(self, choices: Mapping[str, Any], channels: int, num_classes: int) -> None:
        super().__init__()
        factor = float(choices["width"])
        before = _rounded(STEM * factor)
        self.stem = nn.Sequential(
            nn.Conv2d(channels, before, 3, stride=1 if choices["stem"] == "full" else 2, padding=1, bias=False),
            nn.BatchNorm2d(before),
            nn.ReLU6(),
        )
        layers: list[nn.Module] = []
        for stage in range(1, STAGES + 1):
            after = _rounded(WIDTHS[stage - 1] * factor)
            kernel, expansion = choices[f"kernel{stage}"], choices[f"expansion{stage}"]
            for place in range(choices[f"depth{stage}"]):
                stride = 1 if place else 2
                layers.append(InvertedResidual(before, after, kernel, expansion, stride, bool(choices["se"])))
                before = after
        self.layers = nn.Sequential(*layers)
        head = _rounded(HEAD * factor)
        self.head = nn.Sequential(
            nn.Conv2d(before, head, 1, bias=False),
            nn.BatchNorm2d(head),
            nn.ReLU6(),
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
    """1x1 expand, depthwise, squeeze-excite if asked for, 1x1 project; with a shortcut where the shape is kept."""

    def __init__(self, before: int, after: int, kernel: int, expansion: int, stride: int, excite: bool) -> None:
        super().__init__()
        wide = before * expansion
        self.kept = stride == 1 and before == after
        self.body = nn.Sequential(
            nn.Conv2d(before, wide, 1, bias=False),
            nn.BatchNorm2d(wide),
            nn.ReLU6(),
            nn.Conv2d(wide, wide, kernel, stride=stride, padding=kernel // 2, groups=wide, bias=False),
            nn.BatchNorm2d(wide),
            nn.ReLU6(),
            *([SqueezeExcite(wide)] if excite else []),
            nn.Conv2d(wide, after, 1, bias=False),
            nn.BatchNorm2d(after),
        )

    def forward(self, images: Tensor) -> Tensor:
        changed: Tensor = self.body(images)
        return images + changed if self.kept else changed


class SqueezeExcite(nn.Module):
    """Scales each channel by a gate that all channels' means decide."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        middle = max(1, channels // SQUEEZED)
        self.gate = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(channels, middle, 1),
            nn.ReLU(),
            nn.Conv2d(middle, channels, 1),
            nn.Sigmoid(),
        )

    def forward(self, images: Tensor) -> Tensor:
        scaled: Tensor = images * self.gate(images)
        return scaled


def _rounded(channels: float) -> int:
    return max(ROUNDED, round(channels / ROUNDED) * ROUNDED)


def _make(choices: Mapping[str, Choice]) -> MobileNet:
    return MobileNet(tuple((key, choices[key]) for key in OPTIONS))


MOBILENET = ProductSpace("mobilenet", OPTIONS, _make, DEFAULTS, KNOWN)
