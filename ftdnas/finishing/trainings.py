"""The trainings of a finish, and the readings of the networks that come of them."""

from __future__ import annotations

import functools
import hashlib
import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from distill.images.datasets import ImageDataset, Split
from distill.images.preprocess import Preprocess, fit_preprocess
from distill.recipe import TrainingRecipe
from distill.run import Listener, Progress, about
from distill.tensors import sound
from distill.training.examples import Examples
from distill.training.loop import probabilities
from ftdnas.candidates.cost import TimedStep, flops_of, wall_s
from ftdnas.candidates.handover import hand_over
from ftdnas.candidates.materials import Material, Shelf
from ftdnas.candidates.training import Training
from ftdnas.candidates.truth import PREPROCESS, truth_materials, truth_rows
from ftdnas.finishing.card import Accuracy
from ftdnas.finishing.finalist import FinalistTraining, shares, trained_again
from ftdnas.finishing.pretrained import FineTuning, Pretrained, pixel_examples, pixel_materials
from ftdnas.finishing.readings import FILE, read_once
from ftdnas.runtime.device import visible_gpus
from ftdnas.runtime.processes import Failure, LocalProcesses
from ftdnas.runtime.rows import Row, RowFile
from ftdnas.runtime.shared import Record, carry_out
from search_spaces.base import parse_architecture

PROBED = 8  # images that an ONNX file is tried on
FinalTraining = FinalistTraining | FineTuning


