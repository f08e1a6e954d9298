"""Explicit randomness: every draw comes from a generator named by a seed and a path of keys.

Nothing depends on how many draws were made before it, so work that was interrupted goes on with exactly the draws it
would have had, and no generator state needs to be stored.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator

import torch
from torch import Tensor


def derive_seed(seed: int, *path: str | int) -> int:
    """A 63-bit seed that depends on `seed` and on every key of `path`."""
    text = "/".join([str(int(seed)), *map(str, path)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little") >> 1


def generator(seed: int, *path: str | int) -> torch.Generator:
    """A fresh CPU generator for the draws named by `path`."""
    return torch.Generator().manual_seed(derive_seed(seed, *path))


def moved(values: Tensor, device: torch.device | str) -> Tensor:
    """What was drawn on the CPU, on a device. A GPU is not waited for, as a plain copy does: the host runs ahead."""
    if torch.device(device).type != "cuda":
        return values.to(device)
    return values.pin_memory().to(device, non_blocking=True)


@contextlib.contextmanager
def seeded(seed: int, *path: str | int) -> Iterator[None]:
    """Seed torch's global CPU generator inside the block and put it back afterwards.

    The one place where global state is touched: PyTorch initialises the weights of a module from it.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(seed, *path))
        yield
