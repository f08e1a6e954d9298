"""What becomes of a job whose process, server or machine did not hold: only what it does itself counts against it."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from ftdnas.runtime.database import Storage, open_storage
from ftdnas.runtime.followed import ORPHANED
from ftdnas.runtime.leases import DatabaseAway
from ftdnas.runtime.trouble import EXIT_CODE
from ftdnas.service import workers
from ftdnas.service.bounds import Bounds
from ftdnas.service.machine import Machine
from ftdnas.service.queue import SCOPE, Job, Queue

FULL = "no space is left on the disk: $FTDNAS_HOME/sets/mine.safetensors"
Play = Callable[..., Job]


@dataclass
class Ended:
    """Stands for a process that ended so."""

    code: int
    said: str = ""
    lost: bool = False
    cancelled: bool = False
    ended_by_itself: bool = True
    log: list[str] = field(default_factory=list)

    trouble = workers._Child.trouble
    reason = workers._Child.reason

    def follow(self, queue: Queue, over: Any) -> None:  # noqa: ARG002
        self.log = [self.said]


@pytest.fixture
def storage() -> Iterator[Storage]:
    with open_storage(patience_s=0.1) as opened:
        yield opened


@pytest.fixture
def play(storage: Storage, monkeypatch: pytest.MonkeyPatch) -> Play:
    """play(ending, ...): a job whose processes end so, one after the other; as it is when that was all."""
    for name in ("LOOK_S", "PAUSE_S", "PARTING_S"):
        monkeypatch.setattr(workers, name, 0.01)

    def run(*endings: Ended) -> Job:
        job, _ = Queue(storage).submit("distill", {})
        left = list(endings)

        def child(*_: object) -> Ended:
            if not left:
                pool._over.set()
                return Ended(0, ended_by_itself=False, lost=True)
            return left.pop(0)

        monkeypatch.setattr(workers, "_Child", child)
        with workers.Workers(storage, None, Bounds(), 1) as pool:
            end = time.monotonic() + 60
            while not (pool._over.is_set() or Queue(storage).get(job.id).over):
                assert time.monotonic() < end, pool.problem
                time.sleep(0.01)
        assert not left
        return Queue(storage).get(job.id)

    return run


def test_a_job_that_takes_its_process_down_three_times_is_over(play: Play) -> None:
    job = play(*[Ended(-signal.SIGKILL)] * 3)
    assert (job.state, job.error) == ("failed", "its process was killed 3 times: see the log, and retry")


def test_what_the_machine_does_counts_for_nothing(play: Play) -> None:
    full = Ended(EXIT_CODE, f"ftdnas: {FULL}")
    job = play(*[full] * 5, Ended(-signal.SIGKILL), *[Ended(ORPHANED)] * 4, Ended(-signal.SIGKILL), full, Ended(0))
    assert (job.state, job.error, job.kills) == ("succeeded", None, 2)


def test_a_job_that_is_wrong_fails_and_says_why(play: Play) -> None:
    job = play(Ended(2, "ftdnas: unknown recipe"))
    assert (job.state, job.error) == ("failed", "unknown recipe")


def test_while_it_waits_a_job_says_what_put_it_back(storage: Storage) -> None:
    queue = Queue(storage)
    job, _ = queue.submit("distill", {})
    with storage.leases(SCOPE) as leases:
        taken = queue.take(leases, set(), "here")
        assert taken is not None
        queue.put_back(taken, FULL)
        assert (queue.get(job.id).state, queue.get(job.id).error) == ("queued", FULL)
        again = queue.take(leases, set(), "here")
        assert again is not None
        assert (again.error, again.kills) == (None, 0)


def test_servers_that_die_count_for_nothing(storage: Storage, play: Play) -> None:
    """Each leaves its job as running; whoever looks next takes it."""
    job, _ = Queue(storage).submit("distill", {})
    for attempt in range(1, 6):
        with storage.leases(SCOPE) as leases:  # of another server
            taken = Queue(storage).take(leases, set(), "there")
            assert taken is not None
            assert (taken.id, taken.attempts) == (job.id, attempt)
    play(Ended(0), Ended(0))
    assert Queue(storage).get(job.id).state == "succeeded"


def test_a_failure_while_the_machine_is_not_well_is_not_the_jobs(play: Play, monkeypatch: pytest.MonkeyPatch) -> None:
    states = iter([[], [FULL], [], [], []])  # before it, after it, and later
    monkeypatch.setattr(Machine, "problems", lambda self: next(states, []))  # noqa: ARG005
    job = play(Ended(2, "ftdnas: no set 'mine': the library is empty"), Ended(0))
    assert (job.state, job.attempts) == ("succeeded", 2)


def test_nothing_is_begun_while_the_machine_is_not_well(storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "LOOK_S", 0.01)
    monkeypatch.setattr(Machine, "problems", lambda self: [FULL])  # noqa: ARG005
    job, _ = Queue(storage).submit("distill", {})
    with workers.Workers(storage, None, Bounds(), 1) as pool:
        end = time.monotonic() + 60
        while pool.problem is None:
            assert time.monotonic() < end
            time.sleep(0.01)
        assert pool.problem == FULL
        time.sleep(0.05)
    assert (Queue(storage).get(job.id).state, Queue(storage).get(job.id).attempts) == ("queued", 0)


def test_what_came_of_a_job_waits_for_the_database(play: Play, monkeypatch: pytest.MonkeyPatch) -> None:
    end, away = Queue.end, [True] * 3

    def ending(self: Queue, *words: Any, **named: Any) -> None:
        if away:
            away.pop()
            raise DatabaseAway("the database does not answer")
        end(self, *words, **named)

    monkeypatch.setattr(Queue, "end", ending)
    assert play(Ended(0)).state == "succeeded"
    assert not away
