"""What is computed in another precision: close to 32-bit floats, and nothing else is touched."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from distill.randomness import seeded
from distill.recipe import PRECISIONS, ExpertRecipe, Recipe, TrainingRecipe, facts, identity
from distill.training.derivatives import Derivatives
from distill.training.examples import Examples
from distill.training.flat import FlatNetwork, initial_weights
from distill.training.loop import fit
from distill.training.precision import computing, logits_in

BuildTiny = Callable[..., Callable[[], nn.Module]]
CPU = torch.device("cpu")


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_logits_are_as_wide_as_the_images_and_near_the_exact_ones(
    precision: str, dtype: torch.dtype, tiny_network: BuildTiny
) -> None:
    with seeded(0, "test"):
        network = tiny_network(3, 8, 4)().to(dtype)
        images = torch.randn(20, 3, 8, 8, dtype=dtype)
    logits, exact = logits_in(precision, network, images), network(images)
    assert logits.dtype == dtype
    assert torch.equal(logits, exact) == (precision != "bfloat16" or dtype == torch.float64)  # autocast leaves doubles
    assert (logits - exact).norm() < 0.02 * exact.norm()


def test_derivatives_in_bfloat16_are_near_the_exact_ones(tiny_network: BuildTiny) -> None:
    network = tiny_network(3, 8, 4)
    flat, weights = FlatNetwork(network()), initial_weights(network, 0)
    images = torch.randn(20, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    labels, vector = torch.arange(20) % 4, initial_weights(network, 1)
    exact, rounded = Derivatives(flat), Derivatives(flat, precision="bfloat16")
    pairs = zip(
        (*exact.loss_and_gradient(weights, images, labels), *exact.product(weights, images, labels, vector)),
        (*rounded.loss_and_gradient(weights, images, labels), *rounded.product(weights, images, labels, vector)),
        strict=True,
    )
    differences = [float((one - other).norm() / one.norm()) for one, other in pairs]
    assert all(0 < difference < 0.1 for difference in differences), differences


def test_a_training_in_bfloat16_keeps_its_weights_in_32_bits(tiny_network: BuildTiny) -> None:
    images = torch.randn(40, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    examples = Examples(images, torch.arange(40) % 4)
    losses = {}
    for precision in PRECISIONS:
        with seeded(0, "test"):
            network = tiny_network(3, 8, 4)()
        recipe = TrainingRecipe(epochs=10, batch_size=20, precision=precision)
        losses[precision] = fit(network, examples, recipe, lr=0.05, generator=torch.Generator().manual_seed(0)).losses
        assert {weight.dtype for weight in network.parameters()} == {torch.float32}
    assert losses["ieee"] == losses["float32"] != losses["bfloat16"]  # on a CPU
    assert losses["bfloat16"] == pytest.approx(losses["float32"], rel=0.05)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_gpu_is_kept_from_tf32_only_where_that_is_asked_for(precision: str) -> None:
    before = torch.backends.cudnn.allow_tf32
    with computing(precision, torch.device("cuda")):
        assert torch.backends.cudnn.allow_tf32 == (before and precision != "ieee")
    assert torch.backends.cudnn.allow_tf32 == before
    with computing(precision, CPU):
        assert torch.backends.cudnn.allow_tf32 == before


def test_an_unknown_precision_is_refused() -> None:
    with (
        pytest.raises(ValueError, match="precision 'half': choose from float32, ieee, bfloat16"),
        computing("half", CPU),
    ):
        pass


def test_what_was_made_before_there_was_a_choice_counts_as_made_in_32_bits() -> None:
    for recipe in (Recipe(), ExpertRecipe(), TrainingRecipe()):
        assert "precision" not in str(identity(recipe))
    assert "precision" not in facts(TrainingRecipe())
    assert "batch_norm" in facts(TrainingRecipe())
    for told in (identity, facts):
        assert told(TrainingRecipe(precision="bfloat16"))["precision"] == "bfloat16"
