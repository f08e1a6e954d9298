"""Trajectory matching: the unrolled student, its matching loss, and the exact gradient of that loss by the adjoint.

The field keeps the graph of all N student steps (memory grows with N) or drops terms of the gradient (TESLA, arXiv
2211.10586). Plain SGD has a discrete adjoint, which needs neither: the weights of each step are kept (P floats), and
the backward recursion takes one Hessian-vector product of one minibatch at a time. With theta_(i+1) = theta_i - a g_i
and lambda = d loss / d theta_N, for i = N-1 .. 0 and s_i = <g_i, lambda>:

    d loss / d X += -a d s_i / d X;    d loss / d a += -s_i;    lambda -= a d s_i / d theta_i
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from distill.images.augment import Draw, augment, draw
from distill.randomness import moved
from distill.training.derivatives import Derivatives


@dataclass(frozen=True)
class StudentStep:
    """What one step of the student draws: the rows of its minibatch, (B,) int64, and its augmentation."""

    rows: Tensor
    drawn: Draw


@dataclass(frozen=True)
class Match:
    """The matching loss and its exact gradient by the synthetic images (N, C, H, W) and by the step size ()."""

    loss: Tensor
    images_gradient: Tensor
    step_size_gradient: Tensor


def draw_steps(
    count: int,
    image_shape: tuple[int, int, int],
    generator: torch.Generator,
    *,
    syn_steps: int,
    batch_size: int | None,
    operations: tuple[str, ...],
    device: torch.device | str = "cpu",
) -> list[StudentStep]:
    """The minibatches and augmentations of `syn_steps` steps on `count` images.

    Minibatches are pieces of a fresh permutation, which is redrawn when it is used up; `batch_size` None takes all.
    """
    size = count if batch_size is None else min(batch_size, count)
    steps: list[StudentStep] = []
    pieces: list[Tensor] = []
    while len(steps) < syn_steps:
        if not pieces:
            pieces = list(torch.split(torch.randperm(count, generator=generator), size))
        rows = pieces.pop(0)
        steps.append(StudentStep(moved(rows, device), draw(operations, len(rows), image_shape, generator, device)))
    return steps


def match(
    derivatives: Derivatives,
    images: Tensor,
    labels: Tensor,
    step_size: Tensor,
    start: Tensor,
    target: Tensor,
    steps: Sequence[StudentStep],
) -> Match:
    """Run the student from `start` (P,) along `steps` and differentiate ||end - target||^2 / ||start - target||^2.

    images: (N, C, H, W); labels: (N,) or (N, K); step_size: (), the student's learning rate. Activations of one
    minibatch are held at a time, whatever the number of steps.
    Raises ValueError where `start` equals `target`: the loss is not defined there.
    """
    distance = (start - target).square().sum()
    if float(distance) == 0:
        raise ValueError("an expert did not move between a start epoch and its target: its learning rate is too small")
    # One block for all weights: pieces allocated between the activations of the steps would fragment the heap.
    weights = start.new_empty(len(steps) + 1, len(start))
    weights[0] = start
    for i, step in enumerate(steps):
        batch = augment(images[step.rows], step.drawn)
        weights[i + 1] = weights[i] - step_size * derivatives.gradient(weights[i], batch, labels[step.rows])
    loss = (weights[-1] - target).square().sum() / distance

    adjoint = 2 * (weights[-1] - target) / distance
    images_gradient = torch.zeros_like(images)
    step_size_gradient = torch.zeros_like(step_size)
    for at, step in zip(reversed(weights[:-1].unbind()), reversed(steps), strict=True):
        rows = images[step.rows].requires_grad_()
        batch = augment(rows, step.drawn)
        product, by_weights, by_batch = derivatives.product(at, batch.detach(), labels[step.rows], adjoint)
        # The rows of a minibatch are distinct, so an indexed addition loses none.
        images_gradient[step.rows] -= step_size * torch.autograd.grad(batch, rows, by_batch)[0]
        step_size_gradient = step_size_gradient - product
        adjoint = adjoint - step_size * by_weights
    return Match(loss, images_gradient, step_size_gradient)
