"""A report on one screen: which network to take, what the ranking and the set are worth, what to beware, what next."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from distill.run import duration
from ftdnas.agreement.comparison import Comparison
from ftdnas.agreement.estimates import chance_regret
from ftdnas.report import words
from ftdnas.report.answer import COLUMNS, LINES, MARGIN, said
from ftdnas.report.study import Written
from ftdnas.runtime.home import shown_path, typed

FIRST = (1, 5, 10)  # places of a ranking that are supposed to be trained
MOST_WAYS, LETTERS = 5, 34  # ways to rank in the short table, and of their names


def answer(written: Written) -> list[str]:
    """What to take, what the ranking and the set are worth, what to beware, what next: at most 20 lines of 80."""
    table, comparison, take, study = written.table, written.comparison, written.take, written.study
    if comparison is None or take is None:
        told = paragraph("Take", ["Not known: no candidate was trained for real, or each of them failed."], 2)
        return [*told, *_next([(f"ftdnas trust {typed(study)}", "train them all: which is best?")]), _page(written)]
    told = paragraph("Take", [words.described(table, table.candidates.index(take.name))], 2)
    told += paragraph("", words.take_told(take, table), 3)
    told += paragraph("The ranking", words.ranking_told(comparison, table), 4)
    told += paragraph("The set", words.set_told(comparison), 2)
    told += paragraph("Beware", words.beware_told(table), 2)
    steps = [(f"ftdnas finish {typed(study)}", "train the best, write the winner")]
    if len(take.equal) > 1 and take.seeds[1] == 1 and take.images:
        steps.append((f"ftdnas trust {typed(study)} --seeds 3", "two more seeds of the first three"))
    told += [*_next(steps), _page(written), ""]
    return [*told, *_ways(written, comparison, LINES - len(told))]


def paragraph(heading: str, sentences: Sequence[str], lines: int) -> list[str]:
    """Under its heading as many of the sentences, the first ones first, as so many lines hold; [] for none."""
    kept: list[str] = []
    for sentence in sentences:
        longer = said(heading, " ".join([*kept, sentence]), COLUMNS)
        if len(longer) <= lines or not kept:
            kept.append(sentence)
    return said(heading, " ".join(kept), COLUMNS, lines=lines) if kept else []


def _next(steps: Sequence[tuple[str, str]]) -> list[str]:
    wide = max(len(command) for command, _ in steps)
    lines = []
    for heading, (command, what) in zip(["Next", *[""] * len(steps)], steps, strict=False):
        line = f"{heading:<{MARGIN}}{command:<{wide}}  {what}"
        lines.append(line if len(line) <= COLUMNS else f"{heading:<{MARGIN}}{command}")
    return lines


def _page(written: Written) -> str:
    return f"{'Page':<{MARGIN}}{shown_path(written.page)}"


def _ways(written: Written, comparison: Comparison, room: int) -> list[str]:
    """What the first few of each ranking lose, its Spearman and its cost, in at most so many lines."""
    table = written.table
    ks = [k for k in FIRST if k < comparison.with_truth]
    shown = list(words.worth_showing(comparison))
    rows = [
        (
            textwrap.shorten(line.short or line.title, LETTERS, placeholder="...") + (" (used)" if not place else ""),
            [words.lost_at(k, line, table) for k in ks],
            "-" if line.headline.spearman.value is None else f"{line.headline.spearman.value:.2f}",
            duration(line.seconds + line.overhead_s),
        )
        for place, line in enumerate(shown[: max(1, min(MOST_WAYS, room - 3))])
    ]
    rows.append(("picked blindly", [chance_regret(k, table.truth) for k in ks], "0.00", "0 s"))
    head = "if you train the first ..."
    lines = [f"  {head:<{LETTERS + 7}}" + "".join(f"{k:>6}" for k in ks) + f"{'order':>7}  cost"]
    for name, lost, order, cost in rows:
        points = "".join(f"{'-' if value is None else words.points(value):>6}" for value in lost)
        lines.append(f"  {name:<{LETTERS + 7}}{points}{order:>7}  {cost}")
    more = len(shown) + 1 - len(rows)
    rest = f"; {more} more: ftdnas report {typed(written.study)} --all" if more else ""
    return [*lines, f"  points lost against the best{rest}"]
