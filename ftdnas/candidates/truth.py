"""The truth: accuracy after training on all real images, trained here into one pool, or read from a table."""

from __future__ import annotations

import contextlib
import math
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from pathlib import Path

import numpy as np

from distill.images.datasets import ACCURACY, ImageDataset
from distill.images.preprocess import fit_preprocess
from distill.recipe import TrainingRecipe
from distill.recipe import facts as recipe_facts
from distill.recipe import identity as recipe_identity
from distill.run import Listener, Progress, about, ignore
from distill.training.examples import Examples
from ftdnas.agreement.winner import Readings, Take, smallest_not_worse
from ftdnas.candidates.cost import flops_of, measure_cost, wall_s
from ftdnas.candidates.handover import hand_over
from ftdnas.candidates.materials import Label, Material, held_out_material
from ftdnas.candidates.reading import right_of
from ftdnas.candidates.training import Training
from ftdnas.candidates.truth_table import Columns, is_table, read_table
from ftdnas.runtime.database import open_storage
from ftdnas.runtime.device import visible_gpus
from ftdnas.runtime.home import folder_name, read_json, truth_folder, write_json
from ftdnas.runtime.processes import LocalProcesses
from ftdnas.runtime.records import from_json, to_json
from ftdnas.runtime.rows import Row, RowFile
from ftdnas.runtime.shared import Record, carry_out
from search_spaces.base import find_space, parse_architecture
from search_spaces.messages import hint

PREPROCESS = "standardize"  # what users train with, and the same for all sets, whatever they were whitened with


def truth_rows(data_fingerprint: str) -> RowFile:
    """The pool of real trainings on some images, whether there are any yet or not.

    A row is keyed by architecture, data, recipe and seed, so whoever asks for a training that any study has done gets
    its row. The split that is read is the half of validation that scores; test images are for the end.
    """
    return RowFile(truth_folder() / f"{data_fingerprint[:32]}.jsonl")


@lru_cache(maxsize=1)  # whoever asks next, asks for the same images
def truth_materials(data: ImageDataset) -> tuple[Material, Material]:
    """All real training images, and the images that score, both standardised when they are first looked at.

    Raises ValueError where no validation images were held back.
    """
    preprocess = fit_preprocess(PREPROCESS, data.train.images)
    label = Label("real training images", _whole(data.fingerprint), len(data.train), data.num_classes)
    return Material(label, partial(Examples.from_split, data.train, preprocess)), held_out_material(data, preprocess)


def truth_recipe(full: TrainingRecipe, epochs: int | None = None, lr: float | None = None) -> TrainingRecipe:
    """A recipe's training on all real images, at other epochs or another rate where given.

    Raises ValueError where it has no learning rate.
    """
    recipe = replace(full, epochs=full.epochs if epochs is None else epochs, lr=full.lr if lr is None else lr)
    if recipe.epochs < 1:
        raise ValueError(f"{epochs} epochs of real training: take at least 1")
    if recipe.lr is None:
        raise ValueError("the recipe has no learning rate for real images: set evaluation.full.lr")
    return recipe


@dataclass(frozen=True)
class Truth:
    """What real training made of architectures, by their full names.

    `by_seed`: one mapping to accuracies, fractions, per seed; of a table one of means, and `means` is True. `others`:
    further columns of a table. `seconds`: of all trainings of each architecture; `images`: how many it was read on.
    `readings`: of each, every training by the same recipe that there is: some may have more seeds than were asked for.
    """

    title: str
    by_seed: tuple[Mapping[str, float | None], ...]
    means: bool = False
    images: int | None = None
    errors: Mapping[str, str] = field(default_factory=dict)
    seconds: Mapping[str, float] = field(default_factory=dict)
    others: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    readings: Mapping[str, Readings] = field(default_factory=dict)

    def accuracy(self, name: str) -> float | None:
        """The mean over the seeds; None where one of them has none."""
        values = [several.get(name) for several in self.by_seed]
        known = [value for value in values if value is not None]
        return sum(known) / len(known) if known and len(known) == len(values) else None

    @property
    def known(self) -> set[str]:
        """Architectures with a row for every seed, failed or not."""
        return set.intersection(*(set(several) for several in self.by_seed))

    def take(self, sizes: Mapping[str, int]) -> Take | None:
        """Which of these networks to take; `sizes`: their weights."""
        return smallest_not_worse(
            {name: self.readings[name] for name in sizes if name in self.readings}, sizes, self.images
        )

    def first(self, names: Sequence[str]) -> list[str]:
        """These architectures in another order: those with a real accuracy first, best first, the rest as they were."""
        real = [name for name in names if name in self.readings]
        real.sort(key=lambda name: -self.readings[name].accuracy)
        return [*real, *(name for name in names if name not in self.readings)]


