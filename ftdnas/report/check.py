"""Before a search: is the proxy worth it here? A few candidates are trained for real, shortly, and it is held up."""

from __future__ import annotations

from dataclasses import dataclass

from distill.run import Listener, ignore
from ftdnas.candidates.truth import RealTrainings, Truth, train
from ftdnas.ranking.job import set_recipe
from ftdnas.ranking.loop import search
from ftdnas.ranking.request import SearchRequest
from ftdnas.ranking.run import materials_of
from ftdnas.ranking.table import Ranking
from ftdnas.report.request import CheckRequest
from ftdnas.report.run import fitting_training, real_recipe
from ftdnas.report.study import Written, open_ranked_study, write
from ftdnas.runtime.device import pick_device, use_processes
from ftdnas.runtime.options import shared

CANDIDATES = 32  # of the 24 to 40 that say something and can be afforded


@dataclass(frozen=True, eq=False)
class Checked:
    """The outcome: the verdict is that of the report."""

    ranking: Ranking
    truth: Truth
    written: Written


def check(request: CheckRequest, listener: Listener = ignore) -> Checked:
    """Screen stratified candidates by the request's proxy and baselines, train them for real, and compare.

    Real trainings come from the pool where it has them, and go into it.
    """
    wanted = request.candidates or CANDIDATES
    found = materials_of(request, listener, alone=False)
    data, seeds = found.data, request.real_seeds
    own = None if found.synthetic is None else set_recipe(found.synthetic).evaluation.full
    recipe = real_recipe(
        request.recipe, own or fitting_training(request.source, data), request.real_epochs, request.real_lr
    )
    asked = shared(
        request, SearchRequest, candidates=wanted, sampler="stratified", truth=recipe, truth_seeds=tuple(range(seeds))
    )
    ranking = search(asked, found.synthetic, found.set_name, data, listener, found.source)
    names = [candidate.architecture for candidate in ranking.candidates]
    device = pick_device(request.device).type
    jobs = use_processes(request.processes, device)
    truth = train(data, names, RealTrainings.of(data, recipe, seeds), jobs=jobs, device=device, listener=listener)
    return Checked(ranking, truth, write(open_ranked_study(ranking.study, request.data_root), truth))
