"""What an untrained network can be measured by, and one such measurement as a piece of work."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from distill.files import digest
from distill.randomness import generator, seeded
from ftdnas.candidates.materials import Label, Shelf
from ftdnas.proxies.az_nas import az_nas
from ftdnas.proxies.naswot import jacob_cov, naswot
from ftdnas.proxies.synflow import synflow
from ftdnas.runtime.device import device_name, one_thread
from ftdnas.runtime.processes import Failure
from ftdnas.runtime.rows import Row
from search_spaces.base import ImageShape, parse_architecture

IMAGES = 64  # of one batch, as in the papers


@dataclass(frozen=True)
class Measure:
    """`function` takes a fresh network, which it may use up, images (N, C, H, W) and a generator; it gives figures.

    NaN or minus infinity: worse than any number. `title`: in words. `real`: its images are real, else Gaussian noise.
    """

    title: str
    function: Callable[[nn.Module, Tensor, torch.Generator], Mapping[str, float]]
    real: bool


MEASURES: dict[str, Measure] = {
    "synflow": Measure("synflow", synflow, real=False),
    "naswot": Measure("NASWOT", naswot, real=True),
    "jacob_cov": Measure("jacob_cov", jacob_cov, real=True),
    "az_nas": Measure("AZ-NAS", az_nas, real=False),
}


@dataclass(frozen=True)
class Measurement:
    """One measure of one architecture with PyTorch's initial weights (AZ-NAS draws its own).

    `code`: the digest of the file that defines the architecture. `images`: the real images of which a random batch is
    taken, for a measure that needs them. `device` where it is done; it is no part of the identity.
    """

    measure: str
    architecture: str
    code: str
    image_shape: ImageShape
    classes: int
    images: Label | None
    seed: int
    device: str = "cpu"

    @property
    def key(self) -> str:
        """Hex digest of all that the values depend on, but for device and versions."""
        images = self.needs[0] if self.needs else None
        identity = [self.measure, self.architecture, self.code, self.image_shape, self.classes, images, self.seed]
        return digest(identity, 32)

    @property
    def needs(self) -> tuple[str, ...]:
        """Fingerprints of the materials that must lie on the shelf."""
        return () if self.images is None else (self.images.fingerprint,)

    def __call__(self, shelf: Shelf) -> Row:
        """Do it, in a process that holds the materials. Errors of the network are the caller's to record."""
        with one_thread():  # a value is the same in every process
            begun = time.perf_counter()
            draws = generator(self.seed, "measure", self.measure, self.architecture)
            with seeded(self.seed, "measure", self.architecture, "weights"):
                network = parse_architecture(self.architecture).build(self.image_shape, self.classes)
            device = device_name(self.device)
            values = MEASURES[self.measure].function(network.to(self.device), self._batch(shelf), draws)
        finite = {name: value if math.isfinite(value) else None for name, value in values.items()}
        return self._row(values=finite, seconds=time.perf_counter() - begun, device=device)

    def failed(self, failure: Failure) -> Row:
        """The row of a measurement without a result."""
        return self._row(error=failure.error, crashed=failure.crashed, seconds=failure.seconds)

    def _batch(self, shelf: Shelf) -> Tensor:
        """The same for all architectures."""
        draws = generator(self.seed, "measure", self.measure, "images")
        if self.images is None:
            return torch.randn(IMAGES, *self.image_shape, generator=draws).to(self.device)
        examples = shelf[self.images.fingerprint].examples
        images, _ = examples.take(torch.randperm(len(examples), generator=draws)[:IMAGES])
        return images.to(self.device)

    def _row(self, **outcome: Any) -> Row:
        images = None if self.images is None else self.images.name
        return {
            "key": self.key,
            "measure": self.measure,
            "architecture": self.architecture,
            "image_shape": list(self.image_shape),
            "classes": self.classes,
            "images": images,
            "seed": self.seed,
            "values": {},
            "error": None,
            "crashed": False,
            "seconds": 0.0,
            "device": "",
            "torch": torch.__version__,
            **outcome,
        }