@dataclass(frozen=True)
class RealTrainings:
    """How architectures are really trained: what names a truth. `recipe.lr` is a number; seeds count from 0."""

    recipe: TrainingRecipe
    seeds: int
    data: str  # fingerprint
    images: int
    title: str
    metric: str = ACCURACY

    @classmethod
    def of(cls, data: ImageDataset, recipe: TrainingRecipe, seeds: int) -> RealTrainings:
        """Raises ValueError for less than one seed."""
        if seeds < 1:
            raise ValueError(f"{seeds} seeds: a truth needs at least 1")
        epochs = f"{recipe.epochs} epoch{'s' * (recipe.epochs != 1)}"
        what = "accuracy" if data.metric == ACCURACY else f"{data.metric} accuracy"
        title = f"{what} after {epochs} on all {len(data.train):,} training images of {data.image_shape[1]} pixels"
        title += f", {seeds} seed{'s' * (seeds > 1)}"
        return cls(recipe, seeds, data.fingerprint, len(data.score()), title, data.metric)

    def works(self, data: ImageDataset, candidates: Sequence[str]) -> dict[tuple[str, int], Training]:
        """(candidate, seed) -> training; of those that compute the same the first is trained."""
        images, held_out = truth_materials(data)
        works = {}
        for seed in range(self.seeds):
            for name in candidates:
                one = parse_architecture(name).representative()
                works[name, seed] = Training(one.name, images.label, held_out.label, self.recipe, seed, code=one.code)
        return works

    def truth(self, candidates: Sequence[str]) -> Truth:
        """What the pool has of these candidates."""
        rows: dict[tuple[str, str], dict[int, Row]] = {}
        for row in self._rows():
            rows.setdefault((row["architecture"], row.get("code", "")), {})[row["seed"]] = row
        by_seed: list[dict[str, float | None]] = [{} for _ in range(self.seeds)]
        errors: dict[str, str] = {}
        seconds: dict[str, float] = {}
        readings: dict[str, Readings] = {}
        for name in candidates:
            one = parse_architecture(name).representative()
            trained = rows.get((one.name, one.code), {})
            for seed in trained.keys() & set(range(self.seeds)):
                row = trained[seed]
                by_seed[seed][name] = row["score"]
                seconds[name] = seconds.get(name, 0.0) + row["seconds"]
                if row["error"]:
                    errors[name] = row["error"]
            scored = [trained[seed] for seed in sorted(trained) if trained[seed]["score"] is not None]
            if scored and name not in errors:
                right = [marks for row in scored if (marks := right_of(row)) is not None]
                accuracies = tuple(float(row["score"]) for row in scored)
                # Which images were right says how far two accuracies differ only where all images count the same.
                paired = len(right) == len(scored) and self.metric == ACCURACY
                readings[name] = Readings(accuracies, np.stack(right) if paired else None)
        return Truth(self.title, tuple(by_seed), images=self.images, errors=errors, seconds=seconds, readings=readings)

    def _rows(self) -> Iterator[Row]:
        """The pool's trainings by this recipe on all of the images."""
        wanted = recipe_identity(self.recipe)
        for row in truth_rows(self.data).settled().values():
            whole = row["trained_on"]["fingerprint"] == _whole(self.data) and row.get("part") is None
            whole = whole and row["scored_on"].get("metric", ACCURACY) == self.metric
            if whole and not row.get("shared") and recipe_identity(from_json(TrainingRecipe, row["recipe"])) == wanted:
                yield row


def train(
    data: ImageDataset,
    candidates: Sequence[str],
    trainings: RealTrainings,
    *,
    jobs: int,
    device: str,
    join: bool = False,
    storage: str | None = None,
    limit_s: float | None = None,
    listener: Listener = ignore,
) -> Truth:
    """Train what the pool does not have yet, and give the truth of the candidates. Interrupted, it goes on.

    All candidates with one seed before the next, the dearest of a seed first. How long that takes is said before, from
    a few timed steps.
    """
    works = trainings.works(data, candidates)
    file = truth_rows(data.fingerprint)
    known = file.settled()
    size = (data.image_shape, data.num_classes)
    todo = {work.key: work for work in works.values() if work.key not in known}
    counts = {work.architecture: flops_of(work.architecture, size) for work in todo.values()}
    order = sorted(todo.values(), key=lambda work: (work.seed, -counts[work.architecture]))
    done = len({work.key for work in works.values()}) - len(order)
    total = done + len(order)
    told = f"{trainings.title}: {len(order)} of {total} trainings to do"
    listener(Progress("truth", done, total, message=told))
    if not order:
        return trainings.truth(candidates)
    prices: dict[str, float] = {}
    paid = 0.0
    folder = truth_folder() / f"materials-{trainings.data[:8]}-{id(order):x}"

    def finished(row: Row) -> None:
        nonlocal done, paid
        done += 1
        paid += prices.get(row["key"], 0.0)
        values = {} if row["score"] is None else {"validation_accuracy": float(row["score"])}
        share = paid / math.fsum(prices.values()) if prices else None
        listener(Progress("truth", done, total, values, share=share, at_once=jobs))

    try:
        with contextlib.ExitStack() as stack:
            leases = None
            if join:
                opened = stack.enter_context(open_storage(storage))
                leases = stack.enter_context(opened.leases(f"truth/{data.fingerprint[:32]}"))
            materials = truth_materials(data)
            lay_out = lambda: hand_over(list(materials), folder, device)  # noqa: E731
            processes = stack.enter_context(LocalProcesses(lay_out, jobs, visible_gpus(device)))
            with contextlib.suppress(ValueError):  # none of them could be timed: then each says why
                cost = measure_cost(list(counts), materials[0], trainings.recipe, processes, limit_s)
                prices = {w.key: cost.seconds(counts[w.architecture], w.images_seen) for w in order}
                message = f"this takes {about(wall_s(list(prices.values()), jobs))}; Ctrl-C is safe"
                listener(Progress("truth", done, total, message=message))
            carry_out(order, Record(file, leases), processes, finished, limit_s=limit_s)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return trainings.truth(candidates)


