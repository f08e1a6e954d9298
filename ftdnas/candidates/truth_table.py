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
        # Text stays text: 00002011 is an architecture. Blank lines count as lines.
        frame = (
            pd.read_parquet(path)
            if path.suffix == ".parquet"
            else pd.read_csv(path, dtype=str, sep=_separator(path), skip_blank_lines=False, encoding="utf-8-sig")
        )
    except Exception as error:  # pandas and pyarrow raise what they like at a file that is no table
        raise ValueError(f"{path} cannot be read as a table: {str(error).splitlines()[0]}") from None
    frame.columns = known = [str(column).strip() for column in frame.columns]
    frame.index = pd.RangeIndex(2, len(frame) + 2)  # the header is line 1
    frame = frame.dropna(how="all")
    arch = _column(path, known, columns.architecture, ("architecture", "arch"), "--truth-architectures")
    truth = _column(path, known, columns.truth, ("truth", "accuracy"), "--truth-column")
    lines = frame.index.tolist()
    names = _names(path, dict(zip(lines, map(str, frame[arch]), strict=True)), space)
    wanted = {"": truth} | {name: _column(path, known, other, (), "--column") for name, other in columns.others.items()}
    read = {
        name: dict(zip(names, _fractions(path, column, dict(zip(lines, frame[column], strict=True))), strict=True))
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


def _separator(path: Path) -> str:
    """A semicolon where the headings have no comma: so spreadsheets of half of Europe write them."""
    with path.open(encoding="utf-8-sig", errors="replace") as file:
        head = file.readline()
    return ";" if ";" in head and "," not in head else ","


def _names(path: Path, texts: Mapping[int, str], space: SearchSpace) -> list[str]:
    """`texts`: by line."""
    names: dict[str, int] = {}
    for row, text in texts.items():
        try:
            name = space.parse(text.strip().removeprefix(f"{space.name}:")).name
        except ValueError as error:
            raise ValueError(f"{path}, line {row}: {error}") from None
        if name in names:
            raise ValueError(f"{path}, lines {names[name]} and {row} both are {name}: keep one of them")
        names[name] = row
    return list(names)


def _fractions(path: Path, column: str, values: Mapping[int, object]) -> list[float]:
    numbers: dict[int, float] = {}
    for row, value in values.items():
        try:
            number = float(str(value).replace(",", "."))
        except ValueError:
            number = math.nan
        if not 0 <= number <= 100:
            raise ValueError(f"{path}, line {row}: {column} is {value!r}, not an accuracy")
        numbers[row] = number
    percent = max(numbers.values(), default=0.0) > 1
    large = [number for number in numbers.values() if number > 1] or [math.nan]
    # What stands among the others as a fraction would, far below the least of them; failed networks stand beside it.
    odd = [
        row for row, number in numbers.items() if 10 * number < min(large) <= 100 * number <= min(100, 1.1 * max(large))
    ]
    if odd:
        other = next(row for row, number in numbers.items() if number > 1)
        raise ValueError(
            f"{path}: {column} is {values[other]} in line {other} and {values[odd[0]]} in line {odd[0]}: percent and "
            "fractions in one column, write all of them as one"
        )
    return [number / 100 if percent else number for number in numbers.values()]
