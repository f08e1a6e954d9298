"""The registry of methods that make a synthetic set from real images.

A method is one function (data, network, recipe, run) -> SyntheticSet. To add one: write it, and add a line to METHODS
(or `METHODS["mine"] = mine` from outside).
"""

from __future__ import annotations

import dataclasses
import platform
import time
from collections.abc import Callable
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np
import torch
from torch import Tensor

from distill import coresets, distiller, experts
from distill.evaluation import choose_rate, held_out_examples
from distill.images.datasets import ImageDataset, Split
from distill.images.preprocess import Preprocess, fit_preprocess
from distill.randomness import generator
from distill.recipe import Recipe
from distill.run import Run
from distill.synthetic import SyntheticSet
from distill.training.examples import Examples
from distill.training.flat import Network

MEAN_NOISE = 0.1  # of the images' own spread, so that those of one class part
TEACHERS = 6  # so many were measured: results/2026-11-25_ranking_study
Method = Callable[[ImageDataset, Network, Recipe, Run], SyntheticSet]


def plain_experts(recipe: Recipe) -> Recipe:
    """The recipe with experts of plain SGD steps."""
    return dataclasses.replace(recipe, experts=dataclasses.replace(recipe.experts, rho=0.0, alpha=0.0))


# The methods that match experts, and the recipe by which theirs are trained.
MATCHED: dict[str, Callable[[Recipe], Recipe]] = {"ftd": lambda recipe: recipe, "mtt": plain_experts}


def initial_images(data: ImageDataset, preprocess: Preprocess, recipe: Recipe, run: Run) -> tuple[Tensor, Tensor]:
    """What distilling starts from (see `INITS`), preprocessed (N, C, H, W), and the labels (N,), class by class.

    A class with fewer images than ipc gives all it has, over and over: the copies part as soon as they are augmented.
    """
    rows = coresets.random_rows(data.train, recipe.ipc, run.seed, repeat=True)
    photos, labels = preprocess.apply(data.train.images[rows.numpy()]), data.train.labels[rows.numpy()]
    start = recipe.matching.init
    noise = torch.randn(photos.shape, generator=generator(run.seed, "initial images"))
    if start == "noise":
        photos = photos.mean() + photos.std() * noise
    elif start == "mean":
        means = {label: _mean_image(data.train, label, preprocess) for label in np.unique(labels)}
        photos = torch.stack([means[label] for label in labels]) + MEAN_NOISE * photos.std() * noise
    return photos, torch.from_numpy(labels)


