"""A network as a pure function of one flat weight vector, the form in which trajectories are matched."""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.func import functional_call

from distill.randomness import seeded

Network = Callable[[], nn.Module]  # builds a fresh network from torch's global generator


class FlatNetwork:
    """`module` as a function of its P weights in one vector, in the order of `module.named_parameters()`.

    Batch norm is made to use the statistics of the batch and to keep none: an unrolled student has no state but its
    weights. Dropout and other randomness inside the network is refused with ValueError.
    """

    def __init__(self, module: nn.Module):
        module = copy.deepcopy(module).train()
        for part in module.modules():
            if isinstance(part, nn.modules.batchnorm._BatchNorm):
                part.track_running_stats = False
                part.running_mean = part.running_var = part.num_batches_tracked = None
            if isinstance(part, nn.modules.dropout._DropoutNd) and part.p > 0:
                raise ValueError(f"{type(part).__name__} draws at random: a trajectory cannot be matched through it")
        self.module = module
        named = dict(module.named_parameters())
        self.names = tuple(named)
        self.shapes = tuple(weight.shape for weight in named.values())
        self.sizes = tuple(weight.numel() for weight in named.values())
        self.mixes_batch = any(isinstance(part, nn.modules.batchnorm._BatchNorm) for part in module.modules())

    @property
    def size(self) -> int:
        """P, the number of weights."""
        return sum(self.sizes)

    def __call__(self, weights: Tensor, images: Tensor) -> Tensor:
        """Logits (N, K) of images (N, C, H, W) at weights (P,)."""
        return functional_call(self.module, self.named(weights), (images,))  # type: ignore[no-any-return]

    def named(self, weights: Tensor) -> dict[str, Tensor]:
        """The weights (P,) as views in the shapes of the module's parameters."""
        parts = torch.split(weights, list(self.sizes))
        return {name: part.view(shape) for name, part, shape in zip(self.names, parts, self.shapes, strict=True)}

    def to(self, device: torch.device) -> FlatNetwork:
        self.module.to(device)
        return self


def initial_weights(network: Network, seed: int, *path: str | int) -> Tensor:
    """(P,) weights of a fresh network, initialised by the draws named by `path`; float32 on the CPU."""
    with seeded(seed, *path):
        module = network()
    return torch.cat([weight.detach().reshape(-1) for weight in module.parameters()])
