"""Jobs in real processes: killed, cancelled, started again, shared; what comes of them is what a local run makes."""

from __future__ import annotations

import json
import os
import signal
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest

from distill.synthetic import SyntheticSet
from ftdnas.cli.main import run
from ftdnas.runtime.home import home
from ftdnas.service.client import Client

# A distillation in seconds, slow enough to be killed in its middle.
TINY = {
    "backbone": "convnet:width=32,depth=1",
    "experts.num_experts": 1,
    "matching.outer_steps": 20,
    "matching.syn_steps": 4,
    "matching.max_start_epoch": 2,
    "matching.expert_epochs": 1,
    "matching.checkpoint_every": 1,
    "matching.validate_every": 10,
    "evaluation.validation.epochs": 4,
    "evaluation.train.epochs": 4,
    "evaluation.full.epochs": 2,
}
SEARCH: dict[str, Any] = {"where": ["width=32", "depth=1"], "candidates": 8, "epochs": 20, "set": "digits"}
Start = Callable[..., Any]


def until(condition: Callable[[], Any], timeout_s: float = 300.0) -> None:
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.05)


def reaches(client: Client, job: str, stage: str, done: int) -> None:
    """Wait until a job is that far."""

    def there() -> bool:
        found = client.job(job)
        assert found["state"] in ("queued", "running"), found
        place = found["progress"]
        return place.get("stage") == stage and place["done"] >= done

    until(there)


def scores(study: str) -> dict[str, float | None]:
    ranking = json.loads((home() / "studies" / study / "ranking.json").read_text())
    return {one["architecture"]: one["score"] for one in ranking["candidates"]}


def times_scored(study: str) -> Counter[str]:
    rows = (home() / "studies" / study / "scores.jsonl").read_text().splitlines()
    return Counter(json.loads(row)["key"] for row in rows)


def locally(monkeypatch: pytest.MonkeyPatch, folder: Path, *commands: list[str]) -> None:
    """Run commands undisturbed, in a home of their own."""
    with monkeypatch.context() as elsewhere:
        elsewhere.setenv("FTDNAS_HOME", str(folder))
        for command in commands:
            assert run(command) == 0


def distil_command(threads: int) -> list[str]:
    changed = [f"--override={key}={value}" for key, value in TINY.items()]
    return ["distill", "--dataset=digits", "--recipe=quick", "--name=digits", f"--threads={threads}", *changed]


def search_command(study: str, *more: str) -> list[str]:
    where = [f"--where={text}" for text in ("width=32", "depth=1")]
    usual = ["search", "--set=digits", "--candidates=8", "--epochs=20", *where, "--threads=1"]
    return [*usual, f"--study={study}", *more]


def test_killed_and_started_again_jobs_end_as_if_undisturbed(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """On SQLite; what is killed on PostgreSQL is below."""
    serve = ["serve", "--port=0", "--workers=2"]  # each with its share of the cores
    server = start(*serve)
    with Client(server.url) as client:
        job = client.submit("distill", dataset="digits", recipe="quick", name="digits", settings=TINY)
        reaches(client, job["id"], "matching", 3)
    server.kill()
    server = start(*serve)
    with Client(server.url) as client:
        assert client.wait(job["id"])["attempts"] == 2
        search = client.submit("search", study="one", **SEARCH)
        reaches(client, search["id"], "screening", 3)
    server.kill()
    server = start(*serve)
    with Client(server.url) as client:
        client.wait(search["id"])
        assert [one["name"] for one in client.sets()] == ["digits"]
        assert len(client.trials("one")) == 8
        settings = {**TINY, "matching.outer_steps": 10_000}
        cancelled = client.submit("distill", dataset="digits", recipe="quick", name="endless", settings=settings)
        reaches(client, cancelled["id"], "matching", 1)
        client.cancel(cancelled["id"])
        until(lambda: client.job(cancelled["id"])["state"] == "cancelled")
        # The command line at the server prints what it prints here.
        capsys.readouterr()
        assert run(["--server", server.url, "report", "one"]) == 0
        remote = capsys.readouterr().out
        assert run(["--server", server.url, "report", "none"]) == 2
        assert "no study 'none' was ranked" in capsys.readouterr().err
        assert run(["--server", server.url, "search", "--latency-table", "table.csv"]) == 2
        assert "names a file of this machine" in capsys.readouterr().err
    threads = max(1, (os.cpu_count() or 1) // 2)
    locally(monkeypatch, tmp_path / "undisturbed", distil_command(threads), search_command("one"))
    made = SyntheticSet.load(home() / "sets" / "digits.safetensors")
    assert made.equal(SyntheticSet.load(tmp_path / "undisturbed" / "sets" / "digits.safetensors"))
    interrupted = scores("one")
    assert len(interrupted) == 8
    monkeypatch.setenv("FTDNAS_HOME", str(tmp_path / "undisturbed"))
    assert interrupted == scores("one")
    capsys.readouterr()
    assert run(["report", "one"]) == 0
    here = capsys.readouterr().out.replace(str(tmp_path / "undisturbed"), "$FTDNAS_HOME")
    assert remote.replace(f"ftdnas --server {server.url} ", "ftdnas ") == here


def test_two_workers_on_postgresql_lose_nothing(
    start: Start, postgresql: Any, database: str, set_of: Any, digits: Any
) -> None:
    from ftdnas.sets.library import Library

    url = database
    Library().add(set_of(digits, provenance={"data": {"spec": "digits", "validation": 0.2}}), "digits")
    server = start("serve", "--port=0", f"--storage={url}", "--workers=0")
    workers = [start("worker", f"--storage={url}") for _ in range(2)]
    with Client(server.url) as client:
        jobs = [client.submit("search", study=name, **SEARCH) for name in ("one", "two")]
        reaches(client, jobs[0]["id"], "screening", 2)
        for program in workers:  # whichever has the first search
            os.kill(program.pid, signal.SIGSTOP)
        with psycopg.connect(url) as connection:
            query = "SELECT holder FROM ftdnas_leases WHERE scope = 'jobs' AND key = %s"
            (holder,) = connection.execute(query, [jobs[0]["id"]]).fetchone() or ("",)
        pid = int(holder.split("/")[-3])
        killed = next(program for program in workers if program.pid == pid)
        for program in workers:
            os.kill(program.pid, signal.SIGCONT)
        killed.kill()
        postgresql.stop()
        time.sleep(1)
        postgresql.start()
        for job in jobs:
            client.wait(job["id"])
    for study in ("one", "two"):
        assert len(scores(study)) == 8
        assert set(times_scored(study).values()) == {1}
    assert scores("one") == scores("two")


def test_a_search_through_ray(start: Start, set_of: Any, digits: Any) -> None:
    pytest.importorskip("ray")
    from ftdnas.sets.library import Library

    Library().add(set_of(digits, provenance={"data": {"spec": "digits", "validation": 0.2}}), "digits")
    server = start("serve", "--port=0", "--executor=ray")
    with Client(server.url) as client:
        job = client.submit("search", study="ray", **{**SEARCH, "candidates": 3, "epochs": 2})
        client.wait(job["id"])
    found = scores("ray")
    assert run([*search_command("local"), "--candidates=3", "--epochs=2"]) == 0
    assert found == scores("local")
