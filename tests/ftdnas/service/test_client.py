"""The client, in environments that are not made for it."""

from __future__ import annotations

import importlib.util
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from ftdnas.service.client import Client, ServerError

DEAD = "http://127.0.0.1:9"


class _Answers(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        body = b'{"id": "a"}'
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def port() -> Iterator[int]:
    with HTTPServer(("127.0.0.1", 0), _Answers) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_address[1]
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(
    "proxies", [{"http_proxy": DEAD}, {"ALL_PROXY": "socks5://127.0.0.1:9"}, {"HTTP_PROXY": DEAD, "ALL_PROXY": DEAD}]
)
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_this_machine_is_asked_directly(
    proxies: dict[str, str], host: str, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in proxies.items():
        monkeypatch.setenv(name, value)
    with Client(f"http://{host}:{port}", "secret") as client:
        assert client.job("a") == {"id": "a"}


@pytest.mark.skipif(importlib.util.find_spec("socksio") is not None, reason="with it such a proxy is used")
def test_a_proxy_that_cannot_be_used_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALL_PROXY", "socks5://127.0.0.1:9")
    with pytest.raises(ServerError, match="the proxy that the environment names needs a package"):
        Client("http://example.org")
