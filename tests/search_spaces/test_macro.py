from __future__ import annotations

import pytest
import torch
from torch import nn

from search_spaces.base import SPACES, parameter_count, parse_architecture, random_architectures
from search_spaces.layers import InvertedResidual
from search_spaces.macro import Chain

SPACE = SPACES["macro"]


@pytest.mark.parametrize(
    ("layers", "weights"), [("00000000", 387_882), ("11111111", 1_588_874), ("22222222", 2_932_586)]
)
def test_the_weights_are_the_published_ones(layers: str, weights: int) -> None:
    architecture = parse_architecture(f"macro:{layers}")
    assert architecture.name == f"macro:{layers}"
    assert parameter_count(architecture, (3, 32, 32), 10) == weights
    assert sum(tensor.numel() for tensor in architecture.build((3, 32, 32), 10).parameters()) == weights


def test_the_6561_are_counted_in_base_three() -> None:
    everything = SPACE.architectures()
    assert len(everything) == 6_561
    assert [everything[place].name for place in (0, 1, 3, -1)] == [
        "macro:00000000",
        "macro:00000001",
        "macro:00000010",
        "macro:22222222",
    ]


def test_the_first_layer_of_a_stage_halves_the_side_and_doubles_the_channels() -> None:
    network = Chain("01220012").build((3, 32, 32), 10)
    shapes = []
    images = torch.randn(2, 3, 32, 32)
    for block in network.blocks():
        images = block(images)
        shapes.append(tuple(images.shape[1:]))
    assert shapes == [(32, 32, 32)] + [(64, 16, 16)] * 2 + [(128, 8, 8)] * 3 + [(256, 4, 4)] * 3
    layers = network.blocks()[1:]
    assert [isinstance(layer, InvertedResidual) for layer in layers] == [kind != "0" for kind in "01220012"]
    assert isinstance(layers[4], nn.Identity)
    assert [layer.kept for layer in layers if isinstance(layer, InvertedResidual)] == [True, False, True, True, True]


def test_a_shrunk_chain_has_half_the_channels() -> None:
    shrunk = parse_architecture("macro:01220012").shrunk()
    assert isinstance(shrunk, Chain)
    assert shrunk.name == "macro:channels=1/2:01220012"
    assert shrunk.shrunk() is None
    widths = [
        block(torch.randn(2, *shape)).shape[1] for block, shape in [(shrunk.build((3, 16, 16), 4).stem, (3, 16, 16))]
    ]
    assert widths == [16]
    assert parse_architecture(shrunk.name) == shrunk


@pytest.mark.parametrize("text", ["0123", "00000003", "000000000", "channels=1/4:00000000", "", "0000000²"])
def test_what_is_not_in_the_space_is_said(text: str) -> None:
    with pytest.raises(ValueError, match="is not 8 digits of 0, 1 and 2, such as 01220012"):
        parse_architecture(f"macro:{text}")


def test_images_too_small_for_three_halvings_are_refused() -> None:
    architecture = Chain("00000000")
    assert architecture.obstacle((3, 8, 9)) is None
    with pytest.raises(ValueError, match="needs at least 8 pixels"):
        architecture.build((3, 7, 9), 10)


@pytest.mark.parametrize("seed", range(4))
def test_a_representative_computes_the_same_with_the_same_weights(seed: int) -> None:
    """The layers keep their order, so the weights can be carried over one by one."""
    chain = random_architectures(SPACE, 8, seed)[-1]
    first = chain.representative()
    networks = chain.build((3, 16, 16), 10).eval(), first.build((3, 16, 16), 10).eval()
    weights = list(networks[0].state_dict().values())
    target = networks[1].state_dict()
    assert [tensor.shape for tensor in weights] == [tensor.shape for tensor in target.values()]
    networks[1].load_state_dict(dict(zip(target, weights, strict=True)))
    images = torch.randn(2, 3, 16, 16)
    assert torch.equal(networks[0](images), networks[1](images))


def test_the_order_of_identities_does_not_matter_but_a_stages_first_layer_does() -> None:
    assert Chain("01110020").representative() == Chain("01101020").representative() == Chain("01101002")
    assert Chain("00101021").representative() != Chain("00101012").representative()
    assert Chain("01000000").representative() != Chain("10000000").representative()
