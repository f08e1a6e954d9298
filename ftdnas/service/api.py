"""The REST interface, /api/v1: thin routes over the queue, the library and the studies' folders."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Body, Depends, Header, HTTPException, Query, Request, Response
from fastapi import Path as InPath
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import FileResponse, HTMLResponse, JSONResponse, PlainTextResponse
from fastapi.sse import EventSourceResponse, ServerSentEvent

from ftdnas.agreement.bias import pareto
from ftdnas.report.style import stated_policy
from ftdnas.runtime.leases import DatabaseAway
from ftdnas.service import studies
from ftdnas.service.bounds import known_spaces
from ftdnas.service.machine import SPARE_BYTES
from ftdnas.service.names import NAME
from ftdnas.service.queue import OVER
from ftdnas.service.requests import KINDS, Kind, coming
from ftdnas.service.server import Server
from ftdnas.service.uploads import receive_set
from ftdnas.sets.library import Library, curve_of, sheet_of

EVENT_S = 0.5  # between two looks for news
PROBLEMS: dict[int | str, dict[str, Any]] = {
    400: {"description": "The request cannot be read"},
    401: {"description": "The token is missing or wrong"},
    403: {"description": "A request from another site"},
    404: {"description": "There is none of that name"},
    413: {"description": "Too large"},
    421: {"description": "The server is not called that"},
    422: {"description": "A value cannot be used"},
    429: {"description": "Too many jobs wait"},
    503: {"description": "The database or disk is away"},
}
router = APIRouter(prefix="/api/v1", responses=PROBLEMS)

Name = Annotated[str, InPath(pattern=NAME)]
Identity = Annotated[str, InPath(pattern=r"^[0-9a-f]{32}$")]
Limit = Annotated[int, Query(ge=1, le=500)]
Offset = Annotated[int, Query(ge=0, le=10**9)]


def of(request: Request) -> Server:
    server: Server = request.app.state.server
    return server


ThisServer = Annotated[Server, Depends(of)]


@router.get("/health", tags=["server"])
async def health() -> dict[str, str]:
    """The process answers."""
    return {"status": "ok"}


@router.get("/ready", tags=["server"])
def ready(server: ThisServer, response: Response) -> dict[str, Any]:
    """Whether jobs can be taken and carried out: the database, the disk, the workers."""
    problems = server.problems()
    response.status_code = 503 if problems else 200
    return {"ready": not problems, "problems": problems, "workers": server.workers}


@router.get("/jobs", tags=["jobs"])
def list_jobs(
    server: ThisServer,
    state: Annotated[list[Literal["queued", "running", "succeeded", "failed", "cancelled"]] | None, Query()] = None,
    limit: Limit = 50,
    offset: Offset = 0,
) -> dict[str, Any]:
    """Jobs, newest first."""
    found, count = server.queue.page(states=state or (), limit=limit, offset=offset)
    return {"jobs": [server.board.told(job) for job in found], "total": count, "limit": limit, "offset": offset}


@router.post("/jobs/{kind}", tags=["jobs"], status_code=202, responses={409: {"description": "The key is taken"}})
def submit(
    server: ThisServer,
    kind: Kind,
    asked: Annotated[dict[str, Any], Body(description="Options of the command; see /api/v1/kinds.")],
    response: Response,
    idempotency_key: Annotated[str | None, Header(max_length=200)] = None,
) -> dict[str, Any]:
    """Queue a job. The same Idempotency-Key again is the same job."""
    request = KINDS[kind].model_validate(asked)
    try:
        request.check(replace(server.bounds, coming=coming(server.board.seen().jobs.values())))
    except LookupError as error:
        raise HTTPException(422, str(error.args[0])) from None
    _keeping(server)
    kept = request.named().model_dump(exclude_unset=True)
    job, new = server.queue.submit(kind, kept, idempotency_key)
    server.board.forget()
    response.headers["Location"] = f"/api/v1/jobs/{job.id}"
    if not new:
        response.status_code = 200
    return server.board.told(job, whole=True)


@router.get("/kinds", tags=["jobs"])
def kinds() -> dict[str, Any]:
    """The kinds of jobs and the JSON schema of each one's request."""
    return {
        name: {"what": (one.__doc__ or "").strip(), "schema": one.model_json_schema()} for name, one in KINDS.items()
    }


