"""ftdnas truth, report, check, advise: how far a ranking can be trusted, and what finding out costs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from distill.run import duration
from ftdnas.cli.options import data_options, json_option, machine_options, seed_option, with_options
from ftdnas.cli.progress import progress
from ftdnas.cli.search import (
    Duration,
    materials_of,
    percent,
    request_of,
    screening_options,
    source_facts,
    with_proxy,
)
from ftdnas.sets.images import Source


def training_options(command: Any) -> Any:
    """How architectures are trained on all real images."""
    return with_options(
        command,
        click.option(
            "--recipe", metavar="NAME|FILE", help="Whose evaluation.full it is (default: the set's or data's)."
        ),
        click.option("--real-lr", type=click.FloatRange(0, min_open=True), help="Learning rate on all real images."),
    )


def table_options(command: Any) -> Any:
    """Which columns of a truth table are read."""
    return with_options(
        command,
        click.option("--truth-column", metavar="NAME", help="Of a table: the accuracy."),
        click.option("--truth-architectures", metavar="NAME", help="Of a table: the canonical strings."),
        click.option("--column", "others", multiple=True, metavar="TITLE=NAME", help="Of a table: shown beside."),
    )


@click.command()
@click.option("--study", metavar="NAME", help="Train the candidates of this study.")
@click.option("--space", default="convnet", show_default=True, help="Without a study: stratified candidates of it.")
@click.option("--sample", type=click.IntRange(2), default=24, show_default=True, help="How many of the space.")
@click.option("--stratified", is_flag=True, help="What is done anyway: the sample is stratified.")
@click.option("--where", multiple=True, metavar="KEY=VALUE,VALUE", help="Only these choices of the space; repeatable.")
@click.option("--epochs", type=click.IntRange(1), help="Of real training (default: the recipe's).")
@click.option("--seeds", type=click.IntRange(1), default=1, show_default=True, help="Trainings of each.")
@click.option("--name", metavar="NAME", help="Of the truth (default: made of data, epochs and seeds).")
@click.option("--storage", metavar="URL", envvar="FTDNAS_STORAGE", help="That joined processes share.")
@click.option("--join", is_flag=True, help="Work on it beside other processes or machines.")
@click.option("--time-limit-per-candidate", "limit_s", type=Duration(), metavar="TIME", help="For one training.")
@click.option("--jobs", type=click.IntRange(1), help="Processes, of one thread each (default: --threads).")
@training_options
@seed_option
@machine_options
@data_options()
@json_option
def truth(source: Source, as_json: bool, stratified: bool, **asked: Any) -> None:  # noqa: ARG001
    """Train architectures on all real images: the truth that rankings are held up to.

    One pool of trainings, keyed by architecture, images, recipe and seed: what is there is not done again, whoever
    asks. Interrupted, the same command goes on. Read on validation images that chose nothing; test images stay unread.
    """
    from ftdnas.candidates.truth import RealTrainings, remember, train
    from ftdnas.runtime.device import pick_device, use_processes

    with progress(as_json) as listener:
        data, names, full = _subject(asked, source, listener)
        recipe = _real_recipe(asked, full)
        trainings = RealTrainings.of(data, recipe, asked["seeds"])
        name = asked["name"] or f"{data.name}-{data.image_shape[1]}px-{recipe.epochs}epochs-{asked['seeds']}seeds"
        remember(name, trainings)
        device = pick_device(asked["device"]).type
        found = train(
            data,
            names,
            trainings,
            jobs=use_processes(asked["jobs"] or asked["threads"], device),
            device=device,
            join=asked["join"],
            storage=asked["storage"],
            limit_s=asked["limit_s"],
            listener=listener,
        )
    best = sorted(((found.accuracy(one), one) for one in names if found.accuracy(one) is not None), reverse=True)
    if as_json:
        told = {"name": name, "title": found.title, "by_seed": [dict(one) for one in found.by_seed]}
        click.echo(json.dumps({**told, "errors": dict(found.errors), "seconds": dict(found.seconds)}))
        return
    click.echo(f"truth {name}: {found.title}")
    for accuracy, one in best[:10]:
        click.echo(f"  {percent(accuracy):>5}  {one}")
    for one, error in found.errors.items():
        click.echo(f"failed: {one}: {error}")
    click.echo(f"trained for {duration(sum(found.seconds.values()))} of one process in all")
    click.echo(f"next      ftdnas report STUDY --truth {name}")


@click.command()
@click.argument("study", required=False)
@click.option("--study", "named", metavar="NAME", help="The same, as an option.")
@click.option("--truth", "truth_name", metavar="NAME|TABLE", help="From ftdnas truth, or a .csv or .parquet file.")
@table_options
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), help="Folder (default: the study's).")
@click.option("--png", is_flag=True, help="Write every chart as a PNG too.")
@click.option("--data-root", type=click.Path(path_type=Path, file_okay=False), envvar="FTDNAS_DATA")
@json_option
def report(
    study: str | None,
    named: str | None,
    truth_name: str | None,
    out: Path | None,
    png: bool,
    data_root: Path | None,
    as_json: bool,
    **columns: Any,
) -> None:
    """How far a study's ranking can be trusted: the verdict, every baseline on the same candidates, what it cost.

    Writes report.html (one file, no network), report.csv and report.json.
    """
    from ftdnas.candidates.truth import find_truth
    from ftdnas.report.page import UNKNOWN
    from ftdnas.report.study import open_ranked_study, write
    from ftdnas.report.terminal import lines

    wanted = study or named
    if wanted is None:
        raise click.UsageError("which study? ftdnas report STUDY --truth NAME")
    found = open_ranked_study(wanted, data_root)
    real = None
    if truth_name is not None:
        space, data = found.settings["space"], found.bench.data
        real = find_truth(truth_name, space, data, found.candidates, _columns(columns))
    page, comparison = write(found, real, out, png=png)
    if as_json:
        click.echo((page.parent / "report.json").read_text(encoding="utf-8"), nl=False)
        return
    click.echo("\n".join(lines(comparison)) if comparison is not None else UNKNOWN)
    for note in json.loads((page.parent / "report.json").read_text(encoding="utf-8"))["notes"]:
        click.echo(f"note: {note}")
    click.echo(f"look at   {page}")


@click.command()
@click.option("--space", default="convnet", show_default=True)
@click.option("--set", "set_name", metavar="NAME|FILE", help="The synthetic set (default: the newest in the library).")
@click.option("--candidates", type=click.IntRange(2), metavar="N", help="24 to 40 (default: 32), stratified.")
@click.option("--where", multiple=True, metavar="KEY=VALUE,VALUE", help="Only these choices of the space; repeatable.")
@click.option("--compare", multiple=True, default=("all",), show_default=True, metavar="PROXY", help="Baselines.")
@click.option(
    "--real-epochs", type=click.IntRange(1), default=5, show_default=True, help="Of real training: shortened."
)
@click.option("--real-seeds", type=click.IntRange(1), default=1, show_default=True)
@click.option("--study", metavar="NAME", help="Name of the study that it leaves.")
@click.option("--jobs", type=click.IntRange(1), help="Processes, of one thread each (default: --threads).")
@screening_options
@training_options
@seed_option
@machine_options
@data_options()
@json_option
def check(source: Source, set_name: str | None, as_json: bool, real_epochs: int, real_seeds: int, **asked: Any) -> None:
    """Before a search: is the proxy worth it on these images and this space?

    Trains a few candidates for real, shortly, holds the proxy and its baselines up to that, and gives the verdict.
    """
    from ftdnas.ranking.job import set_recipe
    from ftdnas.report.check import check as run
    from ftdnas.report.terminal import lines

    request = request_of(asked)
    with progress(as_json) as listener:
        name, synthetic, data = materials_of(request, set_name, source, listener)
        request = with_proxy(request, asked, synthetic, listener)
        full = set_recipe(synthetic).evaluation.full if synthetic is not None else _full(source, data)
        recipe = _real_recipe({**asked, "epochs": real_epochs}, full)
        facts = source_facts(synthetic, source)
        checked = run(
            request, synthetic, name, data, recipe, listener, seeds=real_seeds, source=facts, data_root=source.root
        )
    if as_json:
        click.echo((checked.page.parent / "report.json").read_text(encoding="utf-8"), nl=False)
        return
    click.echo("\n".join(lines(checked.comparison)))
    click.echo(f"the real trainings were shortened: {checked.truth.title}")
    click.echo(f"look at   {checked.page}")


@click.command()
@click.option("--space", default="convnet", show_default=True)
@click.option("--set", "set_name", metavar="NAME|FILE", help="The synthetic set (default: the newest in the library).")
@click.option("--candidates", type=click.IntRange(2), default=100, show_default=True)
@click.option("--where", multiple=True, metavar="KEY=VALUE,VALUE", help="Only these choices of the space; repeatable.")
@click.option("--jobs", type=click.IntRange(1), help="Processes, of one thread each (default: --threads).")
@screening_options
@seed_option
@machine_options
@data_options()
@json_option
def advise(source: Source, set_name: str | None, as_json: bool, **asked: Any) -> None:
    """What each way to a choice costs on this device, from a few timed steps: distil and screen, race, train all."""
    from ftdnas.ranking.advice import describe_advice
    from ftdnas.ranking.loop import advice

    request = request_of(asked)
    with progress(as_json) as listener:
        name, synthetic, data = materials_of(request, set_name, source, listener)
        request = with_proxy(request, asked, synthetic, listener)
        given = advice(request, synthetic, name, data, listener)
    click.echo(json.dumps(given.to_json()) if as_json else "\n".join(describe_advice(given)))


def _subject(asked: dict[str, Any], source: Source, listener: Any) -> tuple[Any, list[str], Any]:
    """(images, candidates, recipe of real training)."""
    from ftdnas.ranking.job import set_recipe
    from ftdnas.ranking.plan import parse_restriction
    from ftdnas.report.study import open_ranked_study
    from search_spaces.base import find_space, stratified_sample

    if asked["study"]:
        found = open_ranked_study(asked["study"], source.root)
        full = set_recipe(found.bench.synthetic).evaluation.full
        return (
            found.bench.data,
            list(found.candidates),
            full if full.lr is not None else _full(source, found.bench.data),
        )
    if not source.spec:
        raise click.UsageError("which images? --dataset NAME, or --study NAME for those of a study")
    space = find_space(asked["space"])
    restrict = parse_restriction(space, asked["where"])
    data = source.load(listener)
    sample = stratified_sample(space, asked["sample"], data.image_shape, asked["seed"], restrict, data.num_classes)
    return data, [one.name for one in sample], _full(source, data)


def _full(source: Source, data: Any) -> Any:
    """How all real images are trained by the recipe that suits them."""
    from ftdnas.runtime.device import pick_device
    from ftdnas.sets.making import choose_recipe

    recipe, _ = choose_recipe(source.spec or data.name, None, pick_device("auto").type == "cuda")
    return recipe.evaluation.full


def _real_recipe(asked: dict[str, Any], full: Any) -> Any:
    from ftdnas.candidates.truth import recipe_of
    from ftdnas.sets.recipes import load_recipe

    if asked.get("recipe"):
        full = load_recipe(asked["recipe"]).evaluation.full
    return recipe_of(full, asked.get("epochs"), asked.get("real_lr"))


def _columns(asked: dict[str, Any]) -> Any:
    from ftdnas.candidates.truth_table import Columns

    others = {}
    for text in asked["others"]:
        title, equals, column = text.partition("=")
        if not equals:
            raise click.UsageError(f"--column {text}: write TITLE=NAME, such as 'after 12 epochs=accuracy_12'")
        others[title] = column
    return Columns(asked["truth_architectures"], asked["truth_column"], others)
