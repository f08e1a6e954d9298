"""Progress on stderr: live bars on a terminal, plain lines elsewhere, nothing in the way of --json."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from typing import TextIO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn
from rich.progress import Progress as Bars

from distill.run import Listener, Pace, Progress, about, ignore
from ftdnas.runtime.followed import following, json_lines

IDLE = Progress("", 0, 0)  # nothing is going on: bars leave the screen until something does
LINE = 80  # columns of a message, at most
INTERVAL_S = 5.0  # between plain lines, at first; a log of hours gets one a minute


@contextlib.contextmanager
def progress(as_json: bool = False, stream: TextIO | None = None) -> Iterator[Listener]:
    """A listener for a computation's progress; `stream` is stderr unless given."""
    stream = stream or sys.stderr
    if not following() and stream.isatty():
        with _bars(stream) as listener:
            yield listener
        return
    lines = json_lines(stream) if following() else ignore if as_json else PlainLines(stream)
    yield lambda progress: None if progress == IDLE else lines(progress)


class PlainLines:
    """Prints every message, and where the computation stands every few seconds, later every minute."""

    def __init__(self, stream: TextIO, clock: Callable[[], float] = time.monotonic):
        self.stream = stream
        self.clock = clock
        self.started = self.printed = clock()
        self.pace = Pace(clock)

    def __call__(self, progress: Progress) -> None:
        now = self.clock()
        left = _left(self.pace, progress)
        if progress.message:
            line = progress.message
        elif now - self.printed >= max(INTERVAL_S, min(60.0, (now - self.started) / 20)):
            self.printed = now
            line = "  ".join(filter(None, [position(progress), figures(progress), left]))
        else:
            return
        print(line, file=self.stream, flush=True)


def _left(pace: Pace, progress: Progress) -> str:
    """ "2 to 4 min left", once that can be told."""
    seconds = pace.left_s(progress) if progress.total else None
    return "" if seconds is None else f"{about(seconds)} left"


def position(progress: Progress) -> str:
    """ "matching 120/400", or only the stage where its length is not known."""
    return f"{progress.stage} {progress.done:,}/{progress.total:,}" if progress.total else progress.stage


def figures(progress: Progress) -> str:
    """The values of the moment: "matching loss 0.471  step size 0.0204  validation accuracy 46.5 %"."""
    shown = []
    for name, value in progress.values.items():
        text = f"{100 * value:.1f} %" if name.endswith("accuracy") else f"{value:.3g}"
        shown.append(f"{name.replace('_', ' ')} {text}")
    return "  ".join(shown)


@contextlib.contextmanager
def _bars(stream: TextIO) -> Iterator[Listener]:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TextColumn("{task.fields[left]}"),
        TextColumn("{task.fields[figures]}"),
    )
    tasks: dict[str, TaskID] = {}
    pace = Pace()
    # What is printed on stdout goes there, not into the display on stderr.
    with Bars(*columns, console=Console(file=stream), transient=True, redirect_stdout=False) as bars:

        def listener(progress: Progress) -> None:
            if progress == IDLE:
                bars.stop()
                return
            bars.start()
            if progress.message:
                width = min(LINE, bars.console.width)  # wrapped between words
                bars.console.print(progress.message, markup=False, highlight=False, width=width)
            if not progress.total:
                return
            if progress.stage not in tasks:
                tasks[progress.stage] = bars.add_task(
                    progress.stage, total=progress.total, completed=progress.done, figures=figures(progress), left=""
                )
            task, left = tasks[progress.stage], _left(pace, progress)
            if progress.done < bars.tasks[task].completed:
                bars.reset(task, completed=progress.done)  # the stage is gone through once more
            bars.update(task, total=progress.total, completed=progress.done, left=left)
            if progress.values:
                bars.update(task, figures=figures(progress))

        yield listener
