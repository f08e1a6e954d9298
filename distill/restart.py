"""The state of matching between two outer steps, and the points on disk from which it goes on."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from distill.files import whole_file

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
        """What an interrupted run goes on from; None where there is nothing. Raises ValueError for a damaged file."""
        # A kill between the two renamings of `keep` leaves the older one alone.
        return self._load(LATEST) or self.before()

    def before(self) -> MatchingState | None:
        """The point before the latest."""
        return self._load(BEFORE)

    def keep(self, state: MatchingState, *, latest_is_good: bool = True) -> None:
        """Write a new latest point; the one that was the latest becomes the one before, where it is good."""
        facts = {each.name: getattr(state, each.name) for each in dataclasses.fields(state)}
        tensors = {name: facts.pop(name) for name in ("images", "velocity", "average")}
        latest = self.folder / LATEST
        with whole_file(latest) as beside:
            write_tensors(beside, tensors, facts)
            if latest_is_good and latest.exists():
                latest.replace(self.folder / BEFORE)

    def _load(self, name: str) -> MatchingState | None:
        path = self.folder / name
        if not path.exists():
            return None
        tensors, facts = read_tensors(path)
        held: dict[str, Any] = {name: tensor.to(self.device) for name, tensor in tensors.items()}
        return MatchingState(**held, **{"compiled": False, **facts})


def write_tensors(path: Path, tensors: dict[str, Tensor], facts: dict[str, Any]) -> None:
    """One safetensors file with `facts` as JSON."""
    stored = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    save_file(stored, path, metadata={"ftdnas": json.dumps(facts, sort_keys=True)})


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The inverse of `write_tensors`. Raises ValueError, naming the file and the way out, where it is damaged."""
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, json.loads(file.metadata()["ftdnas"])  # noqa: SIM118
    except (SafetensorError, KeyError, TypeError, json.JSONDecodeError) as error:
        raise ValueError(f"{path} is damaged ({error}): remove {path.parent} to start again") from error
