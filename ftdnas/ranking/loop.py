"""A search: candidates of a space scored by a proxy and ranked, in a study that goes on where it stopped.

The record is one JSON row per evaluation; an Optuna study of the same name holds one trial per architecture. Several
processes and machines can work on one study: who does what is claimed in the storage that they share.
"""

from __future__ import annotations

import contextlib
import itertools
import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from distill.images.datasets import ImageDataset
from distill.run import Listener, Progress, about, ignore
from distill.synthetic import SyntheticSet
from ftdnas.candidates.cost import CostModel, wall_s
from ftdnas.candidates.materials import Shelf
from ftdnas.proxies.base import Proxy, Rows
from ftdnas.proxies.rank_sum import guide_of
from ftdnas.ranking.advice import Advice
from ftdnas.ranking.job import (
    FACTS,
    OBJECTIVES,
    TYPICAL,
    PreparedSearch,
    how_sure,
    known_limits,
    precision_notes,
    prepare_search,
    sampler_of,
)
from ftdnas.ranking.plan import Plan
from ftdnas.ranking.request import SearchRequest
from ftdnas.ranking.search_plan import advice_of, ahead, first_training, measured, plan_of, price
from ftdnas.ranking.table import Ranking, notes_on, ranked, spent
from ftdnas.ranking.trials import Evaluated, Study, open_study
from ftdnas.runtime.database import open_storage
from ftdnas.runtime.leases import Leases
from ftdnas.runtime.processes import Executor
from ftdnas.runtime.rows import Row
from ftdnas.runtime.shared import Record, Work, carry_out
from search_spaces.base import flops, parameter_count, parse_architecture


def search(
    request: SearchRequest,
    synthetic: SyntheticSet | None,
    set_name: str,
    data: ImageDataset,
    listener: Listener = ignore,
    source: Mapping[str, Any] | None = None,
) -> Ranking:
    """Rank architectures of a space: the last of `rankings`, which has all baselines beside it."""
    return deque(rankings(request, synthetic, set_name, data, listener, source), maxlen=1).pop()


def rankings(
    request: SearchRequest,
    synthetic: SyntheticSet | None,
    set_name: str,
    data: ImageDataset,
    listener: Listener = ignore,
    source: Mapping[str, Any] | None = None,
) -> Iterator[Ranking]:
    """The ranking when screening ends, and once more, in the same order, when baselines had to be scored after it.

    Each is on disk when it is yielded. `synthetic` was made from `data`; proxies that need no set do without. `source`:
    what finds the data again, for those who go on with the study. Raises LookupError for an unknown space, proxy or
    sampler; ValueError for a request that cannot be met, a limit that no candidate meets, a study name that is taken by
    other settings, and a study that another process is working on without `join`.
    """
    job = prepare_search(request, synthetic, set_name, data, listener, source or {})
    with contextlib.ExitStack() as stack:
        storage = stack.enter_context(open_storage(request.storage))
        if request.join:
            job.folder.check(job.settings)
        else:
            stack.enter_context(job.folder.locked(job.settings))
        leases = stack.enter_context(storage.leases(f"rows/{job.folder.name}")) if request.join else None
        objectives = {"score": "maximize"} | {name: OBJECTIVES[name] for name in request.objectives}
        study = stack.enter_context(open_study(storage, job.folder.name, job.space, objectives))
        processes = stack.enter_context(job.executor())
        yield from _run(job, leases, study, processes)


def advice(
    request: SearchRequest,
    synthetic: SyntheticSet | None,
    set_name: str,
    data: ImageDataset,
    listener: Listener = ignore,
) -> Advice:
    """What each way to a choice would cost, from a few timed steps.

    Raises ValueError for a proxy that trains nothing.
    """
    job = prepare_search(request, synthetic, set_name, data, listener, {})
    first = first_training(job)
    if first is None:
        raise ValueError(f"{request.proxy} trains nothing, so there is nothing to time: it takes seconds")
    with job.executor() as processes:
        cost = measured(job, first, processes)
    for line in (*known_limits(job), *precision_notes(job)):
        job.say(line)
    sampler = sampler_of(job, "stratified")
    sample = [
        one.name for one in itertools.islice(iter(sampler.ask, None), min(TYPICAL, request.candidates or TYPICAL))
    ]
    return advice_of(job, sample, request.candidates or len(sample), cost)


