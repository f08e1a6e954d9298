"""MobileNets (Sandler et al., CVPR 2018, arXiv 1801.04381; squeeze-excite of 1905.02244): 69,984 of three stages."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import nn

from search_spaces.architecture import ImageShape, Keyed, check_buildable
from search_spaces.decisions import Choice
from search_spaces.layers import InvertedResidual, StagedNetwork, classifier, convolution
from search_spaces.product import check, keyed_space

STAGES = (1, 2, 3)
WIDTHS = (24, 40, 80)  # channels of the stages at width 1; each stage halves the side
STEM, HEAD = 16, 320
ROUNDED = 8  # channels are multiples of it, at least one
OPTIONS: Mapping[str, tuple[Choice, ...]] = {
    "width": ("0.5", "1", "1.5"),
    "stem": ("full", "half"),  # 3x3 with stride 1, or 2 for photos
    "se": (0, 1),
    **{f"depth{stage}": (1, 2, 3) for stage in STAGES},
    **{f"kernel{stage}": (3, 5, 7) for stage in STAGES},
    **{f"expansion{stage}": (3, 6) for stage in STAGES},
}
NARROWER = {"1.5": "0.75", "1": "0.5", "0.5": "0.25"}  # when shrunk
KNOWN: Mapping[str, tuple[Choice, ...]] = {**OPTIONS, "width": ("0.25", "0.5", "0.75", "1", "1.5")}
DEFAULTS: Mapping[str, Choice] = {
    "width": "1",
    "stem": "full",
    "se": 0,
    **{f"depth{stage}": 2 for stage in STAGES},
    **{f"kernel{stage}": 3 for stage in STAGES},
    **{f"expansion{stage}": 6 for stage in STAGES},
}


@dataclass(frozen=True)
class MobileNet(Keyed):
    """One MobileNet: inverted residuals, `depthN` in stage N with `kernelN` and `expansionN`; `se`: squeeze-excite.

    `width` is the factor of all channels. Batch norm and ReLU6, as published. Raises ValueError for a choice that does
    not exist.
    """

    space: ClassVar[str] = "mobilenet"
    settings: tuple[tuple[str, Choice], ...]

    def __post_init__(self) -> None:
        check(self.space, self.choices, KNOWN)

    @property
    def choices(self) -> Mapping[str, Choice]:
        return dict(self.settings)

    def build(self, image_shape: ImageShape, num_classes: int) -> nn.Module:
        check_buildable(self, image_shape, num_classes)
        return MobileNetwork(self.choices, image_shape[0], num_classes)

    def shrunk(self) -> MobileNet | None:
        """Half the width, and half the blocks of each stage, rounded up."""
        own = self.choices
        if own["width"] not in NARROWER:
            return None
        fewer = {f"depth{stage}": (int(own[f"depth{stage}"]) + 1) // 2 for stage in STAGES}
        return _make({**own, "width": NARROWER[str(own["width"])], **fewer})


class MobileNetwork(StagedNetwork):
    """Stem, three stages of inverted residuals, 1x1 to the head's channels, global average pooling, linear."""

    def __init__(self, choices: Mapping[str, Any], channels: int, num_classes: int) -> None:
        super().__init__()
        factor = float(choices["width"])
        before = _rounded(STEM * factor)
        stride = 1 if choices["stem"] == "full" else 2
        self.stem = nn.Sequential(*convolution(channels, before, 3, stride), nn.ReLU6())
        layers: list[nn.Module] = []
        for stage in STAGES:
            after = _rounded(WIDTHS[stage - 1] * factor)
            kernel, expansion = choices[f"kernel{stage}"], choices[f"expansion{stage}"]
            for place in range(choices[f"depth{stage}"]):
                stride = 1 if place else 2
                layers.append(InvertedResidual(before, after, kernel, expansion, stride, nn.ReLU6, bool(choices["se"])))
                before = after
        self.layers = nn.Sequential(*layers)
        head = _rounded(HEAD * factor)
        self.head = nn.Sequential(*convolution(before, head, 1), nn.ReLU6(), *classifier(head, num_classes))


def _rounded(channels: float) -> int:
    return max(ROUNDED, round(channels / ROUNDED) * ROUNDED)


def _make(choices: Mapping[str, Choice]) -> MobileNet:
    return MobileNet(tuple((key, choices[key]) for key in OPTIONS))


MOBILENET = keyed_space("mobilenet", OPTIONS, _make, DEFAULTS, KNOWN)
