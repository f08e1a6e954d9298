"""ResNet-18, VGG-11 and AlexNet for small images: the cross-architecture networks of the papers.

Image sides of 8 pixels and more. Instance norm over a single pixel gives a constant, and with it a network that
cannot learn; so where the papers' 32 pixels shrink too far on smaller images, the reductions that would leave one pixel
for a later norm are left out (from the deepest up). At 32 pixels and more nothing is left out.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn import functional

from search_spaces.architecture import Architecture, ImageShape, check_buildable
from search_spaces.decisions import Choice
from search_spaces.messages import hint

SMALLEST_SIDE = 8
VGG11 = (64, "pool", 128, "pool", 256, 256, "pool", 512, 512, "pool", 512, 512, "pool")


@dataclass(frozen=True)
class ClassicNetwork(Architecture):
    """One named network. It has no settings and belongs to no space that could be searched.

    Raises ValueError for a name that does not exist.
    """

    network: str

    def __post_init__(self) -> None:
        if self.network not in BUILDERS:
            raise ValueError(f"unknown network {self.network!r}: {hint(self.network, BUILDERS)}")

    @property
    def name(self) -> str:
        return self.network

    @property
    def space(self) -> str:
        return "classic"

    @property
    def choices(self) -> Mapping[str, Choice]:
        return {"network": self.network}

    def obstacle(self, image_shape: ImageShape) -> str | None:
        if min(image_shape[1:]) >= SMALLEST_SIDE:
            return None
        return f"it needs a side of at least {SMALLEST_SIDE} pixels (choose a larger image size)"

    def build(self, image_shape: ImageShape, num_classes: int) -> nn.Module:
        check_buildable(self, image_shape, num_classes)
        return BUILDERS[self.network](image_shape, num_classes)


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions with instance norm beside a shortcut, which is 1x1 where the shape changes."""

    def __init__(self, channels_in: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels, 3, stride, padding=1, bias=False)
        self.norm1 = _instance_norm(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm2 = _instance_norm(channels)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or channels_in != channels:
            self.shortcut = nn.Sequential(
                nn.Conv2d(channels_in, channels, 1, stride, bias=False), _instance_norm(channels)
            )

    def forward(self, images: Tensor) -> Tensor:
        inner = functional.relu(self.norm1(self.conv1(images)))
        return functional.relu(self.norm2(self.conv2(inner)) + self.shortcut(images))


def resnet18(image_shape: ImageShape, num_classes: int) -> nn.Module:
    """3x3 stem without max-pool, four stages of two blocks at 64 .. 512 channels, global average pooling, linear.

    Stages 2 to 4 halve the side, rounding up; one that would leave a single pixel (stage 4 at 8 pixels) does not.
    """
    side = min(image_shape[1:])
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    layers["stem"] = nn.Conv2d(image_shape[0], 64, 3, padding=1, bias=False)
    layers["norm"] = _instance_norm(64)
    layers["activation"] = nn.ReLU()
    channels = 64
    for stage in range(1, 5):
        width = 32 * 2**stage
        stride = 2 if stage > 1 and (side + 1) // 2 > 1 else 1
        side = (side + 1) // 2 if stride == 2 else side
        layers[f"block{2 * stage - 1}"] = ResidualBlock(channels, width, stride)
        layers[f"block{2 * stage}"] = ResidualBlock(width, width, 1)
        channels = width
    return _classifier(layers, channels, num_classes)


def vgg11(image_shape: ImageShape, num_classes: int) -> nn.Module:
    """Eight 3x3 convolutions with bias and instance norm, five 2x2 max-pools, linear 512 -> K.

    Five pools bring 32 pixels to one. Below that, all but the last pool keep at least two pixels a side: 16 pixels have
    four pools and 8 have three. Larger images are averaged over what is left, so that the linear layer is the same.
    """
    side = min(image_shape[1:])
    channels = image_shape[0]
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    for place, item in enumerate(VGG11, start=1):
        if isinstance(item, int):
            layers[f"conv{place}"] = nn.Conv2d(channels, item, 3, padding=1)
            layers[f"norm{place}"] = _instance_norm(item)
            layers[f"activation{place}"] = nn.ReLU()
            channels = item
        elif side // 2 > 1 or place == len(VGG11):
            layers[f"pool{place}"] = nn.MaxPool2d(2)
            side //= 2
    return _classifier(layers, channels, num_classes)


def alexnet(image_shape: ImageShape, num_classes: int) -> nn.Module:
    """Convolutions 128 (5x5), pool, 192 (5x5), pool, 256, 192, 192 (3x3), pool, linear over what is left.

    ReLU after each convolution; padding keeps the side, 2x2 max-pools halve it, rounding down; no norm, no dropout.
    """
    channels, height, width = image_shape
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    plan = ((128, 5, True), (192, 5, True), (256, 3, False), (192, 3, False), (192, 3, True))
    for place, (filters, kernel, pool) in enumerate(plan, start=1):
        layers[f"conv{place}"] = nn.Conv2d(channels, filters, kernel, padding=kernel // 2)
        layers[f"activation{place}"] = nn.ReLU()
        channels = filters
        if pool:
            layers[f"pool{place}"] = nn.MaxPool2d(2)
            height, width = height // 2, width // 2
    layers["flatten"] = nn.Flatten()
    layers["linear"] = nn.Linear(channels * height * width, num_classes)
    return nn.Sequential(layers)


BUILDERS: dict[str, Callable[[ImageShape, int], nn.Module]] = {"resnet18": resnet18, "vgg11": vgg11, "alexnet": alexnet}


def _instance_norm(channels: int) -> nn.Module:
    return nn.GroupNorm(channels, channels)


def _classifier(layers: OrderedDict[str, nn.Module], channels: int, num_classes: int) -> nn.Sequential:
    layers["average"] = nn.AdaptiveAvgPool2d(1)
    layers["flatten"] = nn.Flatten()
    layers["linear"] = nn.Linear(channels, num_classes)
    return nn.Sequential(layers)
