"""ftdnas search: rank architectures of a space by a proxy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from distill.run import Listener, duration
from ftdnas.cli.options import command
from ftdnas.ranking.request import SearchRequest

if TYPE_CHECKING:
    from ftdnas.ranking.table import Ranked, Ranking

TOP = 10


@command(SearchRequest)
def search(request: SearchRequest, listener: Listener) -> tuple[Any, list[str]]:
    """Rank the architectures of a space by a proxy: by default by training them on a synthetic set.

    Before it starts it says what each way to a choice would cost here. Interrupted, the same command goes on. How far
    to trust the ranking: ftdnas check before, ftdnas truth and ftdnas report after.
    """
    from ftdnas.ranking.run import run_search

    ranking = run_search(request, listener)
    return ranking.to_json(), describe(ranking)


def describe(ranking: Ranking) -> list[str]:
    """The outcome as lines of text: what speaks against trusting it first, then the table, then the rest."""
    study, total = ranking.study, duration(sum(ranking.seconds.values()))
    parts = ", ".join(f"{name} {seconds:.0f}" for name, seconds in ranking.seconds.items())
    return [
        "",
        "How far this ranking can be trusted is not known yet (the last line says how to find out).",
        "",
        f"{'rank':>4}  {'score':>8}  {'accuracy':>8}  {'loss':>7}  {'weights':>10}  {'MFLOPs':>7}  architecture",
        *(row(place, ranked) for place, ranked in enumerate(ranking.candidates[:TOP], start=1)),
        "",
        *left_out(ranking),
        *(f"note: {note}" for note in ranking.notes),
        f"computed for {total} of one process in all; seconds: {parts}",
        f"study {study}: {ranking.folder / 'ranking.csv'}, ranking.json and scores.jsonl",
        f"finish    ftdnas finish {study} --top 5",
        f"trust     ftdnas truth --study {study} --name T && ftdnas report {study} --truth T",
    ]


def row(place: int, candidate: Ranked) -> str:
    """A candidate of the table; its accuracy in percent."""
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
