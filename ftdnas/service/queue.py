"""The queue of jobs: one table in the studies' database; who carries a job out is a lease, as with trials."""

from __future__ import annotations

import json
import statistics
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

import sqlalchemy as sql
from sqlalchemy import Column, Connection, Float, Integer, String, Text, func, select
from sqlalchemy.dialects import postgresql, sqlite

from ftdnas.runtime.database import JOBS, SCHEMA, Storage
from ftdnas.runtime.leases import DatabaseAway, Leases, insist, now_of
from ftdnas.runtime.trouble import node

State = Literal["queued", "running", "succeeded", "failed", "cancelled"]
OPEN: tuple[State, ...] = ("queued", "running")
OVER: tuple[State, ...] = ("succeeded", "failed", "cancelled")
SCOPE = "jobs"  # of the leases
VERSION = 1  # of the table
Stop = Literal["kills", "troubles", "deaths"]  # of its process; of its machine, which looks well; of its server
MOST: Mapping[str, int] = {"kills": 3, "troubles": 3, "deaths": 10}  # a job that is stopped so often fails
LOG_LINES = 400  # the last ones are kept
MOST_OPEN = 1000  # jobs that wait or run
USUAL = 10  # jobs of a kind, the last ones, whose durations say what is usual
Result = TypeVar("Result")


class _Json(sql.TypeDecorator[Mapping[str, Any]]):
    """An object as text, the same on every database."""

    impl, cache_ok = Text, True

    def process_bind_param(self, value: Mapping[str, Any] | None, dialect: Any) -> str | None:  # noqa: ARG002
        return None if value is None else json.dumps(value, sort_keys=True)

    def process_result_value(self, value: str | None, dialect: Any) -> Mapping[str, Any] | None:  # noqa: ARG002
        return json.loads(value) if value else None


_METADATA = sql.MetaData()
_JOBS = sql.Table(
    JOBS,
    _METADATA,
    Column("id", String(32), primary_key=True),
    Column("kind", String(20), nullable=False),
    Column("request", _Json, nullable=False),
    Column("state", String(12), nullable=False, index=True),
    Column("created", Float(53), nullable=False, index=True),
    Column("started", Float(53)),
    Column("ended", Float(53)),
    Column("attempts", Integer, nullable=False, default=0),
    Column("cancel", sql.Boolean, nullable=False, default=False),
    Column("progress", _Json),
    Column("log", Text),
    Column("output", Text),
    Column("error", Text),
    Column("worker", String(120)),
    Column("idempotency_key", String(200), unique=True),
)
_JOB = _JOBS.c  # its columns
_ALL = [column for column in _JOB if column.name != "idempotency_key"]
_SHORT = [column for column in _ALL if column.name not in ("log", "output")]  # what a list needs
_SCHEMA = sql.Table(SCHEMA, _METADATA, Column("name", String(40), primary_key=True), Column("version", Integer))


@dataclass(frozen=True)
class Job:
    """One row. Times are seconds since 1970 by the database; `progress` is what the command reported last."""

    id: str
    kind: str
    request: Mapping[str, Any]
    state: State
    created: float
    started: float | None = None
    ended: float | None = None
    attempts: int = 0
    cancel: bool = False
    progress: Mapping[str, Any] = field(default_factory=dict)
    log: str = ""
    output: str = ""
    error: str | None = None
    worker: str | None = None

    @property
    def stops(self) -> Mapping[str, int]:
        """How often it was stopped without having failed itself, by what stopped it."""
        return {stop: int(self.progress[stop]) for stop in MOST if stop in self.progress}

    def stopped(self, stop: Stop | None) -> Mapping[str, int]:
        """The same, once more so; None counts for nothing."""
        return self.stops if stop is None else {**self.stops, stop: self.stops.get(stop, 0) + 1}

    @property
    def over(self) -> bool:
        return self.state in OVER


class Conflict(LookupError):
    """What cannot be done to a job as it is."""


class QueueFull(ValueError):
    """So many jobs wait that no more are taken."""


