"""A service in this process for what answers at once, and `ftdnas serve` in processes of its own for what must live."""

from __future__ import annotations

import re
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from starlette.testclient import TestClient

from ftdnas.runtime.database import open_storage
from ftdnas.runtime.home import home
from ftdnas.service.app import make_app
from ftdnas.service.board import Board
from ftdnas.service.bounds import Bounds
from ftdnas.service.guard import Access
from ftdnas.service.queue import Queue
from ftdnas.service.server import Server
from ftdnas.sets.library import Library


@dataclass
class Inside:
    """A service without workers, in this process."""

    server: Server
    web: TestClient
    storage: str | None  # URL of the database; None: that of the home

    def another(self, access: Access) -> TestClient:
        """The same server behind another guard."""
        return TestClient(make_app(self.server, access), base_url="http://127.0.0.1", raise_server_exceptions=False)


@pytest.fixture
def database(postgresql: Any) -> str:
    """URL of a new database of the PostgreSQL server."""
    import psycopg

    with psycopg.connect(postgresql.url, autocommit=True) as connection:
        connection.execute("DROP DATABASE IF EXISTS service WITH (FORCE)")
        connection.execute("CREATE DATABASE service")
    return str(postgresql.url.replace("/postgres", "/service"))


@pytest.fixture
def inside(request: pytest.FixtureRequest) -> Iterator[Inside]:
    """On SQLite; on a fresh database of PostgreSQL where a test is parametrised so."""
    url = request.getfixturevalue("database") if getattr(request, "param", "") == "postgresql" else None
    with open_storage(url) as storage:
        queue = Queue(storage)
        server = Server(queue, Board(queue, 1), Bounds(), 0, upload_bytes=1 << 20)
        yield Inside(server, TestClient(make_app(server, Access()), base_url="http://127.0.0.1"), url)


@dataclass
class Program:
    """`ftdnas serve` or `ftdnas worker`, and what it has said."""

    apart: Any  # of the tests' conftest

    @property
    def pid(self) -> int:
        return int(self.apart.process.pid)

    @property
    def alive(self) -> bool:
        return bool(self.apart.process.is_alive())

    def said(self) -> str:
        return "".join(stream.read_text() for stream in (self.apart.out, self.apart.err) if stream.exists())

    @property
    def url(self) -> str:
        until(lambda: "ftdnas is at" in self.said() or not self.alive)
        found = re.search(r"ftdnas is at (http://\S+?:\d+)", self.said())
        assert found, self.said()
        return found.group(1)

    def kill(self) -> None:
        """As a power cut would."""
        self.apart.send(signal.SIGKILL)


Start = Callable[..., Program]


@pytest.fixture
def start(begin: Callable[..., Any]) -> Iterator[Start]:
    """start("serve", "--port=0", ...): a program of the service, in this test's home; ended with the test."""
    programs: list[Program] = []

    def run(*words: str) -> Program:
        programs.append(Program(begin(*words, home=home())))
        return programs[-1]

    yield run
    for program in programs:
        if program.alive:
            program.apart.send(signal.SIGTERM)


def until(condition: Callable[[], Any], timeout_s: float = 300.0) -> None:
    """The time is for what hangs, not for what is slow."""
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.05)


@pytest.fixture
def digits_set(make_set: Any) -> str:
    Library().add(make_set(classes=10), "digits")
    return "digits"
