"""The queue of jobs, on either database: who has which, and when it starts."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import pytest

from ftdnas.runtime.database import open_storage
from ftdnas.service.board import Board, expected_starts
from ftdnas.service.queue import Queue

EITHER = pytest.mark.parametrize("inside", ["sqlite", "postgresql"], indirect=True)


def test_a_database_of_another_version_is_refused_whole(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'studies.db'}"
    with open_storage(url) as storage:
        Queue(storage).submit("distill", {})
    with sqlite3.connect(tmp_path / "studies.db") as database:
        database.execute("UPDATE ftdnas_schema SET version = 99")
    database.close()
    with open_storage(url) as storage, pytest.raises(ValueError, match=r"another version of ftdnas.*--storage"):
        Queue(storage)


@EITHER
def test_where_a_job_waits_it_says_when_it_starts(inside: Any) -> None:
    queue = inside.server.queue
    first, _ = queue.submit("distill", {})
    second, _ = queue.submit("distill", {"ipc": 2})
    with open_storage(inside.storage) as storage, storage.leases("jobs") as leases:
        taken = queue.take(leases, set(), "here")
        assert taken is not None
        assert taken.id == first.id
        queue.note(taken, {"stage": "matching", "done": 1, "total": 4, "left_s": 30.0, "spent_s": 5.0}, ["a line"])
        board = Board(queue, 1)
        assert board.told(board.job(second.id))["starts_in_s"] is None  # the other stages may take any time
        assert board.told(board.job(first.id))["progress"]["fraction"] == 0.25
        jobs = queue.waiting()
        # One that usually takes 60 s has had 5 of them; its stage alone needs 30 more.
        assert expected_starts(jobs, {"distill": 60.0}, 1) == {second.id: 55.0}
        assert expected_starts(jobs, {"distill": 20.0}, 1) == {second.id: 30.0}
        assert expected_starts(jobs, {"distill": 60.0}, 2) == {second.id: 0.0}
        assert expected_starts(jobs[1:], {}, 0) == {second.id: None}
        other = queue.take(leases, {first.id}, "here")
        assert other is not None
        assert other.id == second.id
        assert queue.take(leases, {first.id, second.id}, "here") is None


@EITHER
def test_who_lost_a_job_changes_it_no_more(inside: Any) -> None:
    queue = inside.server.queue
    job, _ = queue.submit("distill", {})
    with open_storage(inside.storage) as storage, storage.leases("jobs") as one, storage.leases("jobs") as other:
        lost = queue.take(one, set(), "one")
        one.release(job.id)  # as if its heartbeat had been missed
        held = queue.take(other, set(), "other")
        assert (lost.attempts, held.attempts) == (1, 2)
        assert (queue.asked(lost), queue.asked(held)) == ("lost", "go on")
        queue.note(lost, {"stage": "matching"}, ["not mine"])
        queue.end(lost, "failed", error="another process is working on it")
        queue.put_back(lost, "its process was killed", "kills")
        assert queue.get(job.id).state == "running"
        assert not queue.get(job.id).log
        queue.cancel(job.id)
        assert queue.asked(held) == "cancel"
        queue.end(held, "succeeded", output="done")
        assert queue.get(job.id).state == "succeeded"
