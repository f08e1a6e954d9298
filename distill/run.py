"""What a long computation is handed besides its inputs: seed, folders, device and a listener for its progress."""

from __future__ import annotations

import time
from collections import deque
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
    worth showing now (matching_loss, step_size, ...); `message` is a sentence the user must see, or "". `share`: the
    fraction of the stage's work that is done, where steps are known to cost unlike much; `at_once`: steps that are
    under way side by side.
    """

    stage: str
    done: int
    total: int
    values: Mapping[str, float] = field(default_factory=dict)
    message: str = ""
    share: float | None = None
    at_once: int = 1


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


FEW = 3  # steps, or
EARLY = 0.05  # of a stage: before both are done at their pace, how long it takes is anybody's guess


class Pace:
    """How long a stage still takes, by what was done of it here: None until that means something.

    The first step of each process warms up, loads and compiles: it is no measure, and neither is what was done before.
    Of the rest the later half counts, for a machine may become slower.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._stage, self._done, self._before = "", 0, 0
        self._warm = 0.0  # how much of the work was done when the pace began to count
        self._steps: deque[tuple[float, int, float]] = deque()  # since then: when, how many, how much of the work

    def left_s(self, progress: Progress) -> float | None:
        """Seconds, after this step; to be asked at every step."""
        if progress.stage != self._stage or progress.done < self._done:  # another, or once more from the start
            self._stage, self._before = progress.stage, progress.done
            self._steps.clear()
        self._done = progress.done
        reached = progress.share if progress.share is not None else progress.done / max(1, progress.total)
        if progress.done < self._before + progress.at_once:
            return None
        self._warm = self._warm if self._steps else reached
        self._steps.append((self._clock(), progress.done, reached))
        enough = max(FEW, progress.at_once, EARLY * (progress.total - self._before))
        half = (self._warm + reached) / 2
        while len(self._steps) > 1 and progress.done - self._steps[1][1] >= enough and self._steps[1][2] <= half:
            self._steps.popleft()
        since, first, share = self._steps[0]
        if progress.done - first < enough or progress.done >= progress.total or reached <= share:
            return None
        return (self._clock() - since) * (1 - reached) / (reached - share)


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
