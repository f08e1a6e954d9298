"""The only training loop of ordinary networks, on synthetic sets and on real images alike (METHOD: SGD, DSA, step)."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from distill.images.augment import augment, draw, parse_augment
from distill.randomness import generator as named_generator
from distill.randomness import seeded
from distill.recipe import BATCH_NORM, TrainingRecipe
from distill.run import Listener, Progress, ignore
from distill.training.clock import Clock, Limit
from distill.training.examples import Examples
from distill.training.flat import Network
from distill.training.precision import computing, logits_in

SCHEDULES: dict[str, Callable[[float], float]] = {
    # Fraction of the training done, in [0, 1), to the factor of the learning rate.
    "step": lambda done: 1.0 if done < 0.5 else 0.1,
    "constant": lambda done: 1.0,  # noqa: ARG005
    "cosine": lambda done: 0.5 * (1 + math.cos(math.pi * done)),
}
Targets = Callable[[int, Tensor], Tensor]  # (number of the step, augmented images (B, C, H, W)) -> (B, K) probabilities
_OWN_CHANNELS = (nn.LayerNorm, nn.modules.instancenorm._InstanceNorm)  # norms that are slow in channels last
FEW_CHANNELS = 8  # of one group of a group norm, which is slow there too with fewer
READ_BATCH = 1000  # images per forward pass when no gradient is needed
READ_VALUES = READ_BATCH * 3 * 64 * 64  # or fewer, where they are larger
REFRESHED = 5000  # images that averages of batch norm are taken anew over


@dataclass(frozen=True)
class Reading:
    """What a network is worth on held-out images: a fraction and the mean loss, when `done` of its training was.

    `right`: a bit for each image, as numpy packs them; two networks read on the same images are compared by them.
    """

    done: float
    accuracy: float
    loss: float
    right: bytes = b""


@dataclass(frozen=True)
class Fitted:
    """What a training leaves behind beside its weights.

    `losses`: the training loss of each step, a mean over its batch, before the update. `epochs`: their means, of whole
    epochs. `diverged`: it ended early, for the loss of the last of these epochs was not finite. `readings`: of the
    held-out images, in order; none where it diverged before.
    """

    losses: tuple[float, ...]
    epochs: tuple[float, ...]
    diverged: bool
    readings: tuple[Reading, ...] = ()


class Descent:
    """SGD with momentum and weight decay on a network's weights, bit for bit `torch.optim.SGD`.

    That one imports the compiler when it is made, 1.7 s in every process that trains.
    """

    def __init__(self, network: nn.Module, momentum: float, weight_decay: float):
        self._momentum, self._decay = momentum, weight_decay
        self._pairs = [(weight, torch.zeros_like(weight)) for weight in network.parameters()]

    @property
    def velocities(self) -> list[Tensor]:
        """Of the weights, in their order: with these it goes on."""
        return [velocity for _, velocity in self._pairs]

    @torch.no_grad()
    def step(self, lr: float) -> None:
        """Move the weights by their gradients, which are gone then; those without one stay."""
        moved = [(weight, weight.grad, speed) for weight, speed in self._pairs if weight.grad is not None]
        weights, gradients, velocities = (list(column) for column in zip(*moved, strict=True))
        if self._decay:
            gradients = list(torch._foreach_add(gradients, weights, alpha=self._decay))
        torch._foreach_mul_(velocities, self._momentum)
        torch._foreach_add_(velocities, gradients)
        torch._foreach_add_(weights, velocities, alpha=-lr)
        for weight in weights:
            weight.grad = None


def batches(count: int, batch_size: int, generator: torch.Generator) -> Iterator[Tensor]:
    """The rows 0 .. count - 1 in a fresh random order, int64 on the CPU, in pieces of `batch_sizes`."""
    yield from torch.split(torch.randperm(count, generator=generator), batch_sizes(count, batch_size))


def batch_sizes(count: int, batch_size: int) -> list[int]:
    """Of so many images: the last, partial one is kept, but one image goes with those before it.

    A single one has no statistics, which batch norm needs.
    """
    sizes = [min(batch_size, count - start) for start in range(0, count, batch_size)]
    return [*sizes[:-2], sizes[-2] + 1] if len(sizes) > 1 and sizes[-1] == 1 < batch_size else sizes


def fit(
    network: nn.Module,
    examples: Examples,
    recipe: TrainingRecipe,
    *,
    lr: float,
    generator: torch.Generator,
    held_out: Examples | None = None,
    reads: int = 1,
    targets: Targets | None = None,
    seen: Callable[[Tensor], Tensor] | None = None,
    limit: Limit | None = None,
    listener: Listener = ignore,
) -> Fitted:
    """Train `network` in place; `held_out` images are read `reads` times at equal distances, at the end the last time.

    `targets` give the labels of every augmented batch instead of its own; the losses that are kept are then
    Kullback-Leibler divergences, 0 where the network says what the targets say. `seen`: what the network is shown of a
    batch that has been augmented and labelled, a smaller picture say.

    SGD with momentum and weight decay; the rate is `lr` times the recipe's schedule at the part of the steps that is
    done (so "step" falls between two epochs where their number is even, as it does when counted in epochs); one DSA
    draw a batch. The host waits for the device once an epoch. A mean loss of an epoch that is not finite ends it early.
    With a `limit` the part of its time that is gone counts as done where the steps are behind it.
    """
    operations = parse_augment(recipe.augment)
    schedule = SCHEDULES[recipe.schedule]
    sizes = batch_sizes(len(examples), recipe.batch_size)
    length = len(sizes)
    total = length * recipe.epochs
    due = {math.ceil(total * number / reads) for number in range(1, reads)} - {total}
    losses: list[float] = []
    means: list[float] = []
    readings: list[Reading] = []
    step = 0
    few = examples.take(torch.arange(min(2, len(examples))))[0]
    layout = fastest_layout(network, few if seen is None else seen(few))
    network.to(memory_format=layout)
    network.train()
    descent = Descent(network, recipe.momentum, recipe.weight_decay)
    clock = Clock(limit, network, descent.velocities, generator)
    if restored := clock.restored():
        losses, means = restored
        step = len(losses)
    for epoch in range(len(means), recipe.epochs):
        pending = torch.zeros(length, device=examples.device)
        for number, rows in enumerate(batches(len(examples), recipe.batch_size, generator)):
            if clock.gone() >= 1:
                pending = pending[:number]
                break
            images, labels = examples.take(rows)
            drawn = draw(operations, len(rows), examples.image_shape, generator, examples.device)
            images = augment(images, drawn)
            if targets is not None:
                labels = targets(step, images)
            shown = (images if seen is None else seen(images)).contiguous(memory_format=layout)
            with computing(recipe.precision, examples.device):
                logits = logits_in(recipe.precision, network, shown)
                loss = F.cross_entropy(logits, labels, label_smoothing=recipe.label_smoothing)
                loss.backward()  # type: ignore[no-untyped-call]
            gone = clock.gone()
            done = gone if gone > (step + 1) / total else step / total
            rising = min(1.0, (done + 1 / total) / recipe.warmup) if recipe.warmup else 1.0
            descent.step(lr * rising * schedule(min(done, 1.0)))
            pending[number] = loss.detach() if targets is None else loss.detach() - entropy(labels)
            step += 1
            if held_out is not None and step in due:
                readings.append(_reading(step / total, network, held_out, recipe.batch_norm, examples))
                network.train()
        losses += pending.tolist()
        if len(pending) < length:  # the time is up in the middle of an epoch
            break
        means.append(math.fsum(loss * size for loss, size in zip(losses[-length:], sizes, strict=True)) / len(examples))
        listener(Progress("training", epoch + 1, recipe.epochs, {"loss": means[-1]}))
        if not math.isfinite(means[-1]):
            break
        clock.keep(losses, means)
    diverged = not all(map(math.isfinite, means))
    if held_out is not None and not diverged:
        readings.append(_reading(1.0, network, held_out, recipe.batch_norm, examples))
    network.to(memory_format=torch.contiguous_format)
    return Fitted(tuple(losses), tuple(means), diverged, tuple(readings))


@torch.no_grad()
def fastest_layout(network: nn.Module, images: Tensor) -> torch.memory_format:
    """How images should lie in memory while a network trains; it changes the last digits of what comes out, no more.

    On a CPU channels last takes two thirds of the time of networks with batch norm, none, or a group norm of large
    groups, and more time with layer or instance norm (benchmarks/speed.py). A few `images` are tried, for a network
    that flattens with `view` cannot take them so.
    """
    weights = list(network.parameters())
    convolves = any(weight.ndim == 4 for weight in weights) and all(weight.device.type == "cpu" for weight in weights)
    if not convolves or any(map(_is_slower_in_channels_last, network.modules())):
        return torch.contiguous_format
    try:
        network.to(memory_format=torch.channels_last).eval()(images.contiguous(memory_format=torch.channels_last))
    except RuntimeError:
        return torch.contiguous_format
    return torch.channels_last


def _is_slower_in_channels_last(part: nn.Module) -> bool:
    if isinstance(part, nn.GroupNorm):
        return part.num_channels < FEW_CHANNELS * part.num_groups
    return isinstance(part, _OWN_CHANNELS)


def entropy(probabilities: Tensor) -> Tensor:
    """Mean over the rows of (N, K), in nats: the cross entropy that no network can go below."""
    return -(probabilities * probabilities.clamp_min(1e-12).log()).sum(1).mean()


def read(
    network: nn.Module, examples: Examples, batch_norm: str = "running", trained_on: Examples | None = None
) -> tuple[float, float]:
    """(accuracy, mean loss) on the examples, as `read_each` has them. Accuracy is of hard labels."""
    right, loss = read_each(network, examples, batch_norm, trained_on)
    return int(right.sum()) / len(right), loss


@torch.no_grad()
def read_each(
    network: nn.Module, examples: Examples, batch_norm: str = "running", trained_on: Examples | None = None
) -> tuple[Tensor, float]:
    """(whether each image is right, bool (N,) on the CPU; mean loss); the network is left in evaluation mode.

    `batch_norm` says whose statistics count: "running", those the network kept; "batch", those of each batch that is
    read, at most 1,000 images in a fixed random order; "refresh", averages taken anew over `trained_on` (up to 5,000 of
    its images, as they are), which replace those kept. Raises ValueError for anything else.
    """
    if batch_norm not in BATCH_NORM or (batch_norm == "refresh" and trained_on is None):
        raise ValueError(f"batch norm cannot be read with {batch_norm!r}: choose from {', '.join(BATCH_NORM)}")
    network.eval()
    if batch_norm == "refresh":
        assert trained_on is not None
        _refresh(network, trained_on)
    # Files of one class follow each other in a folder: a batch must not be all of one.
    order = torch.arange(len(examples)) if batch_norm != "batch" else _order(len(examples))
    right = torch.zeros(len(examples), device=examples.device, dtype=torch.bool)
    loss = torch.zeros((), device=examples.device)
    if batch_norm == "batch":
        network = copy.deepcopy(network)  # whose own averages stay as they are
        for norm in _batch_norms(network):
            norm.train()
    for rows in _equal_parts(order, examples):
        images, labels = examples.take(rows)
        logits = network(images)
        loss += F.cross_entropy(logits, labels, reduction="sum")
        hard = labels if labels.ndim == 1 else labels.argmax(1)
        right[rows.to(examples.device)] = logits.argmax(dim=1) == hard
    return right.cpu(), float(loss) / len(examples)


@torch.no_grad()
def probabilities(network: nn.Module, examples: Examples) -> NDArray[np.float32]:
    """(N, K), of the network in evaluation mode."""
    network.eval()
    parts = _equal_parts(torch.arange(len(examples)), examples)
    return np.concatenate([network(examples.take(rows)[0]).softmax(1).cpu().numpy() for rows in parts])


def balanced(reading: Reading, labels: Tensor) -> Reading:
    """The same, its accuracy the mean of those of the classes that labels, (N,) or (N, K), name."""
    hard = (labels if labels.ndim == 1 else labels.argmax(1)).cpu().numpy()
    right = np.unpackbits(np.frombuffer(reading.right, np.uint8), count=len(hard))
    images = np.bincount(hard)
    recalls = np.bincount(hard, right)[images > 0] / images[images > 0]
    return replace(reading, accuracy=float(recalls.mean()))


def _reading(done: float, network: nn.Module, held_out: Examples, batch_norm: str, trained_on: Examples) -> Reading:
    right, loss = read_each(network, held_out, batch_norm, trained_on)
    return Reading(done, int(right.sum()) / len(right), loss, np.packbits(right.numpy()).tobytes())


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
    listener: Listener = ignore,
) -> Reached:
    """Train a fresh network on `examples` and read it once on `held_out`.

    Weights and draws are those of (seed, purpose): equal ones make trainings comparable, other purposes independent.
    """
    with seeded(seed, purpose):
        module = network().to(examples.device)
    draws = named_generator(seed, purpose, "draws")
    fitted = fit(module, examples, recipe, lr=lr, generator=draws, listener=listener)
    return Reached(read(module, held_out, recipe.batch_norm, examples)[0], fitted.diverged)


def _batch_norms(network: nn.Module) -> list[nn.modules.batchnorm._BatchNorm]:
    return [module for module in network.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]


def _refresh(network: nn.Module, examples: Examples) -> None:
    """The averages of batch norm over these images, every batch weighing the same."""
    norms = [norm for norm in _batch_norms(network) if norm.running_mean is not None]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a plain mean over the batches
        norm.train()
    for rows in _equal_parts(_order(len(examples))[:REFRESHED], examples) if norms else ():
        network(examples.take(rows)[0])
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
        norm.eval()


def _order(count: int) -> Tensor:
    return torch.randperm(count, generator=named_generator(0, "read"))


def _equal_parts(rows: Tensor, examples: Examples) -> tuple[Tensor, ...]:
    """As few parts of about one size as a forward pass may have."""
    size = max(1, min(READ_BATCH, READ_VALUES // math.prod(examples.image_shape)))
    return torch.tensor_split(rows, max(1, math.ceil(len(rows) / size)))
