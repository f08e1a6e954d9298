"""The batches that all candidates of a setting train on: drawn, augmented and labelled once, and so shared by them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
import torch.nn.functional as F
from settings import Setting
from torch import Tensor

from distill.coresets import CORESETS
from distill.experts import train_experts
from distill.images.augment import augment, draw, parse_augment
from distill.images.datasets import ImageDataset
from distill.methods import fitted_preprocess
from distill.randomness import derive_seed, generator
from distill.run import Run
from distill.training.examples import Examples
from distill.training.flat import FlatNetwork
from distill.training.loop import batches
from ftdnas.runtime.home import home
from ftdnas.sets.images import Source
from ftdnas.sets.library import Library
from ftdnas.sets.recipes import load_recipe
from search_spaces.base import parse_architecture

HELD_OUT = 1000  # images of the half of validation that scores


@dataclass(frozen=True, eq=False)
class Stream:
    """`images` (S, B, C, H, W) of S steps; `targets` int64 (S, B) or float32 (S, B, K).

    `floor` (S,): the entropy of the targets, below which no loss falls; 0 for hard ones. `clean`: the images as they
    are, with their targets.
    """

    images: Tensor
    targets: Tensor
    floor: Tensor
    clean: tuple[Tensor, Tensor]


class Workshop:
    """The real images at 16 pixels, the experts of recipe cpu as teachers, and what is made of them."""

    def __init__(self) -> None:
        self.recipe = load_recipe("cpu")
        self.data: ImageDataset = Source("cifar10", _root(), image_size=16, offline=True).load()

    @cached_property
    def _run(self) -> Run:
        return Run(0, home() / "runs" / "ranking", home())

    @cached_property
    def preprocess(self):  # type: ignore[no-untyped-def]
        return fitted_preprocess(self.data, self.recipe, self._run)

    @cached_property
    def _teachers(self) -> list[Callable[[Tensor], Tensor]]:
        backbone = parse_architecture(self.recipe.backbone)
        network = lambda: backbone.build(self.data.image_shape, self.data.num_classes)  # noqa: E731
        experts = train_experts(self.data, self.preprocess, network, self.recipe, self._run)
        flat = FlatNetwork(network())
        rows = [experts.weights(number, experts.epochs) for number in range(experts.num_experts)]
        return [lambda images, row=row: flat(row, images) for row in rows]  # type: ignore[misc]

    @torch.no_grad()
    def taught(self, images: Tensor, teachers: int, temperature: float) -> Tensor:
        """(N, K) probabilities: the mean of the teachers'."""
        parts = [
            torch.stack([(one(piece) / temperature).softmax(1) for one in self._teachers[:teachers]]).mean(0)
            for piece in images.split(500)
        ]
        return torch.cat(parts)

    @cached_property
    def held_out(self) -> tuple[Tensor, Tensor, Tensor]:
        """(images, labels, the six teachers' probabilities)."""
        examples = Examples.from_split(self.data.score(), self.preprocess)
        rows = torch.randperm(len(examples), generator=generator(0, "ranking", "held out"))[:HELD_OUT]
        images, labels = examples.take(rows)
        return images, labels, self.taught(images, 6, 1.0)

    def examples(self, setting: Setting) -> tuple[Tensor, Tensor]:
        """The images, preprocessed, and their hard labels."""
        kind, _, rest = setting.images.partition(":")
        if kind == "set":
            library = Library()
            synthetic = library.load(library.path(rest))
            return synthetic.images, synthetic.labels
        count, number = map(int, rest.split(":"))
        draws = generator(number, "ranking", kind, count)
        chosen = []
        for of_class in range(self.data.num_classes):
            members = torch.from_numpy((self.data.train.labels == of_class).nonzero()[0])
            each = count // self.data.num_classes
            if kind == "random":
                chosen.append(members[torch.randperm(len(members), generator=draws)[:each]])
                continue
            split = self.data.train.take(members.numpy())
            small = F.adaptive_avg_pool2d(self.preprocess.apply(split.images), 8).flatten(1).numpy()
            features = lambda small=small: small  # noqa: E731
            chosen.append(members[CORESETS[kind](features, split, each, derive_seed(number, "ranking"))])
        split = self.data.train.take(torch.cat(chosen).numpy())
        return Examples.from_split(split, self.preprocess).take(torch.arange(len(split)))

    def stream(self, setting: Setting, *path: str) -> Stream:
        """`path`: names the draws, beside the setting's seed."""
        images, labels = self.examples(setting)
        draws = generator(setting.batches, "ranking", "batches", *path)
        if setting.labels == "shuffled":
            labels = labels[torch.randperm(len(labels), generator=draws)]
        operations = parse_augment(setting.augment)
        rows: list[Tensor] = []
        while len(rows) < setting.steps:
            # A partial last batch would make steps of two sizes: what is left over waits for the next order.
            size = min(setting.batch, len(images))
            rows += [one for one in batches(len(images), setting.batch, draws) if len(one) == size]
        seen = []
        for one in rows[: setting.steps]:
            batch = images[one]
            for _ in range(setting.draws):
                batch = augment(batch, draw(operations, len(one), tuple(batch.shape[1:]), draws))  # type: ignore[arg-type]
            seen.append(batch)
        every = torch.stack(seen)
        if setting.labels.startswith("teacher"):
            teachers = int(setting.labels.partition(":")[2])
            soft = self.taught(every.flatten(0, 1), teachers, setting.temperature)
            floor = -(soft * soft.clamp_min(1e-12).log()).sum(1)
            targets, floor = soft.view(*every.shape[:2], -1), floor.view(*every.shape[:2]).mean(1)
            clean = images, self.taught(images, teachers, setting.temperature)
        else:
            targets, floor = torch.stack([labels[one] for one in rows[: setting.steps]]), torch.zeros(setting.steps)
            clean = images, labels
        if setting.pixels != images.shape[-1]:
            every = F.adaptive_avg_pool2d(every.flatten(0, 1), setting.pixels).unflatten(0, every.shape[:2])
            clean = F.adaptive_avg_pool2d(clean[0], setting.pixels), clean[1]
        every = every.transpose(2, 3).transpose(3, 4).contiguous().transpose(3, 4).transpose(2, 3)  # channels last
        return Stream(every, targets, floor, clean)


def _root() -> Path | None:
    import os

    return Path(os.environ["FTDNAS_DATA"]) if "FTDNAS_DATA" in os.environ else None
