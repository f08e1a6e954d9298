"""A search with everything looked up: the request, the proxies on their workbench, the study's folder."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from distill.files import digest
from distill.images.datasets import ImageDataset
from distill.recipe import Recipe, TrainingRecipe
from distill.recipe import facts as recipe_facts
from distill.run import Listener, Progress
from distill.synthetic import SyntheticSet
from distill.training.precision import multiplies_bfloat16
from ftdnas.candidates.handover import hand_over
from ftdnas.candidates.materials import Shelf
from ftdnas.candidates.screening import default_screening
from ftdnas.candidates.truth import truth_recipe
from ftdnas.proxies.base import Proxy
from ftdnas.proxies.bench import CALIBRATION, Workbench
from ftdnas.proxies.names import default_proxy, find_proxy, read_proxy
from ftdnas.ranking.ask_tell import Sampler, Settings
from ftdnas.ranking.evidence import in_words, limits
from ftdnas.ranking.plan import parse_restriction
from ftdnas.ranking.request import SearchRequest
from ftdnas.ranking.samplers import ADAPTIVE, SAMPLERS, make_sampler
from ftdnas.ranking.study import StudyFolder, study_folder
from ftdnas.runtime.device import pick_device, use_processes, visible_gpus
from ftdnas.runtime.processes import Executor, LocalProcesses
from ftdnas.sets.making import choose_recipe
from ftdnas.sets.recipes import recipe_from_dict
from search_spaces.base import Restriction, SearchSpace, find_space
from search_spaces.messages import hint

TYPICAL = 24  # architectures that stand for all when costs are estimated
MINUTES = 30.0  # of a search without a GPU
DRAWS = {"cpu": 2, "cuda": 5}  # of random subsets
OBJECTIVES = {"params": "minimize", "flops": "minimize", "latency": "minimize"}
FACTS = {"params": "parameters", "flops": "flops", "latency": "latency_ms"}  # of a candidate, by objective


def set_recipe(synthetic: SyntheticSet | None) -> Recipe:
    """The recipe that the set was made by; the default one where it does not say, as sets from elsewhere."""
    stored = synthetic.provenance.get("recipe") if synthetic is not None else None
    return recipe_from_dict(stored, "the set's recipe") if isinstance(stored, Mapping) else Recipe()


@dataclass(frozen=True, eq=False)
class PreparedSearch:
    """A request with everything looked up."""

    request: SearchRequest
    space: SearchSpace
    restrict: Restriction
    bench: Workbench
    proxy: Proxy
    compared: tuple[Proxy, ...]
    folder: StudyFolder
    settings: Mapping[str, Any]  # what the scores depend on
    materials: Path
    jobs: int
    listener: Listener

    def say(self, message: str) -> None:
        self.listener(Progress("search", 0, 0, message=message))

    @property
    def size(self) -> tuple[tuple[int, int, int], int]:
        return self.bench.data.image_shape, self.bench.data.num_classes

    @cached_property
    def example(self) -> str | None:
        """Some candidate; None where there is none."""
        return next(iter(self.request.names), None) or getattr(sampler_of(self, "stratified").ask(), "name", None)

    def shelf(self) -> Shelf:
        """All materials that any of the proxies needs: they reach a process once."""
        if self.example is not None:
            for proxy in (self.proxy, *self.compared):
                proxy.todo([self.example], {})
        return self.bench.shelf

    @contextlib.contextmanager
    def executor(self) -> Iterator[Executor[Shelf]]:
        """The processes of the whole search, begun when there is something to do."""
        device = self.bench.device
        if self.request.executor == "ray":
            from ftdnas.runtime.ray import RayCluster

            gpus = 1.0 if device == "cuda" else 0.0
            with RayCluster(self.shelf, self.jobs, address=self.request.ray_address, gpus=gpus) as cluster:
                yield cluster
            return

        def lay_out() -> Callable[[], Shelf]:
            return hand_over(list(self.shelf().values()), self.materials, device)

        try:
            with LocalProcesses(lay_out, self.jobs, visible_gpus(device)) as processes:
                yield processes
        finally:
            shutil.rmtree(self.materials, ignore_errors=True)


def prepare_search(
    request: SearchRequest,
    synthetic: SyntheticSet | None,
    set_name: str,
    data: ImageDataset,
    listener: Listener,
    source: Mapping[str, Any],
) -> PreparedSearch:
    space = find_space(request.space)
    if request.proxy is None:
        usual, why = default_proxy(request.space, synthetic, images=len(data.train) > 0)
        if why:
            listener(Progress("search", 0, 0, message=f"ranked by {usual}: {why}"))
        request = replace(request, proxy=usual)
    proxies = [read_proxy(text) for text in (str(request.proxy), *request.compared)]
    if request.sampler not in SAMPLERS:
        raise LookupError(f"unknown sampler {request.sampler!r}: {hint(request.sampler, SAMPLERS)}")
    if request.executor not in ("local", "ray"):
        raise LookupError(f"unknown executor {request.executor!r}: choose from local, ray")
    for objective in request.objectives:
        if objective not in OBJECTIVES:
            raise LookupError(f"unknown objective {objective!r}: {hint(objective, OBJECTIVES)}")
    if request.sampler in ADAPTIVE and proxies[0].ranks_together:
        raise ValueError(
            f"sampler {request.sampler} asks for one candidate after another, and {request.proxy} ranks candidates "
            "beside each other: take stratified, random or exhaustive"
        )
    device = pick_device(request.device).type
    truth = _truth_of(request, synthetic, str(source.get("spec") or data.name), device)
    request, screening = replace(request, truth=truth, names=request.named(), among=None), request.screened()
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
    if request.calibrate != CALIBRATION:
        settings["calibrate"] = request.calibrate
    if request.truth is not None:  # so that a report finds the scores of a race, which depend on it
        settings["truth"] = {"recipe": recipe_facts(request.truth), "seeds": list(request.truth_seeds)}
    plain = request.space if request.space.isalnum() else "space"
    name = request.study or f"{set_name or data.name}-{plain}-{digest(settings, 6)}"
    folder = study_folder(name)
    jobs = use_processes(request.processes, device)
    proxy = find_proxy(str(request.proxy), bench)
    compared = tuple(find_proxy(text, bench) for text in request.compared)
    materials = folder.materials / str(os.getpid())  # of this process, for others may work on the study
    return PreparedSearch(request, space, restrict, bench, proxy, compared, folder, settings, materials, jobs, listener)


def _truth_of(request: SearchRequest, synthetic: SyntheticSet | None, spec: str, device: str) -> TrainingRecipe | None:
    """How real trainings go: as asked for, or by the recipe of the set or the data where a proxy cannot do without."""
    proxies = [read_proxy(text) for text in (str(request.proxy), *request.compared)]
    if request.truth is not None or not any(proxy.needs_truth for proxy in proxies):
        return request.truth
    made_by = set_recipe(synthetic) if synthetic is not None else choose_recipe(spec, None, device == "cuda")[0]
    return truth_recipe(made_by.evaluation.full)


def known_limits(job: PreparedSearch) -> list[str]:
    """What was measured before of the proxy on the space, a line each."""
    return limits(job.space.name, read_proxy(job.proxy.name), _labels(job), as_measured=_as_measured(job))


def how_sure(job: PreparedSearch) -> str:
    """The same in words, for who has to choose."""
    return in_words(job.space.name, read_proxy(job.proxy.name), _labels(job))


def _labels(job: PreparedSearch) -> str:
    synthetic, screening = job.bench.synthetic, job.bench.screening
    taught = screening.labels == "teachers" and synthetic is not None and synthetic.teachers is not None
    return "teachers" if taught else "set"


def _as_measured(job: PreparedSearch) -> bool:
    # Under labels of its own a set was measured with the rest of the screening as it is by default.
    default = default_screening(job.space.name).screening
    return replace(job.bench.screening, labels="set") == replace(default, labels="set")


def precision_notes(job: PreparedSearch) -> list[str]:
    """What is to be said of the precision of the trainings, a line each."""
    lines, own = [], job.bench.screening.precision
    if own == "float32" and job.bench.device == "cpu" and multiplies_bfloat16():
        lines.append("this processor has units for bfloat16: --precision bfloat16 trains sooner and ranks as well")
    real = (job.request.truth or set_recipe(job.bench.synthetic).evaluation.full).precision
    if own != real:
        lines.append(f"trainings on all real images are {real}: they take another time than is estimated from {own}")
    return lines


def sampler_of(job: PreparedSearch, name: str) -> Sampler:
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
