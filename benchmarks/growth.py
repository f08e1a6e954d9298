"""How cost grows: matching by N, ipc, width and side; screening by candidates and workers, doubled again and again.

    python benchmarks/growth.py [--device cpu] [--out growth.json]

The least seconds of --repeats, on a CPU of one thread (candidates of two processes), and the most that the tensors of
an outer step hold at once.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from distill.images.augment import parse_augment
from distill.matching import draw_steps, match
from distill.training.derivatives import Derivatives
from distill.training.examples import Examples
from distill.training.flat import FlatNetwork, initial_weights
from distill.training.memory import held
from ftdnas.candidates.handover import hand_over
from ftdnas.candidates.materials import Label, Material
from ftdnas.candidates.screening import Screening
from ftdnas.candidates.training import Training
from ftdnas.runtime.processes import LocalProcesses
from search_spaces.base import SPACES, parse_architecture, stratified_sample

BASE = {"syn_steps": 3, "ipc": 1, "width": 16, "side": 32}
DOUBLED = {"syn_steps": (3, 6, 12, 24), "ipc": (1, 2, 4, 8), "width": (16, 32, 64, 128), "side": (32, 64, 128)}
CANDIDATES, WORKERS = (6, 12, 24, 48), (1, 2, 4, 8)
CLASSES = 10


def outer_step(device: str, repeats: int, *, syn_steps: int, ipc: int, width: int, side: int) -> dict[str, Any]:
    shape, count = (3, side, side), ipc * CLASSES
    network = lambda: parse_architecture(f"convnet:width={width}").build(shape, CLASSES)  # noqa: E731
    flat, draws = FlatNetwork(network()).to(torch.device(device)), torch.Generator().manual_seed(0)
    start = initial_weights(network, 0).to(device)
    target = start + 0.01 * torch.randn(start.shape, generator=draws).to(device)
    images = torch.randn(count, *shape, generator=draws).to(device)
    labels, rate = (torch.arange(count) % CLASSES).to(device), torch.tensor(0.01, device=device)
    operations = parse_augment("color_crop_cutout_flip_scale_rotate")
    steps = draw_steps(count, shape, draws, syn_steps=syn_steps, batch_size=None, operations=operations, device=device)
    derivatives = Derivatives(flat)
    seconds = best(lambda: match(derivatives, images, labels, rate, start, target, steps), repeats)
    activations = held(lambda _: match(derivatives, images, labels, rate, start, target, steps), count)
    return {"seconds": seconds, "mb": activations / 1e6}


def screened(device: str, repeats: int, *, candidates: int, workers: int) -> dict[str, Any]:
    """Shrunk cells, 10 epochs of 100 images of 16 pixels each; on a CPU of one thread."""
    shape, draws = (3, 16, 16), torch.Generator().manual_seed(0)
    few = Examples(torch.randn(100, *shape, generator=draws), torch.arange(100) % CLASSES)
    material = Material(Label("images", "few", 100, CLASSES), few)
    recipe = Screening(epochs=10, lr=0.1, augment="flip").recipe(100, None, "batch")
    cells = stratified_sample(SPACES["nasbench201"], candidates, shape, 0)
    names = [(cell.shrunk() or cell).name for cell in cells]
    works = [Training(name, material.label, material.label, recipe, 0, shared=True) for name in names]

    def run() -> None:
        with tempfile.TemporaryDirectory() as folder:
            lay_out = lambda: hand_over([material], Path(folder) / "materials", device)  # noqa: E731
            with LocalProcesses(lay_out, workers) as processes:
                assert all(isinstance(row, dict) for _, row in processes.map(works))

    return {"seconds": best(run, repeats)}


def best(work: Callable[[], object], repeats: int) -> float:
    times = []
    for _ in range(repeats):
        begun = time.perf_counter()
        work()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        times.append(time.perf_counter() - begun)
    return min(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    cores = os.cpu_count() or 1
    where = torch.cuda.get_device_name() if asked.device == "cuda" else f"{platform.machine()} CPU"
    lines: list[dict[str, Any]] = []

    def told(what: str, value: int, measured: dict[str, Any]) -> None:
        lines.append({"varied": what, "value": value, **measured})
        memory = f"{measured['mb']:9.0f} MB" if "mb" in measured else ""
        print(f"{what:12} {value:4d} {measured['seconds']:9.3f} s {memory}", flush=True)
        if asked.out:
            facts = {"device": where, "torch": torch.__version__, "base": BASE, "lines": lines}
            asked.out.write_text(json.dumps(facts, indent=1) + "\n")

    for what, values in DOUBLED.items():
        for value in values:
            told(what, value, outer_step(asked.device, asked.repeats, **{**BASE, what: value}))
    for count in CANDIDATES:
        told("candidates", count, screened(asked.device, asked.repeats, candidates=count, workers=min(2, cores)))
    for workers in (number for number in WORKERS if number <= cores):
        told("workers", workers, screened(asked.device, asked.repeats, candidates=24, workers=workers))


if __name__ == "__main__":
    main()
