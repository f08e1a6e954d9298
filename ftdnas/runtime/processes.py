"""Many independent pieces of work in local processes."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection, wait
from typing import Any, Generic, Protocol, Self, TypeVar

from ftdnas.runtime.trouble import MachineTrouble, trouble
from search_spaces.messages import FOREIGN, one_line

Context = TypeVar("Context")
Held = TypeVar("Held", covariant=True)
Result = TypeVar("Result")

ATTEMPTS = 2  # work that takes its process down, or its memory, is tried once more: it may have been short for a moment
STILLBORN = 3  # processes in a row that end before they can begin: then it is not the work
TRAINING = ("ftdnas.candidates.training",)  # a name, not an import: this module and its likes know no torch
IDLE_S = 0.2  # between two looks for work, where there is none right now


@dataclass(frozen=True)
class Failure:
    """Why a piece of work has no result, and the `seconds` that were spent on it.

    `crashed`: its process ended, which another machine might not see. `exhausted`: memory ran out, but it lives.
    `trouble`: of the machine, a full disk say.
    """

    error: str
    crashed: bool = False
    seconds: float = field(default=0.0, compare=False)
    exhausted: bool = field(default=False, compare=False)
    trouble: bool = field(default=False, compare=False)


@dataclass(frozen=True)
class Unprepared:
    """The context could not be made, so no work can be done."""

    error: str


@dataclass(frozen=True)
class Ready:
    """The context is there: work begins."""


class Executor(Protocol[Held]):
    """What does pieces of work side by side, each a picklable callable of the context that every process holds."""

    def map(
        self, works: Iterable[Callable[[Held], Result] | None], limit_s: float | None = None
    ) -> Iterator[tuple[int, Result | Failure]]:
        """(index, outcome) of every piece of work, as they finish; started in the order given.

        `works` is read when a process is free, and after the outcomes so far have been taken: it may depend on them.
        None in it means that there is nothing right now: it is asked again soon, and not counted. A piece of work that
        takes longer than `limit_s` seconds is ended and is a Failure, as is one that raises. Raises RuntimeError where
        the context cannot be made, and MachineTrouble where the machine fails a work: that is no fact about the work.
        """
        ...


@dataclass(frozen=True, eq=False)
class Task:
    """A piece of work, its number and which attempt at it this is."""

    index: int
    work: Callable[[Any], Any]
    attempt: int = 1


class Tasks:
    """The pieces of work, pulled one by one; those to be tried again come first."""

    def __init__(self, works: Iterable[Callable[[Any], Any] | None]) -> None:
        self._source = iter(works)
        self._again: deque[Task] = deque()
        self._count = 0
        self._ended = False

    @property
    def over(self) -> bool:
        return self._ended and not self._again

    def pull(self) -> Task | None:
        """The next one; None where there is none right now, or never again."""
        if self._again:
            return self._again.popleft()
        for work in self._source:
            if work is None:
                return None
            self._count += 1
            return Task(self._count - 1, work)
        self._ended = True
        return None

    def settle(self, task: Task, outcome: Any, seconds: float) -> Iterator[tuple[int, Any]]:
        """The number of the task and what came of it; nothing where it goes back, to be tried again.

        Raises MachineTrouble where it met that.
        """
        if isinstance(outcome, Failure):
            if outcome.trouble:
                raise MachineTrouble(outcome.error)
            if (outcome.crashed or outcome.exhausted) and task.attempt < ATTEMPTS:
                self._again.append(replace(task, attempt=task.attempt + 1))
                return
            outcome = replace(outcome, seconds=seconds)
        yield task.index, outcome


class Slot:
    """One process that does one piece of work at a time, seen from here. `ready`: it holds the context.

    `waits_for`: what can be waited for, until `take` has something.
    """

    waits_for: Any

    def __init__(self) -> None:
        self.task: Task | None = None
        self.ready = False
        self.alive = True
        self._begun = 0.0

    def give(self, task: Task) -> None:
        raise NotImplementedError

    def take(self) -> Any:
        """What has come: that it is Ready, or Unprepared, or the outcome of its work."""
        raise NotImplementedError

    def stop(self, *, at_once: bool = False) -> None:
        raise NotImplementedError

    def seconds(self) -> float:
        """Since its work, or its start, began."""
        return time.monotonic() - self._begun

    def rest(self) -> tuple[Task, float]:
        """The task that it no longer has, and how long it had it."""
        assert self.task is not None
        task, self.task = self.task, None
        return task, self.seconds()


Kind = TypeVar("Kind", bound=Slot)


class Slots(Generic[Context, Kind]):
    """The loop of an Executor over processes of one kind, which are started when there is work for them."""

    called: str  # of the processes, in errors

    def __init__(self, jobs: int | None) -> None:
        if jobs is not None and jobs < 1:
            raise ValueError(f"{jobs} jobs: at least one process must do the work")
        self._jobs = jobs
        self._slots: list[Kind] = []
        self._stillborn = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        for slot in self._slots:
            slot.stop()
        self._slots.clear()

    @property
    def jobs(self) -> int:
        """How many pieces of work are done at once."""
        assert self._jobs is not None
        return self._jobs

    def map(
        self, works: Iterable[Callable[[Context], Result] | None], limit_s: float | None = None
    ) -> Iterator[tuple[int, Result | Failure]]:
        """See Executor."""
        tasks = Tasks(works)
        while True:
            while self._busy() < self.jobs and (task := tasks.pull()) is not None:
                free = next((slot for slot in self._slots if slot.task is None), None)
                if free is None:
                    free = self._started()
                    self._slots.append(free)
                free.give(task)
            if not self._busy():
                if tasks.over:
                    return
                time.sleep(IDLE_S)
                continue
            for slot, outcome in self._outcomes(limit_s, look_again=not tasks.over and self._busy() < self.jobs):
                task, seconds = slot.rest()
                if not slot.alive:
                    self._slots.remove(slot)
                yield from tasks.settle(task, outcome, seconds)

    def _busy(self) -> int:
        return sum(slot.task is not None for slot in self._slots)

    def _started(self) -> Kind:
        """A new one."""
        raise NotImplementedError

    def _wait(self, handles: list[Any], timeout_s: float | None) -> Iterable[Any]:
        """Those of what slots wait for that have come, at least one or after so long none; None waits for ever."""
        raise NotImplementedError

    def _outcomes(self, limit_s: float | None, *, look_again: bool) -> list[tuple[Kind, Any]]:
        """Of the busy ones, those that are done or out of time; perhaps none."""
        busy = {slot.waits_for: slot for slot in self._slots if slot.task is not None}
        timeouts = [] if limit_s is None else [limit_s - slot.seconds() for slot in busy.values() if slot.ready]
        timeouts += [IDLE_S] if look_again else []
        done: list[tuple[Kind, Any]] = []
        for handle in self._wait(list(busy), max(0.0, min(timeouts)) if timeouts else None):
            slot = busy.pop(handle)
            was_ready, received = slot.ready, slot.take()
            if isinstance(received, Unprepared):
                raise RuntimeError(f"the {self.called} could not be prepared: {received.error}")
            if isinstance(received, Ready):
                self._stillborn = 0
                continue
            self._stillborn += not was_ready
            if self._stillborn >= STILLBORN:
                raise RuntimeError(f"{self.called} end before they can begin: {received.error}")
            if isinstance(received, Failure) and received.exhausted:
                slot.stop()  # what it still holds of the memory goes with it
            done.append((slot, received))
        for slot in busy.values():
            if limit_s is not None and slot.ready and slot.seconds() >= limit_s:
                slot.stop(at_once=True)
                done.append((slot, Failure(f"took longer than {limit_s:g} s")))
        return done


class _Worker(Slot):
    """The parent's side of one process."""

    def __init__(self, prepare: Callable[[], Any], gpu: str | None, preload: Sequence[str]) -> None:
        super().__init__()
        self.gpu = gpu
        environment = {**os.environ, **({} if gpu is None else {"CUDA_VISIBLE_DEVICES": gpu})}
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(list(preload))
        self.waits_for, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, prepare, environment), daemon=True)
        self._process.start()
        theirs.close()

    def give(self, task: Task) -> None:
        self.task, self._begun = task, time.monotonic()
        with contextlib.suppress(BrokenPipeError):  # where the process has ended, `take` says how
            self.waits_for.send(task.work)

    def take(self) -> Any:
        try:
            received = self.waits_for.recv()
        except (EOFError, ConnectionResetError):
            self.alive = False
            self._process.join()
            code = self._process.exitcode or 0
            how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
            hint = " (out of memory?)" if code == -signal.SIGKILL else ""
            return Failure(f"its process {how}{hint}", crashed=True)
        if isinstance(received, Ready):
            self.ready, self._begun = True, time.monotonic()
        return received

    def stop(self, *, at_once: bool = False) -> None:
        self.alive = False
        if not at_once:
            self._process.terminate()
            self._process.join(5)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()
        self.waits_for.close()


