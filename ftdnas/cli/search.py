"""ftdnas search: rank architectures of a space by a proxy."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from distill.run import duration
from ftdnas.cli.options import data_options, json_option, machine_options, seed_option, with_options
from ftdnas.cli.progress import progress
from ftdnas.sets.images import Source, images_of
from ftdnas.sets.library import Library

if TYPE_CHECKING:
    from distill.images.datasets import ImageDataset
    from distill.run import Listener
    from distill.synthetic import SyntheticSet
    from ftdnas.candidates.screening import Screening
    from ftdnas.ranking.loop import SearchRequest
    from ftdnas.ranking.table import Ranked, Ranking

TOP = 10
UNITS = {"": 60.0, "s": 1.0, "m": 60.0, "h": 3600.0}


class Duration(click.ParamType):  # type: ignore[type-arg]  # click 8.1 has no type of its own for it
    """Seconds, from 90s, 30m, 2h or a bare number of minutes."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if isinstance(value, float):
            return value
        found = re.fullmatch(r"(\d+(?:\.\d+)?)([smh]?)", str(value).strip())
        if not found or float(found.group(1)) == 0:
            self.fail(f"{value!r} is not a duration such as 90s, 30m or 2h", param, ctx)
        return float(found.group(1)) * UNITS[found.group(2)]


def screening_options(command: Any) -> Any:
    """How candidates are scored: collected by `screening_of`."""
    return with_options(
        command,
        click.option("--proxy", metavar="NAME", help="How candidates are scored (default: by the space)."),
        click.option("--epochs", type=click.IntRange(1), help="On the set (default: by the space)."),
        click.option("--steps", type=click.IntRange(1), help="Of SGD on the set, instead of epochs."),
        click.option("--lr", metavar="RATE|set", help="Learning rate on the set (default: by the space)."),
        click.option(
            "--batch-norm", type=click.Choice(["running", "batch", "refresh"]), help="Statistics when reading."
        ),
        click.option("--augment", metavar="OPERATIONS", help="DSA on the set, or none."),
        click.option(
            "--labels", type=click.Choice(["set", "teachers"]), help="The set's own, or those of its teachers."
        ),
        click.option("--shrink/--full-size", default=None, help="Screen smaller networks, where the space has them."),
        click.option("--pixels", type=click.IntRange(1), help="Average the images down to this side for screening."),
        click.option("--seeds", type=click.IntRange(1), help="Trainings of each candidate."),
        click.option(
            "--precision",
            type=click.Choice(["float32", "ieee", "bfloat16"]),
            help="Of screening trainings [default: float32]; bfloat16 is quick on a CPU with units for it.",
        ),
    )


