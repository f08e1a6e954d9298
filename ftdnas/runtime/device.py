"""On what a computation runs: the device and the number of CPU threads."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def pick_device(name: str = "auto") -> torch.device:
    """The device "cpu" or "cuda"; "auto" takes a GPU where there is one. Raises ValueError where there is none."""
    import torch

    if name not in ("auto", "cpu", "cuda"):
        raise ValueError(f"device {name!r} is not one of auto, cpu, cuda")
    there = torch.cuda.is_available()
    if name == "cuda" and not there:
        raise ValueError("device cuda is asked for, but PyTorch finds no GPU here: use --device cpu")
    return torch.device("cuda" if there and name != "cpu" else "cpu")


def use_threads(threads: int | None) -> int:
    """Let PyTorch use so many CPU threads (None: as many as it does already), and say how many."""
    import torch

    if threads is not None:
        torch.set_num_threads(threads)
    return torch.get_num_threads()


def device_name(device: torch.device | str) -> str:
    """In words, for a row: the GPU's name, or the CPU with the threads that PyTorch uses now."""
    import torch

    if torch.device(device).type == "cuda":
        return torch.cuda.get_device_name(device)
    threads = torch.get_num_threads()
    return f"CPU, {threads} thread{'s' * (threads > 1)}"


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """PyTorch uses one CPU thread within the block: with more, sums are taken in another order."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def visible_gpus(device: str = "cuda") -> tuple[str, ...]:
    """The GPUs that processes of such a device may take, as CUDA_VISIBLE_DEVICES names them."""
    import torch

    if device != "cuda" or not torch.cuda.is_available():
        return ()
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    count = torch.cuda.device_count()  # CUDA passes over what follows a name that it does not know
    return tuple(named.split(",")[:count]) if named else tuple(map(str, range(count)))


def use_processes(jobs: int | None, device: str) -> int:
    """How many processes work side by side: as many as asked for, else one for each GPU, or for each core."""
    return jobs or max(1, len(visible_gpus(device)) if device == "cuda" else len(os.sched_getaffinity(0)))
