"""A search: candidates of a space scored by a proxy and ranked, in a study that goes on where it stopped.

The record is one JSON row per evaluation; an Optuna study of the same name holds one trial per architecture. Several
processes and machines can work on one study: who does what is claimed in the storage that they share.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import math
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from distill.datasets import ImageDataset
from distill.recipe import Recipe, TrainingRecipe
from distill.run import Progress, ignore
from distill.synthetic import SyntheticSet
from ftdnas.advise import Advice, advise, describe_advice
from ftdnas.candidates import CostModel, Training
from ftdnas.carry_out import Record, carry_out
from ftdnas.config import recipe_from_dict
from ftdnas.distillation import rough
from ftdnas.executors import LocalProcesses
from ftdnas.leases import Leases
from ftdnas.library import Library, home
from ftdnas.limits import Limits
from ftdnas.machine import pick_device, use_processes
from ftdnas.materials import Shelf, hand_over
from ftdnas.plan import Plan, make_plan, measure_cost, parse_restriction
from ftdnas.proxies.base import Proxy, Work, Workbench, settle
from ftdnas.proxies.registry import DEFAULT, find_proxy, known_proxy
from ftdnas.proxies.trained import known_once_s
from ftdnas.ranking import Ranking, rank, write_ranking
from ftdnas.rows import Row
from ftdnas.samplers import SAMPLERS, Sampler, Settings, make_sampler
from ftdnas.screening import Screening, default_screening
from ftdnas.storage import open_storage
from ftdnas.study import Evaluated, Study, StudyFolder, open_study
from search_spaces.architecture import hint
from search_spaces.base import (
    Restriction,
    SearchSpace,
    find_space,
    flops,
    parameter_count,
    parse_architecture,
)

Report = Callable[[Progress], None]

TYPICAL = 24  # architectures that stand for all when costs are estimated
MINUTES = 30.0  # of a search without a GPU
DRAWS = {"cpu": 2, "cuda": 5}  # of random subsets
ADAPTIVE = ("tpe", "nsga2", "gp", "nni-tpe", "nni-evolution")  # samplers that learn from the scores
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
OBJECTIVES = {"params": "minimize", "flops": "minimize", "latency": "minimize"}
FACTS = {"params": "parameters", "flops": "flops", "latency": "latency_ms"}  # of a candidate, by objective


@dataclass(frozen=True)
class Request:
    """What to rank and how thoroughly; None leaves the choice to the search, which says what it chose.

    `where`: texts such as "width=32,64", the choices of the space that are looked at. `proxy`: how candidates are
    scored; `compare`: what is scored beside it on the same ones, "all" for the usual baselines. `names`: exactly these
    candidates. `objectives`: costs beside the score, of `OBJECTIVES`. `join`: other processes work on this study too.
    `truth`: how real trainings go, where a proxy needs them. `limit_s`: seconds for one evaluation.
    """

    space: str = "convnet"
    where: tuple[str, ...] = ()
    proxy: str = DEFAULT
    compare: tuple[str, ...] = ()
    sampler: str = "stratified"
    names: tuple[str, ...] = ()
    candidates: int | None = None
    minutes: float | None = None
    limits: Limits = field(default_factory=Limits)
    objectives: tuple[str, ...] = ()
    screening: Screening | None = None
    truth: TrainingRecipe | None = None
    truth_seeds: tuple[int, ...] = (0,)
    calibrate: int = 24
    seed: int = 0
    jobs: int | None = None
    device: str = "auto"
    study: str | None = None
    storage: str | None = None
    join: bool = False
    executor: str = "local"
    ray_address: str | None = None
    limit_s: float | None = None

    @property
    def compared(self) -> tuple[str, ...]:
        """The proxies beside the one that ranks, each once."""
        named = [one for text in self.compare for one in (BASELINES if text == "all" else (text,))]
        return tuple(name for name in dict.fromkeys(named) if name != self.proxy)


def search(
    request: Request,
    synthetic: SyntheticSet | None,
    set_name: str,
    data: ImageDataset,
    report: Report = ignore,
    source: Mapping[str, Any] | None = None,
) -> Ranking:
    """Rank architectures of a space. `synthetic` was made from `data`; proxies that need no set do without.

    `source`: what finds the data again, for those who go on with the study. Raises LookupError for an unknown space,
    proxy or sampler; ValueError for a request that cannot be met, a limit that no candidate meets, a study name that is
    taken by other settings, and a study that another process is working on without `join`.
    """
    job = _prepare(request, synthetic, set_name, data, report, source or {})
    with contextlib.ExitStack() as stack:
        storage = stack.enter_context(open_storage(request.storage))
        stack.enter_context(job.folder.locked() if not request.join else job.folder.shared())
        leases = stack.enter_context(storage.leases(f"rows/{job.folder.name}")) if request.join else None
        objectives = {"score": "maximize"} | {name: OBJECTIVES[name] for name in request.objectives}
        study = stack.enter_context(open_study(storage, job.folder.name, job.space, objectives))
        try:
            ranking = _run(job, leases, study)
        finally:
            shutil.rmtree(job.materials, ignore_errors=True)
    return ranking


def advice(
    request: Request, synthetic: SyntheticSet | None, set_name: str, data: ImageDataset, report: Report = ignore
) -> Advice:
    """What each way to a choice would cost, from a few timed steps.

    Raises ValueError for a proxy that trains nothing.
    """
    job = _prepare(request, synthetic, set_name, data, report, {})
    first = _first_training(job)
    if first is None:
        raise ValueError(f"{request.proxy} trains nothing, so there is nothing to time: it takes seconds")
    try:
        cost = _measured(job, first)
    finally:
        shutil.rmtree(job.materials, ignore_errors=True)
    sampler = _sampler(job, "stratified")
    sample = [
        one.name for one in itertools.islice(iter(sampler.ask, None), min(TYPICAL, request.candidates or TYPICAL))
    ]
    return _advice(job, sample, request.candidates or len(sample), cost, first)


def choose_set(library: Library, name: str | None, spec: str) -> tuple[str, SyntheticSet]:
    """The set of that name, or else the newest sound one of the library, of the data set `spec` where that is given.

    Raises LookupError where there is none, and what `Library.load` raises.
    """
    if name is None:
        place = Path(spec.partition(":")[2]).expanduser().resolve()
        wanted = {place.name, place.stem} if ":" in spec else {spec}
        entries = [entry for entry in library.list() if not entry.problem]
        fitting = [entry for entry in entries if not spec or entry.facts["dataset"] in wanted]
        if not fitting:
            what, where = (f"set of {spec}", f" --dataset {spec}") if spec else ("set", " --dataset digits")
            raise LookupError(
                f"the library has no {what} yet: make one (ftdnas distill{where}), or do without "
                f"(ftdnas search{where} --proxy race)"
            )
        name = max(fitting, key=lambda entry: entry.path.stat().st_mtime).name
    path = library.path(name)
    return path.stem, library.load(path)


def needs_set(request: Request) -> bool:
    """Whether any of its proxies trains on a set or on as many real images."""
    kinds = ("set", "random", "herding", "kmeans", "early")
    parts = [part for text in (request.proxy, *request.compared) for part in text.replace("(", "+").split("+")]
    return any(part.startswith(kinds) and not part.startswith("early:") for part in parts)


def top(study: str, k: int) -> list[str]:
    """The `k` best architectures of a study that was ranked. Raises LookupError where there is no such ranking."""
    path = home() / "studies" / study / "ranking.json"
    if not path.is_file():
        known = sorted(folder.parent.name for folder in (home() / "studies").glob("*/ranking.json"))
        raise LookupError(
            f"no study {study!r} was ranked: {hint(study, known) if known else 'ftdnas search makes one'}"
        )
    ranked = json.loads(path.read_text(encoding="utf-8"))["candidates"]
    return [one["architecture"] for one in ranked if one["score"] is not None][:k]


def set_recipe(synthetic: SyntheticSet | None) -> Recipe:
    """The recipe that the set was made by; the default one where it does not say, as sets from elsewhere."""
    stored = synthetic.provenance.get("recipe") if synthetic is not None else None
    return recipe_from_dict(stored, "the set's recipe") if isinstance(stored, Mapping) else Recipe()


@dataclass(frozen=True, eq=False)
class Job:
    """A request with everything looked up."""

    request: Request
    space: SearchSpace
    restrict: Restriction
    bench: Workbench
    proxy: Proxy
    compared: tuple[Proxy, ...]
    folder: StudyFolder
    materials: Path
    jobs: int
    report: Report

    def say(self, message: str) -> None:
        self.report(Progress("search", 0, 0, message=message))

    @property
    def size(self) -> tuple[tuple[int, int, int], int]:
        return self.bench.data.image_shape, self.bench.data.num_classes

    @contextlib.contextmanager
    def executor(self) -> Iterator[Any]:
        """With what is on the bench's shelf now."""
        if self.request.executor == "ray":
            from ftdnas.ray_executor import RayCluster

            gpus = 1.0 if self.bench.device == "cuda" else 0.0
            with RayCluster(
                lambda: dict(self.bench.shelf), self.jobs, address=self.request.ray_address, gpus=gpus
            ) as cluster:
                yield cluster
        else:
            with LocalProcesses(self.lay_out, self.jobs) as processes:
                yield processes

    def lay_out(self) -> Callable[[], Shelf]:
        return hand_over(list(self.bench.shelf.values()), self.materials, self.bench.device)