@click.command()
@click.option("--space", default="convnet", show_default=True, help="See ftdnas spaces list; or file.py:function.")
@click.option("--set", "set_name", metavar="NAME|FILE", help="The synthetic set (default: the newest in the library).")
@click.option("--compare", multiple=True, metavar="PROXY", help="Score these beside it; all: the usual baselines.")
@click.option("--candidates", "--trials", type=click.IntRange(2), metavar="N", help="How many (default: by --budget).")
@click.option("--budget", type=Duration(), metavar="TIME", help="For screening, such as 30m (default on a CPU).")
@click.option(
    "--sampler", default="stratified", show_default=True, help="exhaustive, random, tpe, nsga2, gp, nni-tpe ..."
)
@click.option("--among", type=click.Path(path_type=Path, dir_okay=False), help="Stratify over this truth table.")
@click.option("--truth-column", metavar="NAME", help="Of the table: the accuracy.")
@click.option("--truth-architectures", metavar="NAME", help="Of the table: the canonical strings.")
@click.option("--widths", metavar="W,W", help="Short for --where width=W,W.")
@click.option("--where", multiple=True, metavar="KEY=VALUE,VALUE", help="Only these choices of the space; repeatable.")
@click.option("--objective", "objectives", multiple=True, help="A cost beside the score: params, flops, latency.")
@click.option("--max-params", type=click.IntRange(1), help="Hard limit, before anything is trained.")
@click.option("--max-flops", type=click.IntRange(1), help="The same, of one forward pass.")
@click.option("--max-latency-ms", type=click.FloatRange(0, min_open=True), help="Measured here, or by the table.")
@click.option("--latency-table", type=click.Path(path_type=Path, dir_okay=False), help="CSV architecture,latency_ms.")
@click.option("--calibrate", type=click.IntRange(4), default=24, show_default=True, help="Real trainings of a hybrid.")
@click.option("--study", metavar="NAME", help="Name of the study (default: made of set, space and settings).")
@click.option(
    "--storage",
    metavar="URL",
    envvar="FTDNAS_STORAGE",
    help="Of the study (default: SQLite in FTDNAS_HOME; postgresql://...).",
)
@click.option("--join", is_flag=True, help="Work on a study beside other processes or machines.")
@click.option("--executor", type=click.Choice(["local", "ray"]), default="local", show_default=True)
@click.option("--ray-address", metavar="ADDRESS", help="Of a running cluster; the set and images travel to it.")
@click.option("--time-limit-per-candidate", "limit_s", type=Duration(), metavar="TIME", help="For one evaluation.")
@click.option("--jobs", type=click.IntRange(1), help="Processes, of one thread each (default: --threads).")
@screening_options
@seed_option
@machine_options
@data_options()
@json_option
def search(source: Source, set_name: str | None, as_json: bool, **asked: Any) -> None:
    """Rank the architectures of a space by a proxy: by default by training them on a synthetic set.

    Before it starts it says what each way to a choice would cost here. Interrupted, the same command goes on. How far
    to trust the ranking: ftdnas check before, ftdnas truth and ftdnas report after.
    """
    from ftdnas.ranking.loop import search as run

    request = request_of(asked)
    with progress(as_json) as listener:
        name, synthetic, data = materials_of(request, set_name, source, listener)
        request = with_proxy(request, asked, synthetic, listener)
        ranking = run(request, synthetic, name, data, listener, source_facts(synthetic, source))
    click.echo(json.dumps(ranking.to_json()) if as_json else "\n".join(describe(ranking)))


def request_of(asked: dict[str, Any]) -> SearchRequest:
    """The request that the options make."""
    from ftdnas.candidates.limits import Limits
    from ftdnas.proxies.names import DEFAULT
    from ftdnas.ranking.loop import SearchRequest

    table: dict[str, float] = {}
    if asked.get("latency_table"):
        from ftdnas.candidates.latency import read_latency_table

        table = dict(read_latency_table(asked["latency_table"]))
    names = ["space", "compare", "sampler", "candidates", "objectives", "calibrate", "seed", "device", "study"]
    names += ["storage", "join", "executor", "ray_address", "limit_s"]
    widths = [f"width={asked['widths']}"] if asked.get("widths") else []
    return SearchRequest(
        **{name: asked[name] for name in names if asked.get(name) is not None},
        proxy=asked.get("proxy") or DEFAULT,
        names=_among(asked),
        where=(*asked["where"], *widths),
        minutes=asked["budget"] / 60 if asked.get("budget") else None,
        limits=Limits(asked.get("max_params"), asked.get("max_flops"), asked.get("max_latency_ms"), table),
        screening=screening_of(asked),
        jobs=asked.get("jobs") or asked.get("threads"),
    )


def screening_of(asked: dict[str, Any]) -> Screening:
    """The space's own screening, with what was asked for."""
    from dataclasses import replace

    from ftdnas.candidates.screening import SET, default_screening

    chosen = default_screening(asked["space"]).screening
    named = ("batch_norm", "augment", "labels", "shrink", "pixels", "seeds", "precision")
    changes: dict[str, Any] = {name: asked[name] for name in named if asked.get(name) is not None}
    if asked.get("steps") is not None and asked.get("epochs") is not None:
        raise ValueError("--epochs and --steps both say how long a candidate trains: give one of them")
    if asked.get("steps") is not None:
        changes |= {"steps": asked["steps"], "epochs": None}
    if asked.get("epochs") is not None:
        changes["epochs"] = asked["epochs"]
    if asked.get("lr") is not None:
        try:
            changes["lr"] = SET if asked["lr"] == SET else float(asked["lr"])
        except ValueError:
            raise ValueError(f"--lr {asked['lr']}: a positive number, or set for the set's step size") from None
    return replace(chosen, **changes)


def materials_of(
    request: SearchRequest, set_name: str | None, source: Source, listener: Listener
) -> tuple[str, SyntheticSet | None, ImageDataset]:
    """(name of the set, set, images); without a set where no proxy needs one and none is named."""
    from ftdnas.ranking.loop import choose_set, needs_set

    if set_name is None and not needs_set(request) and source.spec:
        return "", None, source.load(listener)
    name, synthetic = choose_set(Library(), set_name, source.spec)
    return name, synthetic, images_of(synthetic, source, listener)