def remember(name: str, trainings: RealTrainings) -> None:
    """Give a truth a name, by which reports find it. Raises ValueError where another has it."""
    path = _named(name)
    facts = {**to_json(trainings), "recipe": recipe_facts(trainings.recipe)}
    if trainings.metric == ACCURACY:  # as in truths of versions that knew no other
        del facts["metric"]
    there = read_json(path, "remove it, the trainings are kept")
    if there and there != facts:
        raise ValueError(f"there is a truth {name} by other trainings ({there['title']}): give this one another name")
    if not there:
        write_json(path, facts)


def named_truths(data_fingerprint: str, metric: str) -> Iterator[tuple[Path, RealTrainings]]:
    """Those with a name on these images, whatever they know."""
    for path in truth_folder().glob("*.json"):
        trainings = _stored(path)
        if (trainings.data, trainings.metric) == (data_fingerprint, metric):
            yield path, trainings


def known_truth(data_fingerprint: str, candidates: Sequence[str], metric: str = ACCURACY) -> tuple[str, Truth] | None:
    """(its name, the truth) of these candidates that counts, of those with a name on these images.

    The longest training, then the newest, of those that know at least half as many as any does: one that was only begun
    does not take the place of one that is whole.
    """
    found = []
    for path, trainings in named_truths(data_fingerprint, metric):
        truth = trainings.truth(candidates)
        known = len(truth.known & truth.readings.keys())
        found.append((trainings.recipe.epochs, path.stat().st_mtime_ns, known, path.stem, truth))
    most = max((known for *_, known, _, _ in found), default=0)
    able = [one for one in found if one[2] and 2 * one[2] >= most]
    return max(able, key=lambda one: one[:2])[3:] if able else None


def find_truth(text: str, space: str, data: ImageDataset | None, candidates: Sequence[str], columns: Columns) -> Truth:
    """The truth of a name, or of a table file.

    Raises LookupError for an unknown name, ValueError for one of other images, and what `read_table` raises.
    """
    if is_table(text):
        table = read_table(Path(text), find_space(space), columns)
        readings = {name: Readings((accuracy,)) for name, accuracy in table.accuracy.items()}
        return Truth(table.source, (table.accuracy,), means=True, others=table.others, readings=readings)
    trainings = named_trainings(text)
    if data is None or trainings.data != data.fingerprint:
        raise ValueError(f"truth {text} is of other images than this study: train one with the study's data")
    if trainings.metric != data.metric:
        raise ValueError(
            f"truth {text} is counted by {trainings.metric}, this study by {data.metric}: "
            "take a truth by the same --metric"
        )
    return trainings.truth(candidates)


def named_trainings(name: str) -> RealTrainings:
    """Those of a name. Raises LookupError, with those there are, where none has it."""
    path = _named(name)
    if not path.is_file():
        known = sorted(path.stem for path in truth_folder().glob("*.json"))
        way_out = hint(name, known) if known else "ftdnas truth makes one; a table is a .csv or .parquet file"
        raise LookupError(f"there is no truth {name!r}: {way_out}")
    return _stored(path)


def _stored(path: Path) -> RealTrainings:
    trainings: RealTrainings = from_json(RealTrainings, read_json(path, "remove it, the trainings are kept"))
    return trainings


def _whole(data_fingerprint: str) -> str:
    """The identity of all real training images as they are trained on."""
    return f"train/{data_fingerprint}/{PREPROCESS}"


def _named(name: str) -> Path:
    return truth_folder() / f"{folder_name('truth', name)}.json"
