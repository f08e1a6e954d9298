from __future__ import annotations

import itertools
import random

import pytest
import torch
from torch import nn

from search_spaces.base import SPACES, parameter_count, parse_architecture
from search_spaces.nasbench201 import CONVOLUTIONS, OPERATIONS, Cell, CellModule

SPACE = SPACES["nasbench201"]


def cell(text: str) -> Cell:
    found = parse_architecture(f"nasbench201:{text}")
    assert isinstance(found, Cell)
    return found


def test_the_names_are_the_benchmarks() -> None:
    name = "nasbench201:|avg_pool_3x3~0|+|nor_conv_1x1~0|skip_connect~1|+|none~0|nor_conv_3x3~1|skip_connect~2|"
    found = parse_architecture(name)
    assert found.name == name
    assert list(found.choices.values()) == [
        "avg_pool_3x3",
        "nor_conv_1x1",
        "skip_connect",
        "none",
        "nor_conv_3x3",
        "skip_connect",
    ]
    shrunk = found.shrunk()
    assert shrunk is not None
    assert shrunk.name == name.replace(":", ":cells=1:", 1)
    assert shrunk.shrunk() is None
    assert len(SPACE.architectures()) == 15_625


@pytest.mark.parametrize(
    ("operation", "weights"), [("none", 73_306), ("nor_conv_1x1", 241_306), ("nor_conv_3x3", 1_531_546)]
)
def test_the_weights_are_the_published_ones(operation: str, weights: int) -> None:
    architecture = Cell((operation,) * 6)
    assert parameter_count(architecture, (3, 32, 32), 10) == weights
    assert sum(tensor.numel() for tensor in architecture.build((3, 32, 32), 10).parameters()) == weights


def test_each_edge_carries_its_operation_from_its_node() -> None:
    """Identities count the ways through the cell, the pool leaves a constant alone, "none" closes an edge."""
    ones = torch.ones(1, 4, 5, 5)
    assert torch.equal(CellModule(("skip_connect",) * 6, 4)(ones), 4 * ones)  # 03, 013, 023, 0123
    assert torch.allclose(CellModule(("avg_pool_3x3",) * 6, 4)(ones), 4 * ones)
    only_13 = CellModule(("skip_connect", "none", "none", "none", "skip_connect", "none"), 4)
    assert torch.equal(only_13(ones), ones)
    assert torch.equal(CellModule(("none", *("skip_connect",) * 2, "none", *("skip_connect",) * 2), 4)(ones), ones)


def test_a_conv_is_relu_conv_norm_without_bias() -> None:
    kinds = [type(layer) for layer in CellModule(("nor_conv_3x3",) * 6, 4).edges[0].children()]
    assert kinds == [nn.ReLU, nn.Conv2d, nn.BatchNorm2d]


def test_the_stages_are_halved_and_doubled() -> None:
    network = Cell(("skip_connect",) * 6).build((3, 32, 32), 10)
    shapes = []
    images = torch.randn(2, 3, 32, 32)
    for block in network.blocks():
        images = block(images)
        shapes.append(tuple(images.shape[1:]))
    assert shapes == [(16, 32, 32)] * 6 + [(32, 16, 16)] * 6 + [(64, 8, 8)] * 6


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("|nor_conv_3x3~0|", r"is not \|op~0\|\+"),
        ("", r"is not \|op~0\|\+"),
        ("|conv~0|+|none~0|none~1|+|none~0|none~1|none~2|", "unknown operation 'conv'"),
        ("|nor_conv_5x5~0|+|none~0|none~1|+|none~0|none~1|none~2|", "did you mean nor_conv_3x3"),
        ("|none~0|+|none~1|none~0|+|none~0|none~1|none~2|", r"is not \|op~0\|\+"),
        ("|none~0|+|none~0|none~1|+|none~0|none~1|none~2", r"is not \|op~0\|\+"),
        ("|none~0|+|none~0|none~1|+|none~0|none~1|none~2|+|none~0|", r"is not \|op~0\|\+"),
        ("cells=9:|none~0|+|none~0|none~1|+|none~0|none~1|none~2|", "cells=9 is not between 1 and 5"),
    ],
)
def test_what_is_not_in_the_space_is_said(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        cell(text)
    assert "\n" not in str(error.value)


def test_images_too_small_for_two_halvings_are_refused() -> None:
    architecture = Cell(("none",) * 6)
    assert architecture.obstacle((3, 4, 9)) is None
    with pytest.raises(ValueError, match="needs at least 4 pixels"):
        architecture.build((3, 3, 9), 10)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        # Two nodes change places.
        (
            "|nor_conv_3x3~0|+|none~0|none~1|+|none~0|nor_conv_1x1~1|none~2|",
            "|none~0|+|nor_conv_3x3~0|none~1|+|none~0|none~1|nor_conv_1x1~2|",
        ),
        # What does not reach the output.
        (
            "|nor_conv_3x3~0|+|avg_pool_3x3~0|none~1|+|skip_connect~0|none~1|none~2|",
            "|none~0|+|none~0|none~1|+|skip_connect~0|none~1|none~2|",
        ),
        # An identity on the way.
        (
            "|skip_connect~0|+|none~0|nor_conv_3x3~1|+|none~0|none~1|skip_connect~2|",
            "|none~0|+|none~0|none~1|+|nor_conv_3x3~0|none~1|none~2|",
        ),
        # The pool of a sum.
        (
            "|nor_conv_3x3~0|+|skip_connect~0|skip_connect~1|+|none~0|none~1|avg_pool_3x3~2|",
            "|nor_conv_3x3~0|+|none~0|none~1|+|avg_pool_3x3~0|avg_pool_3x3~1|none~2|",
        ),
    ],
)
def test_cells_that_compute_the_same_are_one(one: str, other: str) -> None:
    assert cell(one).representative() == cell(other).representative()


