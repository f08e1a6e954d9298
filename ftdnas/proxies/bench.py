"""The workbench with all that proxies draw on."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

from distill.images.datasets import ImageDataset
from distill.recipe import TrainingRecipe
from distill.synthetic import SyntheticSet
from ftdnas.candidates.materials import (
    CORESET_KINDS,
    Material,
    Shelf,
    coreset_material,
    held_out_material,
    nothing_held_out,
    set_material,
)
from ftdnas.candidates.screening import Screening
from ftdnas.candidates.training import Training
from ftdnas.candidates.truth import truth_materials
from search_spaces.base import Architecture, parse_architecture

CALIBRATION = 24  # candidates that a hybrid is fitted on, unless told
REAL_SEEDS = (0,)  # of real trainings, unless told
RUNGS = (1.0, 3.0, 9.0, 27.0, 81.0)


@dataclass(frozen=True, eq=False)
class Workbench:
    """What proxies draw on, made once for a command.

    `synthetic`, under `set_name`: what the set's proxies train on, and what gives the baselines of equal cost their
    size; None does without. `draws`: of each random subset, "random" being the first. `truth`: how networks are trained
    on all real images (`lr` a number), which early stopping and the race shorten; `truth_seeds` are never theirs.
    `calibration`: candidates that a hybrid is fitted on. `rungs`: epochs of a race. `device`: where measures run.
    Raises ValueError where set and images differ in shape or classes.
    """

    data: ImageDataset
    screening: Screening
    seed: int
    synthetic: SyntheticSet | None = None
    set_name: str = ""
    device: str = "cpu"
    draws: int = 2
    truth: TrainingRecipe | None = None
    truth_seeds: tuple[int, ...] = REAL_SEEDS
    calibration: int = CALIBRATION
    rungs: tuple[float, ...] = RUNGS
    _materials: dict[tuple[str, int], Material] = field(default_factory=dict, init=False, repr=False)
    _trained: dict[str, tuple[str, str]] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        data, synthetic = self.data, self.synthetic
        if synthetic is None:
            return
        if (synthetic.image_shape, synthetic.num_classes) != (data.image_shape, data.num_classes):
            raise ValueError(
                f"the set has images {synthetic.image_shape} in {synthetic.num_classes} classes, "
                f"{data.name} has {data.image_shape} in {data.num_classes}: load the images at the set's size"
            )

    def material(self, kind: str, draw: int = 0) -> Material:
        """Made when first asked for, and then on the shelf.

        "set", and "random", "herding" or "kmeans" subsets of real training images of its size; "set score": the
        validation images that score those, preprocessed as the set. "train": all real training images, standardised;
        "score": what scores those. "pictures": what measures of untrained networks look at, "train" or, where no real
        images are here, the set's. "early", "early score": the same two as screening sees them. All but "train" and
        "score" are averaged down to the screening's pixels. Raises ValueError where a kind needs a set and there is
        none, or one but "set score" images that were held back, LookupError for an unknown kind.
        """
        key = kind, draw
        if key not in self._materials:
            made = self._made(kind, draw)
            side = self.screening.pixels
            if kind not in ("train", "score", "pictures") and side is not None:
                made = made.resized(side)
            self._materials[key] = made
        return self._materials[key]

    @property
    def shelf(self) -> Shelf:
        """All materials asked for so far, by fingerprint."""
        return {made.label.fingerprint: made for made in self._materials.values()}

    def trained(self, candidate: str) -> tuple[str, str]:
        """(name, code) of what is trained for a candidate.

        The first architecture that computes the same, so that equals are trained once; shrunk if the screening shrinks.
        """
        if candidate not in self._trained:
            architecture = computed(candidate, self.screening.shrink)
            self._trained[candidate] = architecture.name, architecture.code
        return self._trained[candidate]

    def itself(self, candidate: str) -> tuple[str, str]:
        """(name, code) of the first architecture that computes the same, at its full size."""
        architecture = computed(candidate)
        return architecture.name, architecture.code

    def real_trainings(self, candidate: str) -> list[Training]:
        """Those whose mean score is the candidate's truth: at full size, one of each of `truth_seeds`.

        Raises ValueError where no recipe for them was given.
        """
        if self.truth is None:
            raise ValueError("no recipe for training on real images was given: give one, with its epochs")
        images, held_out = self.material("train").label, self.material("score").label
        architecture, code = self.itself(candidate)
        return [Training(architecture, images, held_out, self.truth, seed, code=code) for seed in self.truth_seeds]

    def the_set(self) -> SyntheticSet:
        """Raises ValueError where there is none."""
        if self.synthetic is None:
            raise ValueError("this proxy needs a synthetic set, of whose size it is: make one, or take race or az_nas")
        return self.synthetic

    @cached_property
    def _real(self) -> tuple[Material, Material]:
        return truth_materials(self.data)

    def _made(self, kind: str, draw: int) -> Material:
        taught = self.screening.labels == "teachers"
        if kind in CORESET_KINDS:
            return coreset_material(kind, self.data, self.the_set(), self.seed, draw, taught)
        if kind == "set":
            return set_material(self.the_set(), self.set_name, taught)
        if kind == "pictures":
            return self._real[0] if len(self.data.train) else set_material(self.the_set(), self.set_name)
        if kind == "set score":
            held_out = held_out_material if len(self.data.score()) else nothing_held_out
            return held_out(self.data, self.the_set().preprocess)
        if kind in ("train", "score", "early", "early score"):
            return self._real[kind.endswith("score")]
        known = ", ".join(["set", *CORESET_KINDS, "set score", "pictures", "train", "score", "early", "early score"])
        raise LookupError(f"unknown material {kind!r}: choose from {known}")


def computed(candidate: str, shrunk: bool = False) -> Architecture:
    """The first architecture that computes the same; `shrunk`: the smaller one of its kind, where the space has one."""
    architecture = parse_architecture(candidate).representative()
    return (architecture.shrunk() if shrunk else None) or architecture
