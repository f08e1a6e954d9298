"""Works shared by real processes that are killed: nothing lost, nothing done twice that had finished."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from ftdnas.runtime.database import open_storage
from ftdnas.runtime.processes import Failure
from ftdnas.runtime.rows import Row, RowFile
from ftdnas.runtime.shared import Record, Work, carry_out

# What the joined processes do. Workers import it too, for their work is defined here.
SCRIPT = """
import json, os, signal, sys, time
from dataclasses import dataclass
from functools import partial
from pathlib import Path


@dataclass(frozen=True)
class Slow:
    number: int
    begun: str
    pause_s: float

    @property
    def key(self):
        return f"work {self.number}"

    def __call__(self, shelf):
        with open(self.begun, "a") as file:
            file.write(f"{self.number}\\n")
        time.sleep(self.pause_s)
        if self.number % 10 == 7:
            raise ArithmeticError(f"{self.number} never works")
        if self.number % 10 == 9 and not os.environ.get("HEALTHY"):
            os.kill(os.getpid(), signal.SIGKILL)
        return {"key": self.key, "score": self.number ** 2 / 10000, "error": None, "crashed": False}

    def failed(self, failure):
        return {"key": self.key, "score": None, "error": failure.error, "crashed": failure.crashed}


if __name__ == "__main__":  # workers need none of it
    from ftdnas.runtime.database import open_storage
    from ftdnas.runtime.leases import Leases
    from ftdnas.runtime.processes import LocalProcesses
    from ftdnas.runtime.rows import RowFile
    from ftdnas.runtime.shared import Record, carry_out

    url, rows, begun, count, pause_s = sys.argv[1:]
    works = [Slow(number, begun, float(pause_s)) for number in range(int(count))]
    with (
        open_storage(url) as storage,
        Leases(storage.engine, "test", beat_s=0.5, stale_s=3.0) as leases,
        LocalProcesses(lambda: partial(dict), 1, preload=()) as processes,
    ):
        found = carry_out(works, Record(RowFile(Path(rows)), leases), processes, lambda row: None, poll_s=0.2)
    print(json.dumps({key: row["score"] for key, row in found.items()}))