class LocalProcesses(Slots[Context, _Worker]):
    """Long-lived worker processes that share nothing but what `prepare` reads: an Executor.

    `lay_out` is called once, when there is work, and gives the picklable `prepare`. Every process is forked from a
    server that has only imported what they need, holds the context that `prepare` returns there, and does one piece of
    work at a time; it sees one of the `gpus`, if any, that with the fewest others. A process that ends, takes too long
    or runs out of memory is replaced. Processes end with the block, and with the one that started them, however that
    ends; Ctrl-C is left to it. `preload`: the modules that the server imports, by default what candidates are trained
    with, torch too. Python keeps one server for this process: what the first executor with work asks for stays.
    """

    called = "worker processes"

    def __init__(
        self,
        lay_out: Callable[[], Callable[[], Context]],
        jobs: int,
        gpus: Sequence[str] = (),
        *,
        preload: Sequence[str] = TRAINING,
    ) -> None:
        super().__init__(jobs)
        self._gpus = gpus
        self._preload = preload
        self._lay_out = lay_out
        self._prepare: Callable[[], Context] | None = None

    def _started(self) -> _Worker:
        self._prepare = self._prepare or self._lay_out()
        taken = Counter(worker.gpu for worker in self._slots)
        return _Worker(self._prepare, min(self._gpus, key=lambda gpu: taken[gpu], default=None), self._preload)

    def _wait(self, handles: list[Any], timeout_s: float | None) -> Iterable[Any]:
        return wait(handles, timeout_s)


