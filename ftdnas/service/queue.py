"""The queue of jobs: one table in the studies' database; who carries a job out is a lease, as with trials."""

from __future__ import annotations

import json
import statistics
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

from sqlalchemy import (
    Boolean,
    Column,
    Connection,
    Float,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    exc,
    func,
    select,
)

from ftdnas.runtime.database import JOBS, SCHEMA, Storage
from ftdnas.runtime.leases import DatabaseAway, Leases, insist, now_of

State = Literal["queued", "running", "succeeded", "failed", "cancelled"]
OPEN: tuple[State, ...] = ("queued", "running")
OVER: tuple[State, ...] = ("succeeded", "failed", "cancelled")
SCOPE = "jobs"  # of the leases
VERSION = 1  # of the table
ATTEMPTS = 3  # a job whose process is killed is begun again so often
LOG_LINES = 400  # the last ones are kept
MOST_OPEN = 1000  # jobs that wait or run
USUAL = 10  # jobs of a kind, the last ones, whose durations say what is usual
Result = TypeVar("Result")

_METADATA = MetaData()
_JOBS = Table(
    JOBS,
    _METADATA,
    Column("id", String(32), primary_key=True),
    Column("kind", String(20), nullable=False),
    Column("request", Text, nullable=False),
    Column("state", String(12), nullable=False, index=True),
    Column("created", Float(53), nullable=False, index=True),
    Column("started", Float(53)),
    Column("ended", Float(53)),
    Column("attempts", Integer, nullable=False, default=0),
    Column("cancel", Boolean, nullable=False, default=False),
    Column("progress", Text),
    Column("log", Text),
    Column("output", Text),
    Column("error", Text),
    Column("worker", String(120)),
    Column("idempotency_key", String(200), unique=True),
)
_SHORT = [column for column in _JOBS.c if column.name not in ("log", "output")]  # what a list needs
_SCHEMA = Table(SCHEMA, _METADATA, Column("name", String(40), primary_key=True), Column("version", Integer))


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
    log: tuple[str, ...] = ()
    output: str = ""
    error: str | None = None
    worker: str | None = None

    @property
    def over(self) -> bool:
        return self.state in OVER


