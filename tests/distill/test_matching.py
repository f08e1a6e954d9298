"""The adjoint against the graph of all student steps, which it equals, and against finite differences."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import reference
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from distill.images.augment import OPERATIONS
from distill.matching import draw_steps, match
from distill.training.derivatives import Derivatives
from distill.training.flat import FlatNetwork, initial_weights

SHAPE = (3, 8, 8)
COUNT, CLASSES = 12, 4
BuildTiny = Callable[..., Callable[[], nn.Module]]


def _setting(network: Callable[[], nn.Module]) -> tuple[FlatNetwork, Tensor, Tensor, Tensor, Tensor, Tensor]:
    flat = FlatNetwork(network())
    flat.module.double()
    generator = torch.Generator().manual_seed(2)
    start = initial_weights(network, 0).double()
    target = start + 0.05 * torch.randn(start.shape, generator=generator, dtype=torch.float64)
    images = torch.randn(COUNT, *SHAPE, generator=generator, dtype=torch.float64)
    return flat, images, torch.arange(COUNT) % CLASSES, torch.tensor(0.05, dtype=torch.float64), start, target


def _relative(value: Tensor, reference: Tensor) -> float:
    return float((value - reference).norm() / reference.norm())


@pytest.mark.parametrize("operation", [*OPERATIONS, "none"])
@pytest.mark.parametrize(("syn_steps", "batch_size"), [(1, None), (4, None), (7, 5)])
def test_the_adjoint_is_the_gradient_of_the_unrolled_graph(
    tiny_network: BuildTiny, operation: str, syn_steps: int, batch_size: int | None
) -> None:
    flat, images, labels, step_size, start, target = _setting(tiny_network(3, 8, CLASSES))
    operations = () if operation == "none" else (operation,)
    steps = draw_steps(
        COUNT,
        SHAPE,
        torch.Generator().manual_seed(3),
        syn_steps=syn_steps,
        batch_size=batch_size,
        operations=operations,
    )
    loss, by_images, by_step_size = reference.match(flat, images, labels, step_size, start, target, steps)
    matched = match(Derivatives(flat), images, labels, step_size, start, target, steps)
    assert _relative(matched.loss, loss) < 1e-12
    assert _relative(matched.images_gradient, by_images) < 1e-8
    assert _relative(matched.step_size_gradient, by_step_size) < 1e-8


@pytest.mark.parametrize("norm", [None, nn.BatchNorm2d])
def test_soft_labels_and_batch_norm_are_exact_too(tiny_network: BuildTiny, norm: type[nn.Module] | None) -> None:
    flat, images, labels, step_size, start, target = _setting(tiny_network(3, 8, CLASSES, norm=norm))
    soft = torch.softmax(3 * F.one_hot(labels, CLASSES).double(), dim=1)
    steps = draw_steps(
        COUNT, SHAPE, torch.Generator().manual_seed(4), syn_steps=3, batch_size=None, operations=("flip", "scale")
    )
    loss, by_images, by_step_size = reference.match(flat, images, soft, step_size, start, target, steps)
    matched = match(Derivatives(flat), images, soft, step_size, start, target, steps)
    assert _relative(matched.loss, loss) < 1e-12
    assert _relative(matched.images_gradient, by_images) < 1e-8
    assert _relative(matched.step_size_gradient, by_step_size) < 1e-8


@pytest.mark.parametrize("chunk_size", [1, 5, 12, 50])
def test_chunks_of_a_minibatch_add_up_to_it(tiny_network: BuildTiny, chunk_size: int) -> None:
    flat, images, labels, step_size, start, target = _setting(tiny_network(3, 8, CLASSES))
    steps = draw_steps(
        COUNT, SHAPE, torch.Generator().manual_seed(5), syn_steps=3, batch_size=7, operations=("rotate",)
    )
    whole = match(Derivatives(flat), images, labels, step_size, start, target, steps)
    parts = match(Derivatives(flat, chunk_size=chunk_size), images, labels, step_size, start, target, steps)
    assert _relative(parts.images_gradient, whole.images_gradient) < 1e-10
    assert _relative(parts.step_size_gradient, whole.step_size_gradient) < 1e-10


def test_the_adjoint_agrees_with_finite_differences_on_a_smooth_network(tiny_network: BuildTiny) -> None:
    # With ReLU the differences cross kinks, and prove nothing.
    flat, images, labels, step_size, start, target = _setting(tiny_network(3, 8, CLASSES, activation=nn.Softplus))
    steps = draw_steps(COUNT, SHAPE, torch.Generator().manual_seed(6), syn_steps=5, batch_size=5, operations=("color",))
    derivatives = Derivatives(flat)
    matched = match(derivatives, images, labels, step_size, start, target, steps)

    def loss(pixels: Tensor, rate: Tensor) -> float:
        return float(match(derivatives, pixels, labels, rate, start, target, steps).loss)

    direction = torch.randn(images.shape, generator=torch.Generator().manual_seed(7), dtype=torch.float64)
    h = 1e-5
    slope = (loss(images + h * direction, step_size) - loss(images - h * direction, step_size)) / (2 * h)
    assert slope == pytest.approx(float((matched.images_gradient * direction).sum()), rel=1e-6)
    slope = (loss(images, step_size + h) - loss(images, step_size - h)) / (2 * h)
    assert slope == pytest.approx(float(matched.step_size_gradient), rel=1e-6)


def test_a_student_that_stands_still_has_loss_one_and_one_that_arrives_zero(tiny_network: BuildTiny) -> None:
    flat, images, labels, step_size, start, target = _setting(tiny_network(3, 8, CLASSES))
    steps = draw_steps(COUNT, SHAPE, torch.Generator().manual_seed(8), syn_steps=1, batch_size=None, operations=())
    derivatives = Derivatives(flat)
    still = match(derivatives, images, labels, torch.zeros_like(step_size), start, target, steps)
    assert float(still.loss) == 1.0
    arrived = start - step_size * derivatives.gradient(start, images[steps[0].rows], labels[steps[0].rows])
    assert float(match(derivatives, images, labels, step_size, start, arrived, steps).loss) < 1e-20


def test_an_expert_that_did_not_move_is_refused(tiny_network: BuildTiny) -> None:
    flat, images, labels, step_size, start, _ = _setting(tiny_network(3, 8, CLASSES))
    with pytest.raises(ValueError, match="did not move"):
        match(Derivatives(flat), images, labels, step_size, start, start.clone(), [])


def test_minibatches_are_pieces_of_permutations_redrawn_when_used_up() -> None:
    steps = draw_steps(10, SHAPE, torch.Generator().manual_seed(0), syn_steps=6, batch_size=4, operations=())
    assert [len(step.rows) for step in steps] == [4, 4, 2, 4, 4, 2]
    first, second = (torch.cat([step.rows for step in steps[i : i + 3]]) for i in (0, 3))
    assert sorted(first.tolist()) == sorted(second.tolist()) == list(range(10))
    assert first.tolist() != second.tolist()


def test_what_cannot_be_matched_is_refused(tiny_network: BuildTiny) -> None:
    with pytest.raises(ValueError, match="batch norm"):
        Derivatives(FlatNetwork(tiny_network(norm=nn.BatchNorm2d)()), chunk_size=4)
    with pytest.raises(ValueError, match="draws at random"):
        FlatNetwork(nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(64, 10)))


def test_a_flat_network_is_the_module_it_was_made_from(tiny_network: BuildTiny) -> None:
    build = tiny_network(3, 8, CLASSES)
    weights = initial_weights(build, 5, "here")
    flat, module = FlatNetwork(build()), build()
    nn.utils.vector_to_parameters(weights, module.parameters())
    images = torch.randn(4, *SHAPE)
    assert torch.equal(flat(weights, images), module(images))
    assert flat.size == len(weights) == sum(weight.numel() for weight in module.parameters())
    assert torch.equal(weights, initial_weights(build, 5, "here"))
    assert not torch.equal(weights, initial_weights(build, 6, "here"))
