"""In which precision networks are computed: what the names in `distill.recipe.PRECISIONS` mean to torch."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from distill.recipe import PRECISIONS


@contextlib.contextmanager
def computing(precision: str, device: torch.device) -> Iterator[None]:
    """For a forward pass and its derivatives: within the block "ieee" keeps a GPU from TF32.

    Raises ValueError for an unknown precision.
    """
    if precision not in PRECISIONS:
        raise ValueError(f"precision {precision!r}: choose from {', '.join(PRECISIONS)}")
    if precision != "ieee" or device.type != "cuda":
        yield
        return
    before = torch.backends.cudnn.allow_tf32
    try:
        torch.backends.cudnn.allow_tf32 = False
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = before


def logits_in(precision: str, network: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
    """Logits (B, K) of images (B, C, H, W), as wide as the images are whatever they were computed in."""
    if precision != "bfloat16":
        return network(images)
    with torch.autocast(images.device.type, dtype=torch.bfloat16, cache_enabled=False):
        return network(images).to(images.dtype)


def multiplies_bfloat16() -> bool:
    """Whether this CPU has matrix units for bfloat16 (AMX), which make it much faster than 32-bit floats."""
    return torch.cpu._is_amx_tile_supported()
