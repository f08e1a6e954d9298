"""What a long computation is handed besides its inputs: seed, folders, device and a listener for its progress."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Progress:
    """One step of a stage.

    `stage` is a short noun ("experts", "matching"); `done` of `total` steps are finished; `values` are the figures
    worth showing now (matching_loss, step_size, ...); `message` is a sentence the user must see, or "".
    """

    stage: str
    done: int
    total: int
    values: Mapping[str, float] = field(default_factory=dict)
    message: str = ""


Listener = Callable[[Progress], None]  # is told how a computation goes


def ignore(progress: Progress) -> None:
    """A listener that nobody is behind."""


def duration(seconds: float) -> str:
    """In words: "40 s", "12 min", "2 h 30 min", "3 days"."""
    minutes = round(seconds / 60)
    if seconds < 90:
        return f"{seconds:.0f} s"
    if minutes < 90:
        return f"{minutes} min"
    return f"{minutes // 60} h {minutes % 60} min" if minutes < 48 * 60 else f"{minutes / 1440:.0f} days"


def about(seconds: float) -> str:
    """A range, for no estimate is better: "20 to 45 s", "1 to 3 min", "2 to 5 h"."""
    low, high = seconds / 1.5, seconds * 1.5
    unit, name = (1, "s") if high < 90 else (60, "min") if high < 90 * 60 else (3600, "h")
    return f"{max(1, round(low / unit))} to {max(2, round(high / unit))} {name}"


def _cpu() -> torch.device:
    import torch

    return torch.device("cpu")


@dataclass(frozen=True)
class Run:
    """Where and how one computation runs.

    `folder` holds its checkpoints and nothing else's; `shared` holds what runs reuse (experts/, preprocess/).
    `compiled`: whether derivatives are, in what begins; None: where that pays.
    `memory_bytes`: what derivatives may make the process hold, or on its GPU; None: what there is.
    """

    seed: int
    folder: Path
    shared: Path
    device: torch.device = field(default_factory=_cpu)
    listener: Listener = ignore
    compiled: bool | None = None
    memory_bytes: int | None = None
