"""Truths from elsewhere: a benchmark's table of architectures and what real training made of them."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from search_spaces.base import SearchSpace
from search_spaces.messages import hint

SUFFIXES = (".csv", ".parquet")


@dataclass(frozen=True)
class Columns:
    """Which columns of a table are read; None looks for the obvious one and refuses to guess between two.

    `others`: name -> column of further figures for the report, such as the accuracy after a few epochs.
    """

    architecture: str | None = None
    truth: str | None = None
    others: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class TruthTable:
    """Architecture name -> accuracy, a fraction; `others` the same for further columns. `source` for people."""

    source: str
    accuracy: Mapping[str, float]
    others: Mapping[str, Mapping[str, float]]


def read_table(path: Path, space: SearchSpace, columns: Columns) -> TruthTable:
    """Read a CSV or Parquet file whose architectures are canonical strings, with or without the space's name.

    Accuracies may be fractions or percent (if any is above 1). Raises ValueError with the row for an architecture that
    is not in the space, that occurs twice, or whose figure is missing or no accuracy; for columns that are not there,
    with those that are; FileNotFoundError.
    """
    import pandas as pd

    if not path.is_file():
        raise FileNotFoundError(f"there is no truth table {path}")
    try:
        frame = pd.read_parquet(path) if path.suffix == ".parquet" else pd.read_csv(path)
    except Exception as error:  # pandas and pyarrow raise what they like at a file that is no table
        raise ValueError(f"{path} cannot be read as a table: {str(error).splitlines()[0]}") from None
    known = [str(column) for column in frame.columns]
    arch = _column(path, known, columns.architecture, ("architecture", "arch"), "--truth-architectures")
    truth = _column(path, known, columns.truth, ("truth", "accuracy"), "--truth-column")
    names = _names(path, [str(text) for text in frame[arch]], space)
    wanted = {"": truth} | {name: _column(path, known, other, (), "--column") for name, other in columns.others.items()}
    read = {
        name: dict(zip(names, _fractions(path, column, frame[column].tolist()), strict=True))
        for name, column in wanted.items()
    }
    return TruthTable(f"{truth} of {path.name}", read.pop(""), read)


def is_table(text: str) -> bool:
    """Whether a truth is named by a file."""
    return text.endswith(SUFFIXES)


def stratified_by_truth(accuracy: Mapping[str, float], classes: Mapping[str, str], n: int, seed: int) -> list[str]:
    """`n` architectures, one drawn from each of n equal parts of those sorted by accuracy, in random order.

    `classes`: architecture -> the first of those that compute the same; no two of one are taken. Raises ValueError
    where there are fewer classes than `n`.
    """
    first: dict[str, str] = {}
    for name in sorted(accuracy, key=lambda name: (accuracy[name], name)):
        first.setdefault(classes[name], name)
    ascending = list(first.values())
    if n > len(ascending):
        raise ValueError(f"{n} candidates are asked for, the truth has {len(ascending)} that differ: ask for fewer")
    draw = np.random.default_rng([seed, 201])
    edges = np.linspace(0, len(ascending), n + 1).round().astype(int)
    taken = [ascending[draw.integers(low, high)] for low, high in itertools.pairwise(edges)]
    return [taken[row] for row in draw.permutation(n)]


def _column(path: Path, known: Sequence[str], asked: str | None, obvious: Sequence[str], option: str) -> str:
    if asked is not None:
        if asked not in known:
            raise ValueError(f"{path} has no column {asked!r}: {hint(asked, known)}")
        return asked
    found = [column for column in known if column in obvious]
    if len(found) != 1:
        raise ValueError(f"{path} has the columns {', '.join(known)}: say which one by {option}")
    return found[0]


def _names(path: Path, texts: Sequence[str], space: SearchSpace) -> list[str]:
    names: dict[str, int] = {}
    for row, text in enumerate(texts, start=2):  # the header is line 1
        try:
            name = space.parse(text.removeprefix(f"{space.name}:")).name
        except ValueError as error:
            raise ValueError(f"{path}, line {row}: {error}") from None
        if name in names:
            raise ValueError(f"{path}, lines {names[name]} and {row} both are {name}: keep one of them")
        names[name] = row
    return list(names)


def _fractions(path: Path, column: str, values: Sequence[object]) -> list[float]:
    numbers: list[float] = []
    for row, value in enumerate(values, start=2):
        try:
            number = float(value)  # type: ignore[arg-type]
        except (TypeError, ValueError):
            number = math.nan
        if not 0 <= number <= 100:
            raise ValueError(f"{path}, line {row}: {column} is {value!r}, not an accuracy")
        numbers.append(number)
    percent = max(numbers, default=0.0) > 1
    return [number / 100 if percent else number for number in numbers]
