"""Who may talk to the server: the token, the Host and Origin headers, the size of a body; headers of every answer."""

from __future__ import annotations

import hmac
import secrets
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from fastapi import HTTPException, Request
from fastapi.responses import RedirectResponse, Response
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ftdnas.report.style import policy
from ftdnas.service.problems import problem

COOKIE = "ftdnas_token"
LOOPBACK = ("127.0.0.1", "localhost", "::1")
SAFE = ("GET", "HEAD", "OPTIONS")
OPEN_PATHS = ("/api/v1/health", "/static/")  # they tell nothing
BODY_BYTES = 1 << 20  # of a request that is no upload
OWN = ("script_src", "style_src", "connect_src", "form_action", "frame_src", "frame_ancestors")
POLICY = policy(**dict.fromkeys(OWN, "'self'"), img_src="'self' data:")
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}


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

    def __init__(self, app: ASGIApp, access: Access, upload_bytes: int) -> None:
        self._app, self._access, self._upload_bytes = app, access, upload_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request = Request(scope)
        most = self._upload_bytes if request.method == "PUT" else BODY_BYTES
        taken = 0

        async def limited() -> Message:
            """A body without a length, or with a wrong one, is cut off where it becomes too large."""
            nonlocal taken
            message = await receive()
            taken += len(message.get("body", b""))
            if taken > most:
                raise HTTPException(413, f"the body is larger than {most:,} bytes")
            return message

        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        answering = self._refusal(request, most) or self._app
        await answering(scope, limited, answer)

    def _refusal(self, request: Request, most: int) -> Response | None:
        headers = request.headers
        host = headers.get("host", "")
        if self._access.hosts and _name(f"//{host}") not in self._access.hosts:
            return problem(421, "this server is not called that: start it with --allow-host for another name")
        foreign = headers.get("origin", f"//{host}").partition("//")[2] != host
        if request.method not in SAFE and (foreign or headers.get("sec-fetch-site") in ("cross-site", "same-site")):
            return problem(403, "requests from other sites are refused")
        length = headers.get("content-length", "0")
        if not length.isdigit() or int(length) > most:
            return problem(413, f"the body is larger than {most:,} bytes")
        return self._unknown(request)

    def _unknown(self, request: Request) -> Response | None:
        token, path = self._access.token, request.scope["path"]
        if token is None or path.startswith(OPEN_PATHS):
            return None
        entered = request.query_params.get("token")
        if request.method == "GET" and entered and not path.startswith("/api/"):
            if not _same(entered, token):
                return problem(401, "wrong token")
            enter = RedirectResponse(path, 303)  # the browser keeps it in a cookie, and no address shows it again
            enter.set_cookie(COOKIE, token, httponly=True, samesite="strict", max_age=30 * 86400)
            return enter
        scheme, _, bearer = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer" and _same(bearer.strip(), token):
            return None
        if _same(request.cookies.get(COOKIE, ""), token):
            return None
        refused = problem(401, "this server needs its token: Authorization: Bearer TOKEN, or open /?token=TOKEN once")
        refused.headers["WWW-Authenticate"] = "Bearer"
        return refused


def _name(address: str) -> str:
    try:
        return urlsplit(address).hostname or ""
    except ValueError:
        return ""


def _same(one: str, other: str) -> bool:
    return hmac.compare_digest(one.encode(), other.encode())
