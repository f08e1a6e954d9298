"""The registry of search spaces, and what can be said of any architecture by its name."""

from __future__ import annotations

import torch
from torch.utils.flop_counter import FlopCounterMode

from search_spaces.architecture import Architecture, Choice, ImageShape, SearchSpace, hint
from search_spaces.convnet import ConvNetSpace

__all__ = [
    "SPACES",
    "Architecture",
    "Choice",
    "ImageShape",
    "SearchSpace",
    "flops",
    "parameter_count",
    "parse_architecture",
]

SPACES: dict[str, SearchSpace] = {
    "convnet": ConvNetSpace(),
}


def parse_architecture(text: str) -> Architecture:
    """The architecture of a string such as "convnet:width=64,depth=3"; keys that are left out take the defaults.

    Raises ValueError with the nearest known names for an unknown space, key or value.
    """
    head, _, rest = text.strip().partition(":")
    if head in SPACES:
        return SPACES[head].parse(rest)
    raise ValueError(f"unknown architecture {text!r}: {hint(head, SPACES)}")


def parameter_count(architecture: Architecture, image_shape: ImageShape, num_classes: int) -> int:
    """Trainable weights of the network, without allocating them. Raises ValueError where it cannot be built."""
    with torch.device("meta"):
        network = architecture.build(image_shape, num_classes)
    return sum(weights.numel() for weights in network.parameters())


def flops(architecture: Architecture, image_shape: ImageShape, num_classes: int) -> int:
    """Floating-point operations of one forward pass of one image, without running it.

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
