"""In which arithmetic networks are computed. Weights, images and what is made of them stay 32-bit floats."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from distill.recipe import PRECISIONS


@contextlib.contextmanager
def multiplying(precision: str, device: torch.device) -> Iterator[None]:
    """Within the block a GPU multiplies 32-bit floats as TF32 only if that is the precision.

    PyTorch itself lets convolutions do so, whatever is asked for. Raises ValueError for an unknown precision.
    """
    if precision not in PRECISIONS:
        raise ValueError(f"precision {precision!r}: choose from {', '.join(PRECISIONS)}")
    if device.type != "cuda":
        yield
        return
    switches: tuple[Any, ...] = torch.backends.cudnn, torch.backends.cuda.matmul
    before = [switch.allow_tf32 for switch in switches]
    try:
        for switch in switches:
            switch.allow_tf32 = precision == "tf32"
        yield
    finally:
        for switch, allowed in zip(switches, before, strict=True):
            switch.allow_tf32 = allowed


def logits_in(precision: str, network: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
    """Logits (B, K) of images (B, C, H, W), as wide as the images are whatever they were computed in."""
    if precision != "bfloat16":
        return network(images)
    with torch.autocast(images.device.type, dtype=torch.bfloat16, cache_enabled=False):
        return network(images).to(images.dtype)


def multiplies_bfloat16(device: torch.device) -> bool:
    """Whether bfloat16 is much faster there than 32-bit floats: an x86 CPU with matrix units (AMX).

    Of GPUs nothing was measured.
    """
    return device.type == "cpu" and torch.cpu._is_amx_tile_supported()
