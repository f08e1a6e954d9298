"""The training loop: what it learns, its schedule, and that nothing but the generator decides."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from distill import examples as examples_module
from distill.datasets import ImageDataset
from distill.examples import Examples
from distill.preprocess import fit_preprocess
from distill.randomness import seeded
from distill.recipe import TrainingRecipe
from distill.run import Progress
from distill.training import accuracy, batches, fit

BuildTiny = Callable[..., Callable[[], nn.Module]]


def _built(network: Callable[[], nn.Module], seed: int = 0) -> nn.Module:
    with seeded(seed, "test"):
        return network()


def _generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_a_small_network_learns_digits(digits: ImageDataset, tiny_network: BuildTiny) -> None:
    preprocess = fit_preprocess("standardize", digits.train.images)
    train, held_out = (Examples.from_split(split, preprocess) for split in (digits.train, digits.validation))
    network = _built(tiny_network())
    before = accuracy(network, held_out)
    seen: list[Progress] = []
    losses = fit(
        network, train, TrainingRecipe(epochs=8, batch_size=64), lr=0.05, generator=_generator(), report=seen.append
    )
    assert before < 0.3
    assert accuracy(network, held_out) > 0.85
    assert losses[-1] < 0.5 * losses[0]
    assert [progress.done for progress in seen] == list(range(1, 9))


def test_equal_generators_give_equal_weights(digits: ImageDataset, tiny_network: BuildTiny) -> None:
    preprocess = fit_preprocess("standardize", digits.train.images)
    train = Examples.from_split(digits.train.take(np.arange(100)), preprocess)
    weights = []
    for seed in (1, 1, 2):
        network = _built(tiny_network())
        fit(network, train, TrainingRecipe(epochs=2, batch_size=32), lr=0.05, generator=_generator(seed))
        weights.append(nn.utils.parameters_to_vector(network.parameters()))
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


class _Slope(nn.Module):
    """Two logits whose difference is one weight: under labels 0 its gradient is never zero."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))

    def forward(self, images: Tensor) -> Tensor:
        return torch.stack([self.weight, -self.weight]).expand(len(images), 2)


@pytest.mark.parametrize(
    ("schedule", "factors"),
    [
        ("step", [1, 1, 0.1, 0.1]),
        ("constant", [1, 1, 1, 1]),
        ("cosine", [0.5 * (1 + math.cos(math.pi * i / 4)) for i in range(4)]),
    ],
)
def test_the_rate_follows_its_schedule(schedule: str, factors: list[float]) -> None:
    examples = Examples(torch.zeros(4, 1, 4, 4), torch.zeros(4, dtype=torch.int64))
    network = _Slope()
    path: list[float] = []
    recipe = TrainingRecipe(epochs=4, batch_size=4, momentum=0.0, weight_decay=0.0, schedule=schedule, augment="none")
    fit(
        network,
        examples,
        recipe,
        lr=0.1,
        generator=_generator(),
        report=lambda _: path.append(float(network.weight.detach())),
    )
    for before, after, factor in zip(path[:-1], path[1:], factors[1:], strict=True):
        gradient = -2 / (1 + math.exp(2 * before))
        assert after - before == pytest.approx(-0.1 * factor * gradient, rel=1e-4)


def test_a_training_that_diverges_ends_with_nan(digits: ImageDataset, tiny_network: BuildTiny) -> None:
    preprocess = fit_preprocess("standardize", digits.train.images)
    train = Examples.from_split(digits.train.take(np.arange(64)), preprocess)
    losses = fit(_built(tiny_network()), train, TrainingRecipe(epochs=50), lr=1e18, generator=_generator())
    assert len(losses) < 50
    assert math.isnan(losses[-1])


def test_batches_keep_the_last_partial_one() -> None:
    pieces = list(batches(10, 4, _generator()))
    assert [len(piece) for piece in pieces] == [4, 4, 2]
    assert sorted(torch.cat(pieces).tolist()) == list(range(10))


def test_images_too_large_to_hold_are_preprocessed_batch_by_batch(
    digits: ImageDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    preprocess = fit_preprocess("standardize", digits.train.images)
    held = Examples.from_split(digits.train, preprocess)
    monkeypatch.setattr(examples_module, "HELD_BYTES", 1000)
    lazy = Examples.from_split(digits.train, preprocess)
    assert lazy.images is digits.train.images
    rows = torch.tensor([5, 0, 7])
    assert all(torch.equal(a, b) for a, b in zip(held.take(rows), lazy.take(rows), strict=True))
    assert len(lazy) == len(held)
    assert lazy.image_shape == held.image_shape == (1, 8, 8)
