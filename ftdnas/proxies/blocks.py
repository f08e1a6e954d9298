"""The blocks of any network, found from its module tree, and their outputs as they are made.

A network that declares `blocks()`, a list of its stem and then every block, is taken at its word. In any other the
modules are followed in the order of their calls; sequences and lists are opened. A block then ends after a module that
holds a convolution, and the norm that follows it; what comes after the last one is a block of its own, up to the
global pooling or the first output that is not (N, C, H, W).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

NORMS = (
    nn.modules.batchnorm._BatchNorm,
    nn.modules.instancenorm._InstanceNorm,
    nn.GroupNorm,
    nn.LayerNorm,
    nn.LocalResponseNorm,
)
CONVOLUTIONS = nn.modules.conv._ConvNd
UNCHANGED = (nn.Identity, nn.modules.dropout._DropoutNd)  # what they are given, here
OPENED = 4  # levels of the module tree that are opened in search of blocks

Visit = Callable[[Tensor], Tensor]  # what is done with a block's output; what it returns goes on to the next block


def visit_blocks(network: nn.Module, images: Tensor, visit: Visit) -> None:
    """Run `network` on `images`; the outputs (N, C, H, W) of the stem and of each block go through `visit` in order.

    Raises ValueError where no stem and block can be found.
    """
    units, ends = _plan(network, images)
    calls = 0

    def hook(module: nn.Module, given: Any, output: Any) -> Any:  # noqa: ARG001
        nonlocal calls
        calls += 1
        return visit(output) if calls - 1 in ends else None

    with _hooked(units, hook):
        network(images)


@contextlib.contextmanager
def norms_in_training(network: nn.Module) -> Iterator[None]:
    """Norms take the statistics of the batch, dropout is off, and nothing works in place: outputs may be kept."""
    before = [(module, module.training) for module in network.modules()]
    for module, _ in before:
        module.training = isinstance(module, NORMS)
        if getattr(module, "inplace", False):
            module.inplace = False  # type: ignore[assignment]
    yield
    for module, training in before:
        module.training = training


def _plan(network: nn.Module, images: Tensor) -> tuple[list[nn.Module], set[int]]:
    """The modules to be watched, and which of their calls, counted together from 0, end the stem or a block."""
    declared = getattr(network, "blocks", None)
    if callable(declared) and not isinstance(declared, nn.Module):
        # Not a block that changes nothing, but a layer that is not there.
        units = [unit for unit in declared() if not isinstance(unit, UNCHANGED)]
        if len(units) > 1:
            return _distinct(units), set(range(len(units)))
    for levels in range(1, OPENED + 1):
        units = _distinct(_opened(network, levels))
        ends = _ends(_trace(network, units, images[:2]))
        if len(ends) > 1:
            return units, ends
    raise ValueError("its blocks cannot be found: give the network a method blocks(), its stem and then every block")


def _opened(network: nn.Module, levels: int) -> list[nn.Module]:
    """Its parts down to so many levels; sequences and lists do not count as one."""
    parts: list[nn.Module] = []
    for child in network.children():
        if isinstance(child, nn.Sequential | nn.ModuleList | nn.ModuleDict):
            parts += _opened(child, levels)
        elif levels > 1 and any(True for _ in child.children()):
            parts += _opened(child, levels - 1)
        else:
            parts.append(child)
    return parts


def _trace(network: nn.Module, units: Sequence[nn.Module], images: Tensor) -> list[tuple[nn.Module, Any, Any]]:
    """Every call of a unit: itself, the shape of what it was given, the shape of what it gave."""
    calls: list[tuple[nn.Module, Any, Any]] = []

    def hook(module: nn.Module, given: Any, output: Any) -> None:
        calls.append((module, _shape(given[0] if given else None), _shape(output)))

    training = network.training
    network.eval()
    with _hooked(units, hook), torch.no_grad():
        network(images)
    network.train(training)
    return calls


def _ends(calls: Sequence[tuple[nn.Module, Any, Any]]) -> set[int]:
    ends: list[int] = []
    left = False  # whether something follows the last end
    for number, (module, given, output) in enumerate(calls):
        if len(output) != 4:
            break
        if len(given) == 4 and given[2:] != (1, 1) and output[2:] == (1, 1) and not _convolves(module):
            break
        if _convolves(module):
            ends.append(number)
            left = False
        elif isinstance(module, NORMS) and ends and ends[-1] == number - 1:
            ends[-1] = number
        elif not isinstance(module, UNCHANGED):
            left = bool(ends)
            last = number
    return {*ends, last} if left else set(ends)


def _convolves(module: nn.Module) -> bool:
    return any(isinstance(part, CONVOLUTIONS) for part in module.modules())


def _distinct(modules: Sequence[nn.Module]) -> list[nn.Module]:
    return list({id(module): module for module in modules}.values())


def _shape(value: Any) -> tuple[int, ...]:
    return tuple(value.shape) if isinstance(value, Tensor) else ()


@contextlib.contextmanager
def _hooked(modules: Sequence[nn.Module], hook: Callable[[nn.Module, Any, Any], Any]) -> Iterator[None]:
    handles = [module.register_forward_hook(hook) for module in modules]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