class Queue:
    """The jobs of a database. Every method raises `DatabaseAway` with one line where that stays away.

    Whoever carries a job out names the attempt that `take` gave it: what was taken from them since, because they seemed
    dead, they no longer change.
    """

    def __init__(self, storage: Storage) -> None:
        """Make the tables; raise ValueError where another version of ftdnas made them."""
        self._engine, self._patience_s = storage.engine, storage.patience_s
        self._where, self._file = storage.url, storage.file
        insist(self._create, self._engine, self._patience_s)
        self._node = None if self._file is None else node(self._file)

    def submit(self, kind: str, request: Mapping[str, Any], key: str | None = None) -> tuple[Job, bool]:
        """Queue a job; (it, whether it is new). The same `key` again is the same job.

        Raises Conflict where the key was used for another request, QueueFull where too many jobs are open.
        """
        values = {"id": uuid.uuid4().hex, "kind": kind, "request": request, "state": "queued", "created": self._now()}
        insert = sqlite.insert if self._engine.dialect.name == "sqlite" else postgresql.insert
        new = insert(_JOBS).values(**values, idempotency_key=key).on_conflict_do_nothing()
        there = select(*_ALL).where(
            (_JOB.id == values["id"]) | (_JOB.idempotency_key == (values["id"] if key is None else key))
        )

        def act(connection: Connection) -> Any:
            """A repetition finds what it did."""
            if (row := connection.execute(there).first()) is not None:
                return row
            open_now = select(func.count()).select_from(_JOBS).where(_JOB.state.in_(OPEN))
            if connection.execute(open_now).scalar_one() >= MOST_OPEN:
                raise QueueFull(f"{MOST_OPEN:,} jobs wait already: cancel some, or come back later")
            connection.execute(new)
            return connection.execute(there).one()

        job = _job(self._do(act))
        if (job.kind, job.request) != (kind, json.loads(json.dumps(request))):
            raise Conflict("this Idempotency-Key was used for another job: give each submission a key of its own")
        return job, job.id == values["id"]

    def get(self, identity: str) -> Job:
        """Raises LookupError for an id that nobody has."""
        for job in self._read(select(*_ALL).where(_JOB.id == identity)):
            return job
        raise LookupError(f"no job {identity!r}")

    def page(self, *, states: Sequence[str] = (), limit: int = 50, offset: int = 0) -> tuple[list[Job], int]:
        """(jobs, newest first, without their logs and outputs; how many there are)."""
        where = _JOB.state.in_(states) if states else sql.true()
        count = select(func.count()).select_from(_JOBS).where(where)
        query = select(*_SHORT).where(where).order_by(_JOB.created.desc(), _JOB.id).limit(limit).offset(offset)
        return self._read(query), self._do(lambda connection: connection.execute(count).scalar_one())

    def waiting(self) -> list[Job]:
        """Those that are queued or running, the oldest first."""
        return self._read(select(*_SHORT).where(_JOB.state.in_(OPEN)).order_by(_JOB.created, _JOB.id))

    def of_study(self, study: str) -> Job | None:
        """The newest job that makes a study, or made it."""
        named = sql.type_coerce(_JOB.request, Text).contains(json.dumps(study), autoescape=True)
        query = select(*_SHORT).where(named & _JOB.kind.in_(["search", "check"])).order_by(_JOB.created.desc())
        return next((job for job in self._read(query) if job.request.get("study") == study), None)

    def usual_s(self) -> dict[str, float]:
        """Kind -> how many seconds its last jobs took, the median; without kinds that nobody finished yet."""
        done = (_JOB.state == "succeeded") & _JOB.started.is_not(None)
        query = select(_JOB.kind, _JOB.started, _JOB.ended).where(done).order_by(_JOB.ended.desc()).limit(10 * USUAL)
        took: dict[str, list[float]] = {}
        for kind, started, ended in self._do(lambda connection: connection.execute(query).all()):
            took.setdefault(kind, []).append(ended - started)
        return {kind: statistics.median(seconds[:USUAL]) for kind, seconds in took.items()}

    def cancel(self, identity: str) -> Job:
        """A job that waits ends now; one that runs is asked to. Raises Conflict for one that is over."""
        waits = _JOB.state == "queued"
        state, ended = sql.case((waits, "cancelled"), else_=_JOB.state), sql.case((waits, self._now()))
        if not self._change((_JOB.id == identity) & _JOB.state.in_(OPEN), state=state, ended=ended, cancel=~waits):
            raise Conflict(f"job {identity} is {self.get(identity).state}: there is nothing to cancel")
        return self.get(identity)

    def retry(self, identity: str) -> Job:
        """Queue a job that failed or was cancelled once more: it goes on from what it left.

        Raises Conflict for any other.
        """
        stopped = (_JOB.id == identity) & _JOB.state.in_(["failed", "cancelled"])
        again = {"state": "queued", "attempts": 0, "cancel": False}
        if not self._change(stopped, **again, **dict.fromkeys(("error", "ended", "started", "progress"))):
            raise Conflict(
                f"job {identity} is {self.get(identity).state}: only what failed or was cancelled begins again"
            )
        return self.get(identity)

    def take(
        self,
        leases: Leases,
        not_now: set[str],
        worker: str,
        can_begin: Callable[[Job, Sequence[Job]], bool] = lambda job, open_jobs: True,  # noqa: ARG005
    ) -> Job | None:
        """The oldest job that nobody living carries out, now ours; `not_now`: those that we do not want.

        `can_begin(job, all open jobs)`: whether what it needs is there. One that is running has lost its server.
        """
        found = self.waiting()
        free = leases.free({job.id for job in found} - not_now)
        for job in found:
            if job.id not in free or not can_begin(job, found) or leases.claim(job.id) != "ours":
                continue
            begin = {
                "state": "running",
                "error": None,
                "started": func.coalesce(_JOB.started, self._now()),
                "worker": worker,
                "progress": {**job.progress, **job.stopped("deaths" if job.state == "running" else None)},
            }
            if self._change((_JOB.id == job.id) & _JOB.state.in_(OPEN), **begin, attempts=_JOB.attempts + 1):
                return self.get(job.id)
            leases.release(job.id)  # it was over before the claim
        return None

    def asked(self, taken: Job) -> Literal["go on", "cancel", "lost"]:
        """What is wanted of a job that was taken; "lost": another carries it out now, or nobody."""
        query = select(_JOB.cancel).where(_held(taken))
        cancel = self._do(lambda connection: connection.execute(query).scalar())
        return "lost" if cancel is None else "cancel" if cancel else "go on"

    def note(self, taken: Job, progress: Mapping[str, Any], log: Sequence[str]) -> None:
        """Write down where a job that was taken is."""
        self._change(_held(taken), progress=progress, log="\n".join(log[-LOG_LINES:]))

    def end(self, taken: Job, state: State, *, output: str = "", error: str | None = None) -> None:
        """Write down what came of a job that was taken."""
        self._change(_held(taken), state=state, ended=self._now(), output=output, error=error)

    def put_back(self, taken: Job, why: str, stop: Stop | None = None) -> None:
        """Queue a job that was taken again, say why and count it."""
        read = select(_JOB.progress).where(_held(taken))

        def act(connection: Connection) -> None:
            for (progress,) in connection.execute(read).all():  # none: another has it
                noted = {**(progress or {}), **taken.stopped(stop)}
                noted.pop("left_s", None)  # nobody knows
                values = {"state": "queued", "error": why, "progress": noted}
                connection.execute(_JOBS.update().where(_held(taken)).values(values))

        self._do(act)

    def hurry(self, patience_s: float) -> None:
        """From now on do not wait longer than this for a database that is away."""
        self._patience_s = patience_s

    def answers(self) -> str | None:
        """None where the database answers at once, else what it says."""
        if self._file is not None and node(self._file) != self._node:
            return "the database's file has gone: start again"
        try:
            self._do(lambda connection: connection.execute(select(_JOB.id).limit(1)).first(), 0.0)
        except DatabaseAway:
            return "the database does not answer"
        except ValueError as error:
            return str(error)
        return None

    def _now(self) -> Any:
        return now_of(self._engine)

    def _create(self) -> None:
        _METADATA.create_all(self._engine)
        with self._engine.begin() as connection:
            there = connection.execute(select(_SCHEMA.c.version).where(_SCHEMA.c.name == JOBS)).scalar()
            if there is None:
                connection.execute(_SCHEMA.insert().values(name=JOBS, version=VERSION))
            elif there != VERSION:
                raise ValueError(
                    f"the jobs in {self._where} are of another version of ftdnas (their table is version {there}, this "
                    f"one needs {VERSION}): run that version, or take another --storage"
                )

    def _read(self, query: sql.Select[Any]) -> list[Job]:
        return [_job(row) for row in self._do(lambda connection: connection.execute(query).all())]

    def _change(self, where: sql.ColumnElement[bool], **values: Any) -> int:
        """How many jobs there were to change."""
        query = _JOBS.update().where(where).values(**values)
        return self._do(lambda connection: connection.execute(query).rowcount)

    def _do(self, action: Callable[[Connection], Result], patience_s: float | None = None) -> Result:
        def attempt() -> Result:
            with self._engine.begin() as connection:
                return action(connection)

        return insist(attempt, self._engine, self._patience_s if patience_s is None else patience_s)


def _held(taken: Job) -> sql.ColumnElement[bool]:
    """The row of a job, while it is in the attempt that was taken."""
    return (_JOB.id == taken.id) & (_JOB.state == "running") & (_JOB.attempts == taken.attempts)


def _job(row: sql.Row[Any]) -> Job:
    return Job(**{name: value for name, value in row._mapping.items() if value is not None})
