"""Judging a set of the library: its test accuracy beside that of real images, kept so that nothing is trained twice."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from distill.files import digest
from distill.recipe import Recipe
from distill.recipe import identity as recipe_identity
from distill.run import Listener, Run, ignore
from ftdnas.runtime.device import pick_device, use_threads
from ftdnas.runtime.home import home
from ftdnas.runtime.records import from_json, to_json
from ftdnas.runtime.rows import RowFile
from ftdnas.sets.images import images_of
from ftdnas.sets.library import Library
from ftdnas.sets.recipes import load_recipe, override, recipe_from_dict
from ftdnas.sets.request import EvaluateRequest, setting_texts

if TYPE_CHECKING:
    from distill.evaluation import Evaluation
    from distill.images.datasets import ImageDataset
    from distill.synthetic import SyntheticSet
    from distill.training.flat import Network
    from search_spaces.base import Architecture


@dataclass(frozen=True, eq=False)
class Judgement:
    """The answers: first the set, then what it is held against, network by network."""

    name: str
    source: str
    split_note: str
    test_images: int
    evaluations: tuple[Evaluation, ...]

    def to_json(self) -> dict[str, Any]:
        """Everything, with the raw accuracies as fractions."""
        return {
            "set": self.name,
            "source": self.source,
            "split": self.split_note,
            "test_images": self.test_images,
            "evaluations": [
                {**to_json(each), "mean": each.mean, "deviation": to_json(each.deviation)} for each in self.evaluations
            ],
        }


def judge(request: EvaluateRequest, listener: Listener = ignore) -> Judgement:
    """Train fresh networks on the set and on what it is held against, and read the test images once each.

    Raises LookupError for an unknown set, network or comparison, ValueError where the real images are not the set's.
    """
    from distill.evaluation import AGAINST, Evaluation, evaluate_against, evaluate_set
    from search_spaces.base import parse_architecture

    against = tuple(kind.strip() for kind in request.against.split(",") if kind.strip())
    for kind in against:
        if kind not in AGAINST:
            raise LookupError(f"unknown comparison {kind!r}: choose from {', '.join(AGAINST)}")
    if request.seeds < 1:
        raise ValueError(f"{request.seeds} seeds: an evaluation needs at least 1")
    library = Library()
    path = library.path(request.set)
    synthetic = library.load(path)
    networks = [parse_architecture(name) for name in request.networks or (synthetic.backbone,)]
    for network in networks:
        if obstacle := network.obstacle(synthetic.image_shape):
            raise ValueError(f"{network.name} cannot carry the set's images: {obstacle}")
    recipe = judging_recipe(synthetic, request)
    data = images_of(synthetic, request.source, listener)
    use_threads(request.threads)
    run = Run(seed=0, folder=home() / "runs", shared=home(), device=pick_device(request.device), listener=listener)
    kept = RowFile(home() / "evaluations.jsonl")
    common = _common(data, recipe, request.seeds, run)

    def network_of(architecture: Architecture) -> Network:
        return lambda: architecture.build(data.image_shape, data.num_classes)

    def evaluation(kind: str, architecture: Architecture) -> Evaluation:
        """From the file if it was made before with the same everything."""
        own = {"kind": kind, "network": architecture.name, "experts": _experts(kind, recipe)}
        own["set"] = synthetic.identity if kind == "set" else synthetic.preprocess.fingerprint
        key, name = digest({**common, **own}, 32), path.stem if kind == "set" else kind
        row = kept.read().get(key)
        if row is None:
            network, called, seeds = network_of(architecture), architecture.name, range(request.seeds)
            if kind == "set":
                made = evaluate_set(synthetic, data, network, called, recipe.evaluation.train, seeds, run, name)
            else:
                backbone = network_of(parse_architecture(recipe.backbone))
                preprocess = synthetic.preprocess
                made = evaluate_against(kind, data, preprocess, network, called, backbone, recipe, seeds, run)
            row = {"key": key, **to_json(made)}
            kept.append(row)
        stored: Evaluation = from_json(Evaluation, row)
        return dataclasses.replace(stored, name=name)

    evaluations = [evaluation(kind, network) for network in networks for kind in ("set", *against)]
    return Judgement(path.stem, data.source, data.split_note, len(data.test), tuple(evaluations))


def judging_recipe(synthetic: SyntheticSet, request: EvaluateRequest) -> Recipe:
    """The recipe that was named, else the set's own, else (a set from elsewhere) the default one."""
    recorded = synthetic.provenance.get("recipe")
    if request.recipe is not None:
        recipe = load_recipe(request.recipe)
    elif isinstance(recorded, Mapping):
        recipe = recipe_from_dict(recorded, "the set's recipe")
    else:
        recipe = Recipe()
    # What describes the set itself is the set's: only the training is asked for here.
    recipe = dataclasses.replace(recipe, ipc=synthetic.ipc, backbone=synthetic.backbone)
    return override(recipe, setting_texts(request.settings))


def _common(data: ImageDataset, recipe: Recipe, seeds: int, run: Run) -> dict[str, Any]:
    """What all evaluations of a request depend on, for their digests."""
    from distill.methods import versions

    test = hashlib.sha256()
    for array in (data.test.images, data.test.labels):
        test.update(memoryview(array).cast("B"))  # type: ignore[arg-type]  # no copy: photos may fill more than the memory
    return {
        "data": data.fingerprint,
        "test": test.hexdigest(),
        "split": data.split_note,
        "backbone": recipe.backbone,
        "ipc": recipe.ipc,
        "recipe": recipe_identity(recipe.evaluation),
        "seeds": seeds,
        "versions": versions(),
        "device": run.device.type,
    }


def _experts(kind: str, recipe: Recipe) -> dict[str, Any] | None:
    """Herding and k-means choose by the features of an expert at its last epoch."""
    from distill.experts import epochs_needed

    if kind not in ("herding", "kmeans"):
        return None
    return {**recipe_identity(recipe.experts), "epochs": epochs_needed(recipe)}
