"""ftdnas distill and ftdnas experts."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Any

from distill.run import Listener, duration
from ftdnas.cli.options import command
from ftdnas.runtime.home import typed
from ftdnas.sets.library import sheet_of
from ftdnas.sets.request import DistilRequest, ExpertsRequest

if TYPE_CHECKING:
    from ftdnas.sets.making import Distilled


@command(
    DistilRequest,
    examples=(
        "ftdnas distill --dataset digits --name digits",
        "ftdnas distill --dataset folder:photos --ipc 10 --image-size 32",
    ),
)
def distill(request: DistilRequest, listener: Listener) -> tuple[Any, list[str]]:
    """Make a synthetic set from real images.

    Chooses a recipe that fits the data set and this machine, and says what it chose and about how long it takes.
    Interrupted at any moment, the same command goes on where it was.
    """
    from ftdnas.sets.making import distil

    result = distil(request, listener)
    return facts(result), describe(result)


@command(
    ExpertsRequest,
    examples=(
        "ftdnas experts --dataset digits",
        "ftdnas experts --dataset cifar10 --recipe cpu --override experts.num_experts=4",
    ),
)
def experts(request: ExpertsRequest, listener: Listener) -> tuple[Any, list[str]]:
    """Train the expert trajectories of a distillation alone; ftdnas distill finds and uses them.

    Several processes may share the work: each takes an expert that no other is training.
    """
    from ftdnas.sets.making import train_experts

    made = train_experts(request, listener)
    spent = made.seconds()
    told = {"folder": str(made.folder), "experts": made.num_experts, "epochs": made.epochs, "seconds": spent}
    return told, [f"{made.num_experts} experts of {made.epochs} epochs in {made.folder}, {duration(spent)} of work"]


def facts(result: Distilled) -> dict[str, Any]:
    """The outcome as JSON."""
    provenance = result.synthetic.provenance
    return {
        "name": result.name,
        "path": str(result.path),
        "sheet": str(sheet_of(result.path)),
        "new": result.new,
        "seconds": result.seconds,
        "images": len(result.synthetic.images),
        "step_size": result.synthetic.step_size,
        "validation_accuracy": provenance.get("validation_accuracy"),
        "published": provenance.get("published"),
        "notes": provenance.get("notes", []),
    }


def describe(result: Distilled) -> list[str]:
    """The outcome and the next commands, a line each."""
    told = facts(result)
    validation = told["validation_accuracy"]
    lines = [f"set       {result.name}", f"file      {result.path}", f"look at   {told['sheet']}"]
    if validation is not None:
        what = told["published"] if told["published"] == "real images" else f"{told['published']} images"
        lines.append(f"reaches   {100 * validation:.1f} % on the validation images that chose it ({what})")
    lines += [f"note      {note}" for note in told["notes"]]
    provenance = result.synthetic.provenance
    if "found" in provenance:
        lines.append(f"found     {provenance['found']}")
    *_, alike = provenance.get("split_note", "").split("; ")
    if "near-duplicates" in alike:
        lines.append(f"photos    {alike}")
    if result.new:
        lines.append(f"took      {duration(result.seconds)}")
    return [
        *lines,
        f"next      ftdnas evaluate {typed(result.name, 'set')} --against random,full",
        f"          ftdnas search --space convnet --set {shlex.quote(result.name)}",
    ]
