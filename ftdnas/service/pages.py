"""The pages: what the REST interface tells, for people. They change nothing themselves: forms call the interface."""

from __future__ import annotations

from collections.abc import Mapping

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse

from ftdnas.candidates.screening import SCORES
from ftdnas.service import studies
from ftdnas.service.api import Identity, Name, ThisServer, list_sets, show_set
from ftdnas.service.forms import fields_of
from ftdnas.service.names import NAME
from ftdnas.service.queue import OVER
from ftdnas.service.render import page
from ftdnas.service.requests import KINDS
from ftdnas.sets.library import Library
from ftdnas.sets.nearest import describe_images, stored_nearest

SHOWN = 20  # of each list on the overview

router = APIRouter(include_in_schema=False, default_response_class=HTMLResponse)


@router.get("/")
def overview(server: ThisServer) -> HTMLResponse:
    """The open jobs, and the newest of the others."""
    opened = server.board.seen().told
    over, older = server.queue.page(states=OVER, limit=SHOWN)
    found = [studies.listed(name) for name in studies.study_names()[:SHOWN]]
    return page(
        "overview.html",
        jobs=[*reversed(opened), *(server.board.told(job) for job in over)],
        older=older - len(over) + len(server.board.seen().jobs) - len(opened),
        sets=list_sets(SHOWN, 0),
        studies=found,
        problems=server.problems(),
        name_pattern=NAME.strip("^$"),
    )


@router.get("/new/{kind}")
def new(server: ThisServer, kind: str, request: Request) -> HTMLResponse:
    """A form for a job; the query fills fields in."""
    if kind not in KINDS:
        raise LookupError(f"no kind of job {kind!r}: choose from {', '.join(KINDS)}")
    choices = {name: list(known) for name, (_, known) in server.bounds.names().items()}
    choices["study"] = studies.study_names() if kind in ("trust", "truth", "report", "finish") else []
    fields = fields_of(KINDS[kind].request, choices, dict(request.query_params))
    return page("new.html", kind=kind, what=(KINDS[kind].__doc__ or "").strip(), fields=fields, choices=choices)


@router.get("/jobs/{job}")
def show_job(server: ThisServer, job: Identity) -> HTMLResponse:
    return page("job.html", job=server.board.told(server.queue.get(job), whole=True))


@router.get("/sets/{name}")
def show_one_set(server: ThisServer, name: Name) -> HTMLResponse:
    library = Library()
    told = show_set(name)
    synthetic = None if told["problem"] else library.load(name)
    provenance = {} if synthetic is None else dict(synthetic.provenance)
    shows = [] if synthetic is None else [describe_images(synthetic, stored_nearest(synthetic))]
    names = {spec: known for known, spec in server.bounds.datasets().items()}
    origin = provenance.pop("data", None)
    if isinstance(origin, Mapping) and "spec" in origin:  # where the operator keeps images is nobody else's concern
        provenance["images"] = names.get(str(origin["spec"]), str(origin["spec"]).partition(":")[0])
    if synthetic is not None and synthetic.teachers is not None:
        shows.append(
            f"{len(synthetic.teachers)} teachers are in its file: weights that were trained on the real images"
        )
    return page("set.html", set=told, provenance=provenance, shows=shows)


@router.get("/studies/{name}")
def show_study(server: ThisServer, name: Name) -> HTMLResponse:
    """Before its job has begun, too."""
    try:
        view = server.study(name)
    except LookupError:
        jobs = [job for job in server.board.seen().jobs.values() if job.request.get("study") == name]
        if not jobs:
            raise
        return page("waiting.html", name=name, job=server.board.told(jobs[0]))
    return page(
        "study.html",
        study=view.summary(),
        settings=dict(view.settings),
        trials=view.trials()[:50],
        guide=SCORES[view.guide],
    )
