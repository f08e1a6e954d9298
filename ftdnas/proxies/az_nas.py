"""AZ-NAS (Lee & Ham, CVPR 2024, arXiv 2403.19232): four figures of an untrained network, ranked together.

Written from the paper's mathematics. Norms take the statistics of the batch, weights are Kaiming-normal (fan in).
"""

from __future__ import annotations

import itertools
import math

import torch
from torch import Tensor, nn

from ftdnas.proxies.blocks import norms_in_training, visit_blocks

EPSILON_ENTROPY = 1e-8
EPSILON_TRAINABILITY = 1e-6


def az_nas(network: nn.Module, images: Tensor, generator: torch.Generator) -> dict[str, float]:
    """Expressivity, progressivity and trainability of `network`, whose weights are drawn anew.

    `images` (N, C, H, W): one batch of Gaussian noise. NaN or minus infinity where a block gives a constant or is the
    identity. The fourth figure, FLOPs, needs no network. Raises ValueError where blocks cannot be found, or one does
    not depend on the one before.
    """
    _draw_weights(network, generator)
    entropies: list[float] = []
    trainabilities: list[float] = []
    before: Tensor | None = None

    def visit(features: Tensor) -> Tensor:
        nonlocal before
        entropies.append(feature_entropy(features.detach()))
        if before is not None:
            trainabilities.append(_trainability(before, features, generator))
        # A leaf of its own: each gradient runs through one block, whose graph is then let go.
        before = features.detach().requires_grad_()
        return before.clone()  # the network may go on in place

    with norms_in_training(network):
        visit_blocks(network, images, visit)
    rises = [after - earlier for earlier, after in itertools.pairwise(entropies)]
    return {
        "expressivity": sum(entropies),
        "progressivity": math.nan if any(map(math.isnan, rises)) else min(rises),
        "trainability": sum(trainabilities) / len(trainabilities),
    }


def feature_entropy(features: Tensor) -> float:
    """Entropy in nats of how the variance of features (N, C, H, W) spreads over its principal axes: 0 .. ln C.

    NaN where there is no variance.
    """
    rows = _rows(features)
    centred = rows - rows.mean(0)
    spread = torch.linalg.eigvalsh((centred.T @ centred / len(rows)).double()).clamp(min=0)
    total = spread.sum()
    if not torch.isfinite(total) or total <= 0:
        return math.nan
    shares = spread / total
    return float(-(shares * torch.log(shares + EPSILON_ENTROPY)).sum())


def gradient_trainability(given: Tensor, received: Tensor) -> float:
    """2 - s - 1 / (s + 1e-6), at most about 0: how near a block is to passing gradients on with their length kept.

    `given` (N, C', H', W'): signs at its output. `received` (N, C, H, W): the gradient at its input. s is the largest
    singular value of their correlation over the pixels of the output. Minus infinity where both are the same: then the
    block is the identity. Where it halves the side, the pixels of the gradient that belong to one of the output are
    channels of it. Raises ValueError where the output has more pixels than the input.
    """
    if given.shape == received.shape and torch.equal(given, received):
        return -math.inf
    outgoing, incoming = _rows(given), _rows(_folded(received, given.shape[2], given.shape[3]))
    largest = float(torch.linalg.matrix_norm(incoming.T @ outgoing / len(outgoing), ord=2))
    return 2 - largest - 1 / (largest + EPSILON_TRAINABILITY)


def _trainability(before: Tensor, features: Tensor, generator: torch.Generator) -> float:
    """Of the block that made `features` of `before`."""
    signs = torch.randint(0, 2, features.shape, generator=generator).to(features) * 2 - 1
    received = None
    if features.requires_grad:
        received = torch.autograd.grad(features, before, signs, allow_unused=True)[0]
    if received is None:
        if features.numel() and torch.all(features == features.flatten()[0]):
            return -math.inf  # zeros, whatever comes in
        raise ValueError("its blocks cannot be found: one does not depend on the one before")
    return gradient_trainability(signs, received)


def _folded(gradient: Tensor, height: int, width: int) -> Tensor:
    """(N, C, H, W) to (N, C * a * b, height, width) for sides a and b times shorter, cut or filled up to fit."""
    n, channels, rows, columns = gradient.shape
    if height > rows or width > columns:
        raise ValueError(f"a block makes {height} x {width} of {rows} x {columns} pixels: only smaller ones are known")
    down, across = round(rows / height), round(columns / width)
    fitted = nn.functional.pad(gradient, (0, across * width - columns, 0, down * height - rows))
    parts = fitted.reshape(n, channels, height, down, width, across)
    return parts.permute(0, 1, 3, 5, 2, 4).reshape(n, channels * down * across, height, width)


def _rows(features: Tensor) -> Tensor:
    """(N, C, H, W) to (N * H * W, C)."""
    return features.permute(0, 2, 3, 1).reshape(-1, features.shape[1])


def _draw_weights(network: nn.Module, generator: torch.Generator) -> None:
    for module in network.modules():
        if isinstance(module, nn.modules.conv._ConvNd | nn.Linear):
            # Drawn where the generator is, then brought to the network's device.
            module.weight.data.copy_(nn.init.kaiming_normal_(torch.empty(module.weight.shape), generator=generator))
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    network.requires_grad_(False)