def _prepare(
    request: Request,
    synthetic: SyntheticSet | None,
    set_name: str,
    data: ImageDataset,
    report: Report,
    source: Mapping[str, Any],
) -> Job:
    space = find_space(request.space)
    for text in (request.proxy, *request.compared):
        known_proxy(text)
    if request.sampler not in SAMPLERS:
        raise LookupError(f"unknown sampler {request.sampler!r}: {hint(request.sampler, SAMPLERS)}")
    if request.executor not in ("local", "ray"):
        raise LookupError(f"unknown executor {request.executor!r}: choose from local, ray")
    for name in request.objectives:
        if name not in OBJECTIVES:
            raise LookupError(f"unknown objective {name!r}: {hint(name, OBJECTIVES)}")
    if request.sampler in ADAPTIVE and ("race" in request.proxy or "hybrid" in request.proxy):
        raise ValueError(
            f"sampler {request.sampler} asks for one candidate after another, and {request.proxy} ranks all at once: "
            "take stratified, random or exhaustive"
        )
    device = pick_device(request.device).type
    screening = request.screening or default_screening(request.space).screening
    bench = Workbench(
        data,
        screening,
        seed=request.seed,
        synthetic=synthetic,
        set_name=set_name,
        device=device,
        draws=DRAWS[device],
        truth=request.truth,
        truth_seeds=request.truth_seeds,
        calibration=request.calibrate,
    )
    restrict = parse_restriction(space, request.where)
    settings = {
        "space": request.space,
        "code": space.code,
        "restrict": {key: sorted(values, key=str) for key, values in sorted(restrict.items())},
        "proxy": request.proxy,
        "sampler": request.sampler,
        "objectives": list(request.objectives),
        "set": synthetic.identity if synthetic is not None else None,
        "set name": set_name,
        "data": data.fingerprint,
        "title": data.source,
        "source": dict(source),
        "screening": screening.to_json(),
        "limits": request.limits.describe(),
        "seed": request.seed,
    }
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()
    plain = request.space if request.space.isalnum() else "space"
    name = request.study or f"{set_name or data.name}-{plain}-{digest[:6]}"
    if Path(name).name != name or name.startswith("."):
        raise ValueError(f"study name {name!r} cannot name a folder: leave out slashes and a leading dot")
    folder = StudyFolder(home() / "studies" / name, settings)
    jobs = use_processes(request.jobs, device)
    proxy = find_proxy(request.proxy, bench)
    compared = tuple(find_proxy(text, bench) for text in request.compared)
    materials = folder.materials / str(os.getpid())  # of this process, for others may work on the study
    return Job(request, space, restrict, bench, proxy, compared, folder, materials, jobs, report)


