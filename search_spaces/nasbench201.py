"""NAS-Bench-201 (Dong & Yang, ICLR 2020, arXiv 2001.00326): 15,625 cells of four nodes and six edges.

Node 0 is the cell's input and node 3 its output; each later node is the sum of one operation on every node before it.
"""

from __future__ import annotations

import functools
import itertools
import operator
import re
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from search_spaces.architecture import Architecture, ImageShape, check_buildable
from search_spaces.decisions import Choice
from search_spaces.layers import classifier, convolution
from search_spaces.messages import hint
from search_spaces.product import ProductSpace

OPERATIONS = ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")
EDGES = ((1, 0), (2, 0), (2, 1), (3, 0), (3, 1), (3, 2))  # (to, from), in the order of the string
CONVOLUTIONS = ("nor_conv_1x1", "nor_conv_3x3")
CELLS = 5  # of each of the three stages
NODES = ["".join(rf"([^~|]*)~{source}\|" for source in range(node)) for node in range(1, 4)]
FORM = re.compile(r"(?:cells=(\d+):)?" + r"\+".join(rf"\|{node}" for node in NODES))  # of the benchmark's string
OPTIONS: Mapping[str, tuple[Choice, ...]] = {f"node{target}_from{source}": OPERATIONS for target, source in EDGES}


@dataclass(frozen=True)
class Cell(Architecture):
    """One architecture: the operation of each edge, in the order of the benchmark's string.

    `cells` a stage: 5 in the benchmark, 1 when shrunk. Raises ValueError for an operation that does not exist.
    """

    space: ClassVar[str] = "nasbench201"
    operations: tuple[str, ...]
    cells: int = CELLS

    def __post_init__(self) -> None:
        if len(self.operations) != len(EDGES):
            raise ValueError(f"nasbench201: {len(self.operations)} operations, a cell has {len(EDGES)}")
        for operation in self.operations:
            if operation not in OPERATIONS:
                raise ValueError(f"nasbench201: unknown operation {operation!r}: {hint(operation, OPERATIONS)}")
        if not 1 <= self.cells <= CELLS:
            raise ValueError(f"nasbench201: cells={self.cells} is not between 1 and {CELLS}")

    @property
    def text(self) -> str:
        """The benchmark's own string."""
        parts = [f"{operation}~{source}" for operation, (_, source) in zip(self.operations, EDGES, strict=True)]
        return f"|{parts[0]}|+|{'|'.join(parts[1:3])}|+|{'|'.join(parts[3:])}|"

    @property
    def name(self) -> str:
        return f"nasbench201:{'' if self.cells == CELLS else f'cells={self.cells}:'}{self.text}"

    @property
    def choices(self) -> Mapping[str, Choice]:
        return dict(zip(OPTIONS, self.operations, strict=True))

    @property
    def cost_key(self) -> Hashable:
        return self.cells, self.operations.count("nor_conv_1x1"), self.operations.count("nor_conv_3x3")

    def obstacle(self, image_shape: ImageShape) -> str | None:
        _, height, width = image_shape
        return None if min(height, width) >= 4 else "two stages halve the side (needs at least 4 pixels)"

    def build(self, image_shape: ImageShape, num_classes: int) -> CellNetwork:
        check_buildable(self, image_shape, num_classes)
        return CellNetwork(self.operations, self.cells, image_shape[0], num_classes)

    def shrunk(self) -> Cell | None:
        """One cell a stage."""
        return None if self.cells == 1 else replace(self, cells=1)

    def representative(self) -> Cell:
        """The first of the benchmark's cells that computes the same functions."""
        return replace(self, operations=_representatives()[self.operations])


