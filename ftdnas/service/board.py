"""What is going on, for everybody who watches: read from the database at most twice a second however many there are."""

from __future__ import annotations

import heapq
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from ftdnas.runtime.leases import DatabaseAway
from ftdnas.service.queue import Job, Queue

FRESH_S = 0.5
USUAL_S = 30.0  # between two looks at how long jobs take
KEPT = 500  # jobs that are over
SHOWN = 100  # open jobs that are told at once


@dataclass(frozen=True)
class Seen:
    """All open jobs by their ids, the oldest first, as they were at one moment."""

    jobs: Mapping[str, Job] = field(default_factory=dict)
    starts: Mapping[str, float | None] = field(default_factory=dict)  # of those that wait, in so many seconds
    told: list[dict[str, Any]] = field(default_factory=list)  # the first ones as JSON; the same list while it is equal


class Board:
    """Jobs as JSON. `workers`: how many jobs run at once here, for the expected starts.

    While one thread asks the database the others are told what was seen last; where it stays away every method raises
    `DatabaseAway`.
    """

    def __init__(self, queue: Queue, workers: int) -> None:
        self._queue, self._workers = queue, workers
        self._asking = threading.Lock()
        self._seen: Seen | None = None
        self._read_at = 0.0
        self._away: DatabaseAway | None = None
        self._usual: Mapping[str, float] = {}
        self._usual_at = -USUAL_S
        self._over: dict[str, Job] = {}

    def job(self, identity: str) -> Job:
        """As it was at most half a second ago. Raises LookupError for an id that nobody has."""
        found = self.seen().jobs.get(identity) or self._over.get(identity)
        if found is None:
            found = self._queue.get(identity)
            if found.over:
                if len(self._over) > KEPT:
                    self._over.clear()
                self._over[identity] = found
        return found

    def forget(self) -> None:
        """Something was changed here: read anew."""
        self._read_at = 0.0
        self._over.clear()

    def seen(self) -> Seen:
        """The open jobs, as they were at most half a second ago."""
        fresh = time.monotonic() - self._read_at < FRESH_S
        if not fresh and self._asking.acquire(blocking=self._seen is None):
            try:
                if time.monotonic() - self._read_at >= FRESH_S:  # nobody did while this one waited
                    self._look()
            finally:
                self._asking.release()
        if self._away is not None:
            raise DatabaseAway(*self._away.args)
        assert self._seen is not None
        return self._seen

    def _look(self) -> None:
        try:
            jobs = self._queue.waiting()
            if time.monotonic() - self._usual_at > USUAL_S:
                self._usual, self._usual_at = self._queue.usual_s(), time.monotonic()
        except DatabaseAway as error:
            self._away = error
        else:
            starts = expected_starts(jobs, self._usual, self._workers)
            last = self._seen.told if self._seen else []
            seen = Seen({job.id: job for job in jobs}, starts)
            told = [self.told(job, seen=seen) for job in jobs[:SHOWN]]
            self._seen = replace(seen, told=last if told == last else told)
            self._away = None
        self._read_at = time.monotonic()

    def told(self, job: Job, *, whole: bool = False, seen: Seen | None = None) -> dict[str, Any]:
        """A job as JSON, with its place and expected start where it waits; by what was seen last, unless `seen`."""
        seen = seen or self._seen
        found = asdict(job)
        found["cancelling"] = found.pop("cancel") and not job.over
        if total := job.progress.get("total"):
            found["progress"]["fraction"] = min(1.0, job.progress["done"] / total)
        del found["worker"]
        output, log = found.pop("output"), found.pop("log")
        if job.state == "queued" and seen is not None:
            jobs, starts = seen.jobs, seen.starts
            before = len(jobs) - len(starts) + list(starts).index(job.id) if job.id in starts else len(jobs)
            found |= {"before": before, "starts_in_s": starts.get(job.id)}
        return {**found, "output": output, "log": log.splitlines()} if whole else found


def expected_starts(jobs: Sequence[Job], usual: Mapping[str, float], workers: int) -> dict[str, float | None]:
    """Of those that wait, in seconds; None where nobody can know.

    `jobs`: all open ones, the oldest first. A job is expected to last as long as those of its kind usually did here, a
    running one at least as long as its stage still needs. `workers`: how many run at once, or more where more do.
    """
    running = [job for job in jobs if job.state == "running"]
    slots = max(workers, len(running))
    free: list[float] = [_left(job, usual) for job in running] + [0.0] * (slots - len(running))
    heapq.heapify(free)
    starts: dict[str, float | None] = {}
    for job in jobs:
        if job.state == "queued":
            start = heapq.heappop(free) if free else float("inf")
            starts[job.id] = start if start < float("inf") else None
            heapq.heappush(free, start + usual.get(job.kind, float("inf")))
    return starts


def _left(job: Job, usual: Mapping[str, float]) -> float:
    if job.kind not in usual:
        return float("inf")
    spent = float(job.progress.get("spent_s", 0.0))
    return max(usual[job.kind] - spent, float(job.progress.get("left_s", 0.0)))
