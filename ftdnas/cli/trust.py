"""ftdnas truth, report, check, advise: how far a ranking can be trusted, and what finding out costs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from distill.run import Listener, duration
from ftdnas.cli.options import command
from ftdnas.cli.search import percent
from ftdnas.ranking.request import AdviseRequest
from ftdnas.report.request import CheckRequest, ReportRequest, TruthRequest
from ftdnas.runtime.home import read_json

if TYPE_CHECKING:
    from ftdnas.candidates.truth import Truth

SHOWN = 10  # of the best


@command(TruthRequest)
def truth(request: TruthRequest, listener: Listener) -> tuple[Any, list[str]]:
    """Train architectures on all real images: the truth that rankings are held up to.

    One pool of trainings, keyed by architecture, images, recipe and seed: what is there is not done again, whoever
    asks. Interrupted, the same command goes on. Read on validation images that chose nothing; test images stay unread.
    """
    from ftdnas.report.run import run_truth

    name, made = run_truth(request, listener)
    by_seed = [dict(accuracies) for accuracies in made.by_seed]
    told = {"title": made.title, "by_seed": by_seed, "errors": dict(made.errors), "seconds": dict(made.seconds)}
    return {"name": name, **told}, describe(name, made)


@command(ReportRequest)
def report(request: ReportRequest, listener: Listener) -> tuple[Any, list[str]]:  # noqa: ARG001
    """How far a study's ranking can be trusted: the verdict, every baseline on the same candidates, what it cost.

    Writes report.html (one file, no network), report.csv and report.json.
    """
    from ftdnas.report.page import UNKNOWN
    from ftdnas.report.run import run_report
    from ftdnas.report.terminal import lines

    page, comparison = run_report(request)
    told = read_json(page.with_name("report.json"), "make it again")
    verdict = lines(comparison) if comparison is not None else [UNKNOWN]
    return told, [*verdict, *(f"note: {note}" for note in told["notes"]), f"look at   {page}"]


@command(CheckRequest)
def check(request: CheckRequest, listener: Listener) -> tuple[Any, list[str]]:
    """Before a search: is the proxy worth it on these images and this space?

    Trains a few candidates for real, shortly, holds the proxy and its baselines up to that, and gives the verdict.
    """
    from ftdnas.report.check import check as run
    from ftdnas.report.terminal import lines

    checked = run(request, listener)
    shortened = f"the real trainings were shortened: {checked.truth.title}"
    told = read_json(checked.page.with_name("report.json"), "make it again")
    return told, [*lines(checked.comparison), shortened, f"look at   {checked.page}"]


@command(AdviseRequest)
def advise(request: AdviseRequest, listener: Listener) -> tuple[Any, list[str]]:
    """What each way to a choice costs on this device, from a few timed steps: distil and screen, race, train all."""
    from ftdnas.ranking.advice import describe_advice
    from ftdnas.ranking.run import run_advice

    given = run_advice(request, listener)
    return given.to_json(), describe_advice(given)


def describe(name: str, made: Truth) -> list[str]:
    """A truth as lines of text: its best, what failed, what it cost."""
    known = [(accuracy, candidate) for candidate in made.known if (accuracy := made.accuracy(candidate)) is not None]
    return [
        f"truth {name}: {made.title}",
        *(f"  {percent(accuracy):>5}  {candidate}" for accuracy, candidate in sorted(known, reverse=True)[:SHOWN]),
        *(f"failed: {candidate}: {error}" for candidate, error in made.errors.items()),
        f"trained for {duration(sum(made.seconds.values()))} of one process in all",
        f"next      ftdnas report STUDY --truth {name}",
    ]