class CellNetwork(nn.Module):
    """Stem, three stages of cells with a residual block before the second and third, head."""

    widths = (16, 32, 64)

    def __init__(self, operations: Sequence[str], cells: int, channels: int, num_classes: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(*convolution(channels, self.widths[0], 3))
        layers: list[nn.Module] = []
        before = self.widths[0]
        for width in self.widths:
            if width != before:
                layers.append(Reduction(before, width))
            layers += [CellModule(operations, width) for _ in range(cells)]
            before = width
        self.cells = nn.Sequential(*layers)
        self.head = nn.Sequential(nn.BatchNorm2d(before), nn.ReLU(), *classifier(before, num_classes))

    def forward(self, images: Tensor) -> Tensor:
        scores: Tensor = self.head(self.cells(self.stem(images)))
        return scores

    def blocks(self) -> list[nn.Module]:
        """The stem, then what follows it block by block: what training-free measures look at."""
        return [self.stem, *self.cells]


class CellModule(nn.Module):
    """One cell: (N, C, H, W) of the same shape in and out."""

    def __init__(self, operations: Sequence[str], width: int) -> None:
        super().__init__()
        self.edges = nn.ModuleList(_operation(operation, width) for operation in operations)

    def forward(self, images: Tensor) -> Tensor:
        nodes = [images]
        edges = iter(self.edges)
        for _ in range(3):
            nodes.append(functools.reduce(operator.add, [next(edges)(node) for node in nodes]))
        return nodes[-1]


class Reduction(nn.Module):
    """The residual block that halves the side."""

    def __init__(self, before: int, width: int) -> None:
        super().__init__()
        self.first = _convolution(before, width, 3, stride=2)
        self.second = _convolution(width, width, 3)
        self.shortcut = nn.Sequential(nn.AvgPool2d(2, stride=2), nn.Conv2d(before, width, kernel_size=1, bias=False))

    def forward(self, images: Tensor) -> Tensor:
        long: Tensor = self.second(self.first(images))
        short: Tensor = self.shortcut(images)
        # An odd side: the strided convolution rounds up, the pool down.
        return long[:, :, : short.shape[2], : short.shape[3]] + short


class Zero(nn.Module):
    """The operation "none"."""

    def forward(self, images: Tensor) -> Tensor:
        return torch.zeros_like(images)


def _operation(name: str, width: int) -> nn.Module:
    if name == "none":
        return Zero()
    if name == "skip_connect":
        return nn.Identity()
    if name == "avg_pool_3x3":
        return nn.AvgPool2d(3, stride=1, padding=1, count_include_pad=False)
    return _convolution(width, width, 1 if name == "nor_conv_1x1" else 3)


def _convolution(before: int, width: int, kernel: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(nn.ReLU(), *convolution(before, width, kernel, stride))


@functools.cache
def _representatives() -> dict[tuple[str, ...], tuple[str, ...]]:
    """For every cell's operations, those of the first cell that computes the same."""
    first: dict[Hashable, tuple[str, ...]] = {}
    everything = itertools.product(OPERATIONS, repeat=len(EDGES))
    return {operations: first.setdefault(_function(operations), operations) for operations in everything}


def _function(operations: Sequence[str]) -> Hashable:
    """What a cell computes, whatever its nodes are called: equal for equal functions of equal weights.

    Sums are sorted, zeros vanish, identities are looked through, a pool of a sum is the sum of the pools, what does not
    reach the output is left out. A convolution has weights of its own, so two that look alike are told from one that is
    used twice: their numbering, which does not matter, is that of the smallest expression. This finds 5,554 cells, as
    many as differ when all of them are run with random weights. The benchmark's own count of 6,466 comes from strings
    in which zeros stay terms of a sum, sums stay grouped and pools stay whole.
    """
    nodes = _nodes(operations, {})
    alike: dict[str, list[int]] = {}
    for edge, (_, source) in enumerate(EDGES):
        if operations[edge] in CONVOLUTIONS:
            alike.setdefault(repr((operations[edge], nodes[source])), []).append(edge)
    numberings = (
        {edge: number for edges in chosen for number, edge in enumerate(edges)}
        for chosen in itertools.product(*(itertools.permutations(edges) for edges in alike.values()))
    )
    return min((_nodes(operations, numbers)[-1] for numbers in numberings), key=repr)


def _nodes(operations: Sequence[str], numbers: Mapping[int, int]) -> list[tuple[Any, ...]]:
    """The value of each node: its terms, sorted. A term is ("x",), (convolution, number, value) or (pool, term)."""
    nodes: list[tuple[Any, ...]] = [(("x",),)]
    for node in range(1, 4):
        terms: list[Any] = []
        for edge, (target, source) in enumerate(EDGES):
            operation = operations[edge]
            if target != node or operation == "none":
                continue
            value = nodes[source]
            if operation in CONVOLUTIONS:
                # Of zeros too: batch norm then gives its shift, a constant per channel.
                terms.append((operation, numbers.get(edge, 0), value))
            elif operation == "avg_pool_3x3":
                terms.extend(term if _constant(term) else (operation, term) for term in value)
            else:
                terms.extend(value)
        nodes.append(tuple(sorted(terms, key=repr)))
    return nodes


def _constant(term: tuple[Any, ...]) -> bool:
    return term[0] in CONVOLUTIONS and not term[2]


def _parsed(text: str) -> Cell:
    """The benchmark's string, after "cells=1:" where it is shrunk."""
    matched = FORM.fullmatch(text.strip())
    if matched is None:
        raise ValueError(f"nasbench201: {text!r} is not |op~0|+|op~0|op~1|+|op~0|op~1|op~2|")
    cells, *operations = matched.groups()
    return Cell(tuple(operations), int(cells) if cells else CELLS)


def _make(choices: Mapping[str, Choice]) -> Cell:
    return Cell(tuple(map(str, choices.values())))


NASBENCH201 = ProductSpace("nasbench201", OPTIONS, _make, _parsed)
