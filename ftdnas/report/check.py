"""Before a search: is the proxy worth it here? A few candidates are trained for real, shortly, and it is held up."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from distill.images.datasets import ImageDataset
from distill.recipe import TrainingRecipe
from distill.run import Listener
from distill.synthetic import SyntheticSet
from ftdnas.agreement.comparison import Comparison
from ftdnas.candidates.truth import RealTrainings, Truth, train
from ftdnas.ranking.loop import SearchRequest, search
from ftdnas.ranking.table import Ranking
from ftdnas.report.study import open_ranked_study, write
from ftdnas.runtime.device import pick_device, use_processes

CANDIDATES = 32  # of the 24 to 40 that say something and can be afforded
FEWEST, MOST = 24, 40


@dataclass(frozen=True, eq=False)
class Checked:
    """The outcome: the verdict is that of the comparison."""

    ranking: Ranking
    truth: Truth
    comparison: Comparison
    page: Path


def check(
    request: SearchRequest,
    synthetic: SyntheticSet | None,
    set_name: str,
    data: ImageDataset,
    recipe: TrainingRecipe,
    listener: Listener,
    *,
    seeds: int = 1,
    source: Mapping[str, Any] | None = None,
    data_root: Path | None = None,
) -> Checked:
    """Screen stratified candidates by the request's proxy and baselines, train them by `recipe`, and compare.

    Real trainings come from the pool where it has them, and go into it. Raises ValueError for fewer than 24 or more
    than 40 candidates, for fewer say nothing and more are a search.
    """
    wanted = request.candidates or CANDIDATES
    if not FEWEST <= wanted <= MOST:
        raise ValueError(f"a check of {wanted} candidates: take {FEWEST} to {MOST}")
    asked = replace(request, candidates=wanted, sampler="stratified", truth=recipe, truth_seeds=tuple(range(seeds)))
    ranking = search(asked, synthetic, set_name, data, listener, source)
    names = [candidate.architecture for candidate in ranking.candidates]
    device = pick_device(request.device).type
    jobs = use_processes(request.jobs, device)
    truth = train(data, names, RealTrainings.of(data, recipe, seeds), jobs=jobs, device=device, listener=listener)
    page, comparison = write(open_ranked_study(ranking.study, data_root), truth)
    assert comparison is not None
    return Checked(ranking, truth, comparison, page)
