"""How differently an untrained network sees different images (Mellor et al., arXiv 2006.04647), measured twice.

NASWOT is that of ICML 2021, jacob_cov that of the first version (v1), as used by Abdelfattah (2101.08134).
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from ftdnas.proxies.blocks import norms_in_training

# Piecewise linear, with a kink at 0: the side of it is one bit of an image's code.
KINKED = (nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.PReLU, nn.RReLU)
ACTIVATIONS = nn.modules.activation  # for the names of those that are none of these
EPSILON = 1e-5  # of jacob_cov


def naswot(network: nn.Module, images: Tensor, generator: torch.Generator) -> dict[str, float]:  # noqa: ARG001
    """log |det K| for `images` (N, C, H, W): K counts the rectified units on which two images agree.

    Minus infinity where two images agree in all of them. Raises ValueError where the network has none.
    """
    kernel = torch.zeros(len(images), len(images), dtype=torch.float64)

    def hook(module: nn.Module, given: tuple[Any, ...]) -> None:  # noqa: ARG001
        nonlocal kernel
        signs = torch.where(given[0].flatten(1) > 0, 1.0, -1.0)
        # Of so many units the signs' product counts agreements minus disagreements.
        kernel = kernel + (signs.shape[1] + (signs @ signs.T).double().cpu()) / 2

    units = [module for module in network.modules() if isinstance(module, KINKED)]
    handles = [module.register_forward_pre_hook(hook) for module in units]
    with norms_in_training(network), torch.no_grad():
        network(images)
    for handle in handles:
        handle.remove()
    if not kernel.any():
        raise ValueError(f"naswot needs units that are on or off, such as ReLU: {_others(network)}")
    return {"naswot": log_determinant(kernel)}


def log_determinant(kernel: Tensor) -> float:
    """ln |det| of a symmetric positive semidefinite (N, N); minus infinity where it is singular to rounding."""
    values = torch.linalg.eigvalsh(kernel)
    if float(values[0]) <= len(values) * torch.finfo(values.dtype).eps * float(values[-1]):
        return -math.inf
    return float(values.log().sum())


def _others(network: nn.Module) -> str:
    kinds = {type(module).__name__ for module in network.modules() if type(module).__module__ == ACTIVATIONS.__name__}
    return f"the network has {', '.join(sorted(kinds))}" if kinds else "the network has no activation modules"


def jacob_cov(network: nn.Module, images: Tensor, generator: torch.Generator) -> dict[str, float]:  # noqa: ARG001
    """How little the input gradients of different `images` (N, C, H, W) resemble each other, at most -N.

    NaN where a gradient is constant, as when the output does not depend on the image.
    """
    inputs = images.detach().clone().requires_grad_()
    network.requires_grad_(False)
    with norms_in_training(network):
        outputs = network(inputs)
    if not outputs.requires_grad:
        return {"jacob_cov": math.nan}
    (gradients,) = torch.autograd.grad(outputs.sum(), inputs)
    return {"jacob_cov": correlation_score(gradients.flatten(1).double())}


def correlation_score(rows: Tensor) -> float:
    """-sum(ln(v + 1e-5) + 1 / (v + 1e-5)) over the eigenvalues of the correlations of `rows` (N, D).

    NaN where a row is constant.
    """
    centred = rows - rows.mean(1, keepdim=True)
    lengths = centred.norm(dim=1, keepdim=True)
    if not torch.isfinite(lengths).all() or not (lengths > 0).all():
        return math.nan
    directions = centred / lengths
    values = torch.linalg.eigvalsh(directions @ directions.T).clamp(min=0) + EPSILON
    return float(-(values.log() + 1 / values).sum())
