"""The training loop: what it learns, its schedule, and that nothing but the generator decides."""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from distill.images.datasets import ImageDataset
from distill.images.preprocess import fit_preprocess
from distill.randomness import seeded
from distill.recipe import TrainingRecipe
from distill.run import Progress
from distill.training import examples as examples_module
from distill.training.examples import Examples
from distill.training.loop import Descent, batch_sizes, batches, entropy, fastest_layout, fit, read

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
    before = read(network, held_out)
    seen: list[Progress] = []
    fitted = fit(
        network, train, TrainingRecipe(epochs=8, batch_size=64), lr=0.05, generator=_generator(), listener=seen.append
    )
    after = read(network, held_out)
    assert before[0] < 0.3
    assert after[0] > 0.85
    assert after[1] < 0.5 * before[1]
    assert fitted.epochs[-1] < 0.5 * fitted.epochs[0]
    assert [progress.done for progress in seen] == list(range(1, 9))
    assert [progress.values["loss"] for progress in seen] == list(fitted.epochs)


def test_every_step_leaves_its_loss_and_an_epoch_their_mean_over_images(
    digits: ImageDataset, tiny_network: BuildTiny
) -> None:
    preprocess = fit_preprocess("standardize", digits.train.images)
    train = Examples.from_split(digits.train.take(np.arange(100)), preprocess)
    network = _built(tiny_network())
    recipe = TrainingRecipe(epochs=3, batch_size=40, augment="none")
    fitted = fit(network, train, recipe, lr=1e-12, generator=_generator())
    assert len(fitted.losses) == 9
    assert len(fitted.epochs) == 3
    first = [loss * size for loss, size in zip(fitted.losses, (40, 40, 20), strict=False)]
    assert fitted.epochs[0] == pytest.approx(sum(first) / 100)
    assert fitted.epochs[0] == pytest.approx(read(network, train)[1], rel=1e-5)  # at this rate nothing moves


def test_held_out_images_are_read_at_equal_distances_and_change_nothing(
    digits: ImageDataset, tiny_network: BuildTiny
) -> None:
    preprocess = fit_preprocess("standardize", digits.train.images)
    train = Examples.from_split(digits.train.take(np.arange(200)), preprocess)
    held_out = Examples.from_split(digits.validation, preprocess)
    recipe = TrainingRecipe(epochs=3, batch_size=50, schedule="cosine")
    trained = []
    for read_on, reads in ((None, 1), (held_out, 1), (held_out, 5)):
        network = _built(tiny_network())
        fitted = fit(network, train, recipe, lr=0.05, generator=_generator(), held_out=read_on, reads=reads)
        trained.append((nn.utils.parameters_to_vector(network.parameters()), fitted))
    weights, (without, once, often) = zip(*trained, strict=True)
    assert torch.equal(weights[0], weights[1])
    assert torch.equal(weights[0], weights[2])
    assert without.readings == ()
    assert [reading.done for reading in often.readings] == pytest.approx([3 / 12, 5 / 12, 8 / 12, 10 / 12, 1])
    assert once.readings == often.readings[-1:]
    assert often.readings[-1].accuracy == read(network, held_out)[0]
    assert often.readings[-1].loss < often.readings[0].loss


def test_more_reads_than_steps_read_after_every_step() -> None:
    examples = Examples(torch.zeros(4, 1, 4, 4), torch.zeros(4, dtype=torch.int64))
    recipe = TrainingRecipe(epochs=2, batch_size=2, augment="none")
    fitted = fit(_Slope(), examples, recipe, lr=0.1, generator=_generator(), held_out=examples, reads=50)
    assert [reading.done for reading in fitted.readings] == [0.25, 0.5, 0.75, 1]


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
        listener=lambda _: path.append(float(network.weight.detach())),
    )
    for before, after, factor in zip(path[:-1], path[1:], factors[1:], strict=True):
        gradient = -2 / (1 + math.exp(2 * before))
        assert after - before == pytest.approx(-0.1 * factor * gradient, rel=1e-4)


def test_the_rate_moves_at_every_step() -> None:
    examples = Examples(torch.zeros(4, 1, 4, 4), torch.zeros(4, dtype=torch.int64))
    network = _Slope()
    weights: list[float] = []
    network.register_forward_pre_hook(lambda module, _: weights.append(float(module.weight.detach())))
    recipe = TrainingRecipe(epochs=1, batch_size=1, momentum=0.0, weight_decay=0.0, schedule="cosine", augment="none")
    fit(network, examples, recipe, lr=0.1, generator=_generator())
    for step in range(3):
        gradient = -2 / (1 + math.exp(2 * weights[step]))
        factor = 0.5 * (1 + math.cos(math.pi * step / 4))
        assert weights[step + 1] - weights[step] == pytest.approx(-0.1 * factor * gradient, rel=1e-3)


