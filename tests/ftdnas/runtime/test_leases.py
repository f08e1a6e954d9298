"""Claims in a real SQLite file and in a real PostgreSQL server: one holder each, and nobody waits for the dead."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

import pytest
from sqlalchemy import create_engine, text

from ftdnas.runtime.database import Storage, open_storage
from ftdnas.runtime.leases import Leases


class Server(Protocol):
    url: str
    port: int

    def start(self) -> None: ...
    def stop(self) -> None: ...


@pytest.fixture(params=["sqlite", "postgresql"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Storage]:
    server = request.getfixturevalue("postgresql") if request.param == "postgresql" else None
    with open_storage(server.url if server else f"sqlite:///{tmp_path / 'studies.db'}") as opened:
        yield opened
        if server:
            with opened.engine.begin() as connection:
                connection.execute(text("DROP TABLE IF EXISTS ftdnas_leases"))


def test_a_key_has_one_holder_until_it_is_given_back_or_done(storage: Storage) -> None:
    with storage.leases("a") as ours, storage.leases("a") as theirs, storage.leases("b") as elsewhere:
        assert ours.claim("1") == "ours"
        assert ours.claim("1") == "ours"  # again
        assert theirs.claim("1") == "held"
        assert elsewhere.claim("1") == "ours"
        assert theirs.free({"1", "2"}) == {"2"}
        ours.release("1")
        assert theirs.free({"1", "2"}) == {"1", "2"}
        assert theirs.claim("1") == "ours"
        theirs.finish("1", {"key": "1", "score": 0.5, "name": "größer"})
        assert ours.claim("1") == "done"
        assert ours.results() == {"1": {"key": "1", "score": 0.5, "name": "größer"}}
        assert ours.results({"2"}) == elsewhere.results() == {}
        ours.finish("1", {"key": "1", "score": 0.75})  # the first result stays
        ours.finish("3", {"key": "3"})  # never claimed
        assert theirs.results({"1", "3"}) == {"1": {"key": "1", "score": 0.5, "name": "größer"}, "3": {"key": "3"}}
        assert theirs.done() == {"1", "3"}
        assert theirs.free({"1", "3", "4"}) == {"4"}


def test_leases_are_given_back_at_the_end_of_the_block_even_after_an_error(storage: Storage) -> None:
    def interrupted() -> None:
        with storage.leases("a") as first:
            assert first.claim("1") == "ours"
            raise KeyboardInterrupt

    with storage.leases("a") as later:
        with pytest.raises(KeyboardInterrupt):
            interrupted()
        assert later.claim("1") == "ours"


def test_a_holder_without_a_heartbeat_is_taken_over_and_one_that_lives_is_not(storage: Storage) -> None:
    dead = Leases(storage.engine, "a")  # its block was never entered: it has no heart
    with Leases(storage.engine, "a", beat_s=0.05) as living, Leases(storage.engine, "a") as other:
        assert dead.claim("1") == "ours"
        assert living.claim("2") == "ours"
        assert other.claim("1") == "held"
        with storage.engine.begin() as connection:  # as if an hour had gone by
            connection.execute(text("UPDATE ftdnas_leases SET beat = beat - 3600"))
        until(lambda: other.free({"1", "2"}) == {"1"})  # the living one says again that it lives
        assert other.claim("1") == "ours"
        assert other.claim("2") == "held"
    with pytest.raises(ValueError, match="heartbeat every 5 s is too slow"):
        Leases(storage.engine, "a", stale_s=5)


def beat_of(leases: Leases, key: str) -> float:
    with leases.engine.connect() as connection:
        query = text("SELECT beat FROM ftdnas_leases WHERE scope = :scope AND key = :key")
        return float(connection.execute(query, {"scope": leases.scope, "key": key}).scalar_one())


def until(condition: Callable[[], bool]) -> None:
    while not condition():
        time.sleep(0.01)


HOLDER = """
import sys
from ftdnas.runtime.database import open_storage
with open_storage(sys.argv[1]) as storage, storage.leases("a") as leases:
    print(leases.claim("1"), flush=True)
    sys.stdin.read()
"""


def test_nobody_waits_for_a_process_of_this_machine_that_was_killed(storage: Storage) -> None:
    url = storage.engine.url.render_as_string(hide_password=False)
    with (
        storage.leases("a") as ours,
        subprocess.Popen([sys.executable, "-c", HOLDER, url], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process,
    ):
        assert process.stdout is not None
        assert process.stdout.readline() == b"ours\n"
        assert ours.claim("1") == "held"
        assert ours.free({"1"}) == set()
        os.kill(process.pid, signal.SIGKILL)
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # a zombie until it is waited for
        assert ours.free({"1"}) == {"1"}
        assert ours.claim("1") == "ours"


def test_threads_that_claim_at_once_share_everything_out(storage: Storage) -> None:
    taken: dict[int, list[str]] = {number: [] for number in range(4)}

    def take(number: int) -> None:
        with storage.leases("a") as leases:
            for key in map(str, range(40)):
                if leases.claim(key) == "ours":
                    taken[number].append(key)
                    leases.finish(key, {"key": key, "by": number})

    threads = [threading.Thread(target=take, args=(number,)) for number in taken]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(key for keys in taken.values() for key in keys) == sorted(map(str, range(40)))
    with storage.leases("a") as leases:
        assert {key: row["by"] for key, row in leases.results().items()} == {
            key: number for number, keys in taken.items() for key in keys
        }


def test_one_at_a_time_is_inside_the_block(storage: Storage) -> None:
    inside: list[int] = []
    most: list[int] = []

    def enter() -> None:
        with storage.leases("a") as leases:
            for _ in range(5):
                with leases.alone("door"):
                    inside.append(1)
                    most.append(len(inside))
                    time.sleep(0.002)
                    inside.pop()

    threads = [threading.Thread(target=enter) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1] * 15


def test_a_database_that_is_gone_for_a_moment_is_waited_for(postgresql: Server) -> None:
    with open_storage(postgresql.url) as storage, Leases(storage.engine, "gone", beat_s=0.1) as leases:
        assert leases.claim("1") == "ours"
        postgresql.stop()
        started = threading.Event()

        def start() -> None:
            started.set()
            postgresql.start()

        thread = threading.Timer(0.5, start)
        thread.start()
        leases.finish("1", {"key": "1"})
        assert started.is_set()  # it did not return before
        thread.join()
        assert leases.results() == {"1": {"key": "1"}}
        assert leases.claim("2") == "ours"
        beats = beat_of(leases, "2")
        until(lambda: beat_of(leases, "2") > beats)
        assert leases._heart is not None
        assert leases._heart.is_alive()  # it survived the outage
    engine = create_engine(postgresql.url.replace(f":{postgresql.port}", ":1").replace("ql:", "ql+psycopg:"))
    with pytest.raises(ValueError, match=r"does not answer.*see to it and repeat the command") as caught:
        Leases(engine, "a", patience_s=0.3).claim("1")
    assert "\n" not in str(caught.value)


def test_a_database_of_sqlite_that_another_locks_is_waited_for(tmp_path: Path) -> None:
    engine = create_engine(f"sqlite:///{tmp_path / 'a.db'}", connect_args={"timeout": 0})
    with engine.connect() as other, Leases(engine, "a") as leases:
        other.execute(text("BEGIN EXCLUSIVE"))
        thread = threading.Timer(0.5, other.rollback)
        thread.start()
        assert leases.claim("1") == "ours"
        thread.join()
    engine.dispose()
