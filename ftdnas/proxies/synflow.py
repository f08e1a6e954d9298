"""Synflow (Tanaka et al., NeurIPS 2020, arXiv 2006.05467), as a proxy by Abdelfattah et al. (ICLR 2021, 2101.08134)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from ftdnas.proxies.blocks import NORMS

# What lets positive numbers pass, and all are positive here. ReLU6 would cut them off, which is not what is measured.
RECTIFIERS = (nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.PReLU, nn.ELU, nn.CELU, nn.GELU, nn.SiLU, nn.Hardswish, nn.Mish)


def synflow(network: nn.Module, images: Tensor, generator: torch.Generator) -> dict[str, float]:  # noqa: ARG001
    """The logarithm of sum |w dR/dw| over the weights of convolutions and linear layers; R: the sum of all outputs.

    Every weight is its absolute value, norms and rectifiers are left out, and the input is one image of ones of the
    shape of `images` (N, C, H, W): the network is linear. Double precision. Minus infinity where nothing reaches the
    output. Raises ValueError where double precision overflows. `network` is changed.
    """
    network.double().eval()
    _leave_out(network, NORMS + RECTIFIERS)
    for parameter in network.parameters():
        parameter.data.abs_()
        parameter.requires_grad_()
    outputs = network(torch.ones_like(images[:1], dtype=torch.float64)).sum()
    weights = [parameter for parameter in network.parameters() if parameter.dim() > 1]
    gradients = torch.autograd.grad(outputs, weights, allow_unused=True)
    total = sum(
        float((weight.detach() * gradient).abs().sum())
        for weight, gradient in zip(weights, gradients, strict=True)
        if gradient is not None
    )
    if not math.isfinite(total):
        raise ValueError("synflow is too large for double precision: the network is too deep for it")
    return {"synflow": math.log(total) if total > 0 else -math.inf}


def _leave_out(network: nn.Module, kinds: tuple[type[nn.Module], ...]) -> None:
    for parent in list(network.modules()):
        for name, child in list(parent._modules.items()):  # one module may have two names
            if isinstance(child, kinds):
                setattr(parent, name, nn.Identity())
