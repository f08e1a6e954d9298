from __future__ import annotations

import pytest
import torch
from torch import nn

from search_spaces.base import SPACES, parameter_count, parse_architecture
from search_spaces.convnet import ConvNet

SPACE = SPACES["convnet"]
DEFAULT = "convnet:width=128,depth=3,norm=instance,activation=relu,pooling=avg"


def test_the_720_have_the_papers_weights() -> None:
    counts = [parameter_count(architecture, (3, 32, 32), 10) for architecture in SPACE.architectures()]
    assert len(counts) == 720
    assert len(set(counts)) == 96
    assert (min(counts), max(counts)) == (24_522, 6_496_010)


def test_the_default_is_the_papers_backbone() -> None:
    network = parse_architecture("convnet").build((3, 32, 32), 10)
    kinds = [type(layer) for layer in network.children()]
    assert kinds == [nn.Conv2d, nn.GroupNorm, nn.ReLU, nn.AvgPool2d] * 3 + [nn.Flatten, nn.Linear]
    assert sum(weights.numel() for weights in network.parameters()) == 320_010
    # Grey images are padded by 1 too; the released code, which pads them by 3, has 317,706 (docs/departures.md).
    assert parameter_count(parse_architecture("convnet"), (1, 28, 28), 10) == 308_746
    assert parameter_count(parse_architecture("convnet:depth=5"), (3, 128, 128), 10) == 615_690


def test_each_choice_changes_the_layer_it_names() -> None:
    def layers(text: str) -> str:
        return str(parse_architecture(text).build((3, 16, 16), 10))

    assert "GroupNorm(4, 64" in layers("convnet:width=64,norm=group")
    assert "GroupNorm(64, 64" in layers("convnet:width=64,norm=instance")
    assert "LayerNorm((64, 8, 8)" in layers("convnet:width=64,norm=layer")
    assert "BatchNorm2d(64" in layers("convnet:width=64,norm=batch")
    assert "Norm" not in layers("convnet:norm=none")
    assert "MaxPool2d(kernel_size=2" in layers("convnet:pooling=max")
    assert "Pool" not in layers("convnet:pooling=none")
    assert "LeakyReLU(negative_slope=0.01)" in layers("convnet:activation=leakyrelu")
    assert "Sigmoid" in layers("convnet:activation=sigmoid")


def test_parsing_takes_any_order_spaces_and_defaults() -> None:
    assert parse_architecture(" convnet: pooling=max , width=64 ") == ConvNet(width=64, pooling="max")
    assert parse_architecture("convnet").name == parse_architecture("convnet:").name == DEFAULT


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("widht=64", r"unknown key 'widht': did you mean width\?"),
        ("colour=red", "unknown key 'colour': choose from width, depth, norm, activation, pooling"),
        ("norm=instanse", r"unknown norm 'instanse': did you mean instance\?"),
        ("norm=x", "unknown norm 'x': choose from none, batch, layer, instance, group"),
        ("width=wide", "width=wide is not a whole number between 1 and 4096"),
        ("width=-64", "width=-64 is not a whole number"),
        ("depth=0", "depth=0 is not a whole number between 1 and 16"),
        ("width=64,width=32", "width is given twice"),
        ("width", "'width' is not key=value"),
        ("width=64,", "'' is not key=value"),
        ("norm=group,width=30", "width=30 cannot be split into the 4 groups"),
    ],
)
def test_a_wrong_setting_is_named_with_its_way_out(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_architecture(f"convnet:{text}")


@pytest.mark.parametrize(("side", "left_out"), [(32, 0), (16, 0), (15, 120), (8, 120), (7, 240)])
def test_a_space_leaves_out_what_pooling_would_shrink_to_nothing(side: int, left_out: int) -> None:
    # depth 4 needs 16 pixels, depth 3 needs 8: 120 architectures of each depth have a pooling
    infeasible = [a for a in SPACE.architectures() if a.obstacle((3, side, side)) is not None]
    assert len(infeasible) == left_out
    assert all(architecture.choices["pooling"] != "none" for architecture in infeasible)
    for architecture in infeasible[:1]:
        with pytest.raises(ValueError, match=r"pooling leaves less than one pixel .needs a side of at least (8|16)"):
            architecture.build((3, side, side), 10)


def test_a_network_made_in_python_is_checked_too() -> None:
    with pytest.raises(ValueError, match="width=0 is not a whole number between 1 and 4096"):
        ConvNet(width=0)
    with pytest.raises(ValueError, match="unknown pooling 'sum': choose from none, max, avg"):
        ConvNet(pooling="sum")


def test_backbones_may_be_deeper_and_narrower_than_the_space() -> None:
    network = parse_architecture("convnet:width=8,depth=5").build((3, 128, 128), 10)
    assert isinstance(network, nn.Sequential)
    with torch.no_grad():
        assert network[:-2](torch.randn(1, 3, 128, 128)).shape == (1, 8, 4, 4)
