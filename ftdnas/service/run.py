"""Start the service: the database, the workers and the server, until a signal ends them."""

from __future__ import annotations

import contextlib
import ipaddress
import signal
import socket
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import FrameType

import uvicorn

from ftdnas.runtime.database import open_storage
from ftdnas.runtime.device import visible_gpus
from ftdnas.service import uploads
from ftdnas.service.app import make_app
from ftdnas.service.board import Board
from ftdnas.service.bounds import Bounds
from ftdnas.service.guard import LOOPBACK, Access, make_token
from ftdnas.service.queue import Queue
from ftdnas.service.server import Server
from ftdnas.service.workers import Workers

ANSWER_S = 2.0  # a request waits so long for the database: then it is told that it is away
STATEMENT_S = 4.0  # one that is frozen, and answers nothing, is given up


def serve(
    host: str,
    port: int,
    storage_url: str | None,
    bounds: Bounds,
    workers: int | None,
    *,
    token_file: Path | None = None,
    hosts: tuple[str, ...] = (),
    say: Callable[[str], None] = print,
) -> None:
    """Run until SIGINT or SIGTERM. With 0 workers jobs only queue here: `work` carries them out elsewhere. By
    default it is one job for each GPU, or one that has all cores.

    Raises ValueError for a storage that cannot be used, and for a port that is taken.
    """
    workers = max(1, len(visible_gpus())) if workers is None else workers
    listener = _bound(host, port)  # before any job is taken
    open_to_all = not is_loopback(host)
    token = make_token(token_file) if open_to_all or token_file else None
    access = Access(token, _names(host, hosts))
    with open_storage(storage_url, answer_s=STATEMENT_S) as storage, contextlib.ExitStack() as stack:
        uploads.clear()
        queue = Queue(replace(storage, patience_s=ANSWER_S))
        server = Server(queue, Board(queue, workers), bounds, workers)
        if workers:
            server.pool = stack.enter_context(Workers(storage, storage_url, bounds, workers, visible_gpus()))
        config = uvicorn.Config(
            make_app(server, access),
            host,
            port,
            log_level="warning",
            access_log=False,  # an address may hold a token
            server_header=False,
            timeout_graceful_shutdown=2,
        )

        def announce(bound: int) -> None:
            address = f"http://[{host}]:{bound}/" if ":" in host else f"http://{host}:{bound}/"
            new_token = token if token_file is None else None
            jobs = f"{workers} job{'s' * (workers != 1)} at once; Ctrl-C ends it, jobs go on later"
            say(f"ftdnas is at {address}{f'?token={new_token}' if new_token else ''}  ({jobs})")
            if new_token:
                say(f"other machines may connect: the token is {new_token}")

        _Announced(config, server, announce).run([listener])


def work(storage_url: str | None, bounds: Bounds, workers: int, say: Callable[[str], None] = print) -> None:
    """Carry out the jobs of a service that shares the database and the home folder, until SIGINT or SIGTERM."""
    over = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: over.set())
    with open_storage(storage_url) as storage, Workers(storage, storage_url, bounds, workers, visible_gpus()):
        say(f"carrying out jobs of {storage.url}, {workers} at once; Ctrl-C ends this, running jobs are taken up again")
        over.wait()


def _bound(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=2048)
    except OSError as error:
        raise ValueError(f"cannot listen on {host}, port {port}: {error.strerror or error} (--host, --port)") from None


def is_loopback(host: str) -> bool:
    with contextlib.suppress(ValueError):
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    return False


def _names(host: str, more: tuple[str, ...]) -> tuple[str, ...]:
    """By which the server may be called; any where it listens on every interface and no name is given."""
    if host in ("0.0.0.0", "::") and not more:
        return ()
    return tuple(dict.fromkeys([*LOOPBACK, host.lower(), *(name.lower() for name in more)]))


class _Announced(uvicorn.Server):
    """Says where it listens once it does, and tells streams when it is about to stop."""

    def __init__(self, config: uvicorn.Config, server: Server, announce: Callable[[int], None]) -> None:
        super().__init__(config)
        self._server, self._announce = server, announce

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self._announce(int(self.servers[0].sockets[0].getsockname()[1]))

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self._server.closing.set()
        super().handle_exit(sig, frame)