def _run(job: PreparedSearch, leases: Leases | None, study: Study, processes: Executor[Shelf]) -> Iterator[Ranking]:
    job.say(
        f"study {job.folder.name}; evaluations run in {job.jobs} process{'es' * (job.jobs > 1)} on {job.bench.device}"
    )
    plan, cost, names = plan_of(job, processes)
    evaluations = Evaluations(job, Record(job.folder.rows, leases), processes)
    if names is None:
        names = evaluations.adapt(len(plan.candidates), study)
        plan = Plan(**{**plan.__dict__, "candidates": tuple(names)})
        job.folder.keep_plan(job.settings, plan, cost)
    facts = facts_of(names, job)
    evaluations.settle([job.proxy], names, cost, "screening")
    ranking = _ranking(job, plan, names, facts, evaluations.rows)
    study.add(_evaluated(ranking, job.request))
    job.folder.keep_ranking(ranking)
    yield ranking
    if len(ranking.compared) < len(job.compared):
        evaluations.settle(job.compared, names, cost, "baselines")
        ranking = _ranking(job, plan, names, facts, evaluations.rows)
        job.folder.keep_ranking(ranking)
        yield ranking


def _ranking(
    job: PreparedSearch, plan: Plan, names: Sequence[str], facts: Mapping[str, Mapping[str, Any]], rows: Rows
) -> Ranking:
    """The candidates as they are now, beside those baselines that are there."""
    request = job.request
    beside = {
        text: proxy for text, proxy in zip(request.compared, job.compared, strict=True) if not proxy.todo(names, rows)
    }
    candidates = ranked(job.proxy, names, facts, rows)
    return Ranking(
        study=job.folder.name,
        folder=job.folder.path,
        settings=job.settings,
        plan=plan,
        candidates=candidates,
        proxy=str(request.proxy),
        title=job.proxy.title,
        compared=tuple(beside),
        seconds=spent([job.proxy, *beside.values()], names, rows),
        notes=(*known_limits(job), *precision_notes(job), *notes_on(job.bench, request.limits)),
        sure=how_sure(job),
        ahead_s=ahead(job, candidates, rows),
    )


def facts_of(names: Sequence[str], job: PreparedSearch) -> dict[str, dict[str, Any]]:
    """Parameters, FLOPs and, where it is asked for, latency of every candidate."""
    request = job.request
    timed = "latency" in request.objectives or request.limits.latency_ms is not None
    facts: dict[str, dict[str, Any]] = {}
    for name in names:
        architecture = parse_architecture(name)
        facts[name] = {
            "parameters": parameter_count(architecture, *job.size),
            "flops": flops(architecture, *job.size),
            "latency_ms": request.limits.latency(architecture, *job.size) if timed else None,
        }
    return facts


