"""Errors as RFC 9457 problem details: what was wrong, and the way out."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException

MEDIA = "application/problem+json"


class Problem(Exception):
    """An answer that is not what was asked for."""

    def __init__(self, status: int, detail: str, **more: Any) -> None:
        super().__init__(detail)
        self.status, self.detail, self.more = status, detail, more


def problem(status: int, detail: str, **more: Any) -> Response:
    told = {"type": "about:blank", "title": HTTPStatus(status).phrase, "status": status, "detail": detail, **more}
    return JSONResponse(told, status, media_type=MEDIA)


def install(app: FastAPI) -> None:
    """Translate what the core raises: unknown names 404, wrong values 422, a database or disk that is away 503."""

    @app.exception_handler(Problem)
    async def own(_: Request, error: Problem) -> Response:
        return problem(error.status, error.detail, **error.more)

    @app.exception_handler(HTTPException)
    async def http(_: Request, error: HTTPException) -> Response:
        answer = problem(error.status_code, str(error.detail))
        answer.headers.update(error.headers or {})
        return answer

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> Response:
        found = [{"where": ".".join(map(str, one["loc"])), "problem": one["msg"]} for one in error.errors()[:20]]
        first = found[0] if found else {"where": "request", "problem": "cannot be read"}
        return problem(422, f"{first['where']}: {first['problem']}", errors=found)

    @app.exception_handler(LookupError)
    async def unknown(_: Request, error: LookupError) -> Response:
        if isinstance(error, IndexError):
            raise error
        return problem(404, str(error.args[0] if error.args else error))

    @app.exception_handler(ValueError)
    async def wrong(_: Request, error: ValueError) -> Response:
        return problem(503 if "does not answer" in str(error) else 422, str(error))

    @app.exception_handler(OSError)
    async def disk(_: Request, error: OSError) -> Response:
        return problem(507 if error.errno == 28 else 503, error.strerror or type(error).__name__)
