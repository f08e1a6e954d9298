"""ftdnas search: rank architectures of a space by a proxy."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

from distill.run import duration
from ftdnas.cli.options import command
from ftdnas.cli.progress import progress
from ftdnas.ranking.request import SearchRequest

if TYPE_CHECKING:
    from ftdnas.ranking.table import Ranked, Ranking

TOP = 10


@command(SearchRequest)
def search(request: SearchRequest, as_json: bool) -> None:
    """Rank the architectures of a space by a proxy: by default by training them on a synthetic set.

    Before it starts it says what each way to a choice would cost here. Interrupted, the same command goes on. How far
    to trust the ranking: ftdnas check before, ftdnas truth and ftdnas report after.
    """
    from ftdnas.ranking.run import run_search

    with progress(as_json) as listener:
        ranking = run_search(request, listener)
    click.echo(json.dumps(ranking.to_json()) if as_json else "\n".join(describe(ranking)))


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
