"""Which candidates a search looks at, and what that and the other ways to a choice cost."""

from __future__ import annotations

import math
from collections.abc import Sequence

from distill.recipe import TrainingRecipe
from ftdnas.candidates.cost import CostModel, fit_cost, flops_of, wall_s
from ftdnas.candidates.materials import Shelf
from ftdnas.candidates.training import Training
from ftdnas.proxies.base import Rows
from ftdnas.proxies.promotion import asked_of
from ftdnas.proxies.trained import known_once_s
from ftdnas.ranking.advice import Advice, advise, describe_advice
from ftdnas.ranking.job import MINUTES, PreparedSearch, sampler_of, set_recipe
from ftdnas.ranking.plan import Plan, make_plan, measure_cost
from ftdnas.ranking.samplers import ADAPTIVE
from ftdnas.ranking.table import Ranked
from ftdnas.runtime.processes import Executor
from ftdnas.runtime.shared import Work
from search_spaces.base import flops, parse_architecture

TOP = 5  # that are finished, unless told
START_S = 5.0  # of processes and images


def plan_of(job: PreparedSearch, processes: Executor[Shelf]) -> tuple[Plan, CostModel, list[str] | None]:
    """The study's own plan, unless it has none or another number of candidates or minutes is asked for."""
    asked, stored = job.request, job.folder.plan()
    named = _within(job, asked.names)
    if stored is not None:
        plan = stored[0]
        same = asked.minutes in (None, plan.minutes) if asked.candidates is None else asked.candidates == plan.wanted
        if same and (not named or named == plan.candidates):
            job.say(plan.describe())
            return *stored, list(plan.candidates)
    first = first_training(job)
    cost = CostModel(0.0, 0.0, 0.0)
    if first is not None and not (asked.candidates and asked.candidates <= 12):
        job.say("timing a few architectures ...")
        cost = measured(job, first, processes)
    adaptive = asked.sampler in ADAPTIVE and not named
    sampler = sampler_of(job, "stratified" if adaptive else asked.sampler)
    order = map(parse_architecture, named) if named else iter(sampler.ask, None)
    everything = first is None or asked.sampler == "exhaustive"
    minutes = MINUTES if asked.minutes is None and job.bench.device == "cpu" else asked.minutes
    plan = make_plan(
        job.space,
        order,
        lambda name: _seconds_of(job, name, cost),
        jobs=job.jobs,
        wanted=len(named) or asked.candidates,
        minutes=None if everything else minutes,
    )
    if not plan.candidates:
        sampler.ask()
        raise ValueError(f"no candidate fits what was asked for: {sampler.reason}")
    if not adaptive:
        job.folder.keep_plan(job.settings, plan, cost)
    job.say(plan.describe())
    if first is not None and cost.flop + cost.image > 0:
        for line in describe_advice(advice_of(job, plan.candidates, len(plan.candidates), cost)):
            job.say(line)
    return plan, cost, None if adaptive else list(plan.candidates)


def _within(job: PreparedSearch, names: Sequence[str]) -> tuple[str, ...]:
    """Of candidates that were named, those that the limits and choices allow. Raises ValueError where none is."""
    kept: list[str] = []
    for name in names:
        one = parse_architecture(name)
        inside = all(one.choices.get(key) in values for key, values in job.restrict.items())
        if inside and one.obstacle(job.size[0]) is None and job.request.limits.obstacle(one, *job.size) is None:
            kept.append(name)
    if names and not kept:
        raise ValueError(f"none of the {len(names)} candidates is within the limits and choices that were asked for")
    if len(kept) < len(names):
        job.say(f"{len(names) - len(kept)} candidates are beyond the limits or choices that were asked for")
    return tuple(kept)


def first_training(job: PreparedSearch) -> Training | None:
    """What one candidate is trained by, to be timed; None where the proxy trains nothing."""
    works = [] if job.example is None else [work for _, work in _asked(job, job.example)]
    return max(works, key=lambda work: work.images_seen, default=None)


def _asked(job: PreparedSearch, name: str) -> list[tuple[float, Training]]:
    """The trainings that a candidate may go through, each with the share of all candidates that do."""
    return [(share, work) for share, work in asked_of(job.proxy, name) if isinstance(work, Training)]


def _seconds_of(job: PreparedSearch, name: str, cost: CostModel) -> list[float]:
    """Of each training that a candidate may go through, by the share of all candidates that do."""
    return [share * price(work, cost, job) for share, work in _asked(job, name)]


def measured(job: PreparedSearch, first: Training, processes: Executor[Shelf]) -> CostModel:
    """What trainings such as `first` cost here, from a few timed steps."""
    material = job.bench.shelf[first.trained_on.fingerprint]
    return measure_cost(job.space, job.restrict, material, first.recipe, job.request.seed, processes)


def advice_of(job: PreparedSearch, names: Sequence[str], candidates: int, cost: CostModel) -> Advice:
    """What each way to a choice would cost for so many candidates, of which `names` are typical."""
    full = real_training(job)
    return advise(
        candidates,
        math.fsum(sum(_seconds_of(job, name, cost)) for name in names) / len(names),
        [flops(parse_architecture(name), *job.size) for name in names],
        cost,
        epoch_images=len(job.bench.data.train),
        full_epochs=full.epochs,
        rungs=job.bench.rungs,
        distillation_s=known_once_s(job.bench) or None,
        jobs=job.jobs,
    )


def ahead(job: PreparedSearch, candidates: Sequence[Ranked], rows: Rows) -> dict[str, float]:
    """Seconds of wall clock that real training is likely to take: to "finish", to "trust"; {} if nothing tells.

    Of a small network most of a step's time is there whatever the batch; what is left grows with FLOPs and images.
    """
    known = {str(row["architecture"]): row for row in rows.values() if row.get("losses") and row["error"] is None}
    points, batches = [], []
    for one in candidates:
        row = known.get(job.bench.trained(one.architecture)[0])
        if row is not None and row["seconds"] > 0:
            images = row["part"] or row["trained_on"]["images"]
            points.append((one.flops, row["seconds"] / (images * row["recipe"]["epochs"])))
            batches.append(min(images, row["recipe"]["batch_size"]))
    images = len(job.bench.data.train)
    if not points or not images:
        return {}
    cost, full = fit_cost(points, 0.0), real_training(job)
    image = cost.image * math.fsum(batches) / len(batches) / min(images, full.batch_size)
    each = [(image + cost.flop * one.flops) * images * full.epochs for one in candidates if one.placed]

    return {"finish": START_S + wall_s(each[:TOP], job.jobs), "trust": START_S + wall_s(each, job.jobs)}


def real_training(job: PreparedSearch) -> TrainingRecipe:
    """How the candidates are really trained, where nothing else is asked for."""
    return job.request.truth or set_recipe(job.bench.synthetic).evaluation.full


def _load(training: Training) -> float:
    """Images seen; reading one for the score costs about a third of training on it."""
    return training.images_seen + training.scored_on.images / 3


def price(work: Work[Shelf], cost: CostModel, job: PreparedSearch) -> float:
    """Seconds that a work is likely to take; 0 for what trains nothing."""
    if not isinstance(work, Training):
        return 0.0
    return cost.seconds(flops_of(work.architecture, job.size), _load(work))
