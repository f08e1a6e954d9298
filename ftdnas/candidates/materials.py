"""What candidates are trained on and scored on, and how it reaches the processes that train them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from distill.coresets import CORESETS
from distill.images.datasets import ACCURACY, ImageDataset, Split
from distill.images.preprocess import Preprocess
from distill.randomness import derive_seed, generator
from distill.synthetic import SyntheticSet
from distill.teachers import Teachers
from distill.training.examples import Examples
from distill.training.loop import Targets
from search_spaces.base import parse_architecture

CHUNK = 1000  # images that are averaged down at once
FEATURE_SIDE = 8  # pixels of the images that herding and k-means choose by
SUBSETS = {"random": "random", "herding": "herding", "kmeans": "k-means"}  # in words
CORESET_KINDS = tuple(CORESETS)


@dataclass(frozen=True)
class Label:
    """The name of a material for people and its identity; `images` is N, `classes` K; `metric`: how it is scored on."""

    name: str
    fingerprint: str
    images: int
    classes: int
    metric: str = ACCURACY


@dataclass(eq=False)
class Taught:
    """The teachers of a set, by the name of their architecture; what they said of shared batches is remembered."""

    backbone: str
    weights: Tensor
    image_shape: tuple[int, int, int]
    classes: int
    _said: dict[tuple[Any, ...], Tensor] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        self.all = Teachers(self._build, self.weights)

    def _build(self) -> nn.Module:
        return parse_architecture(self.backbone).build(self.image_shape, self.classes)

    @staticmethod
    def of(synthetic: SyntheticSet) -> Taught | None:
        if synthetic.teachers is None:
            return None
        return Taught(synthetic.backbone, synthetic.teachers, synthetic.image_shape, synthetic.num_classes)

    def targets(self, batches: str | None) -> Targets:
        """Labels of augmented batches; `batches` names an order and augmentation that come again, None none that do."""

        def labels(step: int, images: Tensor) -> Tensor:
            if batches is None:
                return self.all(images)
            if (batches, step) not in self._said:
                self._said[batches, step] = self.all(images)
            return self._said[batches, step]

        return labels


@dataclass(frozen=True, eq=False)
class Material:
    """Labelled images under their label; with `teachers` they are labelled anew whenever they have been augmented.

    `source`: the images, or what makes them when they are first looked at: a label needs none. `side`: in pixels, of
    what a network is shown of them then; None shows them as they are.
    """

    label: Label
    source: Examples | Callable[[], Examples]
    teachers: Taught | None = None
    side: int | None = None

    @cached_property
    def examples(self) -> Examples:
        """Preprocessed where they fit in memory."""
        return self.source if isinstance(self.source, Examples) else self.source()

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of what a network is shown."""
        channels, height, width = self.examples.image_shape
        return (channels, height, width) if self.side is None else (channels, self.side, self.side)

    def seen(self, images: Tensor) -> Tensor:
        """What a network is shown of augmented images (N, C, H, W)."""
        return images if self.side is None else F.adaptive_avg_pool2d(images, self.side)

    def part(self, rows: Tensor) -> Examples:
        """The images at `rows`, int64 on the CPU."""
        examples = self.examples
        chosen = examples.images[rows.to(examples.device) if isinstance(examples.images, Tensor) else rows.numpy()]
        return Examples(chosen, examples.labels[rows.to(examples.device)], examples.preprocess)

    def resized(self, side: int) -> Material:
        """The same images averaged down to `side` x `side` pixels, in preprocessed space; itself where they are.

        Teachers know images of their own size alone: with them the images stay, and are made smaller for the network
        when they have been augmented and labelled. Raises ValueError where they are smaller.
        """
        _, height, width = self.examples.image_shape
        if (height, width) == (side, side):
            return self
        if side > min(height, width):
            raise ValueError(f"{self.label.name}: {height} x {width} pixels cannot be averaged down to {side}")
        label = self.label
        label = replace(label, name=f"{label.name} at {side} pixels", fingerprint=f"{label.fingerprint}/{side} pixels")
        if self.teachers is not None:
            return replace(self, label=label, side=side)
        images = _averaged(lambda rows: self.examples.take(rows)[0], len(self.examples), side)
        return Material(label, Examples(images, self.examples.labels))


Shelf = Mapping[str, Material]  # by fingerprint


