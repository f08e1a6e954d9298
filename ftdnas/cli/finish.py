"""ftdnas finish: from a ranking, or from architectures by name, to a trained network in files that stand alone."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from distill.run import duration
from ftdnas.cli.options import data_options, json_option, machine_options, seed_option
from ftdnas.cli.progress import progress
from ftdnas.sets.images import Source

if TYPE_CHECKING:
    from distill.images.datasets import ImageDataset
    from distill.recipe import TrainingRecipe
    from distill.run import Listener
    from ftdnas.finishing.run import Finished
    from ftdnas.ranking.standing import Standing


@click.command()
@click.argument("study", required=False)
@click.option("--architecture", "-a", "architectures", multiple=True, metavar="ARCH", help="Finish this; repeatable.")
@click.option("--top", type=click.IntRange(1), default=5, show_default=True, help="How many of the study's best.")
@click.option("--epochs", type=click.IntRange(1), help="On all real images (default: the recipe's).")
@click.option("--lr", type=click.FloatRange(0, min_open=True), help="Learning rate (default: the recipe's).")
@click.option("--recipe", metavar="NAME|FILE", help="Whose evaluation.full trains them (default: the data's).")
@click.option(
    "--pretrained-weights",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="State dict of a torchvision network (.safetensors or .pth), fine-tuned beside them.",
)
@click.option("--pretrained-size", type=click.IntRange(1), default=224, show_default=True, metavar="PIXELS")
@click.option("--pretrained-lr", type=click.FloatRange(0, min_open=True), default=0.01, show_default=True)
@click.option("--no-onnx", is_flag=True, help="Write no ONNX file.")
@click.option("--jobs", type=click.IntRange(1), help="Trainings at once (default: as many as there are cores).")
@seed_option
@machine_options
@data_options()
@json_option
def finish(
    study: str | None, architectures: Sequence[str], top: int, source: Source, as_json: bool, **asked: Any
) -> None:
    """Train the best candidates of a STUDY on all real images, and write the best of them as files.

    Chosen by validation accuracy; the test images are read once. --image-size is the size to train for (default: that
    of the photos, 224 at most). The images are the study's own, unless --dataset names others. Trained finalists are
    kept: interrupted, the same command goes on.
    """
    from ftdnas.finishing.run import FinishRequest
    from ftdnas.finishing.run import finish as run
    from ftdnas.ranking.standing import standing
    from ftdnas.runtime.device import use_threads

    if study is None and not architectures:
        raise click.UsageError("what shall be finished? ftdnas finish STUDY, or --architecture ARCH --dataset NAME")
    use_threads(asked["threads"])
    ranked = None if study is None else standing(study, top)
    names = (*(ranked.ranks if ranked is not None and not architectures else ()), *architectures)
    with progress(as_json) as listener:
        data, spec = target_images(ranked, source, listener)
        recipe, recipe_name = real_recipe(spec, asked["recipe"], asked["epochs"], asked["lr"])
        request = FinishRequest(
            finalists=names,
            recipe=recipe,
            recipe_name=recipe_name,
            standing=ranked,
            pretrained=asked["pretrained_weights"],
            pretrained_pixels=asked["pretrained_size"],
            pretrained_lr=asked["pretrained_lr"],
            onnx=not asked["no_onnx"],
            seed=asked["seed"],
            jobs=asked["jobs"] or asked["threads"],
            device=asked["device"],
        )
        finished = run(request, data, listener)
    click.echo(json.dumps(finished.to_json()) if as_json else "\n".join(describe(finished)))


def target_images(ranked: Standing | None, source: Source, listener: Listener) -> tuple[ImageDataset, str]:
    """The images at the size to train for, and the data set's spec: the study's own where no other is named."""
    if not source.spec:
        recorded = {} if ranked is None else ranked.source
        if not recorded.get("spec"):
            raise click.UsageError("which images? --dataset NAME" + (" (the study does not say)" if ranked else ""))
        given = source
        source = Source(
            spec=str(recorded["spec"]),
            root=given.root,
            image_size=given.image_size,
            validation=recorded.get("validation") if given.validation is None else given.validation,
            split_file=given.split_file or (Path(recorded["split_file"]) if recorded.get("split_file") else None),
            split_seed=int(recorded.get("split_seed", given.split_seed)),
            offline=given.offline,
        )
    data = source.load(listener)
    if source.image_size is None and data.target_size:
        data = replace(source, image_size=data.target_size).load(listener)
    return data, source.spec


def real_recipe(spec: str, recipe: str | None, epochs: int | None, lr: float | None) -> tuple[TrainingRecipe, str]:
    """How finalists train, and the name of the recipe that it is from."""
    from ftdnas.candidates.truth import recipe_of
    from ftdnas.runtime.device import pick_device
    from ftdnas.sets.making import choose_recipe
    from ftdnas.sets.recipes import load_recipe

    chosen = load_recipe(recipe) if recipe else choose_recipe(spec, None, pick_device("auto").type == "cuda")[0]
    return recipe_of(chosen.evaluation.full, epochs, lr), chosen.name


def describe(finished: Finished) -> list[str]:
    """What came of it, as lines of text."""
    card, rival = finished.card, finished.card.pretrained
    lines = [card.architecture, ""]
    for finalist in card.finalists:
        ranked = "" if card.standing is None else f"  (place {finalist.rank} of {card.standing['ranked']} by proxy)"
        spent, name = duration(finalist.seconds), finalist.architecture
        lines.append(f"  {finalist.outcome:>7}  {spent:>8}  {name}{'' if finalist.rank is None else ranked}")
    lines += [f"  left out: {finalist.architecture}: {finalist.reason}" for finalist in card.left_out]
    if rival is not None:
        reached = f"{100 * rival.validation.accuracy:.1f} %" if rival.validation else rival.error
        lines.append(f"  {reached:>7}  {'':>8}  {rival.network}, pretrained and fine-tuned")
    lines += ["", f"validation  {card.validation}", f"test        {card.test}"]
    if rival is not None and rival.chosen:
        lines.append(f"the pretrained network is better: test {rival.test}, in {rival.folder}/")
    lines.append(f"{card.parameters:,} weights, {card.flops:,} FLOPs, {card.latency_ms:.3g} ms an image on this CPU")
    lines += [f"not done: {what}" for what in card.not_done if what.startswith("no network.")]
    lines.append(f"written to {finished.folder}: {', '.join(card.files)}, card.md, card.json")
    return lines
