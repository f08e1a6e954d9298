"""Many independent pieces of work in local processes."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from types import TracebackType
from typing import Any, Generic, TypeVar

Context = TypeVar("Context")
Result = TypeVar("Result")

ATTEMPTS = 2  # a piece of work that takes its process down is tried once more: memory may have been short for a moment


@dataclass(frozen=True)
class Failure:
    """Why a piece of work has no result. `crashed`: its process ended, which another machine might not see."""

    error: str
    crashed: bool = False


@dataclass(frozen=True)
class Unprepared:
    """The context could not be made, so no work can be done."""

    error: str


class LocalProcesses(Generic[Context]):
    """Long-lived worker processes that share nothing but what `prepare` reads.

    `lay_out` is called once, when there is work, and gives the picklable `prepare`. Every process is spawned, holds the
    context that `prepare` returns there, and does one piece of work at a time: a picklable callable of the context.
    Processes end with the block, and with the one that started them, however that ends; Ctrl-C is left to it.
    """

    def __init__(self, lay_out: Callable[[], Callable[[], Context]], jobs: int) -> None:
        if jobs < 1:
            raise ValueError(f"{jobs} jobs: at least one process must do the work")
        self._lay_out = lay_out
        self._prepare: Callable[[], Context] | None = None
        self._jobs = jobs
        self._workers: list[_Worker] = []

    def __enter__(self) -> LocalProcesses[Context]:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for worker in self._workers:
            worker.stop()
        self._workers.clear()

    def map(self, works: Sequence[Callable[[Context], Result]]) -> Iterator[tuple[int, Result | Failure]]:
        """(index, outcome) of every piece of work, as they finish; started in the order given.

        An exception in a piece of work is its Failure. Raises RuntimeError where the context cannot be made.
        """
        waiting = deque(enumerate(works))
        attempts = [0] * len(works)
        while waiting or any(worker.index is not None for worker in self._workers):
            self._workers = [worker for worker in self._workers if worker.alive]
            while len(self._workers) < min(self._jobs, len(waiting) + self._busy()):
                self._prepare = self._prepare or self._lay_out()
                self._workers.append(_Worker(self._prepare))
            for worker in self._workers:
                if worker.index is None and waiting:
                    index, work = waiting.popleft()
                    attempts[index] += 1
                    worker.give(index, work)
            busy = {worker.connection: worker for worker in self._workers if worker.index is not None}
            for ready in wait(list(busy)):
                worker = busy[ready]  # type: ignore[index]
                index, outcome = worker.take()
                if isinstance(outcome, Failure) and outcome.crashed and attempts[index] < ATTEMPTS:
                    waiting.appendleft((index, works[index]))
                else:
                    yield index, outcome

    def _busy(self) -> int:
        return sum(worker.index is not None for worker in self._workers)


class _Worker:
    """The parent's side of one process."""

    def __init__(self, prepare: Callable[[], Any]) -> None:
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.index: int | None = None
        self.alive = True
        self._process = context.Process(target=_serve, args=(theirs, prepare, os.getpid()), daemon=True)
        self._process.start()
        theirs.close()

    def give(self, index: int, work: Callable[[Any], Any]) -> None:
        self.index = index
        with contextlib.suppress(BrokenPipeError):  # where the process has ended, `take` says how
            self.connection.send(work)

    def take(self) -> tuple[int, Any]:
        """The index of the piece of work that was given, and its outcome."""
        assert self.index is not None
        index, self.index = self.index, None
        try:
            outcome = self.connection.recv()
        except (EOFError, ConnectionResetError):
            self.alive = False
            self._process.join()
            code = self._process.exitcode or 0
            how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
            hint = " (out of memory?)" if code == -signal.SIGKILL else ""
            return index, Failure(f"its process {how}{hint}", crashed=True)
        if isinstance(outcome, Unprepared):
            raise RuntimeError(f"the worker processes could not be prepared: {outcome.error}")
        return index, outcome

    def stop(self) -> None:
        self._process.terminate()
        self._process.join(5)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()
        self.connection.close()


def _serve(connection: Connection, prepare: Callable[[], Any], parent: int) -> None:
    """A worker process: its life is to receive work and send outcomes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group: the parent decides what ends
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    try:
        context = prepare()
    except Exception as error:
        _answer(connection, Unprepared(_line(error)))
        return
    while True:
        try:
            work = connection.recv()
        except (EOFError, ConnectionResetError):
            return
        try:
            outcome = work(context)
        except Exception as error:  # whatever a network does is a fact about that network
            outcome = Failure(_line(error))
        if not _answer(connection, outcome):
            return


def _answer(connection: Connection, outcome: Any) -> bool:
    try:
        connection.send(outcome)
    except BrokenPipeError:
        return False
    return True


def _line(error: Exception) -> str:
    text = str(error).strip()
    return f"{type(error).__name__}: {text.splitlines()[0]}" if text else type(error).__name__


def _end_with(parent: int) -> None:
    """End this process soon after its parent, even in the middle of a long training."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)