"""


@dataclass
class Team:
    """Real processes on one list of works."""

    folder: Path
    url: str
    count: int
    pause_s: float = 0.02

    def start(self, rows: str = "rows.jsonl", **environment: str) -> subprocess.Popen[bytes]:
        script = self.folder / "joined.py"
        if not script.exists():  # written again, a process that is just starting could read half of it
            script.write_text(SCRIPT)
        given = [self.url, str(self.folder / rows), str(self.begun), str(self.count), str(self.pause_s)]
        return subprocess.Popen(
            [sys.executable, script, *given], stdout=subprocess.PIPE, env={**os.environ, **environment}
        )

    @property
    def begun(self) -> Path:
        return self.folder / "begun"

    def begun_times(self) -> Counter[int]:
        return Counter(map(int, self.begun.read_text().split())) if self.begun.exists() else Counter()

    def rows(self, name: str = "rows.jsonl") -> dict[str, Any]:
        return RowFile(self.folder / name).read()

    def lines(self, name: str = "rows.jsonl") -> Counter[str]:
        return Counter(json.loads(line)["key"] for line in (self.folder / name).read_text().splitlines())

    def expected(self, *, healthy: bool = False) -> dict[str, float | None]:
        lost = {7} if healthy else {7, 9}
        return {f"work {n}": None if n % 10 in lost else n**2 / 10000 for n in range(self.count)}


def scores(process: subprocess.Popen[bytes]) -> dict[str, Any]:
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 0
    found: dict[str, Any] = json.loads(output)
    return found


def until(condition: Callable[[], bool], timeout_s: float = 60.0) -> None:
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def test_six_processes_share_one_list_and_one_of_them_is_killed(tmp_path: Path) -> None:
    team = Team(tmp_path, f"sqlite:///{tmp_path / 'studies.db'}", 60)
    # As on three machines: every two have a file of rows of their own.
    processes = [team.start(f"rows{number // 2}.jsonl") for number in range(6)]
    until(lambda: sum(team.begun_times().values()) >= 20)
    processes[3].kill()
    processes[3].communicate()
    found = [scores(process) for number, process in enumerate(processes) if number != 3]
    assert all(one == team.expected() for one in found)
    finished = {key for key, score in team.expected().items() if not key.endswith("9")}
    for number in range(3):
        rows = team.rows(f"rows{number}.jsonl")
        assert {key: rows[key]["score"] for key in finished} == {key: team.expected()[key] for key in finished}
    times = team.begun_times()
    repeated = [number for number, count in times.items() if count > 1 and number % 10 != 9]
    assert len(repeated) <= 1  # at most what the killed one was at
    assert set(times) == set(range(60))


def test_killed_and_started_again_it_does_the_rest(tmp_path: Path) -> None:
    team = Team(tmp_path, f"sqlite:///{tmp_path / 'studies.db'}", 20, pause_s=0.1)
    first = team.start()
    until(lambda: len(team.rows()) >= 4)
    (worker, *_) = children(first.pid)
    os.kill(worker, signal.SIGKILL)  # what it was at is tried again
    until(lambda: len(team.rows()) >= 8)
    first.kill()  # the parent, in the middle of something
    first.communicate()
    there = team.rows()
    assert scores(team.start()) == team.expected()
    before = team.begun_times()
    assert scores(team.start()) == team.expected()  # nothing is left but those that crashed
    again = team.begun_times() - before
    assert set(again) == {9, 19}
    assert scores(team.start(HEALTHY="1")) == team.expected(healthy=True)
    rows = team.rows()
    assert all(rows[key] == row for key, row in there.items() if not row["crashed"])
    assert sum(count - 1 for number, count in before.items() if number % 10 != 9) <= 2  # one for each kill
    assert all(count == 1 for key, count in team.lines().items() if not key.endswith("9"))
    assert "ArithmeticError: 7 never works" in rows["work 7"]["error"]


def test_it_works_on_postgresql_too(tmp_path: Path, postgresql: Any) -> None:
    team = Team(tmp_path, postgresql.url, 12)
    found = [scores(process) for process in [team.start(f"rows{number}.jsonl") for number in range(3)]]
    assert found == [team.expected()] * 3
    assert all(count == 1 for number, count in team.begun_times().items() if number != 9)


@dataclass(frozen=True)
class Add:
    """Works that run in this process, by an executor that is one."""

    key: str
    number: float
    architecture: str = ""

    def __call__(self, shelf: Mapping[str, Any], /) -> Row:
        if self.number < 0:
            raise ValueError("negative")
        return {"key": self.key, "score": self.number + len(shelf), "error": None, "crashed": False}

    def failed(self, failure: Failure) -> Row:
        return {"key": self.key, "score": None, "error": failure.error, "crashed": failure.crashed}


class Here:
    """The simplest executor there can be."""

    def map(self, works: Any, limit_s: float | None = None) -> Iterator[tuple[int, Any]]:  # noqa: ARG002
        index = 0
        for work in works:
            if work is None:
                time.sleep(0.01)
                continue
            try:
                yield index, work({})
            except ValueError as error:
                yield index, Failure(str(error))
            index += 1


class Counting(Here):
    """How much work it was given."""

    def __init__(self) -> None:
        self.count = 0

    def map(self, works: Any, limit_s: float | None = None) -> Iterator[tuple[int, Any]]:
        for outcome in super().map(works, limit_s):
            self.count += 1
            yield outcome


def test_a_file_or_a_database_that_was_lost_is_made_up_for_by_the_other(tmp_path: Path) -> None:
    heard: list[Row] = []
    file, url = RowFile(tmp_path / "rows.jsonl"), f"sqlite:///{tmp_path / 'studies.db'}"

    def carried_out() -> dict[str, Row]:
        with open_storage(url) as storage, storage.leases("test") as leases:
            return carry_out(works, Record(file, leases), executor, heard.append)

    works, executor = [Add(str(number), number) for number in range(6)], Counting()
    rows = carried_out()
    assert len(rows) == executor.count == 6
    file.path.unlink()
    assert carried_out() == file.read() == rows
    (tmp_path / "studies.db").unlink()
    assert carried_out() == rows
    with open_storage(url) as storage, storage.leases("test") as leases:
        assert leases.results() == rows
    assert executor.count == 6


def test_the_next_work_may_depend_on_every_row_so_far_and_each_is_heard_of_once(tmp_path: Path) -> None:
    listener: list[Row] = []

    def works() -> Iterator[Work[Any] | None]:
        yield Add("a", 1.0)
        assert [row["key"] for row in listener] == ["a"]
        yield Add("a", 1.0)  # asked for twice, done and heard of once
        yield None
        yield Add("b", -1.0)
        assert [row["key"] for row in listener] == ["a", "b"]
        yield Add("c", float("nan"))

    file = RowFile(tmp_path / "rows.jsonl")
    found = carry_out(works(), Record(file), Here(), listener.append)  # without leases
    assert list(found) == [row["key"] for row in listener] == ["a", "b", "c"]
    assert found["b"]["error"] == "negative"
    assert "its row cannot be written" in found["c"]["error"]
    assert file.read() == found
    before = file.path.read_bytes()
    listener.clear()
    assert carry_out(works(), Record(file), Here(), listener.append) == found
    assert file.path.read_bytes() == before


def test_what_a_living_other_holds_is_waited_for(tmp_path: Path) -> None:
    with open_storage(f"sqlite:///{tmp_path / 'a.db'}") as storage, storage.leases("a") as theirs:
        assert theirs.claim("a") == theirs.claim("b") == "ours"

        def works() -> Iterator[Work[Any] | None]:
            yield from (Add("a", 1.0), Add("b", 2.0), Add("c", 3.0))
            theirs.finish("a", {"key": "a", "score": 0.25, "error": None, "crashed": False})
            theirs.release("b")

        with storage.leases("a") as ours:
            record = Record(RowFile(tmp_path / "rows.jsonl"), ours)
            found = carry_out(works(), record, Here(), lambda row: None, poll_s=0.01)  # noqa: ARG005
        assert {key: row["score"] for key, row in found.items()} == {"c": 3.0, "a": 0.25, "b": 2.0}
        assert set(theirs.results()) == {"a", "b", "c"}


def test_an_interrupted_call_gives_back_what_it_had(tmp_path: Path) -> None:
    class Interrupted(Here):
        def map(self, works: Any, limit_s: float | None = None) -> Iterator[tuple[int, Any]]:  # noqa: ARG002
            next(works)
            raise KeyboardInterrupt
            yield  # an iterator all the same

    def interrupted(record: Record) -> None:
        carry_out([Add("a", 1.0)], record, Interrupted(), lambda row: None)  # noqa: ARG005

    with open_storage(f"sqlite:///{tmp_path / 'a.db'}") as storage, storage.leases("a") as other:
        with pytest.raises(KeyboardInterrupt), storage.leases("a") as leases:
            interrupted(Record(RowFile(tmp_path / "rows.jsonl"), leases))
        assert other.claim("a") == "ours"
