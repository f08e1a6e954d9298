"""How far a proxy's ranking is from the truth, beside every baseline on the same candidates, and what follows."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ftdnas.agreement.bootstrap import Bootstrap
from ftdnas.agreement.estimates import (
    Among,
    Estimate,
    Repeated,
    Values,
    Variable,
    better_half,
    kendall,
    partial_spearman,
    precision_at,
    regret_at,
    seed_agreement,
    spearman,
    spearman_difference,
    top_by_scores,
    top_by_truth,
)
from ftdnas.agreement.fractions import chance_bound
from ftdnas.agreement.verdict import Rival, Verdict, verdict_of

Choice = str | int | float

LEVEL = 0.95
KS = (5, 10, 20)
PERCENT = 0.05  # of the candidates: one more k
PROXY, EQUAL_COST, REFERENCE = "proxy", "equal cost", "reference"
RESAMPLED = 20_000_000  # architectures drawn in all for one figure
FEWEST, MOST = 1_000, 10_000  # resamples of large and of small tables
TOP_RESAMPLES = 2_000  # of a top k: a maximum is rough however often it is resampled


@dataclass(frozen=True)
class Column:
    """One way to rank the candidates of a table; larger is better, None where it failed, and `errors` says why.

    `seconds`: of computation for all candidates in one process. `overhead_s`: what was paid once before (experts,
    distillation). `role`: PROXY (what is judged), EQUAL_COST (what it has to beat) or REFERENCE (shown beside them).
    `by_seed`: the column of each seed, where there are several. `short`: the title in a few words, where there are
    fewer. An error beside a value names a dead candidate: it
    trained, and ended at chance.
    """

    name: str
    title: str
    values: tuple[float | None, ...]
    errors: tuple[str | None, ...] = ()
    seconds: float = 0.0
    overhead_s: float = 0.0
    role: str = EQUAL_COST
    by_seed: tuple[tuple[float | None, ...], ...] = ()
    short: str = ""


@dataclass(frozen=True, kw_only=True)
class Table:
    """Candidates with everything that is known of them; `columns[0]` is the proxy. One entry per candidate throughout.

    `classes`: the representative of each one's isomorphism class, which the bootstrap draws as a whole. `choices`: the
    decisions each is made of. `latency_ms`: () where not measured. `truth`: accuracy after real training, a fraction,
    None where that failed; () without a truth. `truth_by_seed`: the same for each seed, () for a table of means.
    `truth_images`: how many images it was read on, None where not known. `truth_seconds`: what it cost; `train_all_s`:
    what training all candidates for real costs. Raises ValueError for unequal lengths.
    """

    space: str
    candidates: tuple[str, ...]
    classes: tuple[str, ...] = ()
    parameters: tuple[int, ...]
    flops: tuple[int, ...] = ()
    latency_ms: tuple[float | None, ...] = ()
    choices: tuple[Mapping[str, Choice], ...] = ()
    num_classes: int
    truth_name: str = ""
    truth: tuple[float | None, ...] = ()
    truth_by_seed: tuple[tuple[float | None, ...], ...] = ()
    truth_images: int | None = None
    truth_seconds: float | None = None
    train_all_s: float | None = None
    columns: tuple[Column, ...]

    def __post_init__(self) -> None:
        if not self.columns:
            raise ValueError("a table without columns ranks nothing: the first is the proxy")
        lists: dict[str, Sequence[Any]] = {
            name: getattr(self, name)
            for name in ("classes", "parameters", "flops", "latency_ms", "choices", "truth")
            if getattr(self, name)
        }
        lists |= {f"truth of seed {number}": column for number, column in enumerate(self.truth_by_seed, start=1)}
        for column in self.columns:
            lists[column.name] = column.values
            lists |= {f"errors of {column.name}": column.errors} if column.errors else {}
            lists |= {f"{column.name} of seed {number}": seed for number, seed in enumerate(column.by_seed, start=1)}
        for name, values in lists.items():
            if len(values) != len(self.candidates):
                raise ValueError(f"{name} has {len(values)} entries for {len(self.candidates)} candidates")

    @property
    def chance_bound(self) -> float:
        """The truth above which a candidate has learned something: chance and three binomial deviations.

        Where the number of images is not known, chance and a twentieth of it: 10.5 % for 10 classes.
        """
        chance = 1 / self.num_classes
        return 1.05 * chance if self.truth_images is None else chance_bound(self.truth_images, self.num_classes)


@dataclass(frozen=True)
class Ranks:
    """Both rank correlations with the truth over the same candidates."""

    spearman: Estimate
    kendall: Estimate


@dataclass(frozen=True)
class Top:
    """What a proxy's k best are worth; the correlations within the k best by truth, and within the k best by proxy."""

    k: int
    precision: Estimate
    regret: Estimate
    by_truth: Ranks
    by_proxy: Ranks


