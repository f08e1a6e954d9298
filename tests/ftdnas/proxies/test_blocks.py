from __future__ import annotations

from collections import OrderedDict

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from ftdnas.proxies.blocks import norms_in_training, visit_blocks
from search_spaces.base import NETWORKS, SPACES, parse_architecture
from search_spaces.decisions import RandomDecisions


def shapes(network: nn.Module, side: int = 16, channels: int = 3) -> list[tuple[int, ...]]:
    found: list[tuple[int, ...]] = []

    def visit(features: Tensor) -> Tensor:
        found.append(tuple(features.shape))
        return features

    with torch.no_grad():
        visit_blocks(network, torch.randn(2, channels, side, side), visit)
    return found


def test_declared_blocks_are_taken_at_their_word() -> None:
    network = parse_architecture("nasbench201:cells=1:|none~0|+|none~0|none~1|+|nor_conv_3x3~0|none~1|none~2|")
    assert [shape[1:] for shape in shapes(network.build((3, 16, 16), 10))] == [
        (16, 16, 16),
        (16, 16, 16),
        (32, 8, 8),
        (32, 8, 8),
        (64, 4, 4),
        (64, 4, 4),
    ]


def test_a_layer_that_is_left_out_is_no_block() -> None:
    whole, short = (parse_architecture(f"macro:{text}").build((3, 16, 16), 10) for text in ("11111111", "10100111"))
    assert len(shapes(whole)) == 9
    assert len(shapes(short)) == 6


def test_flat_sequence_is_cut_after_each_convolution_and_its_norm() -> None:
    network = parse_architecture("convnet:width=32,depth=3,norm=batch,pooling=max").build((3, 16, 16), 10)
    # The stem conv-norm; activation, pool, conv, norm twice; and the last activation and pool.
    assert [shape[1:] for shape in shapes(network)] == [(32, 16, 16), (32, 8, 8), (32, 4, 4), (32, 2, 2)]


def test_a_convnet_of_depth_one_has_a_block_after_its_stem() -> None:
    for norm in ("none", "layer"):
        network = parse_architecture(f"convnet:width=32,depth=1,norm={norm},pooling=avg").build((3, 16, 16), 10)
        assert [shape[2:] for shape in shapes(network)] == [(16, 16), (8, 8)]


class Bottle(nn.Module):
    """A block that works in place, as torchvision's do."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(before, after, 3, stride, 1)
        self.norm = nn.BatchNorm2d(after)
        self.activation = nn.ReLU(inplace=True)

    def forward(self, images: Tensor) -> Tensor:
        out: Tensor = self.activation(self.norm(self.conv(images)))
        return out


class Users(nn.Module):
    """Blocks in a list inside a body; a pool and a linear layer by functions."""

    def __init__(self) -> None:
        super().__init__()
        self.body = Body()
        self.linear = nn.Linear(16, 5)

    def forward(self, images: Tensor) -> Tensor:
        scores: Tensor = self.linear(functional.adaptive_avg_pool2d(self.body(images), 1).flatten(1))
        return scores


class Body(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.steps = nn.ModuleList([Bottle(8, 8, 1), Bottle(8, 16, 2)])

    def forward(self, images: Tensor) -> Tensor:
        features = functional.relu(self.stem(images))
        for step in self.steps:
            features = step(features)
        return features


def test_blocks_are_found_inside_the_module_that_holds_them() -> None:
    assert [shape[1:] for shape in shapes(Users())] == [(8, 16, 16), (8, 16, 16), (16, 8, 8)]


def test_a_list_named_blocks_is_no_declaration() -> None:
    class Named(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.blocks = nn.Conv2d(3, 8, 1), nn.ModuleList([Bottle(8, 8, 1), Bottle(8, 8, 2)])

        def forward(self, images: Tensor) -> Tensor:
            features: Tensor = self.stem(images)
            for block in self.blocks:
                features = block(features)
            return features.mean((2, 3))

    assert [shape[1:] for shape in shapes(Named())] == [(8, 16, 16), (8, 16, 16), (8, 8, 8)]


def test_a_block_called_twice_counts_twice() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.block = nn.Conv2d(3, 8, 1), Bottle(8, 8, 1)

        def forward(self, images: Tensor) -> Tensor:
            features: Tensor = self.block(self.block(self.stem(images)))
            return features.mean((2, 3))

    assert len(shapes(Twice())) == 3


def test_dropout_and_global_pooling_are_no_blocks() -> None:
    layers = OrderedDict(
        stem=nn.Conv2d(3, 8, 3),
        block=Bottle(8, 8, 2),
        dropout=nn.Dropout2d(),
        average=nn.AdaptiveAvgPool2d(1),
        flatten=nn.Flatten(),
        linear=nn.Linear(8, 4),
    )
    assert [shape[1:] for shape in shapes(nn.Sequential(layers))] == [(8, 14, 14), (8, 7, 7)]


@pytest.mark.parametrize(
    "network", [nn.Sequential(nn.Flatten(), nn.Linear(768, 16), nn.ReLU(), nn.Linear(16, 4)), nn.Conv2d(3, 4, 16)]
)
def test_a_network_without_blocks_is_refused(network: nn.Module) -> None:
    with pytest.raises(ValueError, match="its blocks cannot be found: give the network a method blocks"):
        shapes(network)


@pytest.mark.parametrize("name", [*SPACES, *NETWORKS])
def test_every_space_of_this_package_has_blocks(name: str) -> None:
    generator = torch.Generator().manual_seed(3)
    for _ in range(1 if name in NETWORKS else 4):
        architecture = NETWORKS.get(name) or SPACES[name].suggest(RandomDecisions(generator))
        if architecture.obstacle((3, 16, 16)) is None:
            assert len(shapes(architecture.build((3, 16, 16), 10))) >= 2


def test_norms_alone_are_in_training_and_all_is_put_back() -> None:
    network = nn.Sequential(nn.Dropout(), nn.BatchNorm2d(3), nn.ReLU(inplace=True)).eval()
    with norms_in_training(network):
        assert [part.training for part in network] == [False, True, False]
    assert not any(part.training for part in network)
