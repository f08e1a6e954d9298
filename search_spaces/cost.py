"""What an architecture costs, without allocating its weights or running it."""

from __future__ import annotations

import contextlib
import functools

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from search_spaces.architecture import Architecture, ImageShape
from search_spaces.messages import FOREIGN, one_line
from search_spaces.outside.recorded import RecordedArchitecture


def parameter_count(architecture: Architecture, image_shape: ImageShape, num_classes: int) -> int:
    """Trainable weights of the network. Raises ValueError where it cannot be built."""
    if isinstance(architecture, RecordedArchitecture):
        return architecture.parameters
    return _parameter_count(_Case(architecture, image_shape, num_classes))


def flops(architecture: Architecture, image_shape: ImageShape, num_classes: int) -> int:
    """Floating-point operations of one forward pass of one image.

    Two per multiply-accumulate of convolutions and linear layers; norms, activations and pools are not counted. Raises
    ValueError where the network cannot be built.
    """
    if isinstance(architecture, RecordedArchitecture):
        return architecture.flops
    return _flops(_Case(architecture, image_shape, num_classes))


class _Case:
    """An architecture at a size; equal where the costs are."""

    def __init__(self, architecture: Architecture, image_shape: ImageShape, num_classes: int) -> None:
        channels, height, width = image_shape
        self.architecture, self.image_shape, self.num_classes = architecture, (channels, height, width), num_classes
        feasible = architecture.obstacle(image_shape) is None
        identity = (architecture.space, architecture.code, architecture.cost_key)
        self._key = (*identity, self.image_shape, num_classes, feasible)

    def __hash__(self) -> int:
        return hash(self._key)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Case) and self._key == other._key


@functools.lru_cache(maxsize=100_000)
def _parameter_count(case: _Case) -> int:
    # Some milliseconds each, and every sample asks for many of a space.
    return sum(weights.numel() for weights in _network(case).parameters())


@functools.lru_cache(maxsize=100_000)
def _flops(case: _Case) -> int:
    with contextlib.suppress(*FOREIGN):  # a network that looks at its numbers, as by .item(), must really run
        return _counted(case, "meta")
    try:
        return _counted(case, "cpu")
    except FOREIGN as error:
        raise ValueError(f"{case.architecture.name} cannot be run: {one_line(error)}") from None


def _counted(case: _Case, device: str) -> int:
    network = _network(case, device).eval()
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        network(torch.zeros(1, *case.image_shape, device=device))
    return counter.get_total_flops()


def _network(case: _Case, device: str = "meta") -> nn.Module:
    with torch.device(device):
        network = case.architecture.build(case.image_shape, case.num_classes)
        if any(nn.parameter.is_lazy(weights) for weights in network.parameters()):
            with torch.no_grad():
                network.eval()(torch.empty(1, *case.image_shape))
    return network