@dataclass(frozen=True)
class Line:
    """All figures of one column. `headline`: over the candidates above chance. `beyond_parameters`: the partial
    Spearman given log-parameters over the same. `ahead`: the proxy's headline Spearman minus this one's, paired,
    `adjusted` with a Bonferroni interval where it is a baseline of equal cost; None for the proxy itself. `failed` had
    no value, `dead` ended at chance. `short`: the title in a few words.
    """

    name: str
    title: str
    role: str
    seconds: float
    overhead_s: float
    failed: int
    dead: int
    headline: Ranks
    everything: Ranks
    better_half: Ranks
    tops: tuple[Top, ...]
    beyond_parameters: Estimate
    ahead: Estimate | None
    ahead_better_half: Estimate | None
    adjusted: Estimate | None
    short: str = ""

    @property
    def rival(self) -> Rival | None:
        """What it is to the verdict; None for what is no baseline of equal cost."""
        if self.role != EQUAL_COST or self.ahead is None or self.adjusted is None:
            return None
        return Rival(self.short or self.title, self.headline.spearman, self.ahead, self.adjusted)


@dataclass(frozen=True)
class Failure:
    """A candidate that one column could not score, or scored at chance (`dead`)."""

    column: str
    architecture: str
    error: str
    dead: bool


@dataclass(frozen=True)
class Comparison:
    """`lines`: the proxy's first. `candidates` in all, of which `with_truth` have one and `at_chance` are at most at
    `chance_bound`. `ceiling`: one seed of the truth against another. `percent_k`: the k that is 5 % of the candidates.
    """

    space: str
    truth_name: str
    candidates: int
    with_truth: int
    at_chance: int
    chance_bound: float
    level: float
    seed: int
    percent_k: int
    lines: tuple[Line, ...]
    ceiling: Estimate
    verdict: Verdict
    failures: tuple[Failure, ...]

    @property
    def proxy(self) -> Line:
        return self.lines[0]