def _run(job: Job, leases: Leases | None, study: Study) -> Ranking:
    request = job.request
    job.say(
        f"study {job.folder.name}; evaluations run in {job.jobs} process{'es' * (job.jobs > 1)} on {job.bench.device}"
    )
    job.say(f"screening: {job.bench.screening.describe()}; ranked by {job.proxy.title}")
    if job.bench.synthetic is not None and job.bench.synthetic.target_size:
        side, target = job.bench.synthetic.image_shape[1], job.bench.synthetic.target_size
        job.say(f"the set is of {side} pixels, the target of {target}: candidates are screened at {side}")
    plan, cost, names = _plan(job)
    record = Record(job.folder.rows, leases)
    record.exchange()
    rows: dict[str, Row] = {}
    if names is None:
        names = _adaptive(job, plan, record, rows, study)
        plan = Plan(**{**plan.__dict__, "candidates": tuple(names)})
        job.folder.keep(plan, cost)
    facts = facts_of(names, job)
    _settle(job, [job.proxy], names, record, rows, cost, "screening")
    _settle(job, job.compared, names, record, rows, cost, "baselines")
    ranking = rank(job, plan, names, facts, rows)
    study.add(_evaluated(ranking, request))
    write_ranking(ranking)
    return ranking


def facts_of(names: Sequence[str], job: Job) -> dict[str, dict[str, Any]]:
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


