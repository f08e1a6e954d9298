"""How much memory a computation holds at once, counted in tensors, and so what of a minibatch fits a budget."""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

MARGIN = 0.9  # of a budget that is used: kernels hold some memory that is not a tensor's
FEW = (2, 6)  # images of the two runs that are counted


class PeakBytes(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Within its block, `peak` is the most that the tensors made in it held at once, in bytes."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now: int = 0
        self.peak: int = 0
        self._held: dict[int, int] = {}

    def __torch_dispatch__(
        self, func: Any, types: Sequence[Any], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        for storage in (leaf.untyped_storage() for leaf in tree_leaves(out) if isinstance(leaf, Tensor)):
            if storage._cdata not in self._held:
                self._held[storage._cdata] = storage.nbytes()
                self.now += storage.nbytes()
                self.peak = max(self.peak, self.now)
                weakref.finalize(storage, self._release, storage._cdata)
        return out

    def _release(self, address: int) -> None:
        self.now -= self._held.pop(address, 0)


def fitting(compute: Callable[[int], object], count: int, budget_bytes: float) -> int:
    """The most images, up to `count`, with which `compute(images)` keeps its tensors within a budget; at least 1.

    Taken from two runs with few images: what is held grows in proportion to them.
    """
    few, more = (min(number, count) for number in FEW)
    peaks = [held(compute, number) for number in (few, more)]
    each = (peaks[1] - peaks[0]) / max(1, more - few)
    fixed = peaks[0] - each * few
    return count if each <= 0 else max(1, min(count, int((MARGIN * budget_bytes - fixed) / each)))


def taken_bytes(device: torch.device) -> int:
    """What this process holds now: on the device, or of main memory."""
    if device.type == "cuda":
        return torch.cuda.memory_allocated(device)
    status = Path("/proc/self/statm")
    pages = int(status.read_text().split()[1]) if status.exists() else 0
    return pages * os.sysconf("SC_PAGE_SIZE")


def is_exhaustion(error: BaseException) -> bool:
    """Whether torch could not get memory; on a CPU it says so by a plain RuntimeError."""
    exhausted = isinstance(error, torch.OutOfMemoryError | MemoryError)
    return exhausted or (isinstance(error, RuntimeError) and "can't allocate memory" in str(error))


def held(compute: Callable[[int], object], images: int) -> int:
    """Bytes that `compute(images)` holds at once."""
    counted = PeakBytes()
    with counted:
        compute(images)
    return counted.peak
