"""Judging a set of the library: its test accuracy beside that of real images, kept so that nothing is trained twice."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from distill.recipe import Recipe, TrainingRecipe
from distill.recipe import identity as recipe_identity
from distill.run import Listener, Run, ignore
from ftdnas.runtime.device import pick_device, use_threads
from ftdnas.runtime.home import digest, home
from ftdnas.runtime.rows import RowFile
from ftdnas.sets.images import images_of
from ftdnas.sets.library import Library
from ftdnas.sets.recipes import load_recipe, override, recipe_from_dict
from ftdnas.sets.request import EvaluateRequest, setting_texts

if TYPE_CHECKING:
    from distill.evaluation import Evaluation
    from distill.images.datasets import ImageDataset
    from distill.synthetic import SyntheticSet


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
                {**dataclasses.asdict(each), "mean": each.mean, "deviation": _finite(each.deviation)}
                for each in self.evaluations
            ],
        }


def judge(request: EvaluateRequest, listener: Listener = ignore) -> Judgement:
    """Train fresh networks on the set and on what it is held against, and read the test images once each.

    Raises LookupError for an unknown set, network or comparison, ValueError where the real images are not the set's.
    """
    from distill.evaluation import AGAINST
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
    test_digest = _digest(data.test.images, data.test.labels)
    evaluations = [
        _once(
            kept,
            _Case(kind, network.name, synthetic, path.stem, data, test_digest, recipe, request.seeds, run),
        )
        for network in networks
        for kind in ("set", *against)
    ]
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


@dataclass(frozen=True, eq=False)
class _Case:
    """One line of the answer: the set itself (kind "set") or what it is held against, on one network."""

    kind: str
    network: str
    synthetic: SyntheticSet
    set_name: str
    data: ImageDataset
    test_digest: str
    recipe: Recipe
    seeds: int
    run: Run

    @property
    def name(self) -> str:
        return self.set_name if self.kind == "set" else self.kind

    def key(self) -> str:
        """Hex digest of all that its accuracies depend on."""
        from distill.experts import epochs_needed
        from distill.methods import versions

        # Herding and k-means choose by the features of an expert at its last epoch.
        experts = (
            {**recipe_identity(self.recipe.experts), "epochs": epochs_needed(self.recipe)}
            if self.kind in ("herding", "kmeans")
            else None
        )
        determined = {
            "kind": self.kind,
            "set": self.synthetic.identity if self.kind == "set" else self.synthetic.preprocess.fingerprint,
            "data": self.data.fingerprint,
            "test": self.test_digest,
            "split": self.data.split_note,
            "network": self.network,
            "backbone": self.recipe.backbone,
            "ipc": self.recipe.ipc,
            "recipe": recipe_identity(self.recipe.evaluation),
            "experts": experts,
            "seeds": self.seeds,
            "versions": versions(),
            "device": self.run.device.type,
        }
        return digest(determined, 32)

    def evaluate(self) -> Evaluation:
        from distill.evaluation import evaluate_against, evaluate_set

        network, data, recipe, seeds = self._builder(self.network), self.data, self.recipe, range(self.seeds)
        if self.kind == "set":
            train = recipe.evaluation.train
            return evaluate_set(self.synthetic, data, network, self.network, train, seeds, self.run, self.name)
        preprocess, backbone = self.synthetic.preprocess, self._builder(recipe.backbone)
        return evaluate_against(self.kind, data, preprocess, network, self.network, backbone, recipe, seeds, self.run)

    def _builder(self, text: str) -> Callable[[], Any]:
        from search_spaces.base import parse_architecture

        architecture = parse_architecture(text)
        return lambda: architecture.build(self.data.image_shape, self.data.num_classes)


def _once(kept: RowFile, case: _Case) -> Evaluation:
    """The evaluation, from the file if it was made before with the same everything."""
    key = case.key()
    row = kept.read().get(key)
    if row is None:
        row = {"key": key, **dataclasses.asdict(case.evaluate())}
        kept.append(row)
    return _from_row(row, case.name)


def _from_row(row: Mapping[str, Any], name: str) -> Evaluation:
    from distill.evaluation import Evaluation

    values = {field.name: row[field.name] for field in dataclasses.fields(Evaluation)}
    recipe = TrainingRecipe(**values["recipe"])
    return Evaluation(**{**values, "name": name, "accuracies": tuple(values["accuracies"]), "recipe": recipe})


def _digest(*arrays: Any) -> str:
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(memoryview(array).cast("B"))  # no copy: photos may fill more than the memory
    return digest.hexdigest()


def _finite(value: float) -> float | None:
    return value if value == value else None  # NaN: JSON has none
