"""The application: the routes, the pages, and the guard in front of both."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fastapi import FastAPI
from fastapi.staticfiles import StaticFiles

from ftdnas.service import api, pages, problems
from ftdnas.service.guard import Access, Guard
from ftdnas.service.server import Server

STATIC = Path(__file__).parent / "static"


def make_app(server: Server, access: Access) -> Any:
    """The ASGI application of a server."""
    app = FastAPI(
        title="ftdnas",
        description="Synthetic sets, searches on them, and how far to trust the ranking.",
        version="1",
        docs_url=None,  # it would load scripts from outside
        redoc_url=None,
        openapi_url="/api/v1/openapi.json",
    )
    app.state.server = server
    problems.install(app)
    app.include_router(api.router)
    app.include_router(pages.router)
    app.mount("/static", StaticFiles(directory=STATIC), name="static")
    app.add_middleware(Guard, access=access, upload_bytes=server.upload_bytes)
    return app
