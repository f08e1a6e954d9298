"""GSAM, the flat-minimum gradient of the expert trajectories (Zhuang et al., ICLR 2022, arXiv 2203.08065)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

TINY = 1e-12


def gsam_gradient(
    gradient: Callable[[Tensor], Tensor], weights: Tensor, *, rho: float, alpha: float, adaptive: bool = False
) -> Tensor:
    """The direction (P,) to descend from `weights` (P,), where `gradient` maps weights to the gradient of one batch.

    g = gradient(w), gp = gradient(w + eps) with eps = rho g / (||g|| + 1e-12); the result is gp - alpha g_vert, where
    g_vert is the part of g orthogonal to gp (FTD, arXiv 2211.11004, equations 10 to 12). alpha 0 is SAM; rho 0 is the
    plain gradient, at half the cost. `adaptive` perturbs as FTD's released code does, eps = rho w^2 g / (|| |w| g || +
    1e-12). Raises ValueError for a negative rho or alpha.
    """
    if rho < 0 or alpha < 0:
        raise ValueError(f"rho {rho} and alpha {alpha} must not be negative")
    g = gradient(weights)
    if rho == 0:
        return g
    if adaptive:
        eps = weights.square() * g * (rho / ((weights.abs() * g).norm() + TINY))
    else:
        eps = g * (rho / (g.norm() + TINY))
    gp = gradient(weights + eps)
    if alpha == 0:
        return gp
    along = torch.dot(g, gp) / (gp.square().sum() + TINY)
    return gp - alpha * (g - along * gp)