def _plan(job: Job) -> tuple[Plan, CostModel, list[str] | None]:
    """The study's own plan, unless it has none or another number of candidates or minutes is asked for."""
    asked, stored = job.request, job.folder.plan()
    if stored is not None:
        plan = stored[0]
        same = asked.minutes in (None, plan.minutes) if asked.candidates is None else asked.candidates == plan.wanted
        if same and (not asked.names or tuple(asked.names) == plan.candidates):
            job.say(plan.describe())
            return *stored, list(plan.candidates)
    first = _first_training(job)
    cost = CostModel(0.0, 0.0, 0.0)
    if first is not None and not (asked.candidates and asked.candidates <= 12):
        job.say("timing a few architectures ...")
        cost = _measured(job, first)
    adaptive = asked.sampler in ADAPTIVE and not asked.names
    sampler = _sampler(job, "stratified" if adaptive else asked.sampler)
    order = map(parse_architecture, asked.names) if asked.names else iter(sampler.ask, None)
    everything = first is None or asked.sampler == "exhaustive"
    minutes = MINUTES if asked.minutes is None and job.bench.device == "cpu" else asked.minutes
    plan = make_plan(
        job.space,
        order,
        lambda name: _trained_flops(job, name),
        cost=cost,
        loads=[_load(first)] if first else [],
        jobs=job.jobs,
        wanted=len(asked.names) or asked.candidates,
        minutes=None if everything else minutes,
    )
    if not plan.candidates:
        sampler.ask()
        raise ValueError(f"no candidate fits what was asked for: {sampler.reason}")
    if not adaptive:
        job.folder.keep(plan, cost)
    job.say(plan.describe())
    if first is not None and cost.flop + cost.image > 0:
        for line in describe_advice(_advice(job, plan.candidates, len(plan.candidates), cost, first)):
            job.say(line)
    return plan, cost, None if adaptive else list(plan.candidates)


def _sampler(job: Job, name: str) -> Sampler:
    limits, objectives = job.request.limits, job.request.objectives
    return make_sampler(
        name,
        job.space,
        Settings(
            job.request.seed,
            *job.size,
            restrict=job.restrict,
            fits=lambda architecture: limits.obstacle(architecture, *job.size),
            directions=("maximize", *(OBJECTIVES[name] for name in objectives)),
        ),
    )


def _first_training(job: Job) -> Training | None:
    """What one candidate is trained by, to be timed; None where the proxy trains nothing."""
    name = next(iter(job.request.names), None) or getattr(_sampler(job, "stratified").ask(), "name", None)
    if name is None:
        return None
    works = [work for work in job.proxy.todo([name], {}) if isinstance(work, Training)]
    return max(works, key=lambda work: work.images_seen, default=None)


def _settle(
    job: Job,
    proxies: Sequence[Proxy],
    names: Sequence[str],
    record: Record,
    rows: dict[str, Row],
    cost: CostModel,
    stage: str,
) -> None:
    """Do what the proxies ask for, round after round; `rows` collects it."""
    rows |= {key: row for key, row in record.file.settled().items() if key not in rows}

    def a_round(todo: Mapping[str, Work]) -> Mapping[str, Row]:
        # The dearest first: the last process then has not long to go when the others are done.
        priced = sorted(((_price(work, cost, job), key) for key, work in todo.items()), reverse=True)
        seconds = max(priced[0][0], sum(price for price, _ in priced) / job.jobs)
        about = f", about {rough(seconds)}" if seconds > 1 else ""
        job.say(f"{len(todo)} evaluations to do{about}; Ctrl-C is safe, the same command goes on")
        done = 0

        def finished(row: Row) -> None:
            nonlocal done
            done += 1
            values = {} if row.get("score") is None else {"validation_accuracy": float(row["score"])}
            job.report(Progress(stage, done, len(todo), values))

        with job.executor() as processes:
            works = [todo[key] for _, key in priced]
            return carry_out(works, record, processes, finished, limit_s=job.request.limit_s)

    settle(proxies, names, rows, a_round)


