"""Errors as RFC 9457 problem details: what was wrong, and the way out."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException

from ftdnas.service.render import page

MEDIA = "application/problem+json"


class Problem(Exception):
    """An answer that is not what was asked for."""

    def __init__(self, status: int, detail: str, **more: Any) -> None:
        super().__init__(detail)
        self.status, self.detail, self.more = status, detail, more


def _answer(request: Request, status: int, detail: str, **more: Any) -> Response:
    """A problem, or for somebody who looks at a page, a page."""
    if request.method == "GET" and not request.url.path.startswith("/api/"):
        return page("problem.html", status, title=HTTPStatus(status).phrase, detail=detail)
    return problem(status, detail, **more)


def problem(status: int, detail: str, **more: Any) -> Response:
    told = {"type": "about:blank", "title": HTTPStatus(status).phrase, "status": status, "detail": detail, **more}
    return JSONResponse(told, status, media_type=MEDIA)


def install(app: FastAPI) -> None:
    """Translate what the core raises: unknown names 404, wrong values 422, a database or disk that is away 503."""

    @app.exception_handler(Problem)
    async def own(request: Request, error: Problem) -> Response:
        return _answer(request, error.status, error.detail, **error.more)

    @app.exception_handler(HTTPException)
    async def http(request: Request, error: HTTPException) -> Response:
        answer = _answer(request, error.status_code, str(error.detail))
        answer.headers.update(error.headers or {})
        return answer

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> Response:
        found = [{"where": ".".join(map(str, one["loc"])), "problem": one["msg"]} for one in error.errors()[:20]]
        first = found[0] if found else {"where": "request", "problem": "cannot be read"}
        return _answer(request, 422, f"{first['where']}: {first['problem']}", errors=found)

    @app.exception_handler(LookupError)
    async def unknown(request: Request, error: LookupError) -> Response:
        if isinstance(error, IndexError):
            raise error
        return _answer(request, 404, str(error.args[0] if error.args else error))

    @app.exception_handler(ValueError)
    async def wrong(request: Request, error: ValueError) -> Response:
        return _answer(request, 503 if "does not answer" in str(error) else 422, str(error))

    @app.exception_handler(OSError)
    async def disk(request: Request, error: OSError) -> Response:
        return _answer(request, 507 if error.errno == 28 else 503, error.strerror or type(error).__name__)
