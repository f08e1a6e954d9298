"""What is going on, for everybody who watches: read from the database at most twice a second however many there are."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from typing import Any

from ftdnas.service.queue import Job, Queue

FRESH_S = 0.5


class Board:
    """Jobs as JSON. `workers`: how many jobs run at once, for the expected starts."""

    def __init__(self, queue: Queue, workers: int) -> None:
        self._queue, self._workers = queue, max(1, workers)
        self._lock = threading.Lock()
        self._waiting: list[Job] = []
        self._read_at = -1.0
        self._over: dict[str, Job] = {}

    def job(self, identity: str) -> Job:
        """As it was at most half a second ago. Raises LookupError for an id that nobody has."""
        for job in self.waiting():
            if job.id == identity:
                return job
        with self._lock:
            known = self._over.get(identity)
        if known is None or not known.over:
            known = self._queue.get(identity)
            with self._lock:
                if len(self._over) > 500:
                    self._over.clear()
                if known.over:
                    self._over[identity] = known
        return known

    def forget(self) -> None:
        """Something was changed here: read anew."""
        with self._lock:
            self._read_at = -1.0
            self._over.clear()

    def waiting(self) -> list[Job]:
        """Those queued or running, oldest first."""
        with self._lock:
            if time.monotonic() - self._read_at > FRESH_S:
                self._waiting = self._queue.waiting()
                self._read_at = time.monotonic()
            return self._waiting

    def told(self, job: Job, *, whole: bool = False) -> dict[str, Any]:
        """A job as JSON, with its place and expected start where it waits."""
        found: dict[str, Any] = {
            "id": job.id,
            "kind": job.kind,
            "request": dict(job.request),
            "state": job.state,
            "created": job.created,
            "started": job.started,
            "ended": job.ended,
            "attempts": job.attempts,
            "cancelling": job.cancel and not job.over,
            "progress": told_progress(job.progress),
            "error": job.error,
        }
        if job.state == "queued":
            found |= self._expected(job)
        if whole:
            found |= {"output": job.output, "log": list(job.log)}
        return found

    def _expected(self, job: Job) -> dict[str, Any]:
        """How many are before it, and in how many seconds it should start; None where nobody can know."""
        before = []
        for other in self.waiting():
            if other.id == job.id:
                break
            before.append(other)
        if len(before) < self._workers:
            return {"before": len(before), "starts_in_s": 0.0}
        left = [other.progress.get("left_s") for other in before]
        known = [float(one) for one in left if one is not None]
        return {"before": len(before), "starts_in_s": sum(known) / self._workers if len(known) == len(before) else None}


def told_progress(progress: Mapping[str, Any]) -> dict[str, Any]:
    """With the fraction of the stage that is done."""
    if not progress.get("total"):
        return dict(progress)
    return {**progress, "fraction": min(1.0, progress["done"] / progress["total"])}
