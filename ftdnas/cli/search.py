"""ftdnas search: rank architectures with a synthetic set, and say how far to trust the ranking."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from ftdnas.cli.options import data_options, json_option, machine_options, seed_option
from ftdnas.cli.progress import duration, progress
from ftdnas.library import Library, home
from ftdnas.real_images import Source, images_of

if TYPE_CHECKING:
    from ftdnas.ranking import Ranked, Ranking

TOP = 10


@click.command()
@click.option("--space", default="convnet", show_default=True, help="The search space.")
@click.option("--set", "set_name", metavar="NAME|FILE", help="The synthetic set (default: the newest in the library).")
@click.option("--candidates", type=click.IntRange(2), metavar="N", help="How many (default: as many as fit --minutes).")
@click.option("--minutes", type=click.FloatRange(0, min_open=True), help="For all trainings (default: 30 on a CPU).")
@click.option("--widths", metavar="W,W", help="Short for --where width=W,W.")
@click.option("--where", multiple=True, metavar="KEY=VALUE,VALUE", help="Only these choices of the space; repeatable.")
@click.option("--epochs", type=click.IntRange(1), help="On the set (default: as the set is judged, 200 at most).")
@click.option("--truth-epochs", type=click.IntRange(1), metavar="E", help="Train on all real images too, and compare.")
@click.option("--random-draws", type=click.IntRange(0), help="Random subsets to compare with (default: 2 on a CPU).")
@click.option("--study", metavar="NAME", help="Name of the study (default: made of set, space and settings).")
@click.option("--jobs", type=click.IntRange(1), help="Processes, of one thread each (default: --threads).")
@seed_option
@machine_options
@data_options()
@json_option
def search(
    source: Source,
    set_name: str | None,
    widths: str | None,
    where: Sequence[str],
    jobs: int | None,
    threads: int | None,
    as_json: bool,
    **asked: Any,
) -> None:
    """Rank the architectures of a space by what they reach after training on a synthetic set.

    Stratified candidates are trained on the set and scored on validation images that chose nothing before. With
    --truth-epochs they are trained on all real images too, and the ranking is compared with that truth, beside the
    parameter count and random subsets of real images of the set's size. Interrupted, the same command goes on.
    """
    from ftdnas.search import Request, choose_set
    from ftdnas.search import search as run

    name, synthetic = choose_set(Library(home() / "sets"), set_name, source.spec)
    request = Request(where=(*where, *([f"width={widths}"] if widths else [])), jobs=jobs or threads, **asked)
    with progress(as_json) as report:
        ranking = run(request, synthetic, name, images_of(synthetic, source, report), report)
    click.echo(json.dumps(ranking.to_json()) if as_json else "\n".join(describe(ranking)))


def describe(ranking: Ranking) -> list[str]:
    """The outcome as lines of text: what speaks against trusting it first, then the table, then the rest."""
    lines = [""]
    if ranking.comparison:
        from ftdnas.report.terminal import lines as told

        lines += [*told(ranking.comparison), ""]
    else:
        lines += [
            "How far this ranking can be trusted is not known: --truth-epochs 5, say, compares it with the truth.",
            "",
        ]
    lines += [*table(ranking), ""]
    lines += left_out(ranking)
    lines += [f"note: {note}" for note in ranking.notes]
    total = sum(ranking.seconds.values())
    parts = ", ".join(f"{stage} {seconds:.0f}" for stage, seconds in ranking.seconds.items())
    lines.append(f"computed for {duration(total)} of one process in all; seconds: {parts}")
    lines.append(
        f"study {ranking.study}: {ranking.folder / 'ranking.csv'} and ranking.json, Optuna {home() / 'studies.db'}"
    )
    return lines


def table(ranking: Ranking) -> list[str]:
    """The best candidates, one a line; accuracies in percent."""
    head = f"{'rank':>4}  {'score':>6}  {'loss':>7}  {'truth':>6}  {'weights':>10}  architecture"
    return [head, *(row(place, one) for place, one in enumerate(ranking.candidates[:TOP], start=1))]


def row(place: int, candidate: Ranked) -> str:
    loss = "-" if candidate.late_loss is None else f"{candidate.late_loss:.4f}"
    numbers = f"{place:>4}  {percent(candidate.score):>6}  {loss:>7}  {percent(candidate.truth):>6}"
    return f"{numbers}  {candidate.parameters:>10,}  {candidate.architecture}"


def left_out(ranking: Ranking) -> list[str]:
    """The candidates beyond the table, those that failed and those that were never tried."""
    plan, lines = ranking.plan, []
    if len(ranking.candidates) > TOP:
        lines.append(f"{len(ranking.candidates) - TOP} more candidates are in the files")
    lines.append(f"looked at {len(plan.candidates)} of {plan.feasible} feasible architectures: {plan.why}")
    if plan.infeasible:
        lines.append(f"left out: {plan.infeasible} architectures that images of this size cannot go through")
    failed = [(one.architecture, one.error) for one in ranking.candidates if one.error]
    failed += [(f"{one.architecture} (truth)", one.truth_error) for one in ranking.candidates if one.truth_error]
    return lines + [f"failed: {name}: {error}" for name, error in failed]


def percent(accuracy: float | None) -> str:
    return "-" if accuracy is None else f"{100 * accuracy:.1f}"
