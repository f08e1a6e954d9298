"""What an architecture is made of and costs, known without training it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ftdnas.candidates.layers import construct, is_layer, laid_out
from search_spaces.base import Architecture, Choice, ImageShape, flops, parameter_count


@dataclass(frozen=True)
class Layer:
    """One layer in the order in which images pass: its name in the network, what makes it, what comes out of it.

    `output`: the shape for one image, without the batch. `parameters` counts its trainable weights.
    """

    name: str
    kind: str
    output: tuple[int, ...]
    parameters: int


@dataclass(frozen=True)
class ArchitectureFacts:
    """`flops`: of a forward pass of one image. `representative`: the first of the space that computes the same."""

    architecture: str
    space: str
    choices: Mapping[str, Choice]
    image_shape: ImageShape
    num_classes: int
    parameters: int
    flops: int
    representative: str
    shrunk: str | None
    layers: tuple[Layer, ...]


def architecture_facts(architecture: Architecture, image_shape: ImageShape, num_classes: int) -> ArchitectureFacts:
    """Raises ValueError where images of this shape cannot be carried."""
    shrunk = architecture.shrunk()
    return ArchitectureFacts(
        architecture=architecture.name,
        space=architecture.space,
        choices=architecture.choices,
        image_shape=image_shape,
        num_classes=num_classes,
        parameters=parameter_count(architecture, image_shape, num_classes),
        flops=flops(architecture, image_shape, num_classes),
        representative=architecture.representative().name,
        shrunk=None if shrunk is None else shrunk.name,
        layers=layers_of(architecture, image_shape, num_classes),
    )


@torch.no_grad()
def layers_of(architecture: Architecture, image_shape: ImageShape, num_classes: int) -> tuple[Layer, ...]:
    """Those that one image passes, containers aside."""
    with torch.device("meta"):
        network = architecture.build(image_shape, num_classes).eval()
        images = torch.empty(1, *image_shape)
    passed: list[Layer] = []

    def note(name: str, module: nn.Module) -> None:
        def hook(_: nn.Module, __: object, output: object) -> None:
            shape = tuple(output.shape[1:]) if isinstance(output, Tensor) else ()
            weights = sum(one.numel() for one in module.parameters() if one.requires_grad)
            passed.append(Layer(name, _kind(module), shape, weights))

        module.register_forward_hook(hook)

    for name, module in network.named_modules():
        if not list(module.children()):
            note(name, module)
    network(images)
    return tuple(passed)


def _kind(module: nn.Module) -> str:
    if is_layer(module):
        try:
            return laid_out(construct(module), taken=-1000).removeprefix("nn.")
        except ValueError:
            pass
    return f"{type(module).__name__}()"
