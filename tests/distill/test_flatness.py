"""GSAM on losses whose gradients are known."""

from __future__ import annotations

import pytest
import torch

from distill.flatness import gsam_gradient

CURVATURE = torch.tensor([1.0, 10.0, 100.0], dtype=torch.float64)
WEIGHTS = torch.tensor([3.0, -2.0, 0.5], dtype=torch.float64)


def _gradient(weights: torch.Tensor) -> torch.Tensor:
    return CURVATURE * weights


def test_rho_zero_is_the_plain_gradient_at_one_evaluation() -> None:
    seen: list[torch.Tensor] = []

    def counted(weights: torch.Tensor) -> torch.Tensor:
        seen.append(weights)
        return _gradient(weights)

    assert torch.equal(gsam_gradient(counted, WEIGHTS, rho=0.0, alpha=0.3), _gradient(WEIGHTS))
    assert len(seen) == 1


def test_alpha_zero_is_sam() -> None:
    g = _gradient(WEIGHTS)
    expected = _gradient(WEIGHTS + 0.1 * g / g.norm())
    assert torch.allclose(gsam_gradient(_gradient, WEIGHTS, rho=0.1, alpha=0.0), expected)


@pytest.mark.parametrize("alpha", [0.3, 1.0])
def test_gsam_takes_away_the_part_of_g_orthogonal_to_the_perturbed_gradient(alpha: float) -> None:
    g = _gradient(WEIGHTS)
    gp = _gradient(WEIGHTS + 0.1 * g / g.norm())
    removed = (gp - gsam_gradient(_gradient, WEIGHTS, rho=0.1, alpha=alpha)) / alpha
    assert abs(float(removed @ gp)) < 1e-9 * float(gp @ gp)
    along = (g @ gp) / (gp @ gp) * gp
    assert torch.allclose(removed + along, g)


def test_adaptive_perturbs_by_the_squared_weight() -> None:
    g = _gradient(WEIGHTS)
    eps = 0.1 * WEIGHTS.square() * g / (WEIGHTS.abs() * g).norm()
    assert torch.allclose(
        gsam_gradient(_gradient, WEIGHTS, rho=0.1, alpha=0.0, adaptive=True), _gradient(WEIGHTS + eps)
    )


def test_a_vanishing_gradient_gives_zero_not_nan() -> None:
    zero = torch.zeros(3, dtype=torch.float64)
    assert torch.equal(gsam_gradient(_gradient, zero, rho=0.1, alpha=0.3), zero)


@pytest.mark.parametrize(("rho", "alpha"), [(-0.1, 0.0), (0.1, -1.0)])
def test_negative_settings_are_refused(rho: float, alpha: float) -> None:
    with pytest.raises(ValueError, match="must not be negative"):
        gsam_gradient(_gradient, WEIGHTS, rho=rho, alpha=alpha)