def set_material(synthetic: SyntheticSet, name: str, taught: bool = False) -> Material:
    """The synthetic images themselves; `taught`: labelled by the set's teachers, if it has any."""
    teachers = Taught.of(synthetic) if taught else None
    fingerprint = f"set/{synthetic.identity}"
    if synthetic.teachers is not None and teachers is None:
        fingerprint += "/own labels"  # its identity counts the teachers in
    label = Label(f"the set {name}", fingerprint, len(synthetic.images), synthetic.num_classes)
    return Material(label, Examples(synthetic.images, synthetic.labels), teachers)


def coreset_material(
    kind: str, data: ImageDataset, synthetic: SyntheticSet, seed: int, draw: int, taught: bool = False
) -> Material:
    """As many real training images of each class as the set has, chosen as `kind` of `CORESETS`, preprocessed as it.

    Herding and k-means go by preprocessed pixels averaged down to 8 x 8 at most (the features of an expert, which they
    go by elsewhere, would cost an expert). Soft labels are counted by their largest entry; the real images have their
    own, hard labels, or, if `taught`, those of the set's teachers, where it has any. A class with too few images gives
    all it has. Herding draws nothing: all its draws are one.
    """
    labels = synthetic.labels if synthetic.hard_labels else synthetic.labels.argmax(1)
    wanted = torch.bincount(labels, minlength=data.num_classes).tolist()
    rows = []
    for of_class, count in enumerate(wanted):
        members = np.flatnonzero(data.train.labels == of_class)
        if count and kind == "random":
            order = torch.randperm(len(members), generator=generator(seed, "random subset", draw, of_class)).numpy()
            rows.append(members[order[:count]])
        elif count:
            split = data.train.take(members)
            features = partial(_features, split, synthetic.preprocess)
            own_seed = derive_seed(seed, "subset", draw)
            rows.append(members[CORESETS[kind](features, split, count, own_seed).numpy()])
    taken = np.sort(np.concatenate(rows))
    identity = f"{data.fingerprint}/{synthetic.preprocess.fingerprint}/{hashlib.sha256(taken.tobytes()).hexdigest()}"
    name = f"{SUBSETS[kind]} subset" + (f" {draw + 1}" if kind != "herding" else "")
    teachers = Taught.of(synthetic) if taught else None
    if teachers is not None:
        identity += f"/taught {hashlib.sha256(teachers.weights.numpy().tobytes()).hexdigest()}"
    label = Label(name, f"{kind}/{_digest(identity)}", len(taken), data.num_classes)
    return Material(label, Examples.from_split(data.train.take(taken), synthetic.preprocess), teachers)


def _features(split: Split, preprocess: Preprocess) -> NDArray[np.float32]:
    """(N, F): small pictures of the images, which tell them apart about as their pixels do and cost nothing."""
    side = min(FEATURE_SIDE, *split.images.shape[2:])
    small = _averaged(lambda rows: preprocess.apply(split.images[rows.numpy()]), len(split), side)
    features: NDArray[np.float32] = small.flatten(1).numpy()
    return features


def _averaged(take: Callable[[Tensor], Tensor], count: int, side: int) -> Tensor:
    """All images that `take` gives of rows 0 .. count - 1, averaged down."""
    chunks = torch.split(torch.arange(count), CHUNK)
    return torch.cat([F.adaptive_avg_pool2d(take(rows), side) for rows in chunks])


def held_out_material(data: ImageDataset, preprocess: Preprocess) -> Material:
    """The half of validation that scores candidates, which chose nothing.

    Raises ValueError where no validation images were held back.
    """
    check_held_out(data)
    split: Split = data.score()
    identity = f"{data.fingerprint}/{preprocess.fingerprint}"
    label = score_label(f"score/{_digest(identity)}", data)
    return Material(label, partial(Examples.from_split, split, preprocess))


def nothing_held_out(data: ImageDataset, preprocess: Preprocess) -> Material:
    """What stands for the images that score candidates where there are none: no image."""
    label = Label("no held-out images", f"score/none/{preprocess.fingerprint}", 0, data.num_classes)
    return Material(label, partial(Examples.from_split, data.score(), preprocess))


def score_label(identity: str, data: ImageDataset) -> Label:
    """Of the half of validation that scores, as the images are counted."""
    name = "validation images (the half that scores)"
    if data.metric != ACCURACY:
        identity += f"/{data.metric}"
    if data.shared:  # it was not so before, and was another accuracy
        identity += "/every class"
    return Label(name, identity, len(data.score()), data.num_classes, data.metric)


def check_held_out(data: ImageDataset) -> None:
    """Raises ValueError where no validation images were held back."""
    if len(data.score()) == 0:
        raise ValueError(
            f"{data.name} was loaded without validation images, and candidates are not scored on test images: "
            "hold some back (--validation 0.1)"
        )


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