@router.get("/jobs/{job}", tags=["jobs"])
def show_job(server: ThisServer, job: Identity) -> dict[str, Any]:
    """Where a job is: stage, fraction, values, seconds left and spent; at its end what the command printed."""
    found = server.board.job(job)
    if found.over:
        found = server.queue.get(job)
    return server.board.told(found, whole=found.over)


@router.get("/jobs/{job}/log", tags=["jobs"], response_class=PlainTextResponse)
def log(server: ThisServer, job: Identity) -> str:
    """What the command said on its way, the last lines."""
    return server.queue.get(job).log


@router.post("/jobs/{job}/{change}", tags=["jobs"], responses={409: {"description": "It is over, or did not fail"}})
def change_job(server: ThisServer, job: Identity, change: Literal["cancel", "retry"]) -> dict[str, Any]:
    """`cancel` ends a job: at once where it waits, within 5 seconds where it runs. What it made stays, for a retry.

    `retry` queues one that failed or was cancelled again; it goes on from what it left.
    """
    changed = server.queue.cancel(job) if change == "cancel" else server.queue.retry(job)
    server.board.forget()
    return server.board.told(changed)


def _job_now(server: ThisServer, job: Identity) -> dict[str, Any]:
    return server.board.told(server.board.job(job))


def _jobs_now(server: ThisServer) -> list[dict[str, Any]]:
    return server.board.seen().told


@router.get("/jobs/{job}/events", tags=["jobs"], response_class=EventSourceResponse)
async def job_events(
    server: ThisServer, request: Request, job: Identity, first: Annotated[dict[str, Any], Depends(_job_now)]
) -> AsyncIterator[ServerSentEvent]:
    """The job's state now and after every change, to its end."""
    async for event in _events(server, request, "job", first, lambda: _job_now(server, job)):
        yield event
        if event.data["state"] in OVER:
            return


@router.get("/events", tags=["jobs"], response_class=EventSourceResponse)
async def events(
    server: ThisServer, request: Request, first: Annotated[list[dict[str, Any]], Depends(_jobs_now)]
) -> AsyncIterator[ServerSentEvent]:
    """All jobs that wait or run, the first 100 of them, now and after every change."""
    async for event in _events(server, request, "jobs", first, lambda: _jobs_now(server)):
        yield event


async def _events(
    server: Server, request: Request, name: str, now: Any, look: Callable[[], Any]
) -> AsyncIterator[ServerSentEvent]:
    """`now`, of before the stream began (afterwards nothing can be refused any more), and every change `look` finds."""
    said = None
    while not server.closing.is_set() and not await request.is_disconnected():
        if now != said:
            said = now
            yield ServerSentEvent(data=now, event=name)
        await asyncio.sleep(EVENT_S)
        with contextlib.suppress(DatabaseAway):  # the stream lives on: the state comes when the database does
            now = await run_in_threadpool(look)


@router.get("/sets", tags=["synthetic sets"])
def list_sets(limit: Limit = 50, offset: Offset = 0) -> dict[str, Any]:
    """The library, by name."""
    library = Library()
    names = library.names()
    found = [_set(library, name) for name in names[offset : offset + limit]]
    return {"sets": found, "total": len(names), "limit": limit, "offset": offset}


@router.get("/sets/{name}", tags=["synthetic sets"])
def show_set(name: Name) -> dict[str, Any]:
    """A set's facts, and the studies it was used in with what was found of its worth."""
    library = Library()
    found = _set(library, name)
    used = [] if found["problem"] else [view.summary() for view in studies.with_set(found["identity"])]
    return {**found, "studies": used}


