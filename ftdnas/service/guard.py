"""Who may talk to the server: the token, the Host and Origin headers, the size of a body; headers of every answer."""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from http.cookies import CookieError, SimpleCookie
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from fastapi.responses import RedirectResponse

from ftdnas.report.style import policy
from ftdnas.service.problems import Problem, problem

COOKIE = "ftdnas_token"
LOOPBACK = ("127.0.0.1", "localhost", "::1")
SAFE = ("GET", "HEAD", "OPTIONS")
OPEN_PATHS = ("/api/v1/health", "/static/")  # they tell nothing
BODY_BYTES = 1 << 20  # of a request that is no upload
POLICY = policy(
    script_src="'self'",
    style_src="'self'",
    img_src="'self' data:",
    connect_src="'self'",
    form_action="'self'",
    frame_src="'self'",
    frame_ancestors="'self'",
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}

Scope = dict[str, Any]
App = Callable[[Scope, Any, Any], Awaitable[None]]


@dataclass(frozen=True)
class Access:
    """`token` None: everybody on this machine. `hosts`: names by which the server may be called; () is any."""

    token: str | None = None
    hosts: tuple[str, ...] = LOOPBACK


def make_token(path: Path | None) -> str:
    """The token in a file, or a fresh one. Raises ValueError for a file whose token is short."""
    if path is None:
        return secrets.token_urlsafe(32)
    token = path.read_text(encoding="utf-8").strip()
    if len(token) < 16:
        raise ValueError(
            f"{path} holds a token of {len(token)} characters: take 16 or more, such as openssl rand -hex 32"
        )
    return token


class Guard:
    """An ASGI layer in front of the application."""

    def __init__(self, app: App, access: Access, upload_bytes: int) -> None:
        self._app, self._access, self._upload_bytes = app, access, upload_bytes

    async def __call__(self, scope: Scope, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def answer(message: dict[str, Any]) -> None:
            if message["type"] == "http.response.start":
                there = {name.lower() for name, _ in message["headers"]}
                more = [(name.lower().encode(), value.encode()) for name, value in HEADERS.items()]
                message["headers"] = [*message["headers"], *(one for one in more if one[0] not in there)]
            await send(message)

        refused = self._refusal(scope)
        if refused is not None:
            await refused(scope, receive, answer)
            return
        await self._app(scope, self._limited(scope, receive), answer)

    def _refusal(self, scope: Scope) -> Any:
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        host = headers.get("host", "")
        if self._access.hosts and _name(f"//{host}") not in self._access.hosts:
            return problem(421, "this server is not called that: start it with --allow-host for another name")
        origin = headers.get("origin")
        if scope["method"] not in SAFE and origin is not None and origin.partition("://")[2] != host:
            return problem(403, "requests from other sites are refused")
        if scope["method"] not in SAFE and headers.get("sec-fetch-site") in ("cross-site", "same-site"):
            return problem(403, "requests from other sites are refused")
        length = headers.get("content-length", "0")
        if not length.isdigit() or int(length) > self._most(scope):
            return problem(413, f"the body is larger than {self._most(scope):,} bytes")
        return self._unknown(scope, headers)

    def _unknown(self, scope: Scope, headers: dict[str, str]) -> Any:
        token = self._access.token
        if token is None or scope["path"].startswith(OPEN_PATHS):
            return None
        query = parse_qs(scope["query_string"].decode("latin-1"))
        if scope["method"] == "GET" and "token" in query and not scope["path"].startswith("/api/"):
            if _same(query["token"][0], token):  # the browser keeps it in a cookie, and no address shows it again
                enter = RedirectResponse(scope["path"], 303)
                enter.set_cookie(COOKIE, token, httponly=True, samesite="strict", max_age=30 * 86400)
                return enter
            return problem(401, "wrong token")
        scheme, _, given = headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer" and _same(given.strip(), token):
            return None
        try:
            cookies = SimpleCookie(headers.get("cookie", ""))
        except CookieError:
            cookies = SimpleCookie()
        if COOKIE in cookies and _same(cookies[COOKIE].value, token):
            return None
        refused = problem(401, "this server needs its token: Authorization: Bearer TOKEN, or open /?token=TOKEN once")
        refused.headers["WWW-Authenticate"] = "Bearer"
        return refused

    def _most(self, scope: Scope) -> int:
        return self._upload_bytes if scope["method"] == "PUT" else BODY_BYTES

    def _limited(self, scope: Scope, receive: Any) -> Any:
        """A body without a length, or with a wrong one, is cut off where it becomes too large."""
        most, taken = self._most(scope), 0

        async def limited() -> Any:
            nonlocal taken
            message = await receive()
            taken += len(message.get("body", b""))
            if taken > most:
                raise Problem(413, f"the body is larger than {most:,} bytes")
            return message

        return limited


def _name(address: str) -> str:
    try:
        return urlsplit(address).hostname or ""
    except ValueError:
        return ""


def _same(one: str, other: str) -> bool:
    return hmac.compare_digest(one.encode(), other.encode())