def _trained_flops(job: Job, name: str) -> int:
    """Of what is trained for a candidate."""
    return flops(parse_architecture(job.bench.trained(name)[0]), *job.size)


def _measured(job: Job, first: Training) -> CostModel:
    material = job.bench.shelf[first.trained_on.fingerprint]
    with job.executor() as processes:
        return measure_cost(job.space, job.restrict, material, first.recipe, job.request.seed, processes)


def _advice(job: Job, names: Sequence[str], candidates: int, cost: CostModel, first: Training) -> Advice:
    """What each way to a choice would cost for so many candidates, of which `names` are typical."""
    full = job.request.truth or set_recipe(job.bench.synthetic).evaluation.full
    return advise(
        candidates,
        [_trained_flops(job, name) for name in names],
        [flops(parse_architecture(name), *job.size) for name in names],
        cost,
        screening_images=_load(first),
        epoch_images=len(job.bench.data.train),
        full_epochs=full.epochs,
        rungs=job.bench.rungs,
        distillation_s=known_once_s(job.bench) or None,
        jobs=job.jobs,
    )


def _load(training: Training) -> float:
    """Images seen; reading one for the score costs about a third of training on it."""
    return training.images_seen + training.scored_on.images / 3


def _price(work: Work, cost: CostModel, job: Job) -> float:
    if not isinstance(work, Training):
        return 0.0
    try:
        count = flops(parse_architecture(work.architecture), *job.size)
    except Exception:  # what cannot be built fails soon
        return 0.0
    return cost.seconds(count, _load(work))


def _adaptive(job: Job, plan: Plan, record: Record, rows: dict[str, Row], study: Study) -> list[str]:
    """Candidates of a sampler that learns: proposed while others are evaluated, and told of each that is done.

    It is told of the proxy's first part alone, for a sum of ranks changes with every candidate.
    """
    request, wanted = job.request, len(plan.candidates)
    sampler, guide = _sampler(job, request.sampler), guide_of(job.proxy)
    names: list[str] = []
    waiting: dict[str, str] = {}  # key of a work -> candidate
    missing: dict[str, set[str]] = {}
    rows |= record.file.settled()

    def tell(name: str) -> None:
        value = guide.column([name], rows)[0]
        costs = facts_of([name], job)[name]
        others = [costs[FACTS[one]] for one in request.objectives]
        failed = value is None or not math.isfinite(value) or None in others
        sampler.tell(parse_architecture(name), None if failed else [value, *others])  # type: ignore[list-item]

    for name in study.evaluated():
        if not guide.todo([name], rows):
            names.append(name)
            tell(name)

    def ask() -> Iterator[Work | None]:
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

    def finished(row: Row) -> None:
        rows[row["key"]] = row
        name = waiting[row["key"]]
        missing[name].discard(row["key"])
        job.report(Progress("screening", sum(not left for left in missing.values()), wanted))
        if not missing[name]:
            tell(name)

    first = next(iter(job.request.names), None) or plan.candidates[0]
    job.proxy.todo([first], {})  # so that all materials are on the shelf
    with job.executor() as processes:
        carry_out(ask(), record, processes, finished, limit_s=request.limit_s)
    return names


def guide_of(proxy: Proxy) -> Proxy:
    """What of a proxy has a value for one candidate alone: itself, or the first part of a sum of ranks."""
    parts: Sequence[Proxy] = getattr(proxy, "parts", ())
    return guide_of(parts[0]) if parts else proxy


def _evaluated(ranking: Ranking, request: Request) -> list[Evaluated]:
    """The ranking as trials. Ranks change with every candidate: a trial's score is that of the proxy's first part."""
    return [
        Evaluated(
            architecture=one.architecture,
            values=None
            if one.guide is None
            else (one.guide, *(float(getattr(one, FACTS[name])) for name in request.objectives)),
            scores={"accuracy": one.accuracy, "late_loss": one.late_loss},
            seconds=one.seconds,
            parameters=one.parameters,
            flops=one.flops,
            error=(one.error or "no score") if one.guide is None else None,
        )
        for one in ranking.candidates
    ]
