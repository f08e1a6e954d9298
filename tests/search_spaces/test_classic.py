from __future__ import annotations

import pytest
import torch
from torch import nn

from search_spaces.base import NETWORKS, parameter_count
from search_spaces.classic import ClassicNetwork


@pytest.mark.parametrize(("name", "weights"), [("resnet18", 11_173_962), ("vgg11", 9_231_114), ("alexnet", 1_872_202)])
def test_the_weights_at_32_pixels(name: str, weights: int) -> None:
    # resnet18 and vgg11: as their well-known forms with batch norm, which has as many weights as instance norm
    assert parameter_count(NETWORKS[name], (3, 32, 32), 10) == weights


def maps(name: str, side: int) -> list[int]:
    """The side of the feature map after each convolution and pool of the main path, on the meta device."""
    with torch.device("meta"):
        network = NETWORKS[name].build((3, side, side), 10)
    sides: list[int] = []
    for part, module in network.named_modules():
        if isinstance(module, nn.Conv2d | nn.MaxPool2d) and "shortcut" not in part:
            module.register_forward_hook(lambda _module, _images, output: sides.append(output.shape[-1]))
    network(torch.empty(2, 3, side, side, device="meta"))
    return sides


def test_at_32_pixels_every_reduction_is_there() -> None:
    assert maps("resnet18", 32) == [32] * 5 + [16] * 4 + [8] * 4 + [4] * 4
    assert maps("vgg11", 32) == [32, 16, 16, 8, 8, 8, 4, 4, 4, 2, 2, 2, 1]
    assert maps("alexnet", 32) == [32, 16, 16, 8, 8, 8, 8, 4]


@pytest.mark.parametrize("side", [8, 9, 12, 15, 16, 28])
def test_small_images_never_reach_a_norm_as_one_pixel(side: int) -> None:
    assert min(maps("resnet18", side)) == 2 + (side > 16) * (-(-side // 8) - 2)
    assert maps("vgg11", side)[-2:] == [maps("vgg11", side)[-2], 1]
    assert min(maps("vgg11", side)[:-1]) >= 2
    assert maps("alexnet", side)[-1] == side // 8


def test_large_images_keep_the_linear_layer() -> None:
    for name in ("resnet18", "vgg11"):
        assert parameter_count(NETWORKS[name], (3, 64, 64), 10) == parameter_count(NETWORKS[name], (3, 32, 32), 10)


@pytest.mark.parametrize("name", NETWORKS)
def test_too_small_images_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} cannot carry 1 x 28 x 7 images: it needs a side of at least 8"):
        NETWORKS[name].build((1, 28, 7), 10)


def test_an_unknown_network_names_the_nearest() -> None:
    with pytest.raises(ValueError, match="unknown network 'resnet50': did you mean resnet18"):
        ClassicNetwork("resnet50")
