"""The pages: what the REST interface tells, for people. They change nothing themselves: forms call the interface."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Request
from fastapi import Path as InPath
from fastapi.responses import HTMLResponse
from jinja2 import Environment, FileSystemLoader
from markupsafe import Markup, escape

from ftdnas.library import Library, home
from ftdnas.service import studies
from ftdnas.service.api import Identity, ThisServer, list_sets, show_set
from ftdnas.service.forms import fields_of
from ftdnas.service.requests import KINDS, NAME, known_spaces

SHOWN = 20  # of each list on the overview

router = APIRouter(include_in_schema=False, default_response_class=HTMLResponse)
Name = Annotated[str, InPath(pattern=NAME)]


def percent(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.1f} %"


def duration(seconds: float | None) -> str:
    """ "40 s", "12 min", "2 h 30 min"."""
    if seconds is None:
        return ""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"


def shown(value: Any) -> str:
    """A value of a request or a provenance, as text."""
    if isinstance(value, list | tuple):
        return ", ".join(map(shown, value))
    if isinstance(value, Mapping):
        return ", ".join(f"{name}: {shown(one)}" for name, one in value.items() if one is not None)
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def figure(value: float, name: str) -> str:
    """A figure of a running job."""
    return percent(value) if name.endswith("accuracy") else f"{value:.4g}"


def breakable(architecture: str) -> Markup:
    """May go on in the next line after each of its choices."""
    return escape(architecture).replace(",", Markup(",<wbr>"))


def moment(seconds: float | None) -> str:
    return "" if seconds is None else time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(seconds)) + " UTC"


_PAGES = Environment(
    loader=FileSystemLoader(Path(__file__).parent / "templates"),
    autoescape=True,
    trim_blocks=True,
    lstrip_blocks=True,
)
_PAGES.filters |= {
    "percent": percent,
    "duration": duration,
    "moment": moment,
    "shown": shown,
    "figure": figure,
    "breakable": breakable,
}


def page(name: str, **told: Any) -> HTMLResponse:
    return HTMLResponse(_PAGES.get_template(name).render(**told))


@router.get("/")
def overview(server: ThisServer) -> HTMLResponse:
    jobs, count = server.queue.page(limit=SHOWN)
    found = [studies.study(name).summary() for name in studies.study_names()[:SHOWN]]
    return page(
        "overview.html",
        jobs=[server.board.told(job) for job in jobs],
        count=count,
        sets=list_sets(SHOWN, 0),
        studies=found,
        problems=server.problems(),
    )


@router.get("/new/{kind}")
def new(server: ThisServer, kind: str, request: Request) -> HTMLResponse:
    """A form for a job; the query fills fields in."""
    if kind not in KINDS:
        raise LookupError(f"no kind of job {kind!r}: choose from {', '.join(KINDS)}")
    from ftdnas.config import recipe_names

    choices = {
        "dataset": list(server.bounds.datasets()),
        "set": Library(home() / "sets").names(),
        "space": known_spaces(),
        "recipe": recipe_names(),
        "study": studies.study_names() if kind in ("truth", "report", "finish") else [],
        "truth": studies.truths(),
    }
    fields = fields_of(KINDS[kind], choices, dict(request.query_params))
    return page("new.html", kind=kind, what=(KINDS[kind].__doc__ or "").strip(), fields=fields, choices=choices)


@router.get("/jobs/{job}")
def show_job(server: ThisServer, job: Identity) -> HTMLResponse:
    return page("job.html", job=server.board.told(server.queue.get(job), whole=True))


@router.get("/sets/{name}")
def show_one_set(name: Name) -> HTMLResponse:
    library = Library(home() / "sets")
    told = show_set(name)
    provenance = {} if told["problem"] else dict(library.load(name).provenance)
    return page("set.html", set=told, provenance=provenance)


@router.get("/studies/{name}")
def show_study(name: Name) -> HTMLResponse:
    view = studies.study(name)
    return page("study.html", study=view.summary(), settings=dict(view.settings), trials=view.trials()[:50])
