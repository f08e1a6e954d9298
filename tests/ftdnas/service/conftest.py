"""A service in this process for what answers at once, and `ftdnas serve` in processes of its own for what must live."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
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

    process: subprocess.Popen[str]
    lines: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        self.lines.extend(self.process.stdout)

    @property
    def url(self) -> str:
        until(lambda: any("ftdnas is at" in line for line in self.lines) or self.process.poll() is not None, 60)
        found = re.search(r"ftdnas is at (http://\S+?:\d+)", "".join(self.lines))
        assert found, "".join(self.lines)
        return found.group(1)

    def kill(self) -> None:
        """As a power cut would."""
        self.process.kill()
        self.end()

    def end(self) -> None:
        self.process.wait(30)
        self._reader.join(10)
        assert self.process.stdout is not None
        self.process.stdout.close()


Start = Callable[..., Program]


@pytest.fixture
def start() -> Iterator[Start]:
    """start("serve", "--port=0", ...): a program of the service, in this test's home; ended with the test."""
    programs: list[Program] = []

    def begin(*words: str) -> Program:
        process = subprocess.Popen(
            [sys.executable, "-u", "-m", "ftdnas", *words],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, "FTDNAS_HOME": str(home()), "OMP_NUM_THREADS": "1"},
        )
        programs.append(Program(process))
        return programs[-1]

    yield begin
    for program in programs:
        if program.process.poll() is None:
            program.process.send_signal(signal.SIGTERM)
            program.end()


def until(condition: Callable[[], Any], timeout_s: float) -> None:
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.05)
