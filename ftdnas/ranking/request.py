"""What is asked of a search, of the advice before it and of the check before that."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from distill.recipe import TrainingRecipe
from ftdnas.runtime.options import duration_text, option, seconds
from ftdnas.sets.request import Counted, InProcesses, Joined, OnImages, Seeded

if TYPE_CHECKING:
    from ftdnas.candidates.limits import Limits
    from ftdnas.candidates.screening import Screening

BASELINES = (
    "random1.late_loss+params",
    "random2.late_loss+params",
    "set.late_loss",
    "set.accuracy",
    "random1.accuracy",
    "early.late_loss+params",
    "early.accuracy",
    "params",
    "flops",
    "synflow",
    "jacob_cov",
    "az_nas",
)  # what `compare=("all",)` scores beside the proxy; naswot refuses sigmoids and is left to be asked for
SPACE = "convnet"  # where none is asked for
AMONG = 48  # candidates over a truth table, where no number is asked for


def rate(text: str) -> float | str:
    """A learning rate, or "set" for the set's step size."""
    try:
        return "set" if text == "set" else float(text)
    except ValueError:
        raise ValueError(f"{text}: a positive number, or set for the set's step size") from None


@dataclass(frozen=True, kw_only=True)
class OnSpace:
    """Which candidates."""

    FIRST: ClassVar = ("space", "set", "candidates")
    space: str = option("", f"See ftdnas spaces list; or file.py:function (default: {SPACE}).")
    set: str | None = option(None, "The synthetic set (default: the newest in the library).", metavar="NAME|FILE")
    where: tuple[str, ...] = option(
        (), "Only these choices of the space; repeatable.", metavar="KEY=VALUE,VALUE", free=True
    )
    candidates: int | None = option(
        None,
        "How many (default: by --budget).",
        least=2,
        metavar="N",
        flags="--candidates --trials",
        counts="candidates",
    )


@dataclass(frozen=True, kw_only=True)
class Screened(Seeded, InProcesses, OnImages, OnSpace):
    """How candidates are scored; None leaves a choice to the space.

    `screening`: all of that training at once, instead of the fields that choose a part of it.
    """

    GROUP: ClassVar = "Training"
    proxy: str | None = option(
        None, "How candidates are scored (default: by the space).", metavar="NAME", free=True, group="What"
    )
    epochs: int | None = option(None, "On the set (default: by the space).", least=1, counts="epochs")
    steps: int | None = option(None, "Of SGD on the set, instead of epochs.", least=1, counts="steps")
    lr: float | Literal["set"] | None = option(
        None, "Learning rate on the set (default: by the space).", above=0, most=1000, metavar="RATE|set", parse=rate
    )
    batch_norm: Literal["running", "batch", "refresh"] | None = option(None, "Statistics when reading.")
    augment: str | None = option(None, "DSA on the set, or none.", metavar="OPERATIONS", free=True)
    labels: Literal["set", "teachers"] | None = option(None, "The set's own, or those of its teachers.")
    shrink: bool | None = option(
        None, "Screen smaller networks, where the space has them.", flags="--shrink/--full-size"
    )
    pixels: int | None = option(None, "Average the images down to this side for screening.", least=1, counts="pixels")
    seeds: int | None = option(None, "Trainings of each candidate.", least=1, counts="seeds", group="How many")
    precision: Literal["float32", "ieee", "bfloat16"] | None = option(
        None, "Of screening trainings [default: float32]; bfloat16 is quick on a CPU with units for it."
    )
    screening: Screening | None = None

    def __post_init__(self) -> None:
        if not self.space and not self.whole:
            object.__setattr__(self, "space", SPACE)
        if self.steps is not None and self.epochs is not None:
            raise ValueError("epochs and steps both say how long a candidate trains: give one of them")

    @property
    def whole(self) -> bool:
        """Whether it goes the whole way, from the images to a trained network; such a search chooses the space too."""
        return False

    @property
    def compared(self) -> tuple[str, ...]:
        """The proxies beside the one that ranks, each once, however they are spelled."""
        from ftdnas.proxies.names import read_proxy

        named = [name for text in getattr(self, "compare", ()) for name in (BASELINES if text == "all" else (text,))]
        own = {self.proxy and read_proxy(self.proxy)}
        return tuple({read: name for name in reversed(named) if (read := read_proxy(name)) not in own}.values())[::-1]

    def screened(self) -> Screening:
        """The space's own screening, with what was asked for. Raises ValueError for what `Screening` refuses."""
        from ftdnas.candidates.screening import default_screening

        if self.screening is not None:
            return self.screening
        names = ("steps", "epochs", "lr", "batch_norm", "augment", "labels", "shrink", "pixels", "seeds", "precision")
        changes: dict[str, Any] = {name: getattr(self, name) for name in names if getattr(self, name) is not None}
        if self.steps is not None:
            changes["epochs"] = None
        return replace(default_screening(self.space).screening, **changes)


