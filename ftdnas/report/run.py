"""Real trainings and reports from what was asked: the study, the images and the recipe that its names stand for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from distill.images.datasets import ACCURACY, ImageDataset
from distill.recipe import TrainingRecipe
from distill.run import Listener, ignore
from ftdnas.candidates.truth import (
    RealTrainings,
    Truth,
    find_truth,
    known_truth,
    named_trainings,
    remember,
    train,
    truth_recipe,
)
from ftdnas.candidates.truth_table import Columns
from ftdnas.ranking.changed import as_recorded, check_unchanged
from ftdnas.ranking.job import set_recipe
from ftdnas.ranking.plan import parse_restriction
from ftdnas.ranking.study import ranked_study
from ftdnas.report.request import ReportRequest, TrustRequest, TruthRequest
from ftdnas.report.study import RankedStudy, Written, open_ranked_study, write
from ftdnas.runtime.device import pick_device, use_processes
from ftdnas.sets.images import Source
from ftdnas.sets.making import choose_recipe
from ftdnas.sets.recipes import load_recipe
from search_spaces.base import find_space, stratified_sample

FIRST = 3  # that are trained again


def run_truth(request: TruthRequest, listener: Listener = ignore) -> tuple[str, Truth]:
    """Train the candidates of a study or of a space; (the truth's name, it). What the pool has is not done again.

    Raises LookupError for an unknown study, space or recipe, and what loading the images and `train` raise.
    """
    data, names, full = _subject(request, listener)
    recipe = real_recipe(request.recipe, full, request.epochs, request.real_lr)
    trainings = RealTrainings.of(data, recipe, request.seeds)
    name = request.name or _named(data, trainings)
    remember(name, trainings)
    return name, _trained(data, names, trainings, request, listener)


def run_trust(request: TrustRequest, listener: Listener = ignore) -> Written:
    """Train the study's candidates once, the first three of them by real accuracy as often as asked for, and report.

    By default they are trained as in the truth that counts for the study, so that what is known is not done again.
    Raises what `run_truth` and `write` raise.
    """
    found = open_ranked_study(request.study, request.data_root)
    check_unchanged(found.settings)
    source = Source("", request.data_root)
    data, names = found.images(source), found.candidates
    known = known_truth(data.fingerprint, names, data.metric)
    if known is not None and (request.recipe, request.epochs, request.real_lr) == (None, None, None):
        name, trainings = known[0], replace(named_trainings(known[0]), seeds=1)
    else:
        recipe = real_recipe(request.recipe, _training_of(found, source, data), request.epochs, request.real_lr)
        trainings = RealTrainings.of(data, recipe, 1)
        name = _named(data, trainings)
        remember(name, trainings)
    truth = _trained(data, names, trainings, request, listener)
    if request.seeds > 1:
        # By what was read before their further seeds: the same three when it is asked again.
        first = sorted(names, key=lambda name: -(truth.accuracy(name) or 0.0))[:FIRST]
        _trained(data, first, replace(trainings, seeds=request.seeds), request, listener)
    return write(found, named_trainings(name).truth(names))


def _trained(
    data: ImageDataset,
    names: Sequence[str],
    trainings: RealTrainings,
    request: TruthRequest | TrustRequest,
    listener: Listener,
) -> Truth:
    device = pick_device(request.device).type
    return train(
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


def _named(data: ImageDataset, trainings: RealTrainings) -> str:
    name = f"{data.name}-{data.image_shape[1]}px-{trainings.recipe.epochs}epochs-{trainings.seeds}seeds"
    return name if data.metric == ACCURACY else f"{name}-{data.metric}"


def run_report(request: ReportRequest) -> Written:
    """A study's report, held up to the truth that is named, else to the one that counts for it, if there is any.

    Raises LookupError for an unknown study or truth, ValueError for what `find_truth` and `write` refuse.
    """
    ranking = ranked_study(request.study)[1]
    with as_recorded(ranking.study, ranking.settings, ranking.candidates):
        return _report(open_ranked_study(request.study, request.data_root), request)


def _report(found: RankedStudy, request: ReportRequest) -> Written:
    if request.truth is not None:
        images = found.images(Source("", request.data_root))
        columns = Columns(request.truth_architectures, request.truth_column, request.columns or {})
        truth = find_truth(request.truth, found.settings["space"], images, found.candidates, columns)
        return write(found, truth, request.out, png=request.png)
    known = known_truth(found.data_fingerprint, found.candidates, found.bench.data.metric)
    return write(found, None if known is None else known[1], request.out, png=request.png)


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
        check_unchanged(found.settings)
        data = found.images(source)
        if request.metric not in (None, data.metric):
            raise ValueError(
                f"study {request.study} is counted by {data.metric}: "
                f"ftdnas search --metric {request.metric} makes one that is not"
            )
        return data, list(found.candidates), _training_of(found, source, data)
    space = find_space(request.space)
    restrict = parse_restriction(space, request.where)
    data = source.load(listener)
    sample = stratified_sample(space, request.sample, data.image_shape, request.seed, restrict, data.num_classes)
    return data, [architecture.name for architecture in sample], fitting_training(source, data)


def _training_of(study: RankedStudy, source: Source, data: ImageDataset) -> TrainingRecipe:
    """How a study's candidates are really trained unless told."""
    full = set_recipe(study.bench.synthetic).evaluation.full
    return full if full.lr is not None else fitting_training(source, data)
