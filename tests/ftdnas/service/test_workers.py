"""What becomes of a job whose process, server or machine did not hold: only what it does itself counts against it."""

from __future__ import annotations

import itertools
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


def wait_until(so: Callable[[], bool], pool: workers.Workers) -> None:
    end = time.monotonic() + 60
    while not so():
        assert time.monotonic() < end, pool.problem
        time.sleep(0.01)


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
    _said = workers._Child._said

    def follow(self, queue: Queue, over: Any) -> None:  # noqa: ARG002
        self.log = [self.said]


TROUBLE = Ended(EXIT_CODE, f"ftdnas: {FULL}")


@pytest.fixture
def storage() -> Iterator[Storage]:
    with open_storage(patience_s=0.1) as opened:
        yield opened


@pytest.fixture
def play(storage: Storage, monkeypatch: pytest.MonkeyPatch) -> Play:
    """play(ending, ...): a job whose processes end so, one after the other; as it is when that was all."""
    for name in ("LOOK_S", "PAUSE_S", "HELD_S", "PARTING_S"):
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
            wait_until(lambda: pool._over.is_set() or Queue(storage).get(job.id).over, pool)
        assert not left
        return Queue(storage).get(job.id)

    return run


def test_a_job_that_takes_its_process_down_three_times_is_over(play: Play) -> None:
    job = play(*[Ended(-signal.SIGKILL)] * 3)
    assert (job.state, job.error) == ("failed", "its process was killed (3 times): see the log, and retry")


def test_what_stops_a_job_counts_by_what_it_was(play: Play) -> None:
    job = play(*[TROUBLE] * 2, Ended(-signal.SIGKILL), *[Ended(ORPHANED)] * 4, Ended(-signal.SIGKILL), Ended(0))
    assert (job.state, job.error, job.stops) == ("succeeded", None, {"troubles": 2, "kills": 2})


def test_trouble_that_nobody_else_has_fails_a_job_in_the_end(play: Play) -> None:
    job = play(*[TROUBLE] * 3)
    assert (job.state, job.error) == ("failed", f"{FULL} (3 times): see the log, and retry")


def test_trouble_that_the_machine_has_does_not(play: Play, monkeypatch: pytest.MonkeyPatch) -> None:
    looks = itertools.cycle([[], [FULL]])  # before and after each process
    monkeypatch.setattr(Machine, "problems", lambda self: next(looks))  # noqa: ARG005
    job = play(*[TROUBLE] * 5, Ended(0))
    assert (job.state, job.stops) == ("succeeded", {})


def test_a_job_that_met_trouble_lets_others_go_first(storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LOOK_S", "PAUSE_S"):
        monkeypatch.setattr(workers, name, 0.01)
    queue = Queue(storage)
    (older, _), (newer, _) = queue.submit("distill", {}), queue.submit("distill", {})
    child = lambda told, environment, out, job: TROUBLE if job.id == older.id else Ended(0)  # noqa: ARG005, E731
    monkeypatch.setattr(workers, "_Child", child)
    with workers.Workers(storage, None, Bounds(), 1) as pool:
        wait_until(lambda: queue.get(newer.id).over, pool)
    waits = queue.get(older.id)
    assert (waits.state, waits.error, waits.attempts) == ("queued", FULL, 1)


def test_while_a_job_meets_trouble_the_service_says_which(storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "_Child", lambda *_: TROUBLE)
    Queue(storage).submit("distill", {})
    with workers.Workers(storage, None, Bounds(), 1) as pool:
        wait_until(lambda: pool.problem is not None, pool)
        assert pool.problem == FULL


def test_memory_that_runs_out_and_takes_the_server_too_counts(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers, "PARTING_S", 0.01)
    job, _ = Queue(storage).submit("distill", {})
    for code in (-signal.SIGKILL, -signal.SIGTERM):  # the second is what a machine that shuts down does

        def child(*_: object, code: int = code) -> Ended:
            pool._over.set()
            return Ended(code)

        monkeypatch.setattr(workers, "_Child", child)
        with workers.Workers(storage, None, Bounds(), 1) as pool:
            wait_until(pool._over.is_set, pool)
        assert (Queue(storage).get(job.id).state, Queue(storage).get(job.id).stops) == ("queued", {"kills": 1})


def test_a_job_that_is_wrong_fails_and_says_why(play: Play) -> None:
    job = play(Ended(2, "ftdnas: unknown recipe"))
    assert (job.state, job.error) == ("failed", "unknown recipe")


def test_while_it_waits_a_job_says_what_put_it_back(storage: Storage) -> None:
    queue = Queue(storage)
    job, _ = queue.submit("distill", {})
    with storage.leases(SCOPE) as leases:
        taken = queue.take(leases, set(), "here")
        assert taken is not None
        queue.note(taken, {"done": 1, "total": 2, "left_s": 7.0}, [])
        queue.put_back(taken, FULL)
        assert queue.get(job.id).progress == {"done": 1, "total": 2}
        assert (queue.get(job.id).state, queue.get(job.id).error) == ("queued", FULL)
        again = queue.take(leases, set(), "here")
        assert again is not None
        assert (again.error, again.stops) == (None, {})


@pytest.mark.parametrize(("dead", "state"), [(5, "succeeded"), (10, "failed")])
def test_servers_that_die_count_for_little(storage: Storage, play: Play, dead: int, state: str) -> None:
    """Each leaves its job as running; whoever looks next takes it."""
    job, _ = Queue(storage).submit("distill", {})
    for attempt in range(1, dead + 1):
        with storage.leases(SCOPE) as leases:  # of another server
            taken = Queue(storage).take(leases, set(), "there")
            assert taken is not None
            assert (taken.id, taken.attempts) == (job.id, attempt)
    play(*[Ended(0)] * (1 if state == "failed" else 2))
    assert Queue(storage).get(job.id).state == state


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
        wait_until(lambda: pool.problem is not None, pool)
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
