"""What a long computation is handed besides its inputs: seed, folders, device and a listener for its progress."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch

from distill.randomness import generator


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


def ignore(progress: Progress) -> None:
    """Report to nobody."""


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
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    report: Callable[[Progress], None] = ignore
    compiled: bool | None = None
    memory_bytes: int | None = None

    def generator(self, *path: str | int) -> torch.Generator:
        """The generator of the draws named by `path`; see `distill.randomness`."""
        return generator(self.seed, *path)