def _serve(connection: Connection, prepare: Callable[[], Any], environment: Mapping[str, str]) -> None:
    """A worker process: its life is to receive work and send outcomes."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    os.environ.clear()  # what the server was started with may be another
    os.environ.update(environment)
    with contextlib.suppress(OSError):
        os.dup2(2, 1)  # what a network prints is no answer of the command's
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group: the parent decides what ends
    try:
        context = prepare()
    except FOREIGN as error:
        _answer(connection, Unprepared(one_line(error)))
        return
    _answer(connection, Ready())
    while True:
        try:
            work = connection.recv()
        except (EOFError, ConnectionResetError):
            return
        if not _answer(connection, outcome_of(work, context)):
            return


def outcome_of(work: Callable[[Any], Any], context: Any) -> Any:
    """The result of the work, or why there is none: whatever a network does is a fact about that network."""
    try:
        return work(context)
    except FOREIGN as error:
        text = one_line(error)
        # torch has an exception of its own for a GPU's memory, and none for the machine's.
        exhausted = isinstance(error, MemoryError) or "out of memory" in text or "can't allocate memory" in text
        if (why := trouble(error)) is not None:
            return Failure(why, trouble=True)
        return Failure(f"ran out of memory: {text}" if exhausted else text, exhausted=exhausted)


def _answer(connection: Connection, outcome: Any) -> bool:
    try:
        connection.send(outcome)
    except BrokenPipeError:
        return False
    except Exception as error:  # it cannot be sent, and nothing of it was
        connection.send(Failure(one_line(error)))
    return True


def _end_with_parent() -> None:
    """End this process with the one that asked for it, even in the middle of a long training."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
