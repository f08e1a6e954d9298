"""A ranking in the terminal: the best guess, how sure it is, what next, and the first places, on one screen."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from distill.run import about, duration
from ftdnas.candidates.screening import Screening
from ftdnas.candidates.truth import Truth
from ftdnas.ranking.table import Ranked, Ranking
from ftdnas.runtime.home import typed
from ftdnas.sets.images import ALONE

UNKNOWN = "Not known yet. Do not take the first one unseen."
LINES, COLUMNS = 20, 80  # of a screen, at most
PLACES = 5  # of the table
MARGIN = 13  # before what is said under a heading
BAR = 12
PROTECTED = "\N{NO-BREAK SPACE}"  # `textwrap` breaks no line at it


def answer(ranking: Ranking, width: int = COLUMNS, truth: Truth | None = None) -> list[str]:
    """At most 20 lines, of at most `width` columns where the words fit.

    `truth`: of the candidates, where there is one.
    """
    width = min(width, COLUMNS)
    head = [*_guess(ranking, width), *said("How sure", sure(ranking, truth), width), *_next(ranking, truth, width)]
    tail = _left_out(ranking, width)
    room = LINES - len(head) - len(tail) - 4  # a blank, the heads, how many more, and what baselines add
    placed = ranking.placed[: max(1, min(PLACES, room))]
    if not placed:
        return [*head, "", *tail]
    more = len(ranking.placed) - len(placed)
    whole = (
        said("", f"{more:,} more: ftdnas studies show {typed(ranking.study)} --all", width, margin=2) if more else []
    )
    return [*head, "", *table(ranking, placed, width), *whole, *tail]


def everything(ranking: Ranking, width: int = COLUMNS, truth: Truth | None = None) -> list[str]:
    """All that is known: every candidate, how it was screened, what was measured before, what it cost."""
    width = min(width, COLUMNS)
    lines = [*_guess(ranking, width), *said("How sure", sure(ranking, truth), width), *_next(ranking, truth, width), ""]
    lines += [*table(ranking, ranking.candidates, width), ""]
    for one in ranking.candidates:
        if one.error:
            lines += said("", f"{ranking.ids[one.architecture]}: {one.error}", width, margin=2)
    lines += said("Looked at", ranking.plan.describe(), width)
    lines += said("Ranked by", ranking.title or ranking.proxy, width)
    if "screening" in ranking.settings:
        lines += said("Screening", Screening.from_json(ranking.settings["screening"]).describe(), width)
    lines += said("Costs", cost(ranking), width)
    for note in ranking.notes:
        lines += said("Note", note, width)
    return lines + said("Files", f"{ranking.folder}: ranking.csv, ranking.json, scores.jsonl", width)


def cost(ranking: Ranking) -> str:
    """What was computed, each training once."""
    parts = ", ".join(f"{name} {duration(seconds)}" for name, seconds in ranking.seconds.items() if seconds)
    return f"{duration(sum(ranking.seconds.values()))} of one process in all{': ' if parts else ''}{parts}"


def sure(ranking: Ranking, truth: Truth | None) -> str:
    """What is known of the ranking: how it turned out, where that is known, else how such rankings did elsewhere."""
    names = [one.architecture for one in ranking.placed]
    tried = [name for name in truth.first(names) if name in truth.readings] if truth is not None else []
    if truth is None or not tried or names[0] not in tried:
        return ranking.sure or UNKNOWN
    best, own = (100 * truth.readings[name].accuracy for name in (tried[0], names[0]))
    place = 1 + sum(truth.readings[name].accuracy > truth.readings[names[0]].accuracy for name in tried)
    read = f"Really trained, it reads {own:.1f} % and is number {place} of {len(tried)}"
    if place > 1:
        read += f"; the best, {ranking.ids[tried[0]]}, reads {best:.1f} %"
    return f"{read}."


def beside(ranking: Ranking) -> str:
    """What is said when the baselines are there too."""
    count = len(ranking.compared)
    return f"{count} other way{'s' * (count != 1)} to rank {'are' if count != 1 else 'is'} beside it in the report"


def table(ranking: Ranking, candidates: Sequence[Ranked], width: int) -> list[str]:
    """Places, ids and weights, with the choices in columns where they fit."""
    places = {one.architecture: place for place, one in enumerate(ranking.placed, start=1)}
    first = [
        ["", *(str(places.get(one.architecture, "-")) for one in candidates)],
        ["id", *(ranking.ids[one.architecture] for one in candidates)],
    ]
    last = [["weights", *(f"{one.parameters:,}" for one in candidates)], ["score", *bars(ranking, candidates)]]
    differing = [
        [name, *(str(one.choices.get(name, "")) for one in candidates)]
        for name in dict.fromkeys(name for one in ranking.candidates for name in one.choices)
        if len({str(one.choices.get(name)) for one in ranking.candidates}) > 1
    ]
    fitting = ([*first, *differing, *last], [*first, *last], [*first, last[0]], first)
    columns = next((columns for columns in fitting if _wide(columns) <= width), first)
    return [_row(cells, columns) for cells in zip(*columns, strict=True)]


def bars(ranking: Ranking, candidates: Sequence[Ranked]) -> list[str]:
    """Scores as bars, from the last of those that have a place to the first; no bar where there is no place."""
    scores = [one.score for one in ranking.placed if one.score is not None]
    low, high = min(scores, default=0.0), max(scores, default=0.0)
    share = {one.architecture: ((one.score or 0.0) - low) / (high - low or 1.0) for one in ranking.placed}
    empty = {one.architecture: "failed" if one.score is None else "learned nothing" for one in candidates}
    return [
        "█" * (1 + round((BAR - 1) * share[name])) if name in share else empty[name]
        for name in (one.architecture for one in candidates)
    ]


def said(heading: str, text: str, width: int, *, lines: int | None = None, margin: int = MARGIN) -> list[str]:
    """A paragraph under its heading, never cut inside a word, nor where a space is protected."""
    wrapped = textwrap.wrap(
        text,
        width,
        initial_indent=heading.ljust(margin),
        subsequent_indent=" " * margin,
        break_long_words=False,
        break_on_hyphens=False,
        max_lines=lines,
        placeholder=" ...",
    )
    return [line.replace(PROTECTED, " ") for line in wrapped]


def choices(candidate: Ranked) -> str:
    """In words: "width 64, depth 3"; the canonical string where the choices are not known."""
    return ", ".join(f"{name}{PROTECTED}{value}" for name, value in candidate.choices.items()) or candidate.architecture


def _guess(ranking: Ranking, width: int) -> list[str]:
    if not ranking.placed:
        return said("Best guess", "none: every candidate failed or learned nothing", width)
    best = ranking.placed[0]
    lines = said("Best guess", f"{ranking.ids[best.architecture]}  {choices(best)}", width, lines=3)
    return lines + said("", f"{best.parameters:,} weights", width)


def _next(ranking: Ranking, truth: Truth | None, width: int) -> list[str]:
    study = ranking.study
    if not ranking.placed:
        return said("Next", f"ftdnas studies show {typed(study)} --all  says why", width)
    first = f"train the first {min(PLACES, len(ranking.placed))}, keep the best"
    trust = (f"ftdnas trust {typed(study)}", f"train all {len(ranking.placed)} for real", "trust")
    report = (f"ftdnas report {typed(study)}", "which network to take", "")
    steps: Sequence[tuple[str, str, str]] = (
        (f"ftdnas finish {typed(study)}", first, "finish"),
        trust if truth is None else report,
    )
    if ranking.settings.get("data") == ALONE:
        steps = [(f"ftdnas finish {typed(study)} --from SERVER", "where the real images are", "")]
    wide = max(len(command) for command, _, _ in steps)
    lines: list[str] = []
    for heading, (command, what, step) in zip(("Next", ""), steps, strict=False):
        seconds = ranking.ahead_s.get(step)
        text = what if seconds is None else f"{what}, {about(seconds)}"
        line = f"{heading:<{MARGIN}}{command:<{wide}}  {text}"
        lines += [line] if len(line) <= width else [f"{heading:<{MARGIN}}{command}", *said("", text, width)]
    return lines


def _left_out(ranking: Ranking, width: int) -> list[str]:
    """Who has no place, in at most four lines."""
    lines: list[str] = []
    if ranking.dead:
        lines += said("", f"{ranking.dead:,} learned nothing and {_have(ranking.dead)} no place", width, margin=2)
    failed = [one for one in ranking.candidates if one.score is None]
    if failed:
        lines += said("", f"{len(failed):,} failed, the first: {failed[0].error}", width, margin=2, lines=2)
    return lines


def _have(count: int) -> str:
    return "has" if count == 1 else "have"


def _wide(columns: Sequence[Sequence[str]]) -> int:
    return sum(max(map(len, column)) + 2 for column in columns)


def _row(cells: Sequence[str], columns: Sequence[Sequence[str]]) -> str:
    aligned = []
    for cell, column in zip(cells, columns, strict=True):
        wide = max(map(len, column))
        number = all(text.replace(",", "").replace(".", "").isdigit() for text in column[1:] if text != "-")
        aligned.append(cell.rjust(wide) if number and column[0] != "id" else cell.ljust(wide))
    return "  ".join(["", *aligned]).rstrip()
