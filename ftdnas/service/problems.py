"""Errors as RFC 9457 problem details: what was wrong, and the way out."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from pydantic import ValidationError
from starlette.exceptions import HTTPException

from ftdnas.runtime.leases import DatabaseAway
from ftdnas.service.names import NAME, NAME_SAID
from ftdnas.service.paths import without_places
from ftdnas.service.queue import Conflict, QueueFull
from ftdnas.service.render import page

MEDIA = "application/problem+json"
AWAY = "the database does not answer: what runs goes on, and is told of when it does"  # where it is, the log says
log = logging.getLogger(__name__)


def _answer(request: Request, status: int, detail: str, **more: Any) -> Response:
    """A problem, or for somebody who looks at a page, a page."""
    if request.method == "GET" and not request.url.path.startswith("/api/"):
        return page("problem.html", status, title=HTTPStatus(status).phrase, detail=without_places(detail))
    return problem(status, detail, **more)


def problem(status: int, detail: str, **more: Any) -> Response:
    detail = without_places(detail)
    told = {"type": "about:blank", "title": HTTPStatus(status).phrase, "status": status, "detail": detail, **more}
    return JSONResponse(told, status, media_type=MEDIA)


def _said(error: Mapping[str, Any]) -> str:
    """What pydantic found, in the words of somebody who filled in a form."""
    if error["type"] == "extra_forbidden":
        return "a server takes no such option"
    if error["type"] == "missing":
        return "is needed"
    if error["type"] == "string_pattern_mismatch":
        pattern = error.get("ctx", {}).get("pattern")
        return NAME_SAID if pattern == NAME else f"{error['input']!r} is not written as it must be ({pattern})"
    return str(error["msg"]).removeprefix("Value error, ")


def install(app: FastAPI) -> None:
    """Translate what the core raises: unknown names 404, wrong values 422, a database or disk that is away 503."""

    async def unforeseen(request: Request, error: Exception) -> Response:  # its traceback is in the server's log
        return _answer(request, 500, f"an error of the server itself ({type(error).__name__}): see its log")

    app.add_exception_handler(Exception, unforeseen)
    for kind in (HTTPException, RequestValidationError, LookupError, ValueError, DatabaseAway, OSError):
        app.add_exception_handler(kind, _translated)


async def _translated(request: Request, error: Exception) -> Response:
    match error:
        case HTTPException():
            answer = _answer(request, error.status_code, str(error.detail))
            answer.headers.update(error.headers or {})
            return answer
        case RequestValidationError() | ValidationError():
            problems = [{"where": ".".join(map(str, one["loc"])), "problem": _said(one)} for one in error.errors()[:20]]
            return _answer(
                request, 422, f"{problems[0]['where'] or 'request'}: {problems[0]['problem']}", errors=problems
            )
        case Conflict():
            return _answer(request, 409, str(error))
        case IndexError() | KeyError():
            raise error  # no unknown name: a mistake of ours
        case LookupError():
            return _answer(request, 404, str(error.args[0] if error.args else error))
        case DatabaseAway():
            log.warning("%s", error)
            return _answer(request, 503, AWAY)
        case QueueFull():
            return _answer(request, 429, str(error))
        case OSError():
            return _answer(request, 507 if error.errno == 28 else 503, error.strerror or type(error).__name__)
    return _answer(request, 422, str(error))