@dataclass(frozen=True, eq=False)
class Evaluations:
    """What was evaluated for a search, in this run or before, and the processes that do the rest."""

    job: PreparedSearch
    record: Record
    processes: Executor[Shelf]
    rows: dict[str, Row] = field(default_factory=dict)
    took: list[tuple[float, float]] = field(default_factory=list)  # seconds of each training: expected, taken

    def __post_init__(self) -> None:
        self.record.exchange()
        self.rows.update(self.record.file.settled())

    def carry_out(
        self,
        works: Iterable[Work[Shelf] | None],
        total: int,
        stage: str,
        finished: Callable[[Row], int],
        prices: Mapping[str, float] | None = None,
    ) -> None:
        """Do them, and say how many of `total` are done, which `finished` counts. `prices`: of each, by its key."""
        prices, whole, paid = prices or {}, math.fsum((prices or {}).values()), 0.0

        def arrived(row: Row) -> None:
            nonlocal paid
            self.rows[row["key"]] = row
            if price := prices.get(row["key"], 0.0):
                paid += price
                self.took.append((price, row["seconds"]))
            values = {} if row.get("score") is None else {"validation_accuracy": float(row["score"])}
            share = paid / whole if whole else None
            self.job.listener(Progress(stage, finished(row), total, values, share=share, at_once=self.job.jobs))

        self.job.listener(Progress(stage, 0, total))  # the first may take long
        carry_out(works, self.record, self.processes, arrived, limit_s=self.job.request.limit_s)

    def settle(self, proxies: Sequence[Proxy], names: Sequence[str], cost: CostModel, stage: str) -> None:
        """Do what the proxies ask for, round after round, until none asks for more."""
        job = self.job
        while todo := {work.key: work for proxy in proxies for work in proxy.todo(names, self.rows)}:
            # The dearest first: the last process then has not long to go when the others are done.
            scale = sum(took for _, took in self.took) / (sum(said for said, _ in self.took) or 1.0) or 1.0
            prices = {key: price(work, cost, job) for key, work in todo.items()}
            order = sorted(todo, key=lambda key: (prices[key], key), reverse=True)
            seconds = scale * wall_s(list(prices.values()), job.jobs)
            told = f", {about(seconds)}" if seconds > 1 else ""
            job.say(f"{len(todo)} evaluations to do{told}; Ctrl-C is safe, the same command goes on")
            count = itertools.count(1)
            self.carry_out([todo[key] for key in order], len(todo), stage, lambda row: next(count), prices)  # noqa: ARG005, B023

    def adapt(self, wanted: int, study: Study) -> list[str]:
        """Candidates of a sampler that learns: proposed while others are evaluated, and told of each that is done.

        It is told of the proxy's first part alone, for a sum of ranks changes with every candidate.
        """
        job, rows = self.job, self.rows
        sampler, guide = sampler_of(job, job.request.sampler), guide_of(job.proxy)
        names: list[str] = []
        waiting: dict[str, str] = {}  # key of a work -> candidate
        missing: dict[str, set[str]] = {}

        def tell(name: str) -> None:
            value = guide.column([name], rows)[0]
            costs = facts_of([name], job)[name]
            others = [costs[FACTS[objective]] for objective in job.request.objectives]
            failed = value is None or not math.isfinite(value) or None in others
            sampler.tell(parse_architecture(name), None if failed else [value, *others])  # type: ignore[list-item]

        for name in study.evaluated():
            if not guide.todo([name], rows):
                names.append(name)
                tell(name)

        def ask() -> Iterator[Work[Shelf] | None]:
            while len(names) < wanted:
                architecture = sampler.ask()
                if architecture is None:
                    job.say(sampler.reason)
                    return
                names.append(architecture.name)
                works = list(job.proxy.todo([architecture.name], rows))
                if not works:
                    tell(architecture.name)
                    continue
                missing[architecture.name] = {work.key for work in works}
                for work in works:
                    waiting[work.key] = architecture.name
                    yield work

        def finished(row: Row) -> int:
            name = waiting[row["key"]]
            missing[name].discard(row["key"])
            if not missing[name]:
                tell(name)
            return sum(not left for left in missing.values())

        self.carry_out(ask(), wanted, "screening", finished)
        return names


def _evaluated(ranking: Ranking, request: SearchRequest) -> list[Evaluated]:
    """The ranking as trials. Ranks change with every candidate: a trial's score is that of the proxy's first part."""
    found = []
    for one in ranking.candidates:
        figures = [one.guide, *(getattr(one, FACTS[name]) for name in request.objectives)]
        values = tuple(float(value) for value in figures if value is not None)
        missing = one.error or ("no score" if one.guide is None else "an objective of it is not known")
        whole = len(values) == len(figures)
        found.append(
            Evaluated(
                architecture=one.architecture,
                values=values if whole else None,
                scores={"accuracy": one.accuracy, "late_loss": one.late_loss},
                seconds=one.seconds,
                parameters=one.parameters,
                flops=one.flops,
                error=None if whole else missing,
            )
        )
    return found
