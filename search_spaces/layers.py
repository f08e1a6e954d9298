"""Parts that networks of several spaces are made of. Their order is that in which weights are drawn: it must stay."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn


class StagedNetwork(nn.Module):
    """A stem, layers one after the other, and a head: (N, C, H, W) -> (N, K)."""

    stem: nn.Module
    layers: nn.Sequential
    head: nn.Module

    def forward(self, images: Tensor) -> Tensor:
        scores: Tensor = self.head(self.layers(self.stem(images)))
        return scores

    def blocks(self) -> list[nn.Module]:
        """The stem, then what follows it block by block: what training-free measures look at."""
        return [self.stem, *self.layers]


class InvertedResidual(nn.Module):
    """1x1 expand, depthwise, squeeze-excite if asked for, 1x1 project; with a shortcut where the shape is kept."""

    def __init__(
        self,
        before: int,
        after: int,
        kernel: int,
        expansion: int,
        stride: int,
        activation: Callable[[], nn.Module] = nn.ReLU,
        excite: bool = False,
    ) -> None:
        super().__init__()
        wide = before * expansion
        self.kept = stride == 1 and before == after
        self.body = nn.Sequential(
            *convolution(before, wide, 1),
            activation(),
            *convolution(wide, wide, kernel, stride, groups=wide),
            activation(),
            *([SqueezeExcite(wide)] if excite else []),
            *convolution(wide, after, 1),
        )

    def forward(self, images: Tensor) -> Tensor:
        changed: Tensor = self.body(images)
        return images + changed if self.kept else changed


class SqueezeExcite(nn.Module):
    """Scales each channel by a gate that all channels' means decide; its middle is four times narrower."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        middle = max(1, channels // 4)
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


def convolution(before: int, after: int, kernel: int, stride: int = 1, groups: int = 1) -> tuple[nn.Module, nn.Module]:
    """A convolution that keeps the side, or divides it by `stride`, rounding up; and batch norm in place of a bias."""
    return (
        nn.Conv2d(before, after, kernel, stride=stride, padding=kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(after),
    )


def classifier(channels: int, num_classes: int) -> tuple[nn.Module, ...]:
    """Global average pooling and a linear layer."""
    return nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, num_classes)
