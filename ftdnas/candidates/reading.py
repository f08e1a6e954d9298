"""What is read from the row of a training; without torch, wherever the rows are."""

from __future__ import annotations

import base64
import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ftdnas.agreement.fractions import chance_bound
from ftdnas.runtime.rows import Row

LATE = 0.1  # the late loss is the mean training loss of this last part of the steps


def score_value(row: Row, kind: str, window: float = LATE) -> float | None:
    """One of `screening.SCORES` of a training's row; larger is better; None where it failed or was not read.

    A loss counts negatively. `window`: the last part of the training whose mean loss is the late loss. Raises
    LookupError for an unknown kind.
    """
    if row["error"] is not None:
        return None
    if kind == "accuracy":
        value = row["score"]
        return None if value is None else float(value)
    if kind == "loss":
        loss = row.get("held_out_loss")
    elif kind == "late_loss" and window == LATE:
        loss = row["late_loss"]
    elif kind in ("auc", "late_loss"):
        losses = row["losses"]
        part = losses if kind == "auc" else losses[-max(1, round(len(losses) * window)) :]
        loss = None if None in part else np.mean(part)
    else:
        raise LookupError(f"unknown score {kind!r}: choose from accuracy, loss, auc, late_loss")
    return None if loss is None else -float(loss)


def is_dead(row: Row) -> bool:
    """Whether a network ended where guessing does; one whose training failed is not dead.

    By its accuracy on held-out images where it was read: within 3 binomial deviations of 1 / K, or below it. Else by
    its late loss: not below that of guessing by 3 standard errors, and a hundredth of it at least, for a network that
    says the same of every image comes to that loss without any noise.
    """
    if row["score"] is not None and row["scored_on"]["images"]:
        return bool(row["score"] <= chance_bound(row["scored_on"]["images"], row["scored_on"]["classes"]))
    guessing, late = row.get("guess_loss"), row["late_loss"]
    if row["error"] is not None or guessing is None or late is None:
        return False
    last = [loss for loss in row["losses"][-max(1, round(len(row["losses"]) * LATE)) :] if loss is not None]
    noise = 3 * float(np.std(last)) / math.sqrt(len(last)) if last else 0.0
    return bool(late > guessing - max(noise, guessing / 100))


def guess_loss(said: Tensor, divergence: bool) -> float:
    """The least loss of a network that says the same of every image: ln K where hard labels are spread evenly.

    `said`: float (N, K), a distribution for each image. `divergence`: losses are Kullback-Leibler divergences from it,
    0 where the network says the same, as with teachers; else cross-entropies.
    """
    said = said.double()
    entropies = torch.special.entr(said).sum(1).mean() if divergence else 0.0
    return max(0.0, float(torch.special.entr(said.mean(0)).sum() - entropies))


def right_of(row: Row) -> NDArray[np.bool_] | None:
    """Which of the images that scored a training were right at its end; None where the row does not say."""
    if not row.get("right"):
        return None
    bits = np.frombuffer(base64.b64decode(row["right"]), np.uint8)
    return np.unpackbits(bits, count=row["scored_on"]["images"]).astype(bool)


def late_loss(losses: Sequence[float]) -> float:
    """Mean of the last tenth of the losses, of one at least."""
    return float(np.mean(losses[-max(1, round(len(losses) * LATE)) :]))
