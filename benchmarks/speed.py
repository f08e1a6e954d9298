"""Speed and memory against benchmarks/reference.py, in one run: matching, experts, candidates.

    python benchmarks/speed.py [matching] [experts] [cells] [convnets] [--device cpu] [--out speed.json]

Each line is a median over --repeats turns, ours and the reference's by turns, with the smallest and the largest; every
figure is a ratio of the two. The targets are those of two CPU cores.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import reference
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from distill.experts import _train_epoch
from distill.images.augment import parse_augment
from distill.matching import StudentStep, draw_steps, match
from distill.randomness import generator, seeded
from distill.recipe import ExpertRecipe
from distill.training.derivatives import CompiledDerivatives, Derivatives
from distill.training.examples import Examples
from distill.training.flat import FlatNetwork, initial_weights
from distill.training.memory import held
from ftdnas.candidates.handover import hand_over
from ftdnas.candidates.materials import Label, Material
from ftdnas.candidates.screening import Screening, default_screening, family_of
from ftdnas.candidates.training import Training
from ftdnas.runtime.processes import LocalProcesses
from search_spaces.base import SPACES, flops, parse_architecture, stratified_sample

DSA = parse_augment("color_crop_cutout_flip_scale_rotate")
CLASSES = 10
WAYS = ("eager", "compiled", "compiled, bfloat16")


@dataclass(frozen=True)
class Measured:
    """One line of the table: medians in `unit`, and the ratios of every turn, sorted, of which `target` is the most."""

    name: str
    reference: float
    ours: float
    ratios: list[float]
    target: float
    unit: str = "s"
    tflop: float = 0.0  # of arithmetic, of ours; 0 where it was not counted

    @property
    def ratio(self) -> float:
        return statistics.median(self.ratios)

    def describe(self) -> str:
        verdict = "met" if self.ratio <= self.target else "NOT met"
        spread = f"[{self.ratios[0]:.2f}, {self.ratios[-1]:.2f}]"
        values = f"{self.reference:9.3f} {self.unit} {self.ours:9.3f} {self.unit}"
        speed = f"   {self.tflop / self.ours:.2f} TFLOP/s" if self.tflop else ""
        return f"{self.name:64} {values}   {self.ratio:.3f} {spread}   at most {self.target:.3f}: {verdict}{speed}"


def by_turns(
    theirs: Callable[[], object],
    ours: Mapping[str, tuple[Callable[[], object], float]],
    repeats: int,
    tflop: float = 0.0,
) -> Iterator[Measured]:
    """A line for each of `ours`, by its name: what it does, and the ratio that it should keep to."""
    taken: list[tuple[float, list[float]]] = []
    for _ in range(repeats):
        reference_s = _seconds(theirs)
        taken.append((reference_s, [_seconds(work) for work, _ in ours.values()]))
    reference_s = statistics.median(reference_s for reference_s, _ in taken)
    for number, (name, (_, target)) in enumerate(ours.items()):
        ratios = sorted(own[number] / their for their, own in taken)
        ours_s = statistics.median(own[number] for _, own in taken)
        yield Measured(name, reference_s, ours_s, ratios, target, tflop=tflop)


def _seconds(work: Callable[[], object]) -> float:
    begun = time.perf_counter()
    work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - begun


class Flops(TorchDispatchMode):
    """Counts the arithmetic of convolutions and matrix products in its block; torch's own stops at second ones."""

    total = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if func._overloadpacket in flop_registry:
            self.total += flop_registry[func._overloadpacket](*args, **(kwargs or {}), out_val=out)
        return out


def counted_tflop(work: Callable[[], object]) -> float:
    """The arithmetic of it."""
    with Flops() as counted:
        work()
    return counted.total / 1e12


def ways_of(flat: FlatNetwork, asked: argparse.Namespace) -> dict[str, Derivatives]:
    """How derivatives are taken, those that are asked for."""
    made: dict[str, Callable[[], Derivatives]] = {
        "eager": lambda: Derivatives(flat),
        "compiled": lambda: CompiledDerivatives(flat),
        "compiled, bfloat16": lambda: CompiledDerivatives(flat, precision="bfloat16"),
    }
    return {name: made[name]() for name in asked.ways}


Given = tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]  # but the derivatives and the steps


def problem(asked: argparse.Namespace) -> tuple[FlatNetwork, Given, list[StudentStep]]:
    """What `match` is given; the same numbers on every device."""
    shape, device = (3, asked.side, asked.side), asked.device
    architecture = parse_architecture(f"convnet:width={asked.width}")
    network = lambda: architecture.build(shape, CLASSES)  # noqa: E731
    flat = FlatNetwork(network()).to(torch.device(device))
    draws = torch.Generator().manual_seed(0)
    start = initial_weights(network, 0).to(device)
    target = start + 0.01 * torch.randn(start.shape, generator=draws).to(device)
    images = torch.randn(asked.images, *shape, generator=draws).to(device)
    labels = (torch.arange(asked.images) % CLASSES).to(device)
    steps = draw_steps(
        asked.images, shape, draws, syn_steps=asked.syn_steps, batch_size=None, operations=DSA, device=device
    )
    return flat, (images, labels, torch.tensor(0.01, device=device), start, target), steps


