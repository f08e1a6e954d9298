"""Synflow, naswot and jacob_cov against what can be worked by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from ftdnas.proxies.naswot import correlation_score, jacob_cov, log_determinant, naswot
from ftdnas.proxies.synflow import synflow
from search_spaces.base import parse_architecture


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def two_layers(activation: nn.Module) -> tuple[nn.Module, Tensor, Tensor]:
    first, second = nn.Linear(4, 3, bias=False), nn.Linear(3, 2, bias=False)
    network = nn.Sequential(nn.Flatten(), first, activation, second)
    return network, first.weight.detach().double().abs(), second.weight.detach().double().abs()


@pytest.mark.parametrize("activation", [nn.Identity(), nn.ReLU(), nn.LeakyReLU(), nn.ReLU6()])
def test_synflow_of_two_linear_layers_is_twice_their_product(activation: nn.Module) -> None:
    network, first, second = two_layers(activation)
    expected = 2 * (second @ first @ torch.ones(4, dtype=torch.float64)).sum()  # each layer's share is R
    found = synflow(network, torch.zeros(5, 1, 2, 2), generator())["synflow"]
    assert found == pytest.approx(float(expected.log()), rel=1e-9)


def test_synflow_leaves_norms_out_and_ignores_signs() -> None:
    conv, linear = nn.Conv2d(1, 3, 2, bias=False), nn.Linear(3, 2, bias=False)
    norm = nn.BatchNorm2d(3)
    nn.init.constant_(norm.weight, 7.0)
    normed = nn.Sequential(conv, norm, nn.ReLU(), nn.Flatten(), linear)
    w, v = conv.weight.detach().double().abs(), linear.weight.detach().double().abs()
    expected = 2 * (v @ w.sum((1, 2, 3))).sum()
    first = synflow(normed, torch.zeros(1, 1, 2, 2), generator())["synflow"]
    assert first == pytest.approx(float(expected.log()), rel=1e-9)


def test_synflow_leaves_out_a_rectifier_of_two_names() -> None:
    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(4, 2, bias=False)
            self.first = self.second = nn.ReLU6()

        def forward(self, images: Tensor) -> Tensor:
            return self.second(self.linear(self.first(100 * images.flatten(1))))

    network = Shared()
    expected = 100 * network.linear.weight.detach().double().abs().sum()
    found = synflow(network, torch.zeros(1, 1, 2, 2), generator())["synflow"]
    assert found == pytest.approx(float(expected.log()), rel=1e-9)


def test_synflow_of_a_network_that_lets_nothing_through_is_last() -> None:
    empty = "nasbench201:cells=1:|none~0|+|none~0|none~1|+|none~0|none~1|none~2|"
    network = parse_architecture(empty).build((3, 8, 8), 10)
    assert synflow(network, torch.zeros(1, 3, 8, 8), generator())["synflow"] == -math.inf


def test_synflow_survives_what_single_precision_does_not() -> None:
    layers = [nn.Linear(4, 4, bias=False) for _ in range(60)]
    network = nn.Sequential(nn.Flatten(), *layers)
    for layer in layers:
        nn.init.constant_(layer.weight, 10.0)
    found = synflow(network, torch.zeros(1, 1, 2, 2), generator())["synflow"]
    # R = 4 outputs of 40^60; 60 layers of it.
    assert found == pytest.approx(math.log(60) + math.log(4) + 60 * math.log(40), rel=1e-9)


def test_synflow_too_large_is_refused() -> None:
    layers = [nn.Linear(4, 4, bias=False) for _ in range(60)]
    network = nn.Sequential(nn.Flatten(), *layers)
    for layer in layers:
        nn.init.constant_(layer.weight, 1e6)
    with pytest.raises(ValueError, match="too large for double precision"):
        synflow(network, torch.zeros(1, 1, 2, 2), generator())


def code_network(activation: nn.Module) -> nn.Module:
    """Its units see the pixels themselves."""
    return nn.Sequential(nn.Flatten(), activation, nn.Linear(3, 2))


# Codes 110, 100, 011 of three units; agreements 3 on the diagonal, 2 (first, second), 1 (first, third), 0.
PIXELS = torch.tensor([[1.0, 2.0, -1.0], [0.5, -1.0, -3.0], [-1.0, 4.0, 0.1]])[:, :, None, None]
AGREEMENTS = torch.tensor([[3.0, 2.0, 1.0], [2.0, 3.0, 0.0], [1.0, 0.0, 3.0]])


@pytest.mark.parametrize("activation", [nn.ReLU(), nn.ReLU6(), nn.LeakyReLU(), nn.PReLU(), nn.ReLU(inplace=True)])
def test_naswot_of_known_codes(activation: nn.Module) -> None:
    expected = math.log(float(torch.linalg.det(AGREEMENTS)))  # 12
    assert naswot(code_network(activation), PIXELS, generator())["naswot"] == pytest.approx(expected)


def test_naswot_adds_the_units_of_all_layers() -> None:
    network = nn.Sequential(nn.Flatten(), nn.ReLU(), nn.LeakyReLU(), nn.Linear(3, 2))
    # After the first the negative pixels are 0, which is off too.
    expected = math.log(float(torch.linalg.det(2 * AGREEMENTS)))
    assert naswot(network, PIXELS, generator())["naswot"] == pytest.approx(expected)


def test_naswot_does_not_see_the_order_of_images_or_their_scale() -> None:
    first = naswot(code_network(nn.ReLU()), PIXELS, generator())
    second = naswot(code_network(nn.ReLU()), 3 * PIXELS[[2, 0, 1]], generator())
    assert first["naswot"] == pytest.approx(second["naswot"])


def test_naswot_of_equal_images_is_last() -> None:
    assert naswot(code_network(nn.ReLU()), PIXELS[[0, 1, 0]], generator())["naswot"] == -math.inf


def test_naswot_refuses_what_has_no_kink_by_name() -> None:
    with pytest.raises(
        ValueError, match="naswot needs units that are on or off, such as ReLU: the network has Sigmoid"
    ):
        naswot(code_network(nn.Sigmoid()), PIXELS, generator())
    with pytest.raises(ValueError, match="the network has no activation modules"):
        naswot(code_network(nn.Identity()), PIXELS, generator())


def test_a_gate_beside_rectifiers_does_not_matter() -> None:
    network = nn.Sequential(nn.Flatten(), nn.ReLU(), nn.Linear(3, 2), nn.Sigmoid())
    assert math.isfinite(naswot(network, PIXELS, generator())["naswot"])


def test_log_determinant_of_a_large_kernel_does_not_overflow() -> None:
    assert log_determinant(torch.eye(200, dtype=torch.float64) * 1e6) == pytest.approx(200 * math.log(1e6))


def test_uncorrelated_gradients_score_best() -> None:
    rows = torch.tensor([[1.0, -1.0, 0.0, 0.0], [0.0, 0.0, 2.0, -2.0]], dtype=torch.float64)
    assert correlation_score(rows) == pytest.approx(-2, abs=1e-4)
    alike = torch.tensor([[1.0, -1.0, 0.0, 0.0], [3.0, -3.0, 0.0, 0.0]], dtype=torch.float64)
    # Eigenvalues 2 and 0.
    expected = -(math.log(2) + 1 / 2 + math.log(1e-5) + 1e5)
    assert correlation_score(alike) == pytest.approx(expected, rel=1e-5)


def test_correlations_do_not_see_scale_or_shift() -> None:
    rows = torch.randn(5, 20, generator=generator(), dtype=torch.float64)
    assert correlation_score(rows * torch.arange(1, 6)[:, None] + 3) == pytest.approx(correlation_score(rows))


def test_jacob_cov_takes_the_gradient_of_every_image() -> None:
    class Squares(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return images.flatten(1).square()

    images = torch.randn(4, 1, 3, 3, generator=generator())
    expected = correlation_score(2 * images.flatten(1).double())
    assert jacob_cov(Squares(), images, generator())["jacob_cov"] == pytest.approx(expected, rel=1e-5)


def test_jacob_cov_of_a_constant_output_is_undefined() -> None:
    class Constant(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return torch.ones(len(images), 2)

    assert math.isnan(jacob_cov(Constant(), torch.randn(3, 1, 2, 2), generator())["jacob_cov"])
    linear = nn.Linear(4, 2)
    nn.init.zeros_(linear.weight)
    assert math.isnan(jacob_cov(nn.Sequential(nn.Flatten(), linear), torch.randn(3, 1, 2, 2), generator())["jacob_cov"])
