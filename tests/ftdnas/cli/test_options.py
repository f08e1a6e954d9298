"""The command line, the service and Python take the same requests."""

from __future__ import annotations

import contextlib
import json
import re
from pathlib import Path
from typing import Any

import click
import pytest

from ftdnas.cli.main import cli, load_command, run, run_job
from ftdnas.cli.options import Flag, RequestCommand
from ftdnas.cli.remote import JOBS, asked
from ftdnas.finishing.request import FinishRequest
from ftdnas.proxies.names import PROXIES
from ftdnas.ranking.request import SearchRequest
from ftdnas.ranking.run import needs_set
from ftdnas.report.request import CheckRequest, TruthRequest
from ftdnas.runtime.home import home
from ftdnas.runtime.options import asked_of, request_of, seconds, shared, size
from ftdnas.service.bounds import Bounds, check
from ftdnas.service.names import WORD
from ftdnas.service.requests import KINDS, read_job
from ftdnas.sets.request import DistilRequest
from search_spaces.base import SPACES, stratified_sample

TYPES = {click.IntRange: "integer", click.FloatRange: "number", click.types.IntParamType: "integer"}


def command_of(kind: str) -> RequestCommand:
    command = load_command(kind)
    assert isinstance(command, RequestCommand)
    return command


@pytest.mark.parametrize("kind", KINDS)
def test_the_service_takes_what_the_command_line_takes(kind: str) -> None:
    command, properties = command_of(kind), KINDS[kind].model_json_schema()["properties"]
    here = {field.name for field in asked_of(command.request) if field.option.local}
    options = {one.name: one for one in command.params if one.name != "as_json" and not isinstance(one, Flag)}
    assert set(options) - here == set(properties) - {"json_output"}
    assert KINDS[kind].request is command.request
    for field in asked_of(command.request):
        if field.name in here:
            continue
        option, told = options[field.name], properties[field.name]
        parts = [told, *told.get("anyOf", ())]
        items = [part["items"] for part in parts if "items" in part] or parts
        if isinstance(option.type, click.Choice):
            assert [part["enum"] for part in items if "enum" in part] == [list(option.type.choices)]
        elif type(option.type) in TYPES:
            assert TYPES[type(option.type)] in {part.get("type") for part in items}
        elif isinstance(option, click.Option):
            assert option.is_flag == ("boolean" in {part.get("type") for part in parts})
        if isinstance(option, click.Option):
            assert option.multiple == bool({"array", "object"} & {part.get("type") for part in parts})


def test_the_command_line_sends_the_commands_that_a_server_runs() -> None:
    assert set(JOBS) == set(KINDS)


SPELLINGS = ("{}", " {} ", "params+{}", "params + {}", "{} + params", "{}+params+flops")


@pytest.mark.parametrize("name", PROXIES)
def test_command_line_and_service_judge_a_proxy_alike(name: str) -> None:
    for spelling in SPELLINGS:
        request = SearchRequest(proxy=spelling.format(name), dataset="digits")
        try:
            needed = needs_set(request)
        except ValueError:  # it cannot stand in a sum
            with pytest.raises(ValueError, match=name.partition(".")[0]):
                check(request, Bounds())
            continue
        with pytest.raises(ValueError, match="no synthetic set yet") if needed else contextlib.nullcontext():
            check(request, Bounds())
        accepted = KINDS["search"].model_validate({"proxy": request.proxy})
        assert accepted.model_dump(exclude_unset=True) == {"proxy": request.proxy}


STORED = [
    # what a server of 0fa44b3 queued: its request, and what it was to become
    (
        "distill",
        {"dataset": "digits", "ipc": 2, "settings": {"experts.num_experts": 1, "backbone": "convnet:depth=1"}},
        DistilRequest(ipc=2, settings={"experts.num_experts": 1, "backbone": "convnet:depth=1"}),
    ),
    (
        "search",
        {
            "where": ["width=32"],
            "proxy": "race",
            "dataset": "digits",
            "budget": "30m",
            "objectives": ["params"],
            "lr": 0.1,
            "sampler": None,
            "study": "one",
        },
        SearchRequest(
            where=("width=32",),
            proxy="race",
            dataset="digits",
            budget="30m",
            objectives=("params",),
            lr=0.1,
            study="one",
        ),
    ),
    (
        "check",
        {"proxy": "race", "compare": "params", "dataset": "digits", "candidates": 24, "real_epochs": 1},
        CheckRequest(proxy="race", compare=("params",), dataset="digits", candidates=24, real_epochs=1),
    ),
]


