"""The state of matching between two outer steps, and the points on disk from which it goes on."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from distill.files import Damaged, set_aside
from distill.tensors import read_tensors, write_tensors

LATEST, BEFORE = "matching.safetensors", "matching.before.safetensors"


@dataclass(frozen=True, eq=False)
class MatchingState:
    """Everything that the next outer step depends on, besides the seed and the recipe."""

    images: Tensor  # (N, C, H, W), as are the next two
    velocity: Tensor
    average: Tensor  # moving average of the images, not yet corrected for starting at zero
    step_size: float
    step_size_velocity: float = 0.0
    step: int = 0  # outer steps taken
    scale: float = 1.0  # of both rates; shrinks with every roll-back, and grows again
    recovers_at: int = 0  # the outer step after which it grows, where it is below 1
    losses: list[list[float]] = field(default_factory=list)  # [outer step, matching loss]
    validation: list[list[float]] = field(default_factory=list)  # [outer step, accuracy of raw, of averaged images]
    notes: list[str] = field(default_factory=list)
    seconds: float = 0.0
    compiled: bool | None = None  # how derivatives are taken; None: not chosen yet
    chunk_size: int | None = None  # of minibatches; None: whole


@dataclass(frozen=True)
class RestartPoints:
    """The last two states kept in a folder.

    Two, because a step that ruins the images can be the last before a point is written: then going on from there
    fails at once, and the one before it is sound.
    """

    folder: Path
    device: torch.device

    def latest(self) -> MatchingState | None:
        """What an interrupted run goes on from; None where there is nothing sound."""
        # A kill in `keep` leaves the older one alone.
        return self._load(LATEST) or self.before()

    def before(self) -> MatchingState | None:
        """The point before the latest."""
        return self._load(BEFORE)

    def keep(self, state: MatchingState, *, latest_is_good: bool = True) -> None:
        """Write a new latest point; the one that was the latest becomes the one before, where it is good."""
        facts = {each.name: getattr(state, each.name) for each in dataclasses.fields(state)}
        tensors = {name: facts.pop(name) for name in ("images", "velocity", "average")}
        latest = self.folder / LATEST
        if latest_is_good and latest.exists():
            latest.replace(self.folder / BEFORE)
        write_tensors(latest, tensors, facts)

    def _load(self, name: str) -> MatchingState | None:
        path = self.folder / name
        if not path.exists():
            return None
        try:
            tensors, facts = read_tensors(path)
            held: dict[str, Any] = {name: tensor.to(self.device) for name, tensor in tensors.items()}
            return MatchingState(**held, **{"compiled": False, **facts})
        except (Damaged, TypeError):  # an older one, or the beginning, leads to the same set
            set_aside(path)
            return None
