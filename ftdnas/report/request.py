"""What is asked of real trainings, of a check and of a report."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from ftdnas.ranking.request import Screened
from ftdnas.runtime.options import option
from ftdnas.sets.request import Counted, InProcesses, Joined, OnImages, Seeded, WithRoot

FEWEST, MOST = 24, 40  # candidates of a check: fewer say nothing, more are a search


def column(text: str) -> tuple[str, str]:
    """(title, column). Raises ValueError for a text that is none."""
    title, equals, name = text.partition("=")
    if not equals:
        raise ValueError(f"{text}: write TITLE=NAME, such as 'after 12 epochs=accuracy_12'")
    return title, name


@dataclass(frozen=True, kw_only=True)
class RealTraining:
    """How architectures are trained on all real images."""

    GROUP: ClassVar = "Training"
    recipe: str | None = option(
        None, "Whose evaluation.full it is (default: the set's or data's).", metavar="NAME|FILE"
    )
    real_lr: float | None = option(None, "Learning rate on all real images.", above=0, most=1000)


@dataclass(frozen=True, kw_only=True)
class TruthRequest(Counted, RealTraining, Joined, Seeded, InProcesses, OnImages):
    """Train the candidates of a study, or of a space, on all real images."""

    FIRST: ClassVar = ("epochs", "seeds", "name")
    study: str | None = option(None, "Whose candidates are trained.", metavar="STUDY", flags="--study", argument=True)
    space: str = option("convnet", "Without a study: stratified candidates of it.")
    sample: int = option(24, "How many of the space.", least=2, counts="candidates", group="How many")
    where: tuple[str, ...] = option(
        (), "Only these choices of the space; repeatable.", metavar="KEY=VALUE,VALUE", free=True
    )
    epochs: int | None = option(None, "Of real training (default: the recipe's).", least=1, counts="epochs")
    seeds: int = option(1, "Trainings of each.", least=1, counts="seeds")
    name: str | None = option(None, "Of the truth (default: made of data, epochs and seeds).", metavar="NAME")

    def __post_init__(self) -> None:
        if self.study is None and self.dataset is None:
            raise ValueError("which images? ftdnas truth STUDY for those of a study, or --dataset NAME")


@dataclass(frozen=True, kw_only=True)
class CheckRequest(RealTraining, Screened):
    """Before a search: is the proxy worth it here?"""

    candidates: int | None = option(
        None, "24 to 40 (default: 32), stratified.", least=2, metavar="N", counts="candidates"
    )
    compare: tuple[str, ...] = option(("all",), "Baselines.", metavar="PROXY", free=True)
    real_epochs: int = option(5, "Of real training: shortened.", least=1, counts="epochs", group="Training")
    real_seeds: int = option(1, "Real trainings of each candidate.", least=1, counts="seeds", group="How many")
    study: str | None = option(None, "Name of the study that it leaves.", metavar="NAME")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.candidates is not None and not FEWEST <= self.candidates <= MOST:
            raise ValueError(f"a check of {self.candidates} candidates: take {FEWEST} to {MOST}")


@dataclass(frozen=True, kw_only=True)
class TrustRequest(RealTraining, Joined, InProcesses, WithRoot):
    """Train a study's candidates for real, and report which to take and how far its ranking can be trusted."""

    FIRST: ClassVar = ("epochs", "seeds", "all")
    study: str = option(None, "Whose candidates are trained.", metavar="STUDY", flags="--study", argument=True)
    epochs: int | None = option(
        None, "Of real training (default: as its last truth has, else the recipe's).", least=1, counts="epochs"
    )
    seeds: int = option(1, "Trainings of the first three; one of the others.", least=1, counts="seeds")
    all: bool = option(False, "Print every figure.")


@dataclass(frozen=True, kw_only=True)
class ReportRequest(WithRoot):
    """How far a study's ranking can be trusted. `columns`: of a truth table, title -> column, shown beside it."""

    FIRST: ClassVar = ("truth", "out", "all")
    study: str = option(None, "Whose ranking it is about.", metavar="STUDY", flags="--study", argument=True)
    truth: str | None = option(
        None, "From ftdnas truth, or a .csv or .parquet file (default: the study's longest).", metavar="NAME|TABLE"
    )
    truth_column: str | None = option(None, "Of a table: the accuracy.", metavar="NAME", local=True)
    truth_architectures: str | None = option(None, "Of a table: the canonical strings.", metavar="NAME", local=True)
    columns: Mapping[str, str] | None = option(
        None, "Of a table: shown beside.", metavar="TITLE=NAME", flags="--column", parse=column, local=True
    )
    out: Path | None = option(None, "Folder (default: the study's).", folder=True, local=True)
    png: bool = option(False, "Write every chart as a PNG too.", local=True, group="Output")
    all: bool = option(False, "Print every figure.")
