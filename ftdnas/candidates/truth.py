"""The truth: accuracy after training on all real images. One pool of rows that every study draws from and adds to."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from distill.images.datasets import ImageDataset
from distill.images.preprocess import fit_preprocess
from distill.recipe import TrainingRecipe
from distill.training.examples import Examples
from ftdnas.candidates.materials import Label, Material, held_out_material
from ftdnas.candidates.training import Score
from ftdnas.runtime.rows import RowFile

PREPROCESS = "standardize"  # what users train with, and the same for all sets, whatever they were whitened with


@dataclass(frozen=True)
class TruthPool:
    """Real trainings kept in `folder`: one file of JSON rows per data fingerprint.

    A row is keyed by architecture, data, recipe and seed, so whoever asks for a training that any study has done gets
    its row. The split that is read is the half of validation that scores; test images are for the end.
    """

    folder: Path

    def file(self, data_fingerprint: str) -> RowFile:
        """Where the rows of some real images are, whether there are any yet or not."""
        return RowFile(self.folder / f"{data_fingerprint[:32]}.jsonl")

    def scores(self, data_fingerprint: str) -> list[Score]:
        """All rows of these images. Raises ValueError for a damaged file."""
        return [Score.from_row(row) for row in self.file(data_fingerprint).read().values()]


def truth_materials(data: ImageDataset) -> tuple[Material, Material]:
    """All real training images, and the images that score, both standardised.

    Raises ValueError where no validation images were held back.
    """
    preprocess = fit_preprocess(PREPROCESS, data.train.images)
    identity = f"train/{data.fingerprint}/{PREPROCESS}"
    label = Label("real training images", identity, len(data.train), data.num_classes)
    return Material(label, Examples.from_split(data.train, preprocess)), held_out_material(data, preprocess)


def truth_recipe(full: TrainingRecipe, epochs: int) -> TrainingRecipe:
    """A recipe's training on all real images, at `epochs` epochs. Raises ValueError where it has no learning rate."""
    if epochs < 1:
        raise ValueError(f"{epochs} epochs of real training: take at least 1")
    if full.lr is None:
        raise ValueError("the recipe has no learning rate for real images: set evaluation.full.lr")
    return replace(full, epochs=epochs)
