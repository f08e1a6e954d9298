"""What is read from a row: one number a candidate, larger is better."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

Row = Mapping[str, Any]


def _last(row: Row, part: float) -> float:
    losses = row["losses"]
    return float(np.mean(losses[-max(1, round(len(losses) * part)) :]))


def _slope(row: Row) -> float:
    """How fast the logarithm of the loss falls in the second half."""
    half = np.log(np.maximum(row["losses"][len(row["losses"]) // 2 :], 1e-6))
    return float(-np.polyfit(np.arange(len(half)), half, 1)[0])


def _read(name: str, sign: float = 1.0, gain: bool = False) -> Callable[[Row], float]:
    return lambda row: sign * (row["held_out"][-1][name] - (row["held_out"][0][name] if gain else 0.0))


SCORES: dict[str, Callable[[Row], float]] = {
    "late loss": lambda row: -_last(row, 0.1),
    "late third": lambda row: -_last(row, 1 / 3),
    "sum of losses": lambda row: -_last(row, 1.0),
    "slope": _slope,
    "full pass": lambda row: -float(row["clean_loss"]),
    "accuracy": _read("accuracy"),
    "held-out loss": _read("loss", -1),
    "margin": _read("margin"),
    "agreement": _read("agreement"),
    "taught loss": _read("taught_loss", -1),
    "gain": _read("accuracy", gain=True),
}


def value(row: Row | None, score: str) -> float:
    """Minus infinity where the training failed."""
    if row is None or row["error"] is not None:
        return -math.inf
    found = SCORES[score](row)
    return found if math.isfinite(found) else -math.inf
