"""Real trainings and reports from what was asked: the study, the images and the recipe that its names stand for."""

from __future__ import annotations

from pathlib import Path

from distill.images.datasets import ACCURACY, ImageDataset
from distill.recipe import TrainingRecipe
from distill.run import Listener, ignore
from ftdnas.agreement.comparison import Comparison
from ftdnas.candidates.truth import RealTrainings, Truth, find_truth, remember, train, truth_recipe
from ftdnas.candidates.truth_table import Columns
from ftdnas.ranking.job import set_recipe
from ftdnas.ranking.plan import parse_restriction
from ftdnas.report.request import ReportRequest, TruthRequest
from ftdnas.report.study import open_ranked_study, write
from ftdnas.runtime.device import pick_device, use_processes
from ftdnas.sets.images import Source
from ftdnas.sets.making import choose_recipe
from ftdnas.sets.recipes import load_recipe
from search_spaces.base import find_space, stratified_sample


def run_truth(request: TruthRequest, listener: Listener = ignore) -> tuple[str, Truth]:
    """Train the candidates of a study or of a space; (the truth's name, it). What the pool has is not done again.

    Raises LookupError for an unknown study, space or recipe, and what loading the images and `train` raise.
    """
    data, names, full = _subject(request, listener)
    recipe = real_recipe(request.recipe, full, request.epochs, request.real_lr)
    trainings = RealTrainings.of(data, recipe, request.seeds)
    name = request.name or f"{data.name}-{data.image_shape[1]}px-{recipe.epochs}epochs-{request.seeds}seeds"
    if request.name is None and data.metric != ACCURACY:
        name += f"-{data.metric}"
    remember(name, trainings)
    device = pick_device(request.device).type
    truth = train(
        data,
        names,
        trainings,
        jobs=use_processes(request.processes, device),
        device=device,
        join=request.join,
        storage=request.storage,
        limit_s=request.limit_s,
        listener=listener,
    )
    return name, truth


def run_report(request: ReportRequest) -> tuple[Path, Comparison | None]:
    """The page of a study's report, and what it compares where a truth is named.

    Raises LookupError for an unknown study or truth, ValueError for what `find_truth` and `write` refuse.
    """
    found = open_ranked_study(request.study, request.data_root)
    truth = None
    if request.truth is not None:
        images = found.images(Source("", request.data_root))
        columns = Columns(request.truth_architectures, request.truth_column, request.columns or {})
        truth = find_truth(request.truth, found.settings["space"], images, found.candidates, columns)
    return write(found, truth, request.out, png=request.png)


def real_recipe(name: str | None, full: TrainingRecipe, epochs: int | None, lr: float | None) -> TrainingRecipe:
    """How architectures are trained on all real images: by `full`, or by the recipe of that name."""
    return truth_recipe(full if name is None else load_recipe(name).evaluation.full, epochs, lr)


def fitting_training(source: Source, data: ImageDataset) -> TrainingRecipe:
    """How all real images are trained by the recipe that suits them."""
    recipe, _ = choose_recipe(source.spec or data.name, None, pick_device("auto").type == "cuda")
    return recipe.evaluation.full


def _subject(request: TruthRequest, listener: Listener) -> tuple[ImageDataset, list[str], TrainingRecipe]:
    """(images, candidates, recipe of real training)."""
    source = request.source
    if request.study is not None:
        found = open_ranked_study(request.study, source.root)
        data, full = found.images(source), set_recipe(found.bench.synthetic).evaluation.full
        if request.metric not in (None, data.metric):
            raise ValueError(
                f"study {request.study} is counted by {data.metric}: "
                f"ftdnas search --metric {request.metric} makes one that is not"
            )
        return data, list(found.candidates), full if full.lr is not None else fitting_training(source, data)
    space = find_space(request.space)
    restrict = parse_restriction(space, request.where)
    data = source.load(listener)
    sample = stratified_sample(space, request.sample, data.image_shape, request.seed, restrict, data.num_classes)
    return data, [architecture.name for architecture in sample], fitting_training(source, data)