@router.get("/sets/{name}/file", tags=["synthetic sets"], response_class=FileResponse)
def download_set(name: Name) -> FileResponse:
    """The .safetensors file."""
    path = _own_set(name)
    return FileResponse(path, media_type="application/octet-stream", filename=path.name)


@router.get("/sets/{name}/{figure}", tags=["synthetic sets"], response_class=FileResponse)
def show_figure(name: Name, figure: Literal["sheet", "curve"]) -> FileResponse:
    """PNG: the images in true colours, or the course of losses and accuracies where the set was distilled."""
    path = (sheet_of if figure == "sheet" else curve_of)(_own_set(name))
    if not path.is_file():
        raise LookupError("this set has no such figure")
    return FileResponse(path, media_type="image/png", headers={"Cache-Control": "no-cache"})


@router.put(
    "/sets/{name}",
    tags=["synthetic sets"],
    status_code=201,
    responses={409: {"description": "Another set has the name"}},
    openapi_extra={"requestBody": {"content": {"application/octet-stream": {"schema": {"format": "binary"}}}}},
)
async def upload_set(server: ThisServer, name: Name, request: Request, response: Response) -> dict[str, Any]:
    """Take a .safetensors file into the library; every part of it is checked first.

    `warnings`: what it still tells of the real images that it was made from.
    """
    await run_in_threadpool(_keeping, server)
    specs = server.bounds.datasets().values()
    received = await receive_set(name, request.stream(), specs, SPARE_BYTES)
    response.status_code = 201 if received["new"] else 200
    return received


@router.delete(
    "/sets/{name}", tags=["synthetic sets"], status_code=204, responses={409: {"description": "Studies need it"}}
)
def delete_set(server: ThisServer, name: Name, force: bool = False) -> None:
    """Remove a set and its figures; one that studies or open jobs need only by `force`."""
    _own_set(name)
    library = Library()
    identity = library.entry(name).facts.get("identity")  # None: damaged
    copies = [one for one in library.list() if one.name != name and one.facts.get("identity") == identity]
    users = [] if identity is None or copies else [view.folder.name for view in studies.with_set(identity)]
    users += [f"job {job.id}" for job in server.board.seen().jobs.values() if job.request.get("set") == name]
    if users and not force:
        raise HTTPException(
            409, f"{', '.join(users[:5])} need the set {name} for their reports: force=true deletes it anyway"
        )
    library.remove(name)


@router.get("/studies", tags=["studies"])
def list_studies(limit: Limit = 50, offset: Offset = 0) -> dict[str, Any]:
    """Searches and checks, the newest first."""
    names = studies.study_names()
    found = [studies.listed(name) for name in names[offset : offset + limit]]
    return {"studies": found, "total": len(names), "limit": limit, "offset": offset}


@router.get("/studies/{name}", tags=["studies"])
def show_study(server: ThisServer, name: Name) -> dict[str, Any]:
    """What was searched, how, and what is known of it."""
    view = server.study(name)
    return {**view.summary(), "settings": dict(view.settings), "scored": len(view.trials())}


@router.get("/studies/{name}/trials", tags=["studies"])
def trials(server: ThisServer, name: Name, limit: Limit = 50, offset: Offset = 0) -> dict[str, Any]:
    """The candidates, best first; while the search runs those scored so far."""
    view = server.study(name)
    found = view.trials()
    shown = found[offset : offset + limit]
    return {"trials": shown, "state": view.state, "total": len(found), "limit": limit, "offset": offset}


@router.get("/studies/{name}/front", tags=["studies"])
def front(name: Name, cost: Literal["parameters", "flops", "latency_ms"] = "parameters") -> dict[str, Any]:
    """The Pareto front: candidates that no cheaper one beats in score."""
    found = studies.study(name).trials()
    rows = pareto([trial.get(cost) for trial in found], [trial["score"] for trial in found])
    return {"cost": cost, "trials": [found[row] for row in rows]}