def matching(asked: argparse.Namespace) -> Iterator[Measured]:
    """An outer step at ipc 10: N student steps on 100 images, and the gradient of the matching loss."""
    flat, given, steps = problem(asked)
    theirs = lambda: reference.match(flat, *given, steps)  # noqa: E731
    if "eager" in asked.ways:
        yield from _memory(flat, given, steps)
    made = ways_of(flat, asked)
    for name, derivatives in made.items():
        begun = time.perf_counter()
        match(derivatives, *given, steps[:1])
        print(f"{name}: the first step took {time.perf_counter() - begun:.0f} s", flush=True)
    what = f"outer step, N = {asked.syn_steps}, width {asked.width}, {asked.images} images of {asked.side} pixels"
    ours = {
        f"{what}, {name}": (partial(match, derivatives, *given, steps), 0.85 if derivatives.compiled else 1.4)
        for name, derivatives in made.items()
    }
    tflop = counted_tflop(lambda: match(Derivatives(flat), *given, steps[:1])) * len(steps)
    yield from by_turns(theirs, ours, asked.repeats, tflop)


def _memory(flat: FlatNetwork, given: Given, steps: Sequence[StudentStep]) -> Iterator[Measured]:
    """What tensors hold at once: of the reference for as many steps by what a further one adds to two."""
    few = 2, 4
    whole = [held(lambda count: reference.match(flat, *given, steps[:count]), count) / 1e6 for count in few]
    ours = [held(lambda count: match(Derivatives(flat), *given, steps[:count]), count) / 1e6 for count in few]
    each, own_each = ((more - less) / (few[1] - few[0]) for less, more in (whole, ours))
    theirs, own = (part[0] + one * (len(steps) - few[0]) for part, one in ((whole, each), (ours, own_each)))
    name = f"memory of an outer step, N = {len(steps)}"
    yield Measured(name, theirs, own, [own / theirs], 0.1, "MB")
    yield Measured(f"{name}, of a further inner step", each, own_each, [own_each / each], 2 / 285, "MB")


def experts(asked: argparse.Namespace) -> Iterator[Measured]:
    """A step of an expert: GSAM on a batch of 256."""
    shape, device, recipe = (3, asked.side, asked.side), asked.device, ExpertRecipe()
    architecture = parse_architecture(f"convnet:width={asked.width}")
    network = lambda: architecture.build(shape, CLASSES)  # noqa: E731
    count = 4 * recipe.batch_size
    images = torch.randn(count, *shape, generator=torch.Generator().manual_seed(0)).to(device)
    examples = Examples(images, (torch.arange(count) % CLASSES).to(device))
    weights, flat = initial_weights(network, 0).to(device), FlatNetwork(network()).to(torch.device(device))
    with seeded(0, "expert"):
        module = network().to(device)

    def epoch(derivatives: Derivatives) -> object:
        return _train_epoch(examples, derivatives, weights, recipe, generator(0, "draws"))

    theirs = lambda: reference.train_expert(module, examples, recipe, 1, generator(0, "draws"))  # noqa: E731
    made = ways_of(flat, asked)
    for name, derivatives in made.items():
        begun = time.perf_counter()
        derivatives.gradient(weights, *examples.take(torch.arange(recipe.batch_size)))
        print(f"{name}: the first gradient took {time.perf_counter() - begun:.0f} s", flush=True)
    what = f"4 steps of an expert, width {asked.width}, {asked.side} pixels"
    ours = {f"{what}, {name}": (partial(epoch, derivatives), 0.9) for name, derivatives in made.items()}
    yield from by_turns(theirs, ours, asked.repeats, counted_tflop(lambda: epoch(Derivatives(flat))))


def cells(asked: argparse.Namespace) -> Iterator[Measured]:
    """Shrunk cells of NAS-Bench-201 on 500 images of 16 pixels, as `search` screens them, hard labels."""
    screening = default_screening("nasbench201").screening
    yield from _screened("nasbench201", screening, 500, 0.6, asked)


def convnets(asked: argparse.Namespace) -> Iterator[Measured]:
    """ConvNets on 100 images of 16 pixels, as `search` screens them, at a step size of 0.02."""
    screening = replace(default_screening("convnet").screening, lr=0.02)
    yield from _screened("convnet", screening, 100, 0.75, asked)