class KeyTaken(LookupError):
    """An idempotency key that belongs to another job."""


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
        self._where = storage.url
        insist(self._create, self._engine, self._patience_s)

    def submit(self, kind: str, request: Mapping[str, Any], key: str | None = None) -> tuple[Job, bool]:
        """Queue a job; (it, whether it is new). The same `key` again is the same job.

        Raises KeyTaken where the key was used for another request, QueueFull where too many jobs are open.
        """
        text = json.dumps(request, sort_keys=True)
        identity = uuid.uuid4().hex
        values = {"id": identity, "kind": kind, "request": text, "state": "queued", "created": self._now()}

        def insert(connection: Connection) -> bool:
            """Whether the key was free; a repetition finds what it did."""
            if connection.execute(select(_JOBS.c.id).where(_JOBS.c.id == identity)).first() is not None:
                return True
            open_now = select(func.count()).select_from(_JOBS).where(_JOBS.c.state.in_(OPEN))
            if connection.execute(open_now).scalar_one() >= MOST_OPEN:
                raise QueueFull(f"{MOST_OPEN:,} jobs wait already: cancel some, or come back later")
            new = _JOBS.insert().values(**values, attempts=0, cancel=False, idempotency_key=key)
            try:
                with connection.begin_nested():
                    connection.execute(new)
            except exc.IntegrityError:
                return False
            return True

        there = self._by_key(key)
        if there is None and not self._do(insert):
            there = self._by_key(key)
        if there is None:
            return self.get(identity), True
        if (there.kind, json.dumps(dict(there.request), sort_keys=True)) != (kind, text):
            raise KeyTaken("this Idempotency-Key was used for another job: give each submission a key of its own")
        return there, False

    def get(self, identity: str) -> Job:
        """Raises LookupError for an id that nobody has."""
        row = self._do(lambda connection: connection.execute(select(_JOBS).where(_JOBS.c.id == identity)).first())
        if row is None:
            raise LookupError(f"no job {identity!r}")
        return _job(row)

    def page(self, *, states: Sequence[str] = (), limit: int = 50, offset: int = 0) -> tuple[list[Job], int]:
        """(jobs, newest first, without their logs and outputs; how many there are)."""
        where = _JOBS.c.state.in_(list(states)) if states else _JOBS.c.id.is_not(None)
        order = (_JOBS.c.created.desc(), _JOBS.c.id)

        def read(connection: Connection) -> tuple[list[Any], int]:
            rows = connection.execute(select(*_SHORT).where(where).order_by(*order).limit(limit).offset(offset)).all()
            count = connection.execute(select(func.count()).select_from(_JOBS).where(where)).scalar_one()
            return list(rows), count

        rows, count = self._do(read)
        return [_job(row) for row in rows], count

    def waiting(self) -> list[Job]:
        """Those that are queued or running, the oldest first."""
        query = select(*_SHORT).where(_JOBS.c.state.in_(OPEN)).order_by(_JOBS.c.created, _JOBS.c.id)
        return [_job(row) for row in self._do(lambda connection: connection.execute(query).all())]

    def of_study(self, study: str) -> Job | None:
        """The newest job that makes a study, or made it."""
        named = _JOBS.c.request.contains(json.dumps(study), autoescape=True)
        query = select(*_SHORT).where(named & _JOBS.c.kind.in_(["search", "check"])).order_by(_JOBS.c.created.desc())
        rows = self._do(lambda connection: connection.execute(query).all())
        return next((job for job in map(_job, rows) if job.request.get("study") == study), None)

    def usual_s(self) -> dict[str, float]:
        """Kind -> how many seconds its last jobs took, the median; without kinds that nobody finished yet."""
        done = (_JOBS.c.state == "succeeded") & _JOBS.c.started.is_not(None)
        query = select(_JOBS.c.kind, _JOBS.c.started, _JOBS.c.ended).where(done).order_by(_JOBS.c.ended.desc())
        took: dict[str, list[float]] = {}
        for kind, started, ended in self._do(lambda connection: connection.execute(query.limit(10 * USUAL)).all()):
            took.setdefault(kind, []).append(ended - started)
        return {kind: statistics.median(seconds[:USUAL]) for kind, seconds in took.items()}

    def cancel(self, identity: str) -> Job:
        """A job that waits ends now; one that runs is asked to. Raises LookupError for one that is over."""
        of_it = _JOBS.c.id == identity
        waits = _JOBS.update().where(of_it & (_JOBS.c.state == "queued"))
        runs = _JOBS.update().where(of_it & (_JOBS.c.state == "running"))

        def act(connection: Connection) -> int:
            ended = connection.execute(waits.values(state="cancelled", ended=self._now())).rowcount
            return ended or connection.execute(runs.values(cancel=True)).rowcount

        if not self._do(act):
            raise LookupError(f"job {identity} is {self.get(identity).state}: there is nothing to cancel")
        return self.get(identity)

    def retry(self, identity: str) -> Job:
        """Queue a job that failed or was cancelled once more: it goes on from what it left.

        Raises LookupError for any other.
        """
        again = {"state": "queued", "attempts": 0, "cancel": False, "error": None, "ended": None, "started": None}
        again |= {"progress": None}
        query = _JOBS.update().where((_JOBS.c.id == identity) & _JOBS.c.state.in_(["failed", "cancelled"]))
        if not self._do(lambda connection: connection.execute(query.values(**again)).rowcount):
            raise LookupError(
                f"job {identity} is {self.get(identity).state}: only what failed or was cancelled begins again"
            )
        return self.get(identity)

    def take(
        self,
        leases: Leases,
        ours: set[str],
        worker: str,
        can_begin: Callable[[Job, Sequence[Job]], bool] = lambda job, open_jobs: True,  # noqa: ARG005
    ) -> Job | None:
        """The oldest job that nobody living carries out, now ours; `ours` are those that we carry out already.

        `can_begin(job, all open jobs)`: whether what it needs is there.
        """
        found = self.waiting()
        free = leases.free({job.id for job in found} - ours)
        for job in found:
            if job.id not in free or not can_begin(job, found) or leases.claim(job.id) != "ours":
                continue
            begin = {
                "state": "running",
                "started": func.coalesce(_JOBS.c.started, self._now()),
                "attempts": _JOBS.c.attempts + 1,
                "worker": worker,
            }
            query = _JOBS.update().where((_JOBS.c.id == job.id) & _JOBS.c.state.in_(OPEN)).values(**begin)
            if self._do(lambda connection, query=query: connection.execute(query).rowcount):  # type: ignore[misc]
                return self.get(job.id)
            leases.release(job.id)  # it was over before the claim
        return None

    def asked(self, taken: Job) -> Literal["go on", "cancel", "lost"]:
        """What is wanted of a job that was taken; "lost": another carries it out now, or nobody."""
        query = select(_JOBS.c.cancel).where(_held(taken))
        row = self._do(lambda connection: connection.execute(query).first())
        return "lost" if row is None else "cancel" if row.cancel else "go on"

    def note(self, taken: Job, progress: Mapping[str, Any], log: Sequence[str]) -> None:
        """Write down where a job that was taken is."""
        values = {"progress": json.dumps(progress), "log": "\n".join(log[-LOG_LINES:])}
        self._do(lambda connection: connection.execute(_JOBS.update().where(_held(taken)).values(**values)))

    def end(self, taken: Job, state: State, *, output: str = "", error: str | None = None) -> None:
        """Write down what came of a job that was taken."""
        values = {"state": state, "ended": self._now(), "output": output, "error": error}
        self._do(lambda connection: connection.execute(_JOBS.update().where(_held(taken)).values(**values)))

    def put_back(self, taken: Job, *, counted: bool) -> None:
        """Queue a job that was taken again, where its process or its worker ended before it did."""
        attempts = _JOBS.c.attempts if counted else _JOBS.c.attempts - 1
        query = _JOBS.update().where(_held(taken)).values(state="queued", attempts=attempts)
        self._do(lambda connection: connection.execute(query))

    def hurry(self, patience_s: float) -> None:
        """From now on do not wait longer than this for a database that is away."""
        self._patience_s = patience_s

    def answers(self) -> str | None:
        """None where the database answers at once, else what it says."""
        query = select(_JOBS.c.id).limit(1)

        def ask() -> None:
            with self._engine.connect() as connection:
                connection.execute(query).first()

        try:
            insist(ask, self._engine, 0.0)
        except DatabaseAway:
            return "the database does not answer"
        except ValueError as error:
            return str(error)
        return None

    def _by_key(self, key: str | None) -> Job | None:
        if key is None:
            return None
        query = select(_JOBS).where(_JOBS.c.idempotency_key == key)
        row = self._do(lambda connection: connection.execute(query).first())
        return None if row is None else _job(row)

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

    def _do(self, action: Callable[[Connection], Result]) -> Result:
        def attempt() -> Result:
            with self._engine.begin() as connection:
                return action(connection)

        return insist(attempt, self._engine, self._patience_s)


def _held(taken: Job) -> Any:
    """The row of a job, while it is in the attempt that was taken."""
    return (_JOBS.c.id == taken.id) & (_JOBS.c.state == "running") & (_JOBS.c.attempts == taken.attempts)


def _job(row: Any) -> Job:
    told = dict(row._mapping)
    told.pop("idempotency_key", None)
    log = told.pop("log", None)
    return Job(
        **{
            **told,
            "request": json.loads(told["request"]),
            "progress": json.loads(told["progress"] or "{}"),
            "log": tuple((log or "").splitlines()),
            "output": told.get("output") or "",
        }
    )
