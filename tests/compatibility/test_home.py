"""A home written by commit 0fa44b3 opens with today's code and goes on: nothing in it is made a second time.

README.md beside this file says what `home` holds and how it was made; the commands here are those of make_home.sh.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from distill.methods import versions
from distill.restart import RestartPoints
from ftdnas.cli.main import run
from ftdnas.runtime.database import open_storage
from ftdnas.runtime.home import home as home_folder
from ftdnas.sets.library import Library

HERE = Path(__file__).parent
SETTINGS = [
    *("preprocess=zca", "backbone=convnet:width=32,depth=1", "experts.num_experts=2"),
    *("matching.max_start_epoch=1", "matching.expert_epochs=1", "matching.syn_steps=2"),
    *("matching.outer_steps=2", "matching.validate_every=2"),
    *("evaluation.validation.epochs=2", "evaluation.train.epochs=2", "evaluation.full.epochs=1"),
]
TINY = [
    *("--dataset", "digits", "--recipe", "quick", "--threads", "1", "--eager"),
    *(word for setting in SETTINGS for word in ("--override", setting)),
]
SIX_STEPS = ["matching.outer_steps=6", "matching.checkpoint_every=2", "matching.validate_every=3"]
INTERRUPTED = [*TINY, "--seed", "1", *(word for setting in SIX_STEPS for word in ("--override", setting))]
FEW = ["--set", "small", "--where", "width=32", "--where", "depth=1", "--candidates", "8", "--epochs", "2"]
FEW += ["--jobs", "1", "--calibrate", "8"]
# More notes; what several proxies share is counted once; the dead stand last, and candidates have ids.
CHANGED = ("notes", "seconds", "candidates")
COMPARED = ["params", "real:1.accuracy", "race", "random.late_loss", "az_nas+params", "hybrid(set.late_loss,params)"]
STUDIES = {
    "small": [*FEW, *(word for proxy in COMPARED for word in ("--compare", proxy))],
    "promoted": [*FEW, "--proxy", "promote(params,set.late_loss,real:1.accuracy)"],
    "taught": [*FEW, "--labels", "teachers", "--batch-norm", "batch", "--shrink"],
    "own": [
        "--set",
        "small",
        "--space",
        "nets.py:build",
        "--candidates",
        "4",
        "--steps",
        "4",
        "--jobs",
        "1",
        "--sampler",
        "tpe",
    ],
    "joined": [*FEW, "--join"],
}
Asked = Callable[..., Any]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the home that 0fa44b3 wrote, with the user's space in the working directory."""
    shutil.copytree(HERE / "home", tmp_path / "home")
    shutil.copy(HERE / "nets.py", tmp_path)
    monkeypatch.setenv("FTDNAS_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    assert home_folder() == tmp_path / "home"
    return tmp_path / "home"


@pytest.fixture
def asked(capsys: pytest.CaptureFixture[str]) -> Asked:
    """asked(*words): the JSON that the command prints."""

    def ask(*words: str) -> Any:
        assert run([*words, "--json"]) == 0, capsys.readouterr().err
        return json_of(capsys.readouterr().out)

    return ask


def json_of(text: str) -> Any:
    """With numbers to nine digits: the last ones of a logarithm depend on the processor."""
    return json.loads(text, parse_float=lambda number: float(f"{float(number):.9g}"))


def digests(folder: Path) -> dict[str, str]:
    """Path -> digest of every file in it that holds something."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file() and path.stat().st_size)
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def trials(home: Path) -> list[tuple[Any, ...]]:
    """Study, number, state and value of every trial."""
    query = (
        "SELECT study_name, number, state, value, objective FROM trials NATURAL JOIN studies "
        "LEFT JOIN trial_values USING (trial_id) ORDER BY study_name, number, objective"
    )
    with contextlib.closing(sqlite3.connect(home / "studies.db")) as file:
        return file.execute(query).fetchall()


def test_a_set_has_the_identity_that_its_studies_name(home: Path, asked: Asked) -> None:
    synthetic = Library().load("small")
    settings = json.loads((home / "studies/small/study.json").read_text())["settings"]
    assert synthetic.identity == settings["set"]
    assert synthetic.teachers is not None
    assert synthetic.provenance["data_fingerprint"] == settings["data"]
    assert [entry["name"] for entry in asked("sets", "list")] == ["small"]
    assert run(["sets", "verify", "small"]) == 0


def test_a_set_is_made_once(home: Path, asked: Asked) -> None:
    before = digests(home)
    assert asked("distill", *TINY, "--name", "small")["new"] is False
    asked("experts", *TINY)
    after = digests(home)
    assert {path: digest for path, digest in after.items() if not path.startswith("cache/")} == before


def test_an_interrupted_distillation_goes_on(home: Path, asked: Asked) -> None:
    """To the very set on the processor it was made on; elsewhere losses may differ in their last digits."""
    expected = Library(HERE / "expected").load("interrupted")
    folder = home / "runs" / expected.provenance["run"]
    state = RestartPoints(folder / "checkpoints", torch.device("cpu")).latest()
    assert state is not None
    assert state.step == 4
    experts = digests(home / "experts")
    assert asked("distill", *INTERRUPTED, "--name", "interrupted")["new"] is True
    assert digests(home / "experts") == experts
    assert json.loads((folder / "run.json").read_text())["set"] == "interrupted"
    synthetic = Library().load("interrupted")
    taken = synthetic.provenance["losses"]
    assert taken[:4] == state.losses == expected.provenance["losses"][:4]
    assert [step for step, _ in taken] == [1, 2, 3, 4, 5, 6]
    assert torch.equal(synthetic.labels, expected.labels)
    assert torch.equal(torch.as_tensor(synthetic.teachers), torch.as_tensor(expected.teachers))
    torch.testing.assert_close(synthetic.images, expected.images, rtol=0, atol=1e-3)
    assert synthetic.step_size == pytest.approx(expected.step_size, rel=1e-5)


def test_an_evaluation_is_made_once(home: Path, asked: Asked) -> None:
    lines = (home / "evaluations.jsonl").read_text()
    rows = [json.loads(line) for line in lines.splitlines()]
    judged = asked("evaluate", "small", "--against", "random,full", "--seeds", "1", "--threads", "1")
    assert len(judged["evaluations"]) == len(rows) == 3
    if versions() == Library().load("small").provenance["versions"]:  # they are part of an evaluation's key
        assert (home / "evaluations.jsonl").read_text() == lines


@pytest.mark.parametrize("study", STUDIES)
def test_a_search_is_made_once(study: str, home: Path, asked: Asked) -> None:
    folder, before = home / "studies" / study, trials(home)
    rows = (folder / "scores.jsonl").read_bytes()
    recorded = json_of((folder / "ranking.json").read_text())
    plan = json.loads((folder / "study.json").read_text())
    ranking = asked("search", *STUDIES[study], "--study", study)
    assert (folder / "scores.jsonl").read_bytes() == rows
    assert trials(home) == before
    assert json.loads((folder / "study.json").read_text()) == plan
    told = {key: value for key, value in recorded.items() if key not in CHANGED}
    assert {key: ranking[key] for key in told} == {**told, "folder": str(folder)}
    assert set(recorded["notes"]) <= set(ranking["notes"])
    assert ranking["seconds"].keys() == recorded["seconds"].keys()
    assert all(seconds <= recorded["seconds"][name] + 1e-9 for name, seconds in ranking["seconds"].items())
    now, then = ({one["architecture"]: one for one in told["candidates"]} for told in (ranking, recorded))
    assert now.keys() == then.keys()
    assert all(one.items() <= now[name].items() for name, one in then.items())


def test_a_truth_is_trained_once(home: Path, asked: Asked) -> None:
    before = digests(home / "truth")
    asked("truth", "--study", "small", "--epochs", "1", "--seeds", "2", "--jobs", "1", "--name", "one")
    assert digests(home / "truth") == before


def within(after: Any, before: Any) -> bool:
    """Whether all that was said is said again, perhaps with more beside it."""
    if isinstance(before, dict):
        return all(key in after and within(after[key], part) for key, part in before.items())
    if isinstance(before, list):
        return len(after) == len(before) and all(map(within, after, before))
    return bool(after == before)


def test_a_report_says_what_it_said(home: Path, asked: Asked) -> None:
    file = home / "studies/small/report/report.json"
    before = json_of(file.read_text())
    asked("report", "small", "--truth", "one")
    after = json_of(file.read_text())
    stages = zip(after["ledger"], before.pop("ledger"), strict=True)  # what several stages share is counted once now
    assert all(now["name"] == then["name"] and now["seconds"] <= then["seconds"] + 1e-9 for now, then in stages)
    for report in (before, after):  # the verdict's words are plain now
        report["verdict"] = report["comparison"]["verdict"] = report["comparison"]["verdict"]["decision"]
    assert within(after, before)


def test_what_was_finished_is_found(home: Path, asked: Asked) -> None:
    before = digests(home / "studies/small/finish")
    (card,) = (home / "studies/small/finish").glob("*/card.json")
    # By name: without, real accuracies choose the finalists today.
    named = [word for one in json.loads(card.read_text())["finalists"] for word in ("-a", one["architecture"])]
    asked("finish", "small", *named, "--epochs", "1", "--no-onnx", "--jobs", "1", "--threads", "1")
    assert digests(home / "studies/small/finish") == before


def test_jobs_are_read_and_the_one_that_waits_can_be_taken(home: Path) -> None:
    from ftdnas.service.queue import SCOPE, Queue

    assert home.exists()
    with open_storage() as storage:
        queue = Queue(storage)
        jobs, count = queue.page()
        assert count == 3
        assert [(job.kind, job.state) for job in jobs] == [
            ("truth", "queued"),
            ("search", "succeeded"),
            ("report", "succeeded"),
        ]
        asked = {"study": "small", "epochs": 2, "name": "two"}
        assert queue.submit("truth", asked, key="once") == (queue.get(jobs[0].id), False)
        assert queue.get(jobs[1].id).output
        with storage.leases(SCOPE) as leases:
            taken = queue.take(leases, set(), "here/0")
        assert taken is not None
        assert (taken.id, taken.attempts, dict(taken.request)) == (jobs[0].id, 1, asked)
