"""Judging a training set: fresh networks trained on it, read once on test images at the end."""

from __future__ import annotations

import functools
import math
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from distill import coresets
from distill.images.datasets import ImageDataset
from distill.images.preprocess import Preprocess
from distill.recipe import EvaluationRecipe, Recipe, TrainingRecipe
from distill.run import Progress, Run
from distill.synthetic import SyntheticSet
from distill.training.examples import Examples
from distill.training.flat import Network
from distill.training.loop import trained_accuracy

AGAINST = (*coresets.CORESETS, "full")


@dataclass(frozen=True)
class Evaluation:
    """Test accuracies, fractions, of networks trained on one set with different seeds."""

    name: str
    network: str
    accuracies: tuple[float, ...]
    lr: float
    recipe: TrainingRecipe
    train_images: int
    seconds: float
    note: str = ""

    @property
    def mean(self) -> float:
        return statistics.fmean(self.accuracies)

    @property
    def deviation(self) -> float:
        """Sample standard deviation over the seeds; NaN for one seed."""
        return statistics.stdev(self.accuracies) if len(self.accuracies) > 1 else math.nan


@dataclass(frozen=True)
class ChosenRate:
    """A learning rate picked on held-out images, the accuracy it reached there, and a sentence about the choice."""

    lr: float
    accuracy: float | None
    note: str


def evaluate_set(
    synthetic: SyntheticSet,
    data: ImageDataset,
    network: Network,
    network_name: str,
    recipe: TrainingRecipe,
    seeds: Sequence[int],
    run: Run,
    name: str = "set",
) -> Evaluation:
    """Train fresh networks on the set at its step size (or the recipe's lr) and read the test images once each."""
    examples = Examples(synthetic.images.to(run.device), synthetic.labels.to(run.device))
    test = Examples.from_split(data.test, synthetic.preprocess, run.device)
    lr = recipe.lr or synthetic.step_size
    return _evaluate(name, [examples] * len(seeds), test, network, network_name, recipe, lr, seeds, run, "")


def evaluate_against(
    kind: str,
    data: ImageDataset,
    preprocess: Preprocess,
    network: Network,
    network_name: str,
    backbone: Network,
    recipe: Recipe,
    seeds: Sequence[int],
    run: Run,
) -> Evaluation:
    """The same for real images: "full", all of them; or a coreset of `recipe.ipc` images per class.

    A coreset's learning rate is chosen on validation images from the recipe's grid; each seed has a coreset of its own
    draw. `backbone` gives the features that herding and k-means choose by. Raises LookupError for an unknown kind.
    """
    test = Examples.from_split(data.test, preprocess, run.device)
    if kind == "full":
        full = recipe.evaluation.full
        if full.lr is None:
            raise ValueError("evaluation.full.lr is not set: training on real images needs a learning rate")
        everything = Examples.from_split(data.train, preprocess, run.device)
        note = f"{full.epochs} epochs, lr {full.lr:g}, not tuned"
        return _evaluate(kind, [everything] * len(seeds), test, network, network_name, full, full.lr, seeds, run, note)
    if kind not in coresets.CORESETS:
        raise LookupError(f"unknown comparison {kind!r}: choose from {', '.join(AGAINST)}")
    # One pass over the training images serves the draws of all seeds.
    features = functools.cache(lambda: coresets.expert_features(data, preprocess, backbone, recipe, run))
    drawn: list[Examples] = []
    for seed in seeds:
        if drawn and kind == "herding":
            drawn.append(drawn[0])  # it draws nothing
            continue
        rows = coresets.CORESETS[kind](features, data.train, recipe.ipc, seed).numpy()
        images = preprocess.apply(data.train.images[rows]).to(run.device)
        drawn.append(Examples(images, torch.from_numpy(data.train.labels[rows]).to(run.device)))
    held_out = held_out_examples(data, preprocess, run)
    chosen = choose_rate(drawn[0], held_out, network, recipe.evaluation, run)
    train = recipe.evaluation.train
    return _evaluate(kind, drawn, test, network, network_name, train, chosen.lr, seeds, run, chosen.note)


def held_out_examples(data: ImageDataset, preprocess: Preprocess, run: Run) -> Examples | None:
    """The validation images that choose; None where there are none."""
    split = data.choose()
    return Examples.from_split(split, preprocess, run.device) if len(split) else None


def choose_rate(
    examples: Examples, held_out: Examples | None, network: Network, recipe: EvaluationRecipe, run: Run
) -> ChosenRate:
    """The learning rate of `recipe.subset_lrs` that does best on held-out images after the validation training."""
    rates = recipe.subset_lrs
    if held_out is None:
        middle = sorted(rates)[len(rates) // 2]
        return ChosenRate(middle, None, f"step size {middle:g}, the middle of the grid: no validation images")
    scores: dict[float, float] = {}
    for done, lr in enumerate(rates):
        reached = trained_accuracy(
            network, examples, held_out, recipe.validation, lr=lr, seed=run.seed, purpose="learning rate"
        )
        scores[lr] = 0.0 if reached.diverged else reached.accuracy
        run.listener(Progress("step size", done + 1, len(rates), {"validation_accuracy": scores[lr]}))
    best = max(rates, key=lambda lr: scores[lr])
    tried = ", ".join(f"{lr:g}: {score:.3f}" for lr, score in scores.items())
    edge = ", at the edge of the grid" if len(rates) > 1 and best in (min(rates), max(rates)) else ""
    if len(rates) > 1 and len(set(scores.values())) == 1:
        edge = ", where all did equally well"
    return ChosenRate(best, scores[best], f"step size {best:g} chosen on validation{edge} ({tried})")


def _evaluate(
    name: str,
    sets: Sequence[Examples],
    test: Examples,
    network: Network,
    network_name: str,
    recipe: TrainingRecipe,
    lr: float,
    seeds: Sequence[int],
    run: Run,
    note: str,
) -> Evaluation:
    begun = time.perf_counter()
    accuracies: list[float] = []
    diverged = 0
    stage, epochs = f"evaluating {name}", recipe.epochs
    for number, (seed, examples) in enumerate(zip(seeds, sets, strict=True)):

        def listener(progress: Progress, done: int = number * epochs) -> None:
            run.listener(Progress(stage, done + progress.done, len(seeds) * epochs, progress.values))

        reached = trained_accuracy(
            network, examples, test, recipe, lr=lr, seed=seed, purpose="evaluation", listener=listener
        )
        accuracies.append(reached.accuracy)
        diverged += reached.diverged
        values = {"test_accuracy": reached.accuracy}
        run.listener(Progress(stage, (number + 1) * epochs, len(seeds) * epochs, values))
    if diverged:
        note = "; ".join(filter(None, [note, f"{diverged} of {len(seeds)} trainings diverged"]))
    seconds = time.perf_counter() - begun
    return Evaluation(name, network_name, tuple(accuracies), lr, recipe, len(sets[0]), seconds, note)
