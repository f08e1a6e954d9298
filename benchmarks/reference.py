"""What ours is measured against: matching, experts and candidates as plainly as the field writes them.

Written by us, from the papers. A test holds each to the same numbers as ours.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from distill.images.augment import augment, draw, parse_augment
from distill.matching import StudentStep
from distill.recipe import ExpertRecipe, TrainingRecipe
from distill.training.examples import Examples
from distill.training.flat import FlatNetwork
from distill.training.loop import SCHEDULES, read


def match(
    flat: FlatNetwork,
    images: Tensor,
    labels: Tensor,
    step_size: Tensor,
    start: Tensor,
    target: Tensor,
    steps: Sequence[StudentStep],
) -> tuple[Tensor, Tensor, Tensor]:
    """Matching loss and its gradients by images and step size, from the graph of all steps, which is kept whole."""
    images, step_size = images.detach().requires_grad_(), step_size.detach().requires_grad_()
    student = start.detach().clone().requires_grad_()
    for step in steps:
        loss = F.cross_entropy(flat(student, augment(images[step.rows], step.drawn)), labels[step.rows])
        (gradient,) = torch.autograd.grad(loss, student, create_graph=True)
        student = student - step_size * gradient
    loss = (student - target).square().sum() / (start - target).square().sum()
    by_images, by_step_size = torch.autograd.grad(loss, (images, step_size))
    return loss.detach(), by_images, by_step_size


def train_expert(
    network: nn.Module, examples: Examples, recipe: ExpertRecipe, epochs: int, generator: torch.Generator
) -> list[Tensor]:
    """The weights (P,) before and after every epoch: a DataLoader, an optimiser, GSAM parameter by parameter."""
    dataset = TensorDataset(*examples.take(torch.arange(len(examples))))
    optimizer = torch.optim.SGD(network.parameters(), lr=recipe.lr)
    operations = parse_augment(recipe.augment)
    weights = list(network.parameters())
    rows = [torch.cat([weight.detach().flatten() for weight in weights])]
    for _ in range(epochs):
        order = torch.randperm(len(dataset), generator=generator).tolist()
        for images, labels in DataLoader(dataset, recipe.batch_size, sampler=order):
            shape = tuple(images.shape[1:])
            images = augment(images, draw(operations, len(images), shape, generator, images.device))
            first = torch.autograd.grad(F.cross_entropy(network(images), labels), weights)
            scale = recipe.rho / (_norm(first) + 1e-12)
            with torch.no_grad():
                for weight, one in zip(weights, first, strict=True):
                    weight.add_(scale * one)
            second = torch.autograd.grad(F.cross_entropy(network(images), labels), weights)
            along = sum((a * b).sum() for a, b in zip(first, second, strict=True)) / (_norm(second) ** 2 + 1e-12)
            with torch.no_grad():
                for weight, one, other in zip(weights, first, second, strict=True):
                    weight.sub_(scale * one)
                    weight.grad = other - recipe.alpha * (one - along * other)
            optimizer.step()
        rows.append(torch.cat([weight.detach().flatten() for weight in weights]))
    return rows


def _norm(parts: Sequence[Tensor]) -> Tensor:
    return torch.stack([part.norm() for part in parts]).norm()


def train_candidate(
    network: nn.Module,
    examples: Examples,
    held_out: Examples,
    recipe: TrainingRecipe,
    lr: float,
    draws: torch.Generator,
    targets: Callable[[Tensor], Tensor] | None = None,
) -> tuple[list[float], float]:
    """(training losses, held-out accuracy) of one network: each batch augmented, and labelled by `targets`, anew."""
    optimizer = torch.optim.SGD(network.parameters(), lr=lr, momentum=recipe.momentum, weight_decay=recipe.weight_decay)
    operations = parse_augment(recipe.augment)
    total = recipe.epochs * math.ceil(len(examples) / recipe.batch_size)
    losses: list[float] = []
    network.train()
    for images, labels in _passes(examples, recipe, draws):
        for group in optimizer.param_groups:
            group["lr"] = lr * SCHEDULES[recipe.schedule](len(losses) / total)
        shape = tuple(images.shape[1:])
        images = augment(images, draw(operations, len(images), shape, draws, images.device))  # type: ignore[arg-type]
        labels = labels if targets is None else targets(images)
        loss = F.cross_entropy(network(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses, read(network, held_out, recipe.batch_norm, examples)[0]


def _passes(examples: Examples, recipe: TrainingRecipe, draws: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
    for _ in range(recipe.epochs):
        for rows in torch.split(torch.randperm(len(examples), generator=draws), recipe.batch_size):
            yield examples.take(rows)