@router.get("/studies/{name}/csv", tags=["studies"], response_class=PlainTextResponse)
def study_csv(name: Name) -> PlainTextResponse:
    """The candidates as a table."""
    import pandas as pd

    found = studies.study(name)
    table = found.ranking.to_csv() if found.ranking else pd.DataFrame(found.trials()).to_csv(index=False)
    return PlainTextResponse(table, media_type="text/csv")


@router.get("/studies/{name}/ranking", tags=["studies"])
def study_ranking(name: Name) -> dict[str, Any]:
    """The ranking as it lies in the study's folder, to be finished elsewhere; without where images are here."""
    ranking = studies.study(name).ranking
    if ranking is None:
        raise LookupError(f"the study {name} has no ranking yet")
    return {**ranking.to_json(), "settings": {**ranking.settings, "source": {}}}


@router.get("/studies/{name}/report", tags=["reports"], response_class=HTMLResponse)
def report_page(name: Name) -> HTMLResponse:
    """The report, one page that stands alone."""
    text = _reported(name).read_text(encoding="utf-8")
    return HTMLResponse(text, headers={"Content-Security-Policy": f"{stated_policy(text)}; frame-ancestors 'self'"})


@router.get("/studies/{name}/report.json", tags=["reports"])
def report_json(name: Name) -> JSONResponse:
    """The same numbers."""
    _reported(name)
    return JSONResponse(studies.study(name).report())


@router.get("/truths", tags=["reports"])
def list_truths() -> dict[str, list[str]]:
    """The named real trainings that a report can be held up to."""
    return {"truths": studies.truths()}


@router.get("/spaces", tags=["spaces"])
def list_spaces() -> dict[str, Any]:
    """The built-in search spaces, and those that the operator installed."""
    from search_spaces.base import find_space

    def told(name: str) -> dict[str, Any]:
        try:
            return {"name": name, "size": find_space(name).size, "problem": None}
        except ValueError as error:
            return {"name": name, "size": None, "problem": str(error)}

    return {"spaces": [told(name) for name in known_spaces()]}


@router.post("/spaces/validate", tags=["spaces"])
def validate_space(space: Annotated[dict[str, Any], Body(description="An NNI search space.")]) -> dict[str, Any]:
    """Whether an NNI search space can be searched; its builder must be installed by the operator."""
    from search_spaces.outside.nni_json import check_search_space

    try:
        check_search_space(space)
    except ValueError as error:
        return {"valid": False, "problem": str(error), "parameters": []}
    return {"valid": True, "problem": None, "parameters": sorted(space)}


@router.get("/datasets", tags=["server"])
def datasets(server: ThisServer) -> dict[str, list[str]]:
    """The data sets that this server can see."""
    return {"datasets": list(server.bounds.datasets())}


@router.get("/recipes", tags=["server"])
def recipes() -> dict[str, Any]:
    """The shipped recipes and all their settings."""
    from ftdnas.sets.recipes import load_recipe, recipe_names

    return {"recipes": [asdict(load_recipe(name)) for name in recipe_names()]}


def _keeping(server: Server) -> None:
    """Refuse what would be lost."""
    if problems := server.machine.losing():
        raise HTTPException(503, problems[0])


def _reported(study: str) -> Path:
    path = studies.study(study).report_page()
    if path is None:
        raise LookupError(f"the study {study} has no report yet: submit a report job")
    return path


def _own_set(name: str) -> Path:
    """By its whole name: what begins with it is another set."""
    library = Library()
    if name not in library.names():
        raise LookupError(f"no set {name!r} in the library")
    return library.path(name)


def _set(library: Library, name: str) -> dict[str, Any]:
    entry = library.entry(_own_set(name))
    told = entry.to_json()
    del told["path"]
    told["problem"] = "its file is damaged" if entry.problem else None
    told["has_curve"] = curve_of(entry.path).is_file()
    return told
