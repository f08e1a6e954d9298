"""Who does what: claims on pieces of work that processes and machines share through one database.

A claim is a row, so that it works on SQLite and PostgreSQL alike and shows who holds it.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from ftdnas.runtime.rows import Row

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine, Table
    from sqlalchemy.sql.elements import ColumnElement

Claim = Literal["ours", "held", "done"]
Result = TypeVar("Result")

TABLE = "ftdnas_leases"
BEAT_S = 5.0
STALE_S = 30.0  # without a heartbeat for so long, a holder is taken for dead
PATIENCE_S = 60.0  # a database may be gone for so long
MEANT = {  # what SQLite says
    "readonly": "is read-only, or its folder is",
    "is full": "has no space left on its disk",
    "unable to open": "cannot be opened: its folder has gone, or may not be written",
    "disk I/O error": "lies on a disk that does not read or write",
}
RACES = 5  # tries of what failed because another process made the same thing at the same moment
AT_ONCE = 500  # keys asked for in one statement


class DatabaseAway(ValueError):
    """The database has not answered for as long as one was ready to wait."""


@dataclass(eq=False)
class Leases:
    """Claims under `scope`; the holder is this object, and dies with it.

    Inside its block a thread tells the database every `beat_s` seconds that the holder lives. Time is the database's
    own, so that machines need not agree on it. A database that does not answer is asked again, for `patience_s`
    seconds; then every method raises ValueError with one line.
    """

    engine: Engine
    scope: str
    _: KW_ONLY
    beat_s: float = BEAT_S
    stale_s: float = STALE_S
    patience_s: float = PATIENCE_S

    def __post_init__(self) -> None:
        if not 0 < self.beat_s < self.stale_s:
            raise ValueError(
                f"a heartbeat every {self.beat_s:g} s is too slow where holders are dead after {self.stale_s:g} s"
            )
        self.holder = f"{_process(os.getpid())}/{uuid.uuid4().hex[:12]}"
        self._table = _table()
        self._over = threading.Event()
        self._heart: threading.Thread | None = None

    def __enter__(self) -> Leases:
        insist(self._create, self.engine, self.patience_s)
        self._over.clear()
        self._heart = threading.Thread(target=self._beat, daemon=True, name="ftdnas-leases")
        self._heart.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *exception: object) -> None:
        """Give back what was claimed and not finished."""
        self._over.set()
        if self._heart is not None:
            self._heart.join()
            self._heart = None
        with contextlib.suppress(ValueError) if kind else contextlib.nullcontext():
            self._change(self._table.c.result.is_(None), {"holder": None}, patience_s=5.0 if kind else None)

    def claim(self, key: str) -> Claim:
        """Take the lease of `key`: "ours", or "held" by a living other, or "done", where its result is there."""
        table, now = self._table, self._now()
        free = table.c.holder.is_(None) | (table.c.holder == self.holder) | (table.c.beat < now - self.stale_s)
        taken = self._put(key, {"holder": self.holder, "beat": now}, free)

        def take(connection: Connection) -> Claim:
            if connection.execute(taken).first() is not None:
                return "ours"
            there = connection.execute(_of(table, self.scope, [key])).one()
            if there.result is not None:
                return "done"
            if there.holder is None or _living(there.holder):  # it was given back a moment ago: the next look takes it
                return "held"
            same = (table.c.scope == self.scope) & (table.c.key == key) & (table.c.holder == there.holder)
            change = table.update().where(same & table.c.result.is_(None)).values(holder=self.holder, beat=now)
            return "ours" if connection.execute(change).rowcount else "held"

        return self._do(take)

    def finish(self, key: str, row: Row) -> None:
        """Store the result; the first one is kept, where a holder that only seemed dead finishes too."""
        stored = self._put(key, {"holder": self.holder, "result": json.dumps(row, allow_nan=False)})
        self._do(lambda connection: connection.execute(stored).first())

    def release(self, key: str) -> None:
        """Give a lease of ours back without a result."""
        self._change((self._table.c.key == key) & self._table.c.result.is_(None), {"holder": None})

    def done(self) -> set[str]:
        """The keys that have results."""
        table = self._table
        of_scope = table.c.scope == self.scope
        query = table.select().with_only_columns(table.c.key).where(of_scope & table.c.result.is_not(None))
        return self._do(lambda connection: set(connection.execute(query).scalars()))

    def results(self, keys: Collection[str] | None = None) -> dict[str, Row]:
        """Key -> result of those `keys` that have one; of all by default."""
        table = self._table
        wanted = sorted(self.done() if keys is None else keys)
        found: dict[str, Row] = {}
        for start in range(0, len(wanted), AT_ONCE):
            query = _of(table, self.scope, wanted[start : start + AT_ONCE]).where(table.c.result.is_not(None))
            for row in self._do(lambda connection, query=query: connection.execute(query).all()):  # type: ignore[misc]
                found[row.key] = json.loads(row.result)
        return found

    def free(self, keys: Collection[str]) -> set[str]:
        """Those of `keys` without a result that no other living holder has."""
        return set(keys) - self.held() - self.done()

    def held(self) -> set[str]:
        """The keys without a result that another living holder has."""
        table = self._table
        dead = table.c.holder.is_(None) | (table.c.beat < self._now() - self.stale_s)
        query = table.select().where((table.c.scope == self.scope) & table.c.result.is_(None) & ~dead)
        busy = self._do(lambda connection: connection.execute(query).all())
        return {row.key for row in busy if row.holder != self.holder and _living(row.holder)}

    def forget(self) -> None:
        """Delete every claim and result of the scope."""
        statement = self._table.delete().where(self._table.c.scope == self.scope)
        self._do(lambda connection: connection.execute(statement))

    @contextlib.contextmanager
    def alone(self, key: str, wait_s: float = 0.02) -> Iterator[None]:
        """Hold the lease of `key` inside the block, waiting for whoever has it; nothing is ever its result."""
        while self.claim(key) != "ours":
            time.sleep(wait_s)
            wait_s = min(1.0, 1.5 * wait_s)
        try:
            yield
        finally:
            self.release(key)

    def _beat(self) -> None:
        while not self._over.wait(self.beat_s):
            # A database that is gone is the concern of whoever needs it; the heart beats on.
            with contextlib.suppress(ValueError):
                self._change(self._table.c.result.is_(None), {"beat": self._now()}, patience_s=0.0)

    def _put(self, key: str, values: Mapping[str, Any], where: ColumnElement[bool] | None = None) -> Any:
        """A statement that makes the row of `key`, or changes it as long as it has no result and is as `where` says."""
        from sqlalchemy.dialects import postgresql, sqlite

        insert = sqlite.insert if self.engine.dialect.name == "sqlite" else postgresql.insert
        table = self._table
        new = insert(table).values({"scope": self.scope, "key": key, "beat": self._now(), **values})
        open_ = table.c.result.is_(None) if where is None else table.c.result.is_(None) & where
        return new.on_conflict_do_update(
            index_elements=[table.c.scope, table.c.key], set_=dict(values), where=open_
        ).returning(table.c.key)

    def _change(self, where: ColumnElement[bool], values: Mapping[str, Any], patience_s: float | None = None) -> None:
        """Of our own leases."""
        ours = (self._table.c.scope == self.scope) & (self._table.c.holder == self.holder)
        statement = self._table.update().where(ours & where).values(values)
        self._do(lambda connection: connection.execute(statement), patience_s)

    def _now(self) -> ColumnElement[float]:
        return now_of(self.engine)

    def _do(self, action: Callable[[Connection], Result], patience_s: float | None = None) -> Result:
        """`action` in a transaction, once the table is there."""

        def attempt() -> Result:
            with self.engine.begin() as connection:
                return action(connection)

        return insist(attempt, self.engine, self.patience_s if patience_s is None else patience_s, self._create)

    def _create(self) -> None:
        self._table.metadata.create_all(self.engine)


def insist(
    attempt: Callable[[], Result],
    engine: Engine,
    patience_s: float = PATIENCE_S,
    create: Callable[[], None] = lambda: None,
) -> Result:
    """What `attempt` returns, tried again with growing pauses while the database does not answer.

    `create` is called where a table is missing. Raises DatabaseAway with one line where the database stays away for
    `patience_s` seconds, and ValueError where it is damaged. An attempt must be harmless when it is repeated.
    """
    from sqlalchemy import exc

    end, pause_s, races = time.monotonic() + patience_s, 0.05, 0
    while True:
        try:
            return attempt()
        except Exception as error:
            # Optuna wraps what the database says.
            said = error if isinstance(error, exc.DBAPIError | exc.TimeoutError) else error.__cause__
            if not isinstance(said, exc.DBAPIError | exc.TimeoutError):
                raise
            text = str(getattr(said, "orig", None) or said).strip().partition("\n")[0]
            missing = "no such table" in text or ("relation" in text and "does not exist" in text)
            gone = isinstance(said, exc.OperationalError | exc.InterfaceError | exc.TimeoutError) and not missing
            # Two processes that make the same table at once: one of them hears that it exists.
            races += missing or isinstance(said, exc.IntegrityError | exc.ProgrammingError)
            where = engine.url.render_as_string(hide_password=True)
            if gone and time.monotonic() >= end:
                raise DatabaseAway(
                    f"the database {where} {meant(text)}: see to it and repeat the command, what is finished is kept"
                ) from error
            if not gone and not 0 < races <= RACES:
                raise ValueError(
                    f"the database {where} cannot be used ({text}): give another --storage, the rows are kept in files"
                ) from error
        if missing:
            with contextlib.suppress(exc.DBAPIError):
                create()
        time.sleep(max(0.0, min(pause_s, end - time.monotonic())))
        pause_s = min(5.0, 2 * pause_s)


def meant(text: str) -> str:
    """What a database says, in words that name the cause."""
    for part, words in MEANT.items():
        if part in text:
            return f"{words} ({text})"
    return f"does not answer ({text})"


def now_of(engine: Engine) -> ColumnElement[float]:
    """Seconds since 1970 by the database."""
    from sqlalchemy import Float, literal_column

    text = "(julianday('now') - 2440587.5) * 86400.0"
    if engine.dialect.name != "sqlite":
        text = "CAST(EXTRACT(EPOCH FROM clock_timestamp()) AS DOUBLE PRECISION)"
    return literal_column(text, Float())


def _process(pid: int) -> str:
    """Where and which a process is: machine, its start, process names, number, the process's start."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        names = Path("/proc/self/ns/pid").stat().st_ino
        state, *more = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        begun = "" if state in "ZX" else more[18]  # a zombie has ended
    except (OSError, IndexError, ValueError):
        boot, names, begun = "", 0, ""
    return f"{socket.gethostname()[:24]}/{boot}/{names}/{pid}/{begun}"


def _living(holder: str) -> bool:
    """False where this machine knows that the process has ended: then nobody needs to wait for its heartbeat."""
    process = holder.rpartition("/")[0]
    place, pid, begun = process.rsplit("/", 2)
    if not begun or place != _process(os.getpid()).rsplit("/", 2)[0]:
        return True
    return _process(int(pid)) == process


def _of(table: Table, scope: str, keys: Collection[str]) -> Any:
    return table.select().where((table.c.scope == scope) & table.c.key.in_(list(keys)))


def _table() -> Table:
    """Metadata of our own: Optuna's tables in the same database are Optuna's concern."""
    from sqlalchemy import Column, Float, MetaData, String, Table, Text

    return Table(
        TABLE,
        MetaData(),
        Column("scope", String(200), primary_key=True),
        Column("key", String(200), primary_key=True),
        Column("holder", String(120)),
        Column("beat", Float(53), nullable=False),
        Column("result", Text),
    )