def _mean_image(split: Split, label: int, preprocess: Preprocess) -> Tensor:
    """(C, H, W), preprocessed, of all images of a class."""
    members = np.flatnonzero(split.labels == label)
    total = sum(
        split.images[rows].sum(0, dtype=np.float64) for rows in np.array_split(members, -(-len(members) // 1000))
    )
    return preprocess.apply(torch.from_numpy(total / (255 * len(members)))[None])[0]


def fitted_preprocess(data: ImageDataset, recipe: Recipe, run: Run) -> Preprocess:
    cache = run.shared / "preprocess"
    return fit_preprocess(recipe.preprocess, data.train.images, dataset=data.name, cache=cache, listener=run.listener)


def _matched(method: str, data: ImageDataset, network: Network, recipe: Recipe, run: Run) -> SyntheticSet:
    recipe = MATCHED[method](recipe)
    begun = time.perf_counter()
    preprocess = fitted_preprocess(data, recipe, run)
    fitted = time.perf_counter() - begun
    trajectories = experts.train_experts(data, preprocess, network, recipe, run)
    images, labels = initial_images(data, preprocess, recipe, run)
    held_out = held_out_examples(data, preprocess, run)
    result = distiller.distil(images, labels, held_out, trajectories, network, recipe, run)
    return matched_set(method, result, labels, trajectories, preprocess, data, recipe, run, fitted)


def matched_set(
    method: str,
    result: distiller.Distilled,
    labels: Tensor,
    trajectories: experts.ExpertBuffer,
    preprocess: Preprocess,
    data: ImageDataset,
    recipe: Recipe,
    run: Run,
    fitted_s: float = 0.0,
) -> SyntheticSet:
    """What matching made, with where it came from; `fitted_s`: seconds that the preprocessing took."""
    recipe = dataclasses.replace(recipe, matching=dataclasses.replace(recipe.matching, lr_images=result.lr_images))
    provenance = {
        **_origin(method, data, recipe, run),
        "seconds": {"preprocess": fitted_s, "experts": trajectories.seconds(), "matching": result.seconds},
        "experts_made_on": trajectories.made_on(),
        "experts": trajectories.digest(),
        "derivatives": result.derivatives,
        "losses": result.losses,
        "validation": result.validation,
        "validation_accuracy": result.validation_accuracy,
        "published": result.published,
        "notes": result.notes,
    }
    teachers = teachers_of(trajectories, recipe)
    return _synthetic_set(result.images, labels, teachers, result.step_size, preprocess, data, recipe, provenance)


def _chosen(method: str, data: ImageDataset, network: Network, recipe: Recipe, run: Run) -> SyntheticSet:
    """Real images as they are (see `distill.coresets`), with a step size chosen on validation."""
    begun = time.perf_counter()
    preprocess = fitted_preprocess(data, recipe, run)

    features = partial(coresets.expert_features, data, preprocess, network, recipe, run)
    rows = coresets.CORESETS[method](features, data.train, recipe.ipc, run.seed).numpy()
    images, labels = preprocess.apply(data.train.images[rows]), torch.from_numpy(data.train.labels[rows])
    selected = time.perf_counter() - begun
    held_out = held_out_examples(data, preprocess, run)
    chosen = choose_rate(
        Examples(images.to(run.device), labels.to(run.device)), held_out, network, recipe.evaluation, run
    )
    rated = time.perf_counter() - begun - selected
    seconds = {"selection": selected, "step size": rated}
    teachers, taught_by = None, {}
    if recipe.teachers:
        taught = dataclasses.replace(recipe, experts=dataclasses.replace(recipe.experts, num_experts=recipe.teachers))
        trajectories = experts.train_experts(data, preprocess, network, taught, run)
        teachers = teachers_of(trajectories, recipe)
        seconds["experts"] = trajectories.seconds()
        taught_by = {"experts": trajectories.digest()}
    provenance = {
        **_origin(method, data, recipe, run),
        "seconds": seconds,
        **taught_by,
        "losses": [],
        "validation": [],
        "validation_accuracy": chosen.accuracy,
        "published": "real images",
        "notes": [chosen.note, *_small_classes(labels, data, recipe)],
    }
    return _synthetic_set(images, labels, teachers, chosen.lr, preprocess, data, recipe, provenance)


def teachers_of(trajectories: experts.ExpertBuffer, recipe: Recipe) -> Tensor | None:
    """(T, P): the last weights of the first experts, as many as the recipe wants and there are; None for none."""
    wanted = TEACHERS if recipe.teachers is None else recipe.teachers
    count = min(wanted, trajectories.num_experts)
    rows = [trajectories.weights(expert, trajectories.epochs) for expert in range(count)]
    return torch.stack(rows) if rows else None


def _small_classes(labels: Tensor, data: ImageDataset, recipe: Recipe) -> list[str]:
    counts = torch.bincount(labels, minlength=data.num_classes).tolist()
    small = [f"{name} {count}" for name, count in zip(data.class_names, counts, strict=True) if count < recipe.ipc]
    return [f"fewer than {recipe.ipc} training images: {', '.join(small)}"] if small else []


def _synthetic_set(
    images: Tensor,
    labels: Tensor,
    teachers: Tensor | None,
    step_size: float,
    preprocess: Preprocess,
    data: ImageDataset,
    recipe: Recipe,
    provenance: dict[str, Any],
) -> SyntheticSet:
    return SyntheticSet(
        images=images,
        labels=labels,
        step_size=step_size,
        preprocess=preprocess,
        augment=recipe.matching.augment,
        backbone=recipe.backbone,
        class_names=data.class_names,
        ipc=recipe.ipc,
        target_size=data.target_size,
        provenance=provenance,
        teachers=teachers,
    )


def _origin(method: str, data: ImageDataset, recipe: Recipe, run: Run) -> dict[str, Any]:
    return {
        "dataset": data.name,
        "source": data.source,
        "data_fingerprint": data.fingerprint,
        "split_note": data.split_note,
        **({"found": data.found} if data.found else {}),
        "method": method,
        "recipe": dataclasses.asdict(recipe),
        "seed": run.seed,
        "expert_seed": recipe.experts.seed,
        "versions": versions(),
        "device": str(run.device) if run.device.type == "cpu" else torch.cuda.get_device_name(run.device),
        "threads": torch.get_num_threads(),
    }


def versions() -> dict[str, str]:
    """Of everything that a set's numbers depend on."""
    try:
        installed = version("ftdnas")
    except PackageNotFoundError:  # run from a checkout that was not installed
        installed = "not installed"
    return {
        "ftdnas": installed,
        "torch": torch.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
    }


METHODS: dict[str, Method] = {
    "ftd": partial(_matched, "ftd"),  # Flat Trajectory Distillation (Du et al., CVPR 2023, arXiv 2211.11004)
    "mtt": partial(_matched, "mtt"),  # Matching Training Trajectories (Cazenavette et al., CVPR 2022, arXiv 2203.11932)
    **{name: partial(_chosen, name) for name in coresets.CORESETS},
}
