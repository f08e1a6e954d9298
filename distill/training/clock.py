"""The time that a training may take, and the points from which a killed one goes on."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from distill.files import Damaged, set_aside
from distill.tensors import read_tensors, write_tensors

KEPT_S = 20.0  # between two points


@dataclass(frozen=True)
class Limit:
    """The `seconds` that a training may take, all its runs together, and the `file` from which a killed one goes on."""

    seconds: float
    file: Path


class Clock:
    """How much of its limit a training has taken, and its restart points; without a limit it says 0 and keeps none."""

    def __init__(
        self, limit: Limit | None, network: nn.Module, velocities: Sequence[Tensor], generator: torch.Generator
    ) -> None:
        self._limit, self._generator = limit, generator
        weights = next(network.parameters(), None)
        self._gpu = weights.device if weights is not None and weights.is_cuda else None  # where dropout draws then
        self._state = {f"network.{name}": tensor for name, tensor in network.state_dict().items()}
        self._state |= {f"velocity.{number}": tensor for number, tensor in enumerate(velocities)}
        self._begun = self._kept = time.perf_counter()

    def gone(self) -> float:
        """The part of the time that is over: 1 and more where all is."""
        return 0.0 if self._limit is None else (time.perf_counter() - self._begun) / max(self._limit.seconds, 1e-9)

    def keep(self, losses: list[float], means: list[float]) -> None:
        """Write a restart point after an epoch, unless the last is recent."""
        if self._limit is None or time.perf_counter() - self._kept < KEPT_S:
            return
        self._kept = time.perf_counter()
        random = {"draws": self._generator.get_state(), "dropout": torch.get_rng_state()}
        random |= {} if self._gpu is None else {"dropout on the GPU": torch.cuda.get_rng_state(self._gpu)}
        facts = {"losses": losses, "means": means, "seconds": self._kept - self._begun}
        write_tensors(self._limit.file, {**self._state, **random}, facts)

    @torch.no_grad()
    def restored(self) -> tuple[list[float], list[float]] | None:
        """(losses, means of the epochs) of the point to go on from, network and draws as they were then."""
        if self._limit is None or not self._limit.file.exists():
            return None
        try:
            tensors, facts = read_tensors(self._limit.file)
        except Damaged:
            set_aside(self._limit.file)
            return None
        self._generator.set_state(tensors.pop("draws"))
        torch.set_rng_state(tensors.pop("dropout"))
        if (drawn := tensors.pop("dropout on the GPU", None)) is not None and self._gpu is not None:
            torch.cuda.set_rng_state(drawn, self._gpu)
        for name, tensor in tensors.items():
            self._state[name].copy_(tensor)
        self._begun -= facts["seconds"]
        return facts["losses"], facts["means"]
