"""The database of studies: SQLite in the home folder, or PostgreSQL by its URL."""

from __future__ import annotations

import contextlib
import sqlite3
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from distill.files import locked
from ftdnas.runtime.home import home
from ftdnas.runtime.leases import PATIENCE_S, TABLE, DatabaseAway, Leases, insist, meant
from ftdnas.runtime.trouble import unwritable

if TYPE_CHECKING:
    from sqlalchemy import Engine

BUSY_S = 60  # a process waits so long for another's write
ANSWER_S = 30.0  # a server's database that does not answer a statement for so long is away
OPENING_S = 3.0  # a database that is not there when it is opened is more likely a wrong URL than a restart
JOBS, SCHEMA = "ftdnas_jobs", "ftdnas_schema"  # tables of the service
OURS = {TABLE, JOBS, "studies"}  # a database of ours holds one of these tables, or none at all


@dataclass(frozen=True, eq=False)
class Storage:
    """An open database, for leases, for the jobs of the service and for the trials that Optuna shows."""

    engine: Engine
    patience_s: float = PATIENCE_S

    @property
    def url(self) -> str:
        """Without its password."""
        return self.engine.url.render_as_string(hide_password=True)

    @property
    def file(self) -> Path | None:
        """Of an SQLite database."""
        return _file_of(self.engine)

    def leases(self, scope: str) -> Leases:
        return Leases(self.engine, scope, patience_s=self.patience_s)


@contextlib.contextmanager
def open_storage(
    url: str | None = None, *, patience_s: float = PATIENCE_S, answer_s: float = ANSWER_S
) -> Iterator[Storage]:
    """The database at an SQLAlchemy URL, by default studies.db in the home folder; closed after the block.

    `answer_s`: what one statement of a server's database may take, and a connection to it. Raises ValueError for a URL
    that cannot be opened, and for a file that is damaged or not ours, which is left as it is; DatabaseAway for one that
    cannot be read or written now.
    """
    from sqlalchemy import create_engine, exc

    given = url or str(home() / "studies.db")
    if given.startswith(("postgres://", "postgresql://")):
        given = "postgresql+psycopg://" + given.partition("://")[2]
    elif "://" not in given:
        given = f"sqlite:///{quote(given)}"
    try:
        engine = create_engine(given, **engine_options(given, answer_s))
    except (exc.ArgumentError, exc.NoSuchModuleError, ValueError) as error:
        raise ValueError(f"--storage {url}: {first_line(error)}; write sqlite:///FILE or postgresql://...") from error
    except ModuleNotFoundError as error:
        raise ValueError(f"--storage {url} needs {error.name}: pip install 'ftdnas[postgres]'") from error
    if engine.dialect.name not in ("sqlite", "postgresql"):
        raise ValueError(f"--storage {url}: only SQLite and PostgreSQL hold studies")
    path = _file_of(engine)
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        check_file(path)
    be_quick(engine, answer_s)
    storage = Storage(engine, patience_s)
    try:
        insist(lambda: engine.connect().close(), engine, OPENING_S)
        yield storage
    finally:
        engine.dispose()


def check_file(path: Path) -> None:
    """Raise ValueError where an SQLite file is damaged or another program's; it is only read."""
    if path.is_dir():
        raise ValueError(f"{path} is a folder and no SQLite file: take another --storage")
    if not path.exists() or path.stat().st_size == 0:
        return
    way_out = f"move it away and repeat the command: {path.name} is made anew from the rows beside it"
    address = f"{path.resolve().as_uri()}?mode=ro"
    try:
        with contextlib.closing(sqlite3.connect(address, uri=True, timeout=BUSY_S)) as file:
            tables = {name for (name,) in file.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
            (verdict,) = file.execute("PRAGMA quick_check(1)").fetchone()
    except sqlite3.DatabaseError as error:
        if getattr(error, "sqlite_errorcode", 0) & 0xFF not in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
            raise DatabaseAway(f"{path} cannot be read: {unwritable(path.parent) or meant(str(error))}") from error
        raise ValueError(f"{path} is damaged or no SQLite file ({error}): {way_out}") from error
    if verdict != "ok":
        raise ValueError(f"{path} is damaged ({' '.join(verdict.split())}): {way_out}")
    if tables and not tables & OURS:
        raise ValueError(f"{path} is another program's database (it holds {sorted(tables)[0]}): take another --storage")


def engine_options(url: str, answer_s: float = ANSWER_S) -> dict[str, Any]:
    """Of SQLAlchemy's engine."""
    if url.startswith("sqlite"):
        return {"connect_args": {"timeout": BUSY_S}}
    connect_s = max(2, round(min(10.0, answer_s)))  # libpq knows no less
    return {"pool_pre_ping": True, "pool_timeout": answer_s, "connect_args": {"connect_timeout": connect_s}}


def _file_of(engine: Engine) -> Path | None:
    if engine.dialect.name != "sqlite" or not engine.url.database or engine.url.database == ":memory:":
        return None
    return Path(engine.url.database)


def be_quick(engine: Engine, answer_s: float = ANSWER_S) -> None:
    """What is done with every connection.

    A write-ahead log makes a trial ten times cheaper than SQLite's own journal, and as safe from a kill. A server that
    does not answer in time, as one that is frozen, is given up.
    """
    from sqlalchemy import event

    def on_connect(connection: Any, record: object) -> None:  # noqa: ARG001
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=NORMAL")

    def connect(dialect: object, record: object, words: Any, options: Any) -> Any:  # noqa: ARG001
        return _impatient(answer_s).connect(*words, **options)

    if engine.dialect.name == "sqlite":
        event.listen(engine, "connect", on_connect)
    else:
        event.listen(engine, "do_connect", connect)
    engine.dispose()  # connections from before the listener


def _impatient(answer_s: float) -> Any:
    """A kind of connection."""
    from psycopg import Connection, OperationalError

    class Impatient(Connection[Any]):
        def wait(self, gen: Any, interval: float = 0.1, timeout: float | None = None) -> Any:
            begun = time.monotonic()
            try:
                return super().wait(gen, interval, answer_s if timeout is None else timeout)
            except OperationalError:
                if time.monotonic() - begun >= answer_s:
                    self.pgconn.finish()  # what it would still answer, nobody waits for
                raise

    return Impatient


@contextlib.contextmanager
def one_at_a_time(engine: Engine) -> Iterator[None]:
    """Inside the block no other process makes tables in an SQLite file; of a server's, a retry takes care."""
    path = _file_of(engine)
    if path is None:
        yield
        return
    with locked(path.with_name(f"{path.stem}.lock")):
        yield


def first_line(error: Exception) -> str:
    """Of what it says."""
    return str(error).strip().partition("\n")[0]
