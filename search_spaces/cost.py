"""What an architecture costs, without allocating its weights or running it."""

from __future__ import annotations

import functools

import torch
from torch.utils.flop_counter import FlopCounterMode

from search_spaces.architecture import Architecture, ImageShape


def parameter_count(architecture: Architecture, image_shape: ImageShape, num_classes: int) -> int:
    """Trainable weights of the network. Raises ValueError where it cannot be built."""
    return _parameter_count(architecture, image_shape, num_classes)


@functools.lru_cache(maxsize=100_000)
def _parameter_count(architecture: Architecture, image_shape: ImageShape, num_classes: int) -> int:
    # Half a millisecond each, and every sample asks for all of a space.
    with torch.device("meta"):
        network = architecture.build(image_shape, num_classes)
    return sum(weights.numel() for weights in network.parameters())


def flops(architecture: Architecture, image_shape: ImageShape, num_classes: int) -> int:
    """Floating-point operations of one forward pass of one image.

    Two per multiply-accumulate of convolutions and linear layers; norms, activations and pools are not counted. Raises
    ValueError where the network cannot be built.
    """
    with torch.device("meta"):
        network = architecture.build(image_shape, num_classes).eval()
        images = torch.empty(1, *image_shape)
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        network(images)
    return counter.get_total_flops()