@pytest.mark.parametrize(("kind", "stored", "request_"), STORED)
def test_jobs_that_an_older_server_queued_are_read(kind: str, stored: dict[str, Any], request_: Any) -> None:
    told = json.loads(json.dumps(read_job(kind, stored, Bounds()).here(Bounds(), 3, None)))
    read: Any = request_of(command_of(kind).request, told)
    assert (read.threads, read.offline, read.data_root) == (3, True, None)
    plain = {asked.name: getattr(read, asked.name) for asked in asked_of(type(read)) if not asked.option.local}
    assert plain == {asked.name: getattr(request_, asked.name) for asked in asked_of(type(read)) if asked.name in plain}


def test_a_job_prints_what_the_command_prints(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--proxy=params", "--dataset=digits", "--where=depth=1,2", "--candidates=4", "--jobs=1", "--study=one"]
    assert run(["search", *words]) == 0
    here = capsys.readouterr().out
    request = {"proxy": "params", "dataset": "digits", "where": ["depth=1,2"], "candidates": 4, "study": "one"}
    assert run_job({"kind": "search", "as_json": False, "request": {**request, "jobs": 1}}) == 0
    assert capsys.readouterr().out == here
    assert run_job({"kind": "search", "as_json": False, "request": {"epochs": 1, "steps": 2}}) == 2
    assert capsys.readouterr().err == (
        "ftdnas: epochs and steps both say how long a candidate trains: give one of them\n"
    )
    assert not (home() / "studies" / "two").exists()


def sent(*words: str) -> dict[str, Any]:
    command = command_of(words[0])
    parent = cli.make_context("ftdnas", list(words))
    with command.make_context(words[0], list(words[1:]), parent=parent) as context:
        return asked(command, context)


def test_what_is_given_is_sent_by_the_same_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FTDNAS_STORAGE", "postgresql://here")
    assert sent("search", "--budget=30m", "--where", "width=32", "--shrink", "--offline", "--json") == {
        "json_output": True,
        "where": ["width=32"],
        "budget": "30m",
        "shrink": True,
    }
    assert sent("distill", "--override", "ipc=1", "--override=experts.rho=0", "--ipc", "3") == {
        "ipc": 3,
        "settings": {"ipc": "1", "experts.rho": "0"},
    }
    assert sent("report", "--study", "one") == sent("report", "one") == {"study": "one"}
    for words, said in (
        (("search", "--latency-table", "x.csv"), "names a file of this machine"),
        (("search", "--jobs", "3"), "--jobs is for this machine"),
        (("distill", "--data-root", "/data"), "names a file of this machine"),
    ):
        with pytest.raises(click.UsageError, match=said):
            sent(*words)


def test_texts_with_units() -> None:
    assert [seconds(text) for text in ("90s", "30m", "2h", "1.5")] == [90.0, 1800.0, 7200.0, 90.0]
    assert [size(text) for text in ("500M", "4G", "1.5gb")] == [500 << 20, 4 << 30, 3 << 29]
    for text in ("", "soon", "0s", "-1m", "1d"):
        with pytest.raises(ValueError, match="is not a duration such as"):
            seconds(text)
    for text in ("0M", "4", "4T"):
        with pytest.raises(ValueError, match="is no size such as"):
            size(text)


def test_requests_from_json_and_from_each_other() -> None:
    made = request_of(SearchRequest, {"where": ["width=32"], "latency_table": "table.csv"})
    assert (made.where, made.latency_table) == (("width=32",), Path("table.csv"))
    with pytest.raises(ValueError, match="no such option: widths"):
        request_of(SearchRequest, {"widths": "32"})
    check_request = CheckRequest(space="nasbench201", real_epochs=3, lr=0.1)
    searched = shared(check_request, SearchRequest, sampler="random")
    assert (searched.space, searched.lr, searched.sampler) == ("nasbench201", 0.1, "random")


@pytest.mark.parametrize(
    ("kind", "given", "said"),
    [
        (SearchRequest, {"epochs": 1, "steps": 1}, "give one of them"),
        (CheckRequest, {"candidates": 5}, "take 24 to 40"),
        (TruthRequest, {}, "which images"),
        (FinishRequest, {}, "what shall be finished"),
    ],
)
def test_what_no_request_can_be(kind: type, given: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        kind(**given)


@pytest.mark.parametrize("space", SPACES)
def test_a_server_takes_the_names_of_every_space(space: str) -> None:
    name = next(iter(stratified_sample(SPACES[space], 1, (3, 32, 32), 0))).name
    assert re.fullmatch(WORD, name), name