@dataclass(frozen=True, kw_only=True)
class SearchRequest(Counted, Joined, Screened):
    """Rank architectures of a space.

    `proxy`: how candidates are scored; `compare`: what is scored beside it on the same ones, "all" for `BASELINES`.
    `join`: other processes work on this study too. `names`: exactly these candidates. `truth`: how real trainings go,
    where a proxy needs them; of the recipe where it is None.
    """

    compare: tuple[str, ...] = option(
        (), "Score these beside it; all: the usual baselines.", metavar="PROXY", free=True
    )
    budget: str | None = option(
        None,
        "Time: for screening; for all, with --dataset and neither --set, --proxy nor --candidates.",
        metavar="TIME",
        parse=duration_text,
        group="How many",
    )
    sampler: str = option("stratified", "exhaustive, random, tpe, nsga2, gp, nni-tpe ...")
    among: Path | None = option(None, "Stratify over this truth table.", local=True)
    truth_column: str | None = option(None, "Of the table: the accuracy.", metavar="NAME", local=True)
    truth_architectures: str | None = option(None, "Of the table: the canonical strings.", metavar="NAME", local=True)
    objectives: tuple[Literal["params", "flops", "latency"], ...] = option(
        (), "A cost beside the score.", flags="--objective"
    )
    max_params: int | None = option(None, "Hard limit, before anything is trained.", least=1, group="Limits")
    max_flops: int | None = option(None, "The same, of one forward pass.", least=1, group="Limits")
    max_latency_ms: float | None = option(None, "Measured here, or by the table.", above=0, group="Limits")
    latency_table: Path | None = option(None, "CSV architecture,latency_ms.", local=True, group="Limits")
    calibrate: int = option(24, "Real trainings of a hybrid.", least=4, counts="calibrate", group="How many")
    study: str | None = option(None, "Name of the study (default: made of set, space and settings).", metavar="NAME")
    executor: Literal["local", "ray"] = option("local", "What runs the processes.", local=True, group="Machine")
    ray_address: str | None = option(
        None, "Of a running cluster; the set and images travel to it.", metavar="ADDRESS", local=True, group="Machine"
    )
    all: bool = option(False, "Print every candidate, and all that is known.", group="Output")
    names: tuple[str, ...] = ()
    truth: TrainingRecipe | None = None
    truth_seeds: tuple[int, ...] = (0,)

    @property
    def whole(self) -> bool:
        asked = (self.set, self.proxy, self.candidates, self.names, self.among, self.screening, self.truth)
        return bool(self.dataset and self.budget) and not any(asked)

    @property
    def minutes(self) -> float | None:
        return None if self.budget is None else seconds(self.budget) / 60

    @cached_property
    def limits(self) -> Limits:
        """Raises what reading the latency table does."""
        from ftdnas.candidates.limits import Limits

        table: dict[str, float] = {}
        if self.latency_table is not None:
            from ftdnas.candidates.latency import read_latency_table

            table = dict(read_latency_table(self.latency_table))
        return Limits(self.max_params, self.max_flops, self.max_latency_ms, table)

    def named(self) -> tuple[str, ...]:
        """Exactly these candidates, () for those of the sampler: stratified over the accuracies of a truth table."""
        if self.among is None:
            return self.names
        from ftdnas.candidates.truth_table import Columns, read_table, stratified_by_truth
        from search_spaces.base import find_space, parse_architecture

        columns = Columns(self.truth_architectures, self.truth_column)
        accuracy = read_table(self.among, find_space(self.space), columns).accuracy
        classes = {name: parse_architecture(name).representative().name for name in accuracy}
        return tuple(stratified_by_truth(accuracy, classes, self.candidates or AMONG, self.seed))


@dataclass(frozen=True, kw_only=True)
class AdviseRequest(Screened):
    """What each way to a choice costs."""

    candidates: int = option(100, "How many.", least=2, metavar="N", counts="candidates")
