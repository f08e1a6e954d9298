"""Peak memory of matching against the number of student steps: the adjoint, and the unrolled graph for comparison.

    python benchmarks/matching_memory.py [--width 128] [--batch 100] [--side 32] [--steps 10 50] [--unrolled 2 4]

Each case runs in a process of its own; its figure is the peak of resident memory above what the process held before
matching (weights, images and libraries loaded). The claim kept here: N = 50 within 100 MB of N = 10.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time

LIMIT_MB = 100.0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--batch", type=int, default=100)
    parser.add_argument("--side", type=int, default=32)
    parser.add_argument("--steps", type=int, nargs="+", default=[10, 50])
    parser.add_argument("--unrolled", type=int, nargs="*", default=[2, 4])
    parser.add_argument("--case", nargs=2, metavar=("FORM", "N"), help="run one case and print its JSON")
    options = parser.parse_args()
    if options.case:
        print(json.dumps(measure(options.case[0], int(options.case[1]), options.width, options.batch, options.side)))
        return 0
    cases = [("adjoint", n) for n in options.steps] + [("unrolled", n) for n in options.unrolled]
    peaks = {}
    print(f"width {options.width}, batch {options.batch}, {options.side} pixels, one CPU thread")
    for form, n in cases:
        sizes = [f"--{name}={getattr(options, name)}" for name in ("width", "batch", "side")]
        command = [sys.executable, __file__, *sizes, "--case", form, str(n)]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        facts = json.loads(done.stdout.splitlines()[-1])
        peaks[form, n] = facts["peak_mb"]
        print(f"{form:9s} N = {n:3d}: peak {facts['peak_mb']:7.0f} MB above the start, {facts['seconds']:6.1f} s")
    growth = peaks["adjoint", max(options.steps)] - peaks["adjoint", min(options.steps)]
    print(f"adjoint: from N = {min(options.steps)} to N = {max(options.steps)} the peak grows by {growth:.0f} MB")
    print("kept" if growth <= LIMIT_MB else f"NOT kept: more than {LIMIT_MB:.0f} MB")
    return 0 if growth <= LIMIT_MB else 1


def measure(form: str, syn_steps: int, width: int, batch: int, side: int) -> dict[str, float]:
    import torch
    import torch.nn.functional as F

    from distill.images.augment import augment, parse_augment
    from distill.matching import draw_steps, match
    from distill.training.derivatives import Derivatives
    from distill.training.flat import FlatNetwork, initial_weights
    from search_spaces.base import parse_architecture

    torch.set_num_threads(1)
    architecture = parse_architecture(f"convnet:width={width}")
    shape = (3, side, side)

    def network() -> torch.nn.Module:
        return architecture.build(shape, 10)

    flat = FlatNetwork(network())
    generator = torch.Generator().manual_seed(0)
    start = initial_weights(network, 0)
    target = start + 0.01 * torch.randn(start.shape, generator=generator)
    images = torch.randn(batch, *shape, generator=generator)
    labels = torch.arange(batch) % 10
    operations = parse_augment("color_crop_cutout_flip_scale_rotate")
    steps = draw_steps(batch, shape, generator, syn_steps=syn_steps, batch_size=None, operations=operations)
    step_size = torch.tensor(0.01)
    before = _peak_mb()
    begun = time.perf_counter()
    if form == "adjoint":
        match(Derivatives(flat), images, labels, step_size, start, target, steps)
    else:
        pixels, rate, weights = images.requires_grad_(), step_size.requires_grad_(), start.clone().requires_grad_()
        for step in steps:
            loss = F.cross_entropy(flat(weights, augment(pixels[step.rows], step.drawn)), labels[step.rows])
            (gradient,) = torch.autograd.grad(loss, weights, create_graph=True)
            weights = weights - rate * gradient
        torch.autograd.grad((weights - target).square().sum() / (start - target).square().sum(), (pixels, rate))
    return {"peak_mb": _peak_mb() - before, "seconds": time.perf_counter() - begun}


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    sys.exit(main())
