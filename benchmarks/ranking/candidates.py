"""One candidate trained on a stream, as one JSON row with its whole curve."""

from __future__ import annotations

import math
import time
from dataclasses import replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from settings import Setting
from streams import Stream
from torch import Tensor, nn

from distill.randomness import seeded
from distill.training.loop import SCHEDULES
from search_spaces.base import parse_architecture

PARTS = 100  # of a curve
READS = (0.0, 1 / 3, 2 / 3, 1.0)  # of the training, when held-out images are read
CLEAN = 1000  # images at most of the last full pass


def train(
    name: str, setting: Setting, seed: int, stream: Stream, held_out: tuple[Tensor, Tensor, Tensor]
) -> dict[str, Any]:
    """The row of an architecture; its weights are drawn from the seed and its name. `seconds`: of one core."""
    begun = time.process_time()
    architecture = parse_architecture(name).representative()
    if setting.cells < 5:
        architecture = replace(architecture, cells=setting.cells)  # type: ignore[type-var]
    with seeded(seed, "ranking", architecture.name):
        network = architecture.build(tuple(stream.images.shape[2:]), stream_classes(held_out))  # type: ignore[arg-type]
    network = network.to(memory_format=torch.channels_last)  # about a third faster here
    optimizer = torch.optim.SGD(
        network.parameters(), lr=setting.lr, momentum=setting.momentum, weight_decay=setting.weight_decay
    )
    schedule, steps = SCHEDULES[setting.schedule], len(stream.images)
    due = {round(steps * part) for part in READS}
    losses, readings = [], []
    network.train()
    for step in range(steps):
        if step in due:
            readings.append(read(network, held_out, setting))
        rise = min(1.0, (step + 1) / (setting.warmup * steps)) if setting.warmup else 1.0
        for group in optimizer.param_groups:
            group["lr"] = setting.lr * schedule(step / steps) * rise
        loss = F.cross_entropy(network(stream.images[step]), stream.targets[step])
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach() - stream.floor[step]))
        if not math.isfinite(losses[-1]):
            return {"error": f"the loss was not finite in step {step + 1}", "seconds": time.process_time() - begun}
    readings.append(read(network, held_out, setting))
    trained_s = time.process_time() - begun
    curve = [round(float(part.mean()), 5) for part in np.array_split(np.array(losses), PARTS)]
    each = clean_losses(network, stream)
    clean: dict[str, Any] = {"clean_loss": round(float(each.mean()), 6)}
    if setting.each_image:
        clean["clean_losses"] = [round(float(one), 3) for one in each]
    return {"error": None, "losses": curve, "held_out": readings, **clean, "seconds": round(trained_s, 3)}


@torch.no_grad()
def read(network: nn.Module, held_out: tuple[Tensor, Tensor, Tensor], setting: Setting) -> dict[str, float]:
    """On held-out images, with the statistics of each batch; "agreement" and "taught_loss" are with the teachers."""
    images, labels, taught = held_out
    images = images.contiguous(memory_format=torch.channels_last)
    if setting.pixels != images.shape[-1]:
        images = F.adaptive_avg_pool2d(images, setting.pixels)
    logits = torch.cat([network(piece) for piece in images.split(250)])
    own = logits.gather(1, labels[:, None])[:, 0]
    others = logits.scatter(1, labels[:, None], -math.inf).amax(1)
    figures = {
        "accuracy": (logits.argmax(1) == labels).float().mean(),
        "loss": F.cross_entropy(logits, labels),
        "margin": (own - others).mean(),
        "agreement": (logits.argmax(1) == taught.argmax(1)).float().mean(),
        "taught_loss": F.cross_entropy(logits, taught),
    }
    return {name: round(float(value), 5) for name, value in figures.items()}


@torch.no_grad()
def clean_losses(network: nn.Module, stream: Stream) -> Tensor:
    """A full pass over the images as they are, up to 1,000 of them: the loss of each."""
    images, targets = stream.clean
    step = max(1, len(images) // CLEAN)
    pieces = zip(images[::step].split(250), targets[::step].split(250), strict=True)
    return torch.cat([F.cross_entropy(network(piece), target, reduction="none") for piece, target in pieces])


def stream_classes(held_out: tuple[Tensor, Tensor, Tensor]) -> int:
    return int(held_out[2].shape[1])