def compare(table: Table, seed: int, resamples: int = MOST) -> Comparison:
    """Judge every column of the table against its truth. Raises ValueError where the table has no truth.

    `resamples`: for each interval; tables above 2,000 candidates take fewer.
    """
    if not table.truth:
        raise ValueError("the table has no truth: there is nothing to compare with")
    rows = [row for row, truth in enumerate(table.truth) if truth is not None and not math.isnan(truth)]
    above = [row for row in rows if (table.truth[row] or 0.0) > table.chance_bound]
    n = len(rows)
    resamples = min(resamples, max(FEWEST, RESAMPLED // max(1, n)))
    classes = table.classes or table.candidates

    def view(rows: Sequence[int]) -> _View:
        return _View(table, rows, Bootstrap(seed, resamples, LEVEL, tuple(classes[row] for row in rows)))

    whole = view(rows)
    headline = whole if above == rows else view(above)
    percent_k = max(1, round(PERCENT * n))
    ks = sorted({*KS, percent_k})
    rivals = sum(column.role == EQUAL_COST for column in table.columns[1:])
    failed = failures(table)
    lines = tuple(_line(column, whole, headline, ks, rivals, failed) for column in table.columns)
    return Comparison(
        space=table.space,
        truth_name=table.truth_name,
        candidates=len(table.candidates),
        with_truth=n,
        at_chance=n - len(above),
        chance_bound=table.chance_bound,
        level=LEVEL,
        seed=seed,
        percent_k=percent_k,
        lines=lines,
        ceiling=seed_agreement([headline.some(seed) for seed in table.truth_by_seed], headline.bootstrap),
        verdict=verdict_of(lines[0].headline.spearman, [line.rival for line in lines[1:] if line.rival is not None]),
        failures=failed,
    )


def decide(scores: Variable, baselines: Mapping[str, Variable], truth: Variable, bootstrap: Bootstrap) -> Verdict:
    """The verdict on scores alone, all baselines being of equal cost: what `compare` says of a table without more."""
    stricter = _stricter(bootstrap, len(baselines))
    rivals = [
        Rival(
            name,
            spearman(column, truth, bootstrap),
            spearman_difference(scores, column, truth, bootstrap),
            spearman_difference(scores, column, truth, stricter),
        )
        for name, column in baselines.items()
    ]
    return verdict_of(spearman(scores, truth, bootstrap), rivals)


def failures(table: Table) -> tuple[Failure, ...]:
    """Every candidate that a column could not score, or that is dead in it."""
    return tuple(
        Failure(column.name, name, error or "no value", value is not None)
        for column in table.columns
        for name, value, error in zip(
            table.candidates, column.values, column.errors or (None,) * len(column.values), strict=True
        )
        if value is None or error
    )


@dataclass(frozen=True)
class _View:
    """Some rows of a table, and the bootstrap over them."""

    table: Table
    rows: Sequence[int]
    bootstrap: Bootstrap

    def some(self, values: Values) -> list[float | None]:
        return [values[row] for row in self.rows]

    def variable(self, column: Column) -> Variable:
        return Repeated(self.some(column.values), [self.some(seed) for seed in column.by_seed])

    @property
    def truth(self) -> Variable:
        return Repeated(self.some(self.table.truth), [self.some(seed) for seed in self.table.truth_by_seed])

    @property
    def log_parameters(self) -> Values:
        return [math.log(max(1, self.table.parameters[row])) for row in self.rows]


def _line(
    column: Column, whole: _View, headline: _View, ks: Sequence[int], rivals: int, failed: Sequence[Failure]
) -> Line:
    proxy = whole.table.columns[0]
    scores, truth, bootstrap = whole.variable(column), whole.truth, whole.bootstrap
    own, true, drawn = headline.variable(column), headline.truth, headline.bootstrap
    ahead = adjusted = ahead_better = None
    if column is not proxy:
        judged = headline.variable(proxy)
        ahead = spearman_difference(judged, own, true, drawn)
        ahead_better = spearman_difference(whole.variable(proxy), scores, truth, bootstrap, better_half)
        if column.role == EQUAL_COST:
            adjusted = spearman_difference(judged, own, true, _stricter(drawn, rivals))
    everything = _ranks(scores, truth, bootstrap)
    dead = [failure.dead for failure in failed if failure.column == column.name]
    return Line(
        name=column.name,
        title=column.title,
        role=column.role,
        seconds=column.seconds,
        overhead_s=column.overhead_s,
        failed=dead.count(False),
        dead=dead.count(True),
        headline=everything if headline is whole else _ranks(own, true, drawn),
        everything=everything,
        better_half=_ranks(scores, truth, bootstrap, better_half),
        tops=tuple(_top(k, scores, truth, bootstrap) for k in ks),
        beyond_parameters=partial_spearman(own, true, headline.log_parameters, drawn),
        ahead=ahead,
        ahead_better_half=ahead_better,
        adjusted=adjusted,
        short=column.short,
    )


def _ranks(scores: Variable, truth: Variable, bootstrap: Bootstrap, among: Among | None = None) -> Ranks:
    return Ranks(spearman(scores, truth, bootstrap, among), kendall(scores, truth, bootstrap, among))


def _top(k: int, scores: Variable, truth: Variable, bootstrap: Bootstrap) -> Top:
    fewer = replace(bootstrap, resamples=min(bootstrap.resamples, TOP_RESAMPLES))
    return Top(
        k=k,
        precision=precision_at(k, scores, truth, fewer),
        regret=regret_at(k, scores, truth, fewer),
        by_truth=_ranks(scores, truth, fewer, top_by_truth(k)),
        by_proxy=_ranks(scores, truth, fewer, top_by_scores(k)),
    )


def _stricter(bootstrap: Bootstrap, baselines: int) -> Bootstrap:
    return replace(bootstrap, level=1 - (1 - bootstrap.level) / max(1, baselines), cautious=True)
