"""The only training loop of ordinary networks, on synthetic sets and on real images alike (METHOD: SGD, DSA, step)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from distill.augment import augment, draw, parse_augment
from distill.examples import Examples
from distill.flat import Network
from distill.randomness import generator as named_generator
from distill.randomness import seeded
from distill.recipe import TrainingRecipe
from distill.run import Progress, ignore

SCHEDULES: dict[str, Callable[[float], float]] = {
    # Fraction of the training done, in [0, 1), to the factor of the learning rate.
    "step": lambda done: 1.0 if done < 0.5 else 0.1,
    "constant": lambda done: 1.0,  # noqa: ARG005
    "cosine": lambda done: 0.5 * (1 + math.cos(math.pi * done)),
}
READ_BATCH = 1000  # images per forward pass when no gradient is needed


def batches(count: int, batch_size: int, generator: torch.Generator) -> Iterator[Tensor]:
    """The rows 0 .. count - 1 in a fresh random order, int64 on the CPU, in pieces; the last, partial one is kept."""
    yield from torch.split(torch.randperm(count, generator=generator), batch_size)


def fit(
    network: nn.Module,
    examples: Examples,
    recipe: TrainingRecipe,
    *,
    lr: float,
    generator: torch.Generator,
    report: Callable[[Progress], None] = ignore,
) -> list[float]:
    """Train `network` in place; the mean training loss of each epoch.

    SGD with momentum and weight decay, the rate `lr` times the recipe's schedule, which moves once an epoch; one DSA
    draw a batch. A loss that is not finite ends the training early: its epoch is the last of the list, as NaN.
    """
    operations = parse_augment(recipe.augment)
    schedule = SCHEDULES[recipe.schedule]
    optimizer = torch.optim.SGD(network.parameters(), lr=lr, momentum=recipe.momentum, weight_decay=recipe.weight_decay)
    network.train()
    losses: list[float] = []
    for epoch in range(recipe.epochs):
        for group in optimizer.param_groups:
            group["lr"] = lr * schedule(epoch / recipe.epochs)
        total = torch.zeros((), device=examples.device)
        for rows in batches(len(examples), recipe.batch_size, generator):
            images, labels = examples.take(rows)
            drawn = draw(operations, len(rows), examples.image_shape, generator, examples.device)
            loss = F.cross_entropy(network(augment(images, drawn)), labels)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            total += loss.detach() * len(rows)
        losses.append(float(total) / len(examples))
        report(Progress("training", epoch + 1, recipe.epochs, {"loss": losses[-1]}))
        if not math.isfinite(losses[-1]):
            losses[-1] = math.nan
            break
    return losses


@torch.no_grad()
def accuracy(network: nn.Module, examples: Examples) -> float:
    """Fraction of the examples, labelled hard, that the network gets right in evaluation mode."""
    network.eval()
    right = 0
    for rows in torch.split(torch.arange(len(examples)), READ_BATCH):
        images, labels = examples.take(rows)
        right += int((network(images).argmax(dim=1) == labels).sum())
    return right / len(examples)


@dataclass(frozen=True)
class Reached:
    """The accuracy, a fraction, after a training, and whether that diverged (then it is about chance)."""

    accuracy: float
    diverged: bool


def trained_accuracy(
    network: Network,
    examples: Examples,
    held_out: Examples,
    recipe: TrainingRecipe,
    *,
    lr: float,
    seed: int,
    purpose: str,
    report: Callable[[Progress], None] = ignore,
) -> Reached:
    """Train a fresh network on `examples` and read it once on `held_out`.

    Weights and draws are those of (seed, purpose): equal ones make trainings comparable, other purposes independent.
    """
    with seeded(seed, purpose):
        module = network().to(examples.device)
    losses = fit(module, examples, recipe, lr=lr, generator=named_generator(seed, purpose, "draws"), report=report)
    return Reached(accuracy(module, held_out), math.isnan(losses[-1]))
