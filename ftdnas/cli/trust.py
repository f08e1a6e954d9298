"""ftdnas trust, truth, report, check, advise: how far a ranking can be trusted, and what finding out costs."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from distill.run import Listener, duration
from ftdnas.cli.options import NothingCame, Outcome, command
from ftdnas.ranking.request import AdviseRequest
from ftdnas.report.request import CheckRequest, ReportRequest, TrustRequest, TruthRequest
from ftdnas.runtime.home import read_json

if TYPE_CHECKING:
    from ftdnas.candidates.truth import Truth
    from ftdnas.report.study import Written

SHOWN = 10  # of the best


@command(
    TruthRequest,
    examples=(
        "ftdnas truth first --epochs 10 --seeds 2 --name ten",
        "ftdnas truth --dataset digits --space convnet --sample 24",
    ),
)
def truth(request: TruthRequest, listener: Listener) -> Iterator[Outcome]:
    """Train architectures on all real images: the truth that rankings are held up to.

    One pool of trainings, keyed by architecture, images, recipe and seed: what is there is not done again, whoever
    asks. Interrupted, the same command goes on. Read on validation images that chose nothing; test images stay unread.
    """
    from ftdnas.report.run import run_truth

    name, made = run_truth(request, listener)
    by_seed = [dict(accuracies) for accuracies in made.by_seed]
    told = {"title": made.title, "by_seed": by_seed, "errors": dict(made.errors), "seconds": dict(made.seconds)}
    yield {"name": name, **told}, describe(name, made, request.study)
    if made.errors and all(made.accuracy(candidate) is None for candidate in made.known):
        raise NothingCame(f"no training has a result; the first: {next(iter(made.errors.values()))}")


@command(TrustRequest, examples=("ftdnas trust first", "ftdnas trust first --epochs 10 --seeds 3"))
def trust(request: TrustRequest, listener: Listener) -> tuple[Any, list[str]]:
    """Which network to take, and how far to trust the ranking: truth and report in one.

    Trains the candidates of a STUDY once on all real images, says before how long that takes, and goes on where it was
    interrupted; --seeds 3 trains the first three twice more.
    """
    from ftdnas.report.run import run_trust

    return _told(run_trust(request, listener), request.all)


@command(ReportRequest, examples=("ftdnas report first", "ftdnas report first --truth ten --out by-ten"))
def report(request: ReportRequest, listener: Listener) -> tuple[Any, list[str]]:  # noqa: ARG001
    """Which network to take, and how far a STUDY's ranking can be trusted, beside every baseline.

    Writes report.html (one file, no network), report.csv and report.json.
    """
    from ftdnas.report.run import run_report

    return _told(run_report(request), request.all)


@command(
    CheckRequest,
    examples=(
        "ftdnas check --space convnet --set digits",
        "ftdnas check --space nasbench201 --dataset cifar10 --proxy az_nas",
    ),
)
def check(request: CheckRequest, listener: Listener) -> tuple[Any, list[str]]:
    """Before a search: is the proxy worth it on these images and this space?

    Trains a few candidates for real, shortly, holds the proxy and its baselines up to that, and gives the verdict.
    """
    from ftdnas.report.check import check as run

    checked = run(request, listener)
    told, lines = _told(checked.written, False)
    return told, [*lines, f"  the real trainings were shortened: {checked.truth.title}"]


def _told(written: Written, whole: bool) -> tuple[Any, list[str]]:
    """A report as JSON and as lines; `whole`: with every figure."""
    from ftdnas.report.decision import answer
    from ftdnas.report.terminal import everything

    lines = [*([f"note      {written.changed}"] if written.changed else []), *answer(written)]
    if whole and written.comparison is not None:
        lines += ["", *everything(written.comparison), *(f"note: {note}" for note in written.notes)]
    return read_json(written.page.with_name("report.json"), "make it again"), lines


@command(
    AdviseRequest,
    examples=(
        "ftdnas advise --space convnet --set digits",
        "ftdnas advise --space nasbench201 --dataset cifar10 --candidates 200",
    ),
)
def advise(request: AdviseRequest, listener: Listener) -> tuple[Any, list[str]]:
    """What each way to a choice costs on this device, from a few timed steps: distil and screen, race, train all."""
    from ftdnas.ranking.advice import describe_advice
    from ftdnas.ranking.run import run_advice

    given = run_advice(request, listener)
    return given.to_json(), describe_advice(given)


def percent(accuracy: float | None) -> str:
    return "-" if accuracy is None else f"{100 * accuracy:.1f}"


def describe(name: str, made: Truth, study: str | None) -> list[str]:
    """A truth as lines of text: its best, what failed, what it cost; of a `study`, the command of its report."""
    known = [(accuracy, candidate) for candidate in made.known if (accuracy := made.accuracy(candidate)) is not None]
    return [
        f"truth {name}: {made.title}",
        *(f"  {percent(accuracy):>5}  {candidate}" for accuracy, candidate in sorted(known, reverse=True)[:SHOWN]),
        *(f"failed: {candidate}: {error}" for candidate, error in made.errors.items()),
        f"trained for {duration(sum(made.seconds.values()))} of one process in all",
        f"next      ftdnas report {'STUDY' if study is None else shlex.quote(study)} --truth {shlex.quote(name)}",
    ]
