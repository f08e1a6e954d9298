"""ftdnas distill and ftdnas experts."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from distill.run import duration
from ftdnas.cli.options import (
    data_options,
    derivative_options,
    json_option,
    machine_options,
    recipe_options,
    seed_option,
)
from ftdnas.cli.progress import progress
from ftdnas.sets.images import Source
from ftdnas.sets.library import sheet_of
from ftdnas.sets.recipes import load_recipe, override

if TYPE_CHECKING:
    from distill.recipe import Recipe
    from ftdnas.sets.making import Distilled

METHODS = ("ftd", "mtt", "random", "herding", "kmeans")


@click.command()
@data_options(default="digits")
@recipe_options
@click.option("--ipc", type=click.IntRange(1), help="Images per class (default: the recipe's, mostly 10).")
@click.option("--method", default="ftd", show_default=True, help=f"{', '.join(METHODS)}.")
@click.option("--name", help="Of the set in the library (default: made of what it is).")
@seed_option
@machine_options
@derivative_options
@json_option
def distill(as_json: bool, ipc: int | None, recipe: str | None, settings: Sequence[str], **asked: Any) -> None:
    """Make a synthetic set from real images.

    Chooses a recipe that fits the data set and this machine, and says what it chose and about how long it takes.
    Interrupted at any moment, the same command goes on where it was.
    """
    from ftdnas.sets.making import DistilRequest, distil

    with progress(as_json) as listener:
        chosen = resolve_recipe(asked["source"], recipe, ipc, settings, asked["device"], listener)
        result = distil(DistilRequest(recipe=chosen, **asked), listener)
    click.echo(json.dumps(facts(result)) if as_json else "\n".join(describe(result)))


@click.command()
@data_options(default="digits")
@recipe_options
@click.option("--ipc", type=click.IntRange(1), help="Images per class of the set they are for: it chooses the recipe.")
@click.option("--method", default="ftd", show_default=True, type=click.Choice(["ftd", "mtt"]), help="Whose experts.")
@machine_options
@derivative_options
@json_option
def experts(as_json: bool, ipc: int | None, recipe: str | None, settings: Sequence[str], **asked: Any) -> None:
    """Train the expert trajectories of a distillation alone; ftdnas distill finds and uses them.

    Several processes may share the work: each takes an expert that no other is training.
    """
    from ftdnas.sets.making import DistilRequest, train_experts

    with progress(as_json) as listener:
        chosen = resolve_recipe(asked["source"], recipe, ipc, settings, asked["device"], listener)
        made = train_experts(DistilRequest(recipe=chosen, **asked), listener)
    spent = made.seconds()
    told = {"folder": str(made.folder), "experts": made.num_experts, "epochs": made.epochs, "seconds": spent}
    text = f"{made.num_experts} experts of {made.epochs} epochs in {made.folder}, {duration(spent)} of work"
    click.echo(json.dumps(told) if as_json else text)


def resolve_recipe(
    source: Source,
    name: str | None,
    ipc: int | None,
    settings: Sequence[str],
    device: str,
    listener: Any,
) -> Recipe:
    """The recipe that was asked for, or the sensible one, said."""
    from distill.run import Progress
    from ftdnas.runtime.device import pick_device
    from ftdnas.sets.making import choose_recipe

    if name is not None:
        return override(load_recipe(name), [*([] if ipc is None else [f"ipc={ipc}"]), *settings])
    recipe, why = choose_recipe(source.spec, ipc, pick_device(device).type == "cuda")
    listener(
        Progress("distill", 0, 0, message=f"recipe {recipe.name}, {why} ({recipe.hardware}); --recipe takes another")
    )
    return override(recipe, settings)


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
    if result.new:
        lines.append(f"took      {duration(result.seconds)}")
    return [
        *lines,
        f"next      ftdnas evaluate {result.name} --against random,full",
        f"          ftdnas search --space convnet --set {result.name}",
    ]