@dataclass(frozen=True, eq=False)
class PreparedFinish:
    """Everything that the trainings of a finish need: finalists by name, and a pretrained network beside them.

    `base`: the folder of all that a study has finished; `place`: that of this one.
    """

    data: ImageDataset
    names: tuple[str, ...]
    recipe: TrainingRecipe
    seed: int
    rival: Pretrained | None
    jobs: int | None
    device: str
    base: Path
    place: Path
    listener: Listener

    def works(self) -> list[FinalTraining]:
        """The finalists' trainings, and the fine-tuning last."""
        images, held_out = (material.label for material in self.materials)
        weights = self.base / "weights"
        _, threads = shares(len(self.names), self.jobs, self.device)
        works: list[FinalTraining] = []
        for name in self.names:
            code = parse_architecture(name).code
            training = Training(name, images, held_out, self.recipe, self.seed, code=code)
            works.append(FinalistTraining(training, weights / f"{training.key}.safetensors", threads))
        if self.rival is not None:
            train, score = (material.label for material in self.pixels)
            recipe = replace(self.recipe, lr=self.rival.lr)
            _, threads = shares(1, self.jobs, self.device)
            works.append(FineTuning(self.rival, train, score, recipe, self.seed, weights, threads))
        return works

    def rows(self, works: Sequence[FinalTraining]) -> dict[str, Row]:
        """Key -> row of each; what has its row is not trained again."""
        rows: dict[str, Row] = {}
        for kind in (FinalistTraining, FineTuning):
            rows |= self._carry_out([work for work in works if isinstance(work, kind)])
        return rows

    def with_weights(self, work: FinalTraining, row: Row) -> Row:
        """The row of a work whose weights lie there: trained once more where only its row was known."""
        if sound(work.weights):
            return row
        self._say(f"{work.architecture} was trained before and its weights are not there: once more")
        _, threads = shares(1, self.jobs, self.device)
        with self._processes(1) as processes:
            return trained_again(replace(work, threads=threads), processes, self._record(work))

    def read_test(self, work: FinalTraining) -> Accuracy:
        """Accuracy on the test images: read once for these weights, whoever asks again."""
        key = hashlib.sha256(work.weights.read_bytes()).hexdigest()

        def shares() -> NDArray[np.float32]:
            self._say("reading the test images, once")
            network = work.network(self.data.image_shape).to(self.device)
            return probabilities(network, self.examples(work, self.data.test))

        return read_once(key, work.architecture, shares, self.data, self.base)

    def readings(self) -> int:
        """How often the test images of these data were read in this study."""
        rows = RowFile(self.base / FILE).read().values()
        return sum(row["data"] == self.data.fingerprint for row in rows)

    def probe(self, work: FinalTraining) -> Tensor:
        """A few validation images as the network takes them, on the CPU."""
        split = self.data.score().take(np.arange(min(PROBED, len(self.data.score()))))
        return self.examples(work, split, "cpu").take(torch.arange(len(split)))[0]

    def examples(self, work: FinalTraining, split: Split, device: str | None = None) -> Examples:
        """Images as the network takes them."""
        device = device or self.device
        if isinstance(work, FineTuning):
            return pixel_examples(split, device)
        return Examples.from_split(split, self.preprocess, device)

    @functools.cached_property
    def preprocess(self) -> Preprocess:
        return fit_preprocess(PREPROCESS, self.data.train.images)

    @functools.cached_property
    def materials(self) -> tuple[Material, Material]:
        """All real training images and those that score, standardised."""
        return truth_materials(self.data)

    @functools.cached_property
    def pixels(self) -> tuple[Material, Material]:
        """The same as a pretrained network takes them."""
        return pixel_materials(self.data)

    def _say(self, message: str) -> None:
        self.listener(Progress("finish", 0, 0, message=message))

    def _record(self, work: FinalTraining) -> RowFile:
        """Where the rows of such a work are."""
        if isinstance(work, FineTuning):
            return RowFile(self.base / "pretrained.jsonl")
        return truth_rows(self.data.fingerprint)

    def _processes(self, jobs: int) -> LocalProcesses[Shelf]:
        def lay_out() -> Callable[[], Shelf]:
            pixels = self.pixels if self.rival is not None else ()
            return hand_over([*self.materials, *pixels], self.place / "materials", self.device)

        return LocalProcesses(lay_out, jobs, visible_gpus(self.device))

    def _carry_out(self, works: Sequence[FinalTraining]) -> Mapping[str, Row]:
        """Of one kind."""
        if not works:
            return {}
        record = Record(self._record(works[0]))
        record.exchange()
        todo = [work for work in works if record.row(work.key) is None]
        jobs, _ = shares(len(works), self.jobs, self.device)
        stage = "fine-tuning" if isinstance(works[0], FineTuning) else "finalists"
        done = itertools.count(1)

        def finished(row: Row) -> None:
            reached = {} if row["score"] is None else {"validation_accuracy": float(row["score"])}
            told = f"failed: {row['error']}" if row["error"] else f"{100 * row['score']:.1f} % in validation"
            self.listener(Progress(stage, next(done), len(works), reached, message=f"{row['architecture']}: {told}"))

        with self._processes(jobs) as processes:
            if todo:
                kept = f"; {len(works) - len(todo)} done before" if len(todo) < len(works) else ""
                told = f"{len(todo)} trainings to do, {self._about(todo, jobs, processes)}{kept}; Ctrl-C is safe"
                self.listener(Progress(stage, 0, len(works), message=told))
            return carry_out(works, record, processes, finished)

    def _about(self, todo: Sequence[FinalTraining], jobs: int, processes: LocalProcesses[Shelf]) -> str:
        """How long that takes, from a few steps of each finalist."""
        finalists = [work for work in todo if isinstance(work, FinalistTraining)]
        if not finalists:
            return "beginning with pretrained weights"
        size, material = (self.data.image_shape, self.data.num_classes), self.materials[0].label
        steps = [
            TimedStep(name, material.fingerprint, flops_of(name, size), work.training.recipe)
            for work in finalists
            for name in [work.architecture]
        ]
        timed = [outcome for _, outcome in processes.map(steps) if not isinstance(outcome, Failure)]
        seen = material.images * self.recipe.epochs
        each = [first_s + image_s * seen / finalists[0].threads for image_s, first_s in timed]
        return about(wall_s(each, jobs)) if timed else "for who knows how long"
