"""MobileNets: what the choices mean."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from search_spaces.base import SPACES, flops, parameter_count, parse_architecture
from search_spaces.layers import SqueezeExcite


def network(text: str, side: int = 32) -> nn.Module:
    return parse_architecture(f"mobilenet:{text}").build((3, side, side), 10)


def depthwise(of: nn.Module) -> list[nn.Conv2d]:
    return [module for module in of.modules() if isinstance(module, nn.Conv2d) and module.groups > 1]


def test_the_smallest_is_counted_by_hand() -> None:
    def block(before: int, after: int, kernel: int = 3, expansion: int = 3) -> int:
        wide = before * expansion
        return before * wide + wide * kernel**2 + wide * after + 4 * wide + 2 * after

    # Half of 16, 24, 40, 80 and 320, to multiples of 8: 8, 8 (12 is half way, to the even one: 16), 24 (20), 40, 160.
    text = "mobilenet:width=0.5," + ",".join(f"depth{s}=1,expansion{s}=3" for s in (1, 2, 3))
    counted = parameter_count(parse_architecture(text), (3, 32, 32), 10)
    stem = 3 * 8 * 9 + 16
    head = 40 * 160 + 320 + 160 * 10 + 10
    assert counted == stem + block(8, 16) + block(16, 16) + block(16, 40) + head


def test_kernels_expansions_and_depths_are_those_of_their_stage() -> None:
    found = depthwise(network("kernel1=3,kernel2=5,kernel3=7,depth1=1,depth2=2,depth3=3,expansion1=3"))
    assert [conv.kernel_size[0] for conv in found] == [3, 5, 5, 7, 7, 7]
    assert [conv.stride[0] for conv in found] == [2, 2, 1, 2, 1, 1]
    assert [conv.in_channels for conv in found] == [48, 144, 240, 240, 480, 480]


def test_squeeze_excite_scales_channels_by_gates_between_0_and_1() -> None:
    assert not [module for module in network("se=0").modules() if isinstance(module, SqueezeExcite)]
    gates = [module for module in network("se=1").modules() if isinstance(module, SqueezeExcite)]
    assert len(gates) == 6
    convolution = gates[0].gate[1]
    assert isinstance(convolution, nn.Conv2d)
    images = torch.rand(2, convolution.in_channels, 4, 4)
    ratio = gates[0](images) / images
    assert ((ratio > 0) & (ratio < 1)).all()
    assert (ratio.flatten(2).std(2) < 1e-5).all()


def test_half_the_stem_is_a_quarter_of_the_work() -> None:
    full, half = (flops(parse_architecture(f"mobilenet:stem={stem}"), (3, 224, 224), 10) for stem in ("full", "half"))
    assert half == pytest.approx(full / 4, rel=0.02)


def test_shrunk_networks_are_half_as_wide_and_half_as_deep() -> None:
    one = parse_architecture("mobilenet:width=1.5,depth3=3")
    smaller = one.shrunk()
    assert smaller is not None
    assert {key: value for key, value in smaller.choices.items() if one.choices[key] != value} == {
        "width": "0.75",
        "depth1": 1,
        "depth2": 1,
        "depth3": 2,
    }
    assert smaller.shrunk() is None


def test_a_width_that_only_shrunk_networks_have_is_not_searched() -> None:
    assert "0.25" not in {architecture.choices["width"] for architecture in SPACES["mobilenet"].architectures()[::101]}
    with pytest.raises(ValueError, match="unknown width '2'"):
        SPACES["mobilenet"].parse("width=2")