def test_a_convolution_used_twice_is_not_two_convolutions() -> None:
    twice = cell("|nor_conv_3x3~0|+|none~0|skip_connect~1|+|none~0|skip_connect~1|skip_connect~2|")
    two = cell("|nor_conv_3x3~0|+|nor_conv_3x3~0|none~1|+|none~0|skip_connect~1|skip_connect~2|")
    assert twice.representative() != two.representative()


def test_a_convolution_of_zeros_is_not_nothing() -> None:
    shift = cell("|none~0|+|none~0|nor_conv_1x1~1|+|skip_connect~0|none~1|skip_connect~2|")
    nothing = cell("|none~0|+|none~0|none~1|+|skip_connect~0|none~1|none~2|")
    assert shift.representative() != nothing.representative()


WIDTH = 2


def outputs(architecture: Cell) -> set[float]:
    """What a cell's output sums to, for every way to deal the same weights out to its convolutions of a kind."""
    module = CellModule(architecture.operations, WIDTH).double().eval()
    places = [[e for e, op in enumerate(architecture.operations) if op == kind] for kind in CONVOLUTIONS]
    found = set()
    generator = torch.Generator().manual_seed(0)
    images, probe = torch.randn(2, 1, WIDTH, 4, 4, dtype=torch.float64, generator=generator)
    kernels = [torch.randn(6, WIDTH, WIDTH, k, k, dtype=torch.float64, generator=generator) for k in (1, 3)]
    shifts = torch.randn(2, 6, WIDTH, dtype=torch.float64, generator=generator)
    for dealt in itertools.product(*(itertools.permutations(range(len(edges))) for edges in places)):
        for kind, (edges, numbers) in enumerate(zip(places, dealt, strict=True)):
            for edge, number in zip(edges, numbers, strict=True):
                _, conv, norm = module.edges[edge].children()
                conv.weight.data, norm.bias.data = kernels[kind][number], shifts[kind, number]
        with torch.no_grad():
            found.add(round(float((module(images) * probe).sum()), 6))
    return found


def test_representatives_agree_with_what_cells_compute() -> None:
    """Of cells without dead convolutions, for which equal weights can be dealt out in every way."""
    cells = random.Random(0).sample([Cell(ops) for ops in itertools.product(OPERATIONS, repeat=6)], 1_200)
    cells = [one for one in cells if sum(op in CONVOLUTIONS for op in one.operations) in (1, 2, 3)]
    cells = [
        one for one in cells if all(_matters(one, edge) for edge in range(6) if one.operations[edge] in CONVOLUTIONS)
    ]
    classes: dict[Cell, set[frozenset[float]]] = {}
    for one in cells:
        classes.setdefault(one.representative(), set()).add(frozenset(outputs(one)))
    assert len(classes) < len(cells) - 100  # many have company
    assert all(len(functions) == 1 for functions in classes.values())
    assert len({next(iter(functions)) for functions in classes.values()}) == len(classes)


def _matters(one: Cell, edge: int) -> bool:
    """Whether the edge ends in a node from which the output is reached."""
    target = (1, 2, 2, 3, 3, 3)[edge]
    ways = {3: True, 2: one.operations[5] != "none"}
    ways[1] = one.operations[4] != "none" or (one.operations[2] != "none" and ways[2])
    return ways[target]


def test_how_many_cells_differ() -> None:
    assert len({architecture.representative() for architecture in SPACE.architectures()}) == 5_554