def _screened(
    space: str, screening: Screening, images: int, target: float, asked: argparse.Namespace
) -> Iterator[Measured]:
    shape = (3, 16, 16)
    draws = torch.Generator().manual_seed(0)
    pixels = torch.randn(images, *shape, generator=draws)
    material = Material(Label("images", "few", images, CLASSES), Examples(pixels, torch.arange(images) % CLASSES))
    others = Examples(torch.randn(2500, *shape, generator=draws), torch.arange(2500) % CLASSES)
    held_out = Material(Label("held out", "score", 2500, CLASSES), others)
    if asked.part < 1:  # of the training, the networks are all there
        epochs = max(1, round(screening.epochs * asked.part)) if screening.epochs else None
        screening = replace(screening, epochs=epochs, steps=max(1, round(screening.steps * asked.part)))
    architectures = [
        found.shrunk() or found if screening.shrink else found
        for found in stratified_sample(SPACES[space], asked.candidates, shape, 0)
    ]
    architectures.sort(key=lambda one: -flops(one, shape, CLASSES))  # the dearest first, as a search does

    def works_in(precision: str) -> list[Training]:
        chosen = replace(screening, augment="_".join(DSA), precision=precision)
        families = [family_of(one.name, shape, CLASSES) for one in architectures]
        recipes = [chosen.recipe(images, None, family) for family in families]
        return [
            Training(one.name, material.label, held_out.label, recipe, 0, shared=screening.shared)
            for one, recipe in zip(architectures, recipes, strict=True)
        ]

    works = works_in("float32")
    few, scoring = (
        Examples(torch.as_tensor(one.images).to(asked.device), one.labels.to(asked.device))
        for one in (material.examples, others)
    )

    def theirs() -> None:
        torch.set_num_threads(asked.jobs)
        for work in works:
            with seeded(0, work.architecture):
                network = parse_architecture(work.architecture).build(shape, CLASSES).to(asked.device)
            assert work.recipe.lr is not None
            reference.train_candidate(
                network, few, scoring, work.recipe, work.recipe.lr, generator(0, "shared batches")
            )

    beside: list[tuple[float, float]] = []  # seconds of trainings, and of processes besides them

    def ours(works: list[Training]) -> None:
        begun = time.perf_counter()
        with tempfile.TemporaryDirectory() as folder:
            lay_out = lambda: hand_over([material, held_out], Path(folder) / "materials", asked.device)  # noqa: E731
            with LocalProcesses(lay_out, asked.jobs) as processes:
                rows = [row for _, row in processes.map(works)]
        failed = [row for row in rows if not isinstance(row, dict)]
        assert not failed, failed[0]
        wall, trained = time.perf_counter() - begun, sum(row["seconds"] for row in rows)
        beside.append((trained, wall * asked.jobs - trained))

    what = f"{len(works)} candidates of {space}, {works[0].recipe.epochs} epochs of {images} images, {asked.jobs} jobs"
    lines = {f"{what}, {one}": (partial(ours, works_in(one)), target) for one in ("float32", "bfloat16")}
    yield from by_turns(theirs, lines, asked.repeats)
    trained_s, besides_s = (statistics.median(column) for column in zip(*beside, strict=True))
    shares = sorted(more / trained for trained, more in beside)
    yield Measured(f"{what}: beside the trainings", trained_s, besides_s, shares, 0.05)


PARTS: dict[str, Callable[[argparse.Namespace], Iterator[Measured]]] = {
    "matching": matching,
    "experts": experts,
    "cells": cells,
    "convnets": convnets,
}


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []])
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--side", type=int, default=32)
    parser.add_argument("--images", type=int, default=100)
    parser.add_argument("--syn-steps", type=int, default=30)
    parser.add_argument("--candidates", type=int, default=48)
    parser.add_argument("--part", type=float, default=1.0, help="Of a candidate's training.")
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=WAYS, help="How derivatives are taken.")
    parser.add_argument("--out", type=Path, help="JSON of what was measured.")
    return parser


def main() -> None:
    asked = parser().parse_args()
    cores = os.cpu_count()
    where = torch.cuda.get_device_name() if asked.device == "cuda" else f"{platform.machine()} CPU, {cores} cores"
    facts = {"device": where, "torch": torch.__version__, "python": platform.python_version(), "repeats": asked.repeats}
    print(f"{where}, torch {torch.__version__}; {asked.repeats} turns: reference, ours, ratio [least, most]")
    lines: list[Measured] = []
    for part in asked.parts or PARTS:
        torch.set_num_threads(cores or 1)
        for line in PARTS[part](asked):
            print(line.describe(), flush=True)
            lines.append(line)
            if asked.out:
                measured = [{**asdict(one), "ratio": one.ratio, "met": one.ratio <= one.target} for one in lines]
                asked.out.write_text(json.dumps({**facts, "lines": measured}, indent=1) + "\n")
    missed = [line.name for line in lines if line.ratio > line.target]
    print(f"{len(lines) - len(missed)} of {len(lines)} targets met" + "".join(f"\nmissed: {name}" for name in missed))


if __name__ == "__main__":
    main()
