"""Works done once each, by however many processes and machines share them, and recorded before anything else."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Protocol, TypeVar

from ftdnas.runtime.leases import Claim, Leases
from ftdnas.runtime.processes import Executor, Failure
from ftdnas.runtime.rows import Row, RowFile
from search_spaces.messages import one_line

Held = TypeVar("Held", contravariant=True)
POLL_S = 1.0  # between two looks at what others hold


class Work(Protocol[Held]):
    """What can be done in any process or machine, by pickling it; its row is the record.

    `Held`: what a process holds, such as a shelf of materials. `key`: of the row; a digest of all that its result
    depends on. `architecture`: what is trained or measured.
    """

    @property
    def key(self) -> str: ...

    @property
    def architecture(self) -> str: ...

    def __call__(self, held: Held, /) -> Row:
        """Do it. The row is a JSON object with "key", "architecture", "error", "crashed", "seconds" and "device"."""
        ...

    def failed(self, failure: Failure) -> Row:
        """The row of one without a result."""
        ...


class Record:
    """The rows that are known, and who does the rest.

    `file` is the record. `leases` are shared with processes and machines that join; a row of theirs comes into the file
    here, and ours to them. Without leases nobody else may write what is done here. A row that is `crashed` counts as
    none: what ended a process here may succeed elsewhere, or later.
    """

    def __init__(self, file: RowFile, leases: Leases | None = None) -> None:
        self.file = file
        self._leases = leases
        self._rows: dict[str, Row] = {}
        self._read_up_to = 0

    def exchange(self) -> None:
        """Bring file and leases to the same rows."""
        self._catch_up()
        if self._leases is None:
            return
        done = self._leases.done()
        for key in self._rows.keys() - done:
            self._leases.finish(key, self._rows[key])
        self._adopt(done)

    def row(self, key: str) -> Row | None:
        """The row of a work that needs not be done; it may have been written by another process on this machine."""
        if key not in self._rows:
            self._catch_up()
        return self._rows.get(key)

    def claim(self, key: str) -> Claim:
        """ "ours" to do, "held" by another, or "done": then `row` has it."""
        if self._leases is None:
            return "ours" if self.row(key) is None else "done"
        claim = self._leases.claim(key)
        if claim == "done":
            self._adopt({key})
        if claim == "ours" and (row := self.row(key)) is not None:
            # Whoever wrote the row was killed before the lease was finished.
            self._leases.finish(key, row)
            return "done"
        return claim

    def keep(self, row: Row) -> None:
        """Write down the row of a work that was claimed; only then do others hear of it."""
        self.file.append(row)
        if not row["crashed"]:
            self._rows[row["key"]] = row
        if self._leases is not None:
            if row["crashed"]:
                self._leases.release(row["key"])
            else:
                self._leases.finish(row["key"], row)

    def settled(self, keys: set[str]) -> tuple[set[str], set[str]]:
        """Of works that others held: those that now have rows, and those whose holder gave them back or died."""
        if self._leases is None:
            return {key for key in keys if self.row(key) is not None}, set()
        done = self._leases.done() & keys
        self._adopt(done)
        return done, self._leases.free(keys - done)

    def _adopt(self, keys: set[str]) -> None:
        """Bring the results of these leases into the file."""
        assert self._leases is not None
        self._catch_up()
        for key, row in self._leases.results(keys - self._rows.keys()).items():
            self._catch_up()  # a process beside this one may have adopted it just now
            if key not in self._rows:
                self.file.append(row)
                self._rows[key] = row

    def _catch_up(self) -> None:
        rows, self._read_up_to = self.file.read_from(self._read_up_to)
        self._rows |= {key: row for key, row in rows.items() if not row.get("crashed")}


def carry_out(
    works: Iterable[Work[Held] | None],
    record: Record,
    executor: Executor[Held],
    finished: Callable[[Row], None],
    *,
    limit_s: float | None = None,
    poll_s: float = POLL_S,
) -> dict[str, Row]:
    """Key -> row of every work, each done at most once by all who share the record.

    `works` is read when a process is free, and after `finished` has heard of every row so far: what to do next may
    depend on them; None in it means that there is nothing right now. `finished` is called once for every work, wherever
    its row comes from. A work that another holds is waited for at the end, and done here where its holder dies. The row
    of a failure is final; one that `crashed` is tried again by the next call. Raises what the executor does.
    """
    record.exchange()
    rows: dict[str, Row] = {}
    held: dict[str, Work[Held]] = {}
    given: list[Work[Held]] = []

    def arrived(row: Row) -> None:
        rows[row["key"]] = row
        finished(row)

    def offer(work: Work[Held]) -> Iterator[Work[Held]]:
        known = record.row(work.key)
        claim = "done" if known is not None else record.claim(work.key)
        if claim == "ours":
            given.append(work)
            yield work
        elif claim == "held":
            held[work.key] = work
        else:
            known = known or record.row(work.key)
            assert known is not None
            arrived(known)

    def left_over() -> Iterator[Work[Held] | None]:
        looked = -poll_s
        while held:
            if time.monotonic() - looked >= poll_s:
                done, free = record.settled(set(held))
                for key in [key for key in held if key in done | free]:
                    yield from offer(held.pop(key))
                looked = time.monotonic()
            if held:
                yield None

    def pull() -> Iterator[Work[Held] | None]:
        asked: set[str] = set()
        for work in works:
            if work is None:
                yield None
            elif work.key not in asked:
                asked.add(work.key)
                yield from offer(work)
        yield from left_over()

    for index, outcome in executor.map(pull(), limit_s):
        row = _row(given[index], outcome)
        record.keep(row)
        arrived(row)
    return rows


def _row(work: Work[Any], outcome: Any) -> Row:
    """The row of an outcome; of one that is no JSON, which a user's own code may well return, that of a failure."""
    if isinstance(outcome, Failure):
        return work.failed(outcome)
    try:
        json.dumps(outcome, allow_nan=False)
    except (TypeError, ValueError) as error:
        return work.failed(Failure(f"its row cannot be written: {one_line(error)}"))
    row: Row = outcome
    return row