def test_a_training_that_diverges_ends_with_nan(digits: ImageDataset, tiny_network: BuildTiny) -> None:
    preprocess = fit_preprocess("standardize", digits.train.images)
    train = Examples.from_split(digits.train.take(np.arange(64)), preprocess)
    recipe = TrainingRecipe(epochs=50)
    fitted = fit(_built(tiny_network()), train, recipe, lr=1e18, generator=_generator(), held_out=train)
    assert fitted.diverged
    assert len(fitted.epochs) < 50
    assert not math.isfinite(fitted.epochs[-1])
    assert fitted.readings == ()


def test_batches_keep_the_last_partial_one() -> None:
    pieces = list(batches(10, 4, _generator()))
    assert [len(piece) for piece in pieces] == [4, 4, 2]
    assert sorted(torch.cat(pieces).tolist()) == list(range(10))


class _Normed(nn.Module):
    """Two logits that are the normalised mean of an image and its opposite."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(1, affine=False, momentum=0.3)

    def forward(self, images: Tensor) -> Tensor:
        value = self.norm(images.mean(dim=(1, 2, 3))[:, None])
        return torch.cat([-value, value], dim=1)


@pytest.fixture
def two_heaps() -> Examples:
    """2,200 images of class 0 around 8, then as many of class 1 around 12."""
    labels = torch.arange(2).repeat_interleave(2200)
    noise = torch.randn(4400, 1, 1, 1, generator=_generator())
    return Examples(10 + 4 * (labels - 0.5)[:, None, None, None] + 0.1 * noise, labels)


def test_averages_that_were_kept_may_mislead(two_heaps: Examples) -> None:
    network = _Normed()  # its averages are still 0 and 1
    assert read(network, two_heaps)[0] == 0.5


def test_statistics_of_the_batch_are_of_mixed_classes_and_are_not_kept(two_heaps: Examples) -> None:
    network = _Normed()
    assert read(network, two_heaps, "batch")[0] == 1.0
    assert read(network, two_heaps, "batch") == read(network, two_heaps, "batch")
    assert network.norm.running_mean is not None
    assert float(network.norm.running_mean) == 0
    assert (network.norm.momentum, int(network.norm.num_batches_tracked or 0)) == (0.3, 0)
    assert not any(module.training for module in network.modules())


def test_averages_are_taken_anew_over_the_training_images(two_heaps: Examples) -> None:
    network = _Normed()
    one = Examples(two_heaps.images[:1], two_heaps.labels[:1])
    assert read(network, one, "refresh", two_heaps)[0] == 1.0
    assert network.norm.running_mean is not None
    assert float(network.norm.running_mean) == pytest.approx(10, abs=0.05)
    assert network.norm.momentum == 0.3
    assert read(network, two_heaps)[0] == 1.0  # they stay
    with pytest.raises(ValueError, match="choose from running, batch, refresh"):
        read(network, one, "refreshed")


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


def test_a_network_that_flattens_with_view_is_trained_as_it_is(digits: ImageDataset) -> None:
    class Viewing(nn.Module):
        def __init__(self, flatten: bool) -> None:
            super().__init__()
            self.first = nn.Sequential(nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.ReLU())
            self.last, self.flatten = nn.Linear(288, 10), flatten

        def forward(self, images: Tensor) -> Tensor:
            features: Tensor = self.first(images)
            flat = features.flatten(1) if self.flatten else features.view(len(features), -1)
            return self.last(flat)

    examples = Examples.from_split(digits.train, fit_preprocess("standardize", digits.train.images))
    found = []
    for flatten in (True, False):
        with seeded(0, "view"):
            network = Viewing(flatten)
        few = examples.take(torch.arange(2))[0]
        assert fastest_layout(network, few) is (torch.channels_last if flatten else torch.contiguous_format)
        found.append(fit(network, examples, TrainingRecipe(epochs=2), lr=0.02, generator=_generator()))
        assert all(weights.is_contiguous() for weights in network.parameters())
    assert found[0].losses == pytest.approx(found[1].losses, rel=1e-3)


@pytest.mark.parametrize(("momentum", "weight_decay"), [(0.9, 5e-4), (0.9, 0.0), (0.0, 5e-4), (0.0, 0.0)])
def test_a_step_is_that_of_torchs_own_optimizer(momentum: float, weight_decay: float, tiny_network: BuildTiny) -> None:
    ours, theirs = _built(tiny_network()), _built(tiny_network())
    images = torch.randn(8, 1, 8, 8, generator=_generator())
    unused = [weight for network in (ours, theirs) for weight in [next(network.parameters())]]
    descent = Descent(ours, momentum, weight_decay)
    optimizer = torch.optim.SGD(theirs.parameters(), lr=1.0, momentum=momentum, weight_decay=weight_decay)
    for number in range(4):
        lr = 0.1 / (number + 1)
        optimizer.param_groups[0]["lr"] = lr
        optimizer.zero_grad()
        for network in (ours, theirs):
            network(images).square().mean().backward()
        for weight in unused if number == 2 else ():
            weight.grad = None
        descent.step(lr)
        optimizer.step()
        for one, other in zip(ours.parameters(), theirs.parameters(), strict=True):
            assert torch.equal(one, other)
            assert one.grad is None


def test_training_does_not_import_the_compiler() -> None:
    script = """
