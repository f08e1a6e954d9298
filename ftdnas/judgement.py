"""Judging a set of the library: its test accuracy beside that of real images, kept so that nothing is trained twice."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from distill.recipe import Recipe, TrainingRecipe
from distill.run import Progress, Run, ignore
from ftdnas.config import load_recipe, override, recipe_from_dict
from ftdnas.library import Library, home
from ftdnas.machine import pick_device, use_threads
from ftdnas.real_images import Source, images_of
from ftdnas.rows import RowFile

if TYPE_CHECKING:
    from distill.datasets import ImageDataset
    from distill.evaluation import Evaluation
    from distill.synthetic import SyntheticSet

Report = Callable[[Progress], None]


@dataclass(frozen=True)
class Question:
    """What is asked of a set. `recipe` None: the evaluation that the set's own recipe names."""

    name: str  # in the library, or a path
    networks: tuple[str, ...] = ()  # () is the backbone it was distilled with
    against: tuple[str, ...] = ()
    seeds: int = 5
    recipe: str | None = None
    settings: tuple[str, ...] = ()
    source: Source | None = None
    device: str = "auto"
    threads: int | None = None


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


def judge(question: Question, report: Report = ignore) -> Judgement:
    """Train fresh networks on the set and on what it is held against, and read the test images once each.

    Raises LookupError for an unknown set, network or comparison, ValueError where the real images are not the set's.
    """
    from distill.evaluation import AGAINST
    from search_spaces.base import parse_architecture

    for kind in question.against:
        if kind not in AGAINST:
            raise LookupError(f"unknown comparison {kind!r}: choose from {', '.join(AGAINST)}")
    if question.seeds < 1:
        raise ValueError(f"{question.seeds} seeds: an evaluation needs at least 1")
    library = Library(home() / "sets")
    path = library.path(question.name)
    synthetic = library.load(path)
    networks = [parse_architecture(name) for name in question.networks or (synthetic.backbone,)]
    for network in networks:
        if obstacle := network.obstacle(synthetic.image_shape):
            raise ValueError(f"{network.name} cannot carry the set's images: {obstacle}")
    recipe = judging_recipe(synthetic, question)
    data = images_of(synthetic, question.source, report)
    use_threads(question.threads)
    run = Run(seed=0, folder=home() / "runs", shared=home(), device=pick_device(question.device), report=report)
    kept = RowFile(home() / "evaluations.jsonl")
    evaluations = [
        _once(kept, kind, synthetic, path.stem, data, network.name, recipe, question.seeds, run)
        for network in networks
        for kind in ("set", *question.against)
    ]
    return Judgement(path.stem, data.source, data.split_note, len(data.test), tuple(evaluations))


def judging_recipe(synthetic: SyntheticSet, question: Question) -> Recipe:
    """The recipe that was named, else the set's own, else (a set from elsewhere) the default one."""
    recorded = synthetic.provenance.get("recipe")
    if question.recipe is not None:
        recipe = load_recipe(question.recipe)
    elif isinstance(recorded, Mapping):
        recipe = recipe_from_dict(recorded, "the set's recipe")
    else:
        recipe = Recipe()
    # What describes the set itself is the set's: only the training is asked for here.
    recipe = dataclasses.replace(recipe, ipc=synthetic.ipc, backbone=synthetic.backbone)
    return override(recipe, question.settings)


def _once(
    kept: RowFile,
    kind: str,
    synthetic: SyntheticSet,
    name: str,
    data: ImageDataset,
    network_name: str,
    recipe: Recipe,
    seeds: int,
    run: Run,
) -> Evaluation:
    """The evaluation, from the file if it was made before with the same everything."""
    from distill.experts import epochs_needed
    from distill.methods import versions

    # Herding and k-means choose by the features of an expert at its last epoch.
    experts = (
        {**dataclasses.asdict(recipe.experts), "epochs": epochs_needed(recipe)}
        if kind in ("herding", "kmeans")
        else None
    )
    determined = {
        "kind": kind,
        "set": synthetic.identity if kind == "set" else synthetic.preprocess.fingerprint,
        "data": data.fingerprint,
        "test": _digest(data.test.images, data.test.labels),
        "split": data.split_note,
        "network": network_name,
        "backbone": recipe.backbone,
        "ipc": recipe.ipc,
        "recipe": dataclasses.asdict(recipe.evaluation),
        "experts": experts,
        "seeds": seeds,
        "versions": versions(),
        "device": run.device.type,
    }
    key = hashlib.sha256(json.dumps(determined, sort_keys=True).encode()).hexdigest()[:32]
    row = kept.read().get(key)
    if row is None:
        made = _evaluate(kind, synthetic, name, data, network_name, recipe, range(seeds), run)
        row = {"key": key, **dataclasses.asdict(made)}
        kept.append(row)
    return _from_row(row, name if kind == "set" else kind)


def _evaluate(
    kind: str,
    synthetic: SyntheticSet,
    name: str,
    data: ImageDataset,
    network_name: str,
    recipe: Recipe,
    seeds: Sequence[int],
    run: Run,
) -> Evaluation:
    from distill.evaluation import evaluate_against, evaluate_set
    from search_spaces.base import parse_architecture

    def builder(text: str) -> Callable[[], Any]:
        architecture = parse_architecture(text)
        return lambda: architecture.build(data.image_shape, data.num_classes)

    network = builder(network_name)
    if kind == "set":
        return evaluate_set(synthetic, data, network, network_name, recipe.evaluation.train, seeds, run, name)
    backbone = builder(recipe.backbone)
    return evaluate_against(kind, data, synthetic.preprocess, network, network_name, backbone, recipe, seeds, run)


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
