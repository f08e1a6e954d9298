"""Residual networks: what the choices mean."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from search_spaces.base import SPACES, flops, parameter_count, parse_architecture


def convolutions(text: str) -> list[nn.Conv2d]:
    network = parse_architecture(text).build((3, 32, 32), 10)
    return [module for module in network.modules() if isinstance(module, nn.Conv2d)]


def test_the_default_is_counted_by_hand() -> None:
    # Stem 3 -> 32; two blocks at 32; then at 64 and 128, the first of each with a 1x1 shortcut; norms; linear.
    stem = 3 * 32 * 9 + 64
    first = 4 * (32 * 32 * 9 + 64)
    second = 32 * 64 * 9 + 3 * 64 * 64 * 9 + 4 * 128 + 32 * 64 + 128
    third = 64 * 128 * 9 + 3 * 128 * 128 * 9 + 4 * 256 + 64 * 128 + 256
    linear = 128 * 10 + 10
    counted = parameter_count(parse_architecture("residual:"), (3, 32, 32), 10)
    assert counted == stem + first + second + third + linear


def test_resnet_20_of_the_paper_is_in_reach() -> None:
    """Three blocks a stage at 16 channels: 0.27 million (He et al., table 6; ours has 1x1 shortcuts)."""
    assert parameter_count(
        parse_architecture("residual:width=16,depth1=3,depth2=3,depth3=3"), (3, 32, 32), 10
    ) == pytest.approx(0.27e6, rel=0.02)


def test_a_bottleneck_is_four_times_as_wide_outside() -> None:
    middle = [
        conv for conv in convolutions("residual:width=16,block=bottleneck,kernel=5") if conv.kernel_size == (5, 5)
    ]
    assert {conv.in_channels for conv in middle} == {16, 32, 64}
    assert convolutions("residual:width=16,block=bottleneck")[-1].out_channels == 256


@pytest.mark.parametrize(
    ("stem", "kernel", "reduced"), [("conv3", 3, 1), ("conv5", 5, 1), ("half", 3, 2), ("quarter", 7, 4)]
)
def test_stems_halve_the_side_as_often_as_they_say(stem: str, kernel: int, reduced: int) -> None:
    network = parse_architecture(f"residual:stem={stem}").build((3, 64, 64), 10)
    assert isinstance(network.stem, nn.Sequential)
    first = network.stem[0]
    assert isinstance(first, nn.Conv2d)
    assert first.kernel_size == (kernel, kernel)
    assert network.stem(torch.zeros(1, 3, 64, 64)).shape == (1, 32, 64 // reduced, 64 // reduced)


def test_a_photo_costs_a_fraction_with_the_stem_for_photos() -> None:
    small, large = (
        flops(parse_architecture(f"residual:stem={stem}"), (3, 224, 224), 10) for stem in ("quarter", "conv3")
    )
    assert small < large / 12


def test_shrinking_ends() -> None:
    one = parse_architecture("residual:width=48,depth1=4,depth2=3")
    names = []
    while (one_smaller := one.shrunk()) is not None:
        names.append(one_smaller.name)
        one = one_smaller
    assert names[0] == "residual:width=24,depth1=2,depth2=2,depth3=1,stem=conv3,block=basic,kernel=3"
    assert names[-1] == "residual:width=8,depth1=1,depth2=1,depth3=1,stem=conv3,block=basic,kernel=3"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("width=33", "unknown width '33'"),
        ("widht=32", r"unknown key 'widht': did you mean width"),
        ("width=32,width=32", "given twice"),
        ("width", "not key=value"),
        ("stem=conv7", "did you mean conv"),
    ],
)
def test_a_wrong_setting_is_named_with_the_choices(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SPACES["residual"].parse(text)