import sys, torch
from distill.training.examples import Examples
from distill.recipe import TrainingRecipe
from distill.training.loop import fit, read
examples = Examples(torch.zeros(4, 1, 8, 8), torch.arange(4))
network = torch.nn.Sequential(torch.nn.Conv2d(1, 4, 8), torch.nn.Flatten())
fit(network, examples, TrainingRecipe(epochs=2), lr=0.1, generator=torch.Generator())
read(network, examples)
print("torch._dynamo" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


@pytest.mark.parametrize(
    ("norm", "layout"),
    [
        (nn.BatchNorm2d(16), torch.channels_last),
        (nn.GroupNorm(2, 16), torch.channels_last),
        (nn.GroupNorm(4, 16), torch.contiguous_format),
        (nn.GroupNorm(16, 16), torch.contiguous_format),
        (nn.InstanceNorm2d(16), torch.contiguous_format),
        (nn.LayerNorm([16, 6, 6]), torch.contiguous_format),
        (nn.Identity(), torch.channels_last),
    ],
)
def test_the_norm_decides_how_images_lie(norm: nn.Module, layout: torch.memory_format) -> None:
    assert fastest_layout(nn.Sequential(nn.Conv2d(3, 16, 3), norm), torch.zeros(2, 3, 8, 8)) is layout


def test_targets_label_every_augmented_batch(digits: ImageDataset, tiny_network: BuildTiny) -> None:
    preprocess = fit_preprocess("standardize", digits.train.images)
    train = Examples.from_split(digits.train.take(np.arange(100)), preprocess)
    recipe = TrainingRecipe(epochs=2, batch_size=50, augment="crop")
    network, same = _built(tiny_network()), _built(tiny_network())
    asked: list[tuple[int, Tensor]] = []

    def targets(step: int, images: Tensor) -> Tensor:
        asked.append((step, images))
        with torch.no_grad():
            said: Tensor = same(images).softmax(1)
        return said

    fitted = fit(network, train, recipe, lr=1e-12, generator=_generator(), targets=targets)
    assert [step for step, _ in asked] == [0, 1, 2, 3]
    assert asked[0][1].shape == (50, 1, 8, 8)
    # What says the same as its targets has a divergence of 0, though its cross entropy is that of a fresh network.
    assert fitted.losses == pytest.approx([0.0] * 4, abs=1e-5)
    assert float(entropy(torch.full((3, 10), 0.1))) == pytest.approx(math.log(10))
    assert float(entropy(torch.eye(10))) == pytest.approx(0.0)


@pytest.mark.parametrize(
    ("count", "size", "sizes"),
    [
        (101, 100, [101]),
        (257, 256, [257]),
        (201, 100, [100, 101]),
        (102, 100, [100, 2]),
        (100, 100, [100]),
        (1, 100, [1]),
        (3, 1, [1, 1, 1]),
    ],
)
def test_one_image_is_no_batch_of_its_own(count: int, size: int, sizes: list[int]) -> None:
    assert batch_sizes(count, size) == sizes
    pieces = list(batches(count, size, torch.Generator().manual_seed(0)))
    assert [len(piece) for piece in pieces] == sizes
    assert sorted(torch.cat(pieces).tolist()) == list(range(count))


def test_batch_norm_at_one_pixel_trains_whatever_the_number_of_images(digits: ImageDataset) -> None:
    examples = Examples.from_split(digits.train.take(np.arange(65)), fit_preprocess("standardize", digits.train.images))
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.BatchNorm1d(8), nn.Linear(8, 10))
    recipe = TrainingRecipe(epochs=2, lr=0.05, batch_size=64, augment="none")
    fitted = fit(network, examples, recipe, lr=0.05, generator=torch.Generator().manual_seed(0))
    assert len(fitted.losses) == 2
    assert not fitted.diverged