def with_proxy(
    request: SearchRequest, asked: dict[str, Any], synthetic: SyntheticSet | None, listener: Listener
) -> SearchRequest:
    """The request with the proxy that fits space and set, unless one was asked for."""
    from dataclasses import replace

    from distill.run import Progress
    from ftdnas.proxies.names import default_proxy

    if asked.get("proxy"):
        return request
    proxy, why = default_proxy(request.space, synthetic)
    if why:
        listener(Progress("search", 0, 0, message=f"ranked by {proxy}: {why}"))
    return replace(request, proxy=proxy)


def source_facts(synthetic: SyntheticSet | None, source: Source) -> dict[str, Any]:
    """What finds the same images again."""
    from ftdnas.sets.images import source_of

    return (source if synthetic is None else source_of(synthetic, source)).to_json()


def describe(ranking: Ranking) -> list[str]:
    """The outcome as lines of text: what speaks against trusting it first, then the table, then the rest."""
    lines = [
        "",
        "How far this ranking can be trusted is not known yet (the last line says how to find out).",
        "",
        *table(ranking),
        "",
        *left_out(ranking),
    ]
    lines += [f"note: {note}" for note in ranking.notes]
    total = sum(ranking.seconds.values())
    parts = ", ".join(f"{name} {seconds:.0f}" for name, seconds in ranking.seconds.items())
    lines.append(f"computed for {duration(total)} of one process in all; seconds: {parts}")
    lines.append(f"study {ranking.study}: {ranking.folder / 'ranking.csv'}, ranking.json and scores.jsonl")
    lines.append(f"finish    ftdnas finish {ranking.study} --top 5")
    lines.append(f"trust     ftdnas truth --study {ranking.study} --name T && ftdnas report {ranking.study} --truth T")
    return lines


def table(ranking: Ranking) -> list[str]:
    """The best candidates, one a line; accuracies in percent."""
    head = f"{'rank':>4}  {'score':>8}  {'accuracy':>8}  {'loss':>7}  {'weights':>10}  {'MFLOPs':>7}  architecture"
    return [head, *(row(place, one) for place, one in enumerate(ranking.candidates[:TOP], start=1))]


def row(place: int, candidate: Ranked) -> str:
    loss = "-" if candidate.late_loss is None else f"{candidate.late_loss:.4f}"
    score = "-" if candidate.score is None else f"{candidate.score:.4g}"
    numbers = f"{place:>4}  {score:>8}  {percent(candidate.accuracy):>8}  {loss:>7}"
    return f"{numbers}  {candidate.parameters:>10,}  {candidate.flops / 1e6:>7.1f}  {candidate.architecture}"


def left_out(ranking: Ranking) -> list[str]:
    """The candidates beyond the table, and those that failed."""
    lines = []
    if len(ranking.candidates) > TOP:
        lines.append(f"{len(ranking.candidates) - TOP} more candidates are in the files")
    lines.append(f"looked at {ranking.plan.describe()}")
    failed = [one for one in ranking.candidates if one.score is None]
    lines += [f"failed: {one.architecture}: {one.error}" for one in failed[:TOP]]
    if len(failed) > TOP:
        lines.append(f"{len(failed) - TOP} more failed, see the files")
    if ranking.dead:
        lines.append(f"{ranking.dead} candidates are dead: they ended at chance level")
    return lines


def percent(accuracy: float | None) -> str:
    return "-" if accuracy is None else f"{100 * accuracy:.1f}"


def _among(asked: dict[str, Any]) -> tuple[str, ...]:
    """Candidates stratified over the accuracies of a truth table."""
    if not asked.get("among"):
        return ()
    from ftdnas.candidates.truth_table import Columns, read_table, stratified_by_truth
    from search_spaces.base import find_space, parse_architecture

    columns = Columns(asked["truth_architectures"], asked["truth_column"])
    found = read_table(asked["among"], find_space(asked["space"]), columns)
    classes = {name: parse_architecture(name).representative().name for name in found.accuracy}
    wanted = asked["candidates"] or 48
    names: Sequence[str] = stratified_by_truth(found.accuracy, classes, wanted, asked["seed"])
    return tuple(names)
