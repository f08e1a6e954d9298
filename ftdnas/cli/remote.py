"""A command that a server carries out: its options become a job, which is followed as if it ran here."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from distill.run import duration
from ftdnas.cli.options import RequestCommand, request_values
from ftdnas.cli.progress import progress
from ftdnas.runtime.options import asked_of

if TYPE_CHECKING:
    from ftdnas.service.client import Client

JOBS = ("distill", "search", "trust", "truth", "check", "report", "finish")
COMMAND = rf"\bftdnas (?=(?:{'|'.join(JOBS)}) )"
LATER = "the job goes on at the server"
INTERRUPTED = 130  # exit code, as of any command that Ctrl-C ended


def connected(url: str, ctx: click.Context) -> Client:
    """The server at `url`, with the token that the command line names."""
    from ftdnas.service.client import Client

    token_file: Path | None = ctx.find_root().params.get("token_file")
    return Client(url, None if token_file is None else token_file.read_text(encoding="utf-8").strip())


def run_remotely(url: str, command: click.Command, ctx: click.Context) -> int:
    """Submit the command of a parsed context, follow it, print what it printed there; its exit code."""
    if command.name not in JOBS:
        raise click.UsageError(f"--server runs {', '.join(JOBS)}; {command.name} works on this machine")
    assert isinstance(command, RequestCommand)
    request = asked(command, ctx)
    with connected(url, ctx) as client:
        job = client.submit(str(command.name), **request)
        try:
            _follow(client, job["id"], bool(request.get("json_output")))
        except KeyboardInterrupt:
            click.echo(f"{LATER}: {url.rstrip('/')}/jobs/{job['id']}", err=True)
            return INTERRUPTED
        ended = client.job(job["id"])
    # The commands in what it printed, as they are given here.
    click.echo(re.sub(COMMAND, f"ftdnas --server {url} ", ended["output"]), nl=False)
    if ended["state"] != "succeeded":
        click.echo(f"ftdnas: {ended['error'] or 'the job was ' + ended['state']}", err=True)
        return 2
    return 0


def asked(command: RequestCommand, ctx: click.Context) -> dict[str, Any]:
    """What was given on the command line, by the names of a job's fields.

    Raises click.UsageError for an option that only makes sense here, such as a file.
    """
    given = {name for name in ctx.params if ctx.get_parameter_source(name) is ParameterSource.COMMANDLINE}
    values = request_values(command.request, ctx.params)
    request: dict[str, Any] = {"json_output": True} if ctx.params["as_json"] else {}
    for field in asked_of(command.request):
        if field.name not in given or field.name == "offline":
            continue
        if field.option.local:
            flag = field.option.flags.partition("/")[0] or f"--{field.name.replace('_', '-')}"
            what = "names a file of this machine" if field.kind is Path else "is for this machine"
            raise click.UsageError(f"{flag} {what}, and the server has its own")
        value = values[field.name]
        request[field.name] = list(value) if isinstance(value, tuple) else value
    return request


def _follow(client: Client, identity: str, as_json: bool) -> None:
    """Show where the job is as a local run would: its messages, its stages, its figures."""
    from distill.run import Progress

    with progress(as_json) as listener:
        said: list[str] = []
        waiting = ""
        for job in client.follow(identity):
            if job["state"] == "queued" and (text := _waits(job)) != waiting:
                waiting = text
                listener(Progress("queue", 0, 0, message=text))
            lines = client.log(identity)
            for line in _new_lines(said, lines):
                listener(Progress("job", 0, 0, message=line))
            said = lines
            place: Mapping[str, Any] = job["progress"]
            if place.get("total"):
                with contextlib.suppress(KeyError):
                    listener(Progress(place["stage"], place["done"], place["total"], place["values"]))


def _waits(job: Mapping[str, Any]) -> str:
    starts = job.get("starts_in_s")
    expected = f", starts in about {duration(starts)}" if starts else ""
    before = int(job.get("before", 0))
    return f"waits at the server, {before} job{'s' * (before != 1)} before it{expected}"


def _new_lines(said: list[str], lines: list[str]) -> list[str]:
    """The lines after those that were said: a log keeps its last ones only."""
    seen = next(count for count in range(len(said), -1, -1) if lines[:count] == said[len(said) - count :])
    return lines[seen:]
