"""jacob_cov: the first version of NASWOT (Mellor et al., arXiv 2006.04647v1), as used by Abdelfattah (2101.08134)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from ftdnas.proxies.blocks import norms_in_training

EPSILON = 1e-5


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
