"""A study of a user's own space outlives what is done to the file."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ftdnas.cli.main import run

STORED = Path(__file__).parents[2] / "compatibility"
SEARCH = ["search", "--set", "small", "--space", "nets.py:build", "--candidates", "4", "--steps", "4", "--jobs", "1"]
SEARCH += ["--sampler", "tpe", "--study", "own"]
Said = Callable[..., str]


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file of the study own, which was ranked by an earlier version."""
    shutil.copytree(STORED / "home", tmp_path / "home")
    monkeypatch.setenv("FTDNAS_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    return Path(shutil.copy(STORED / "nets.py", tmp_path))


@pytest.fixture
def said(capsys: pytest.CaptureFixture[str]) -> Said:
    """said(*words, code=0): all that the command prints."""

    def say(*words: str, code: int = 0) -> str:
        assert run(words) == code, capsys.readouterr().err
        out, err = capsys.readouterr()
        return out + err

    return say


def scores(file: Path) -> bytes:
    return (file.parent / "home/studies/own/scores.jsonl").read_bytes()


def report(file: Path) -> Any:
    return json.loads((file.parent / "home/studies/own/report/report.json").read_text())


def test_a_comment_changes_nothing(file: Path, said: Said) -> None:
    said("report", "own")
    before, told = scores(file), report(file)
    file.write_text("# a note\n" + file.read_text().replace("One hidden layer", "A layer"))
    said(*SEARCH)
    assert scores(file) == before
    assert "is not what the study" not in said("report", "own")
    assert report(file)["table"] == told["table"]


@pytest.mark.parametrize("gone", [False, True])
def test_of_a_changed_file_the_study_reports_what_it_has_and_trains_nothing(gone: bool, file: Path, said: Said) -> None:
    said("report", "own")
    before, told = scores(file), report(file)
    if gone:
        file.unlink()
        changed = "nets.py:build is not what the study was made with: no file nets.py"
    else:  # and an activation that was ranked is none of its choices any more
        file.write_text(file.read_text().replace('["relu", "tanh"]', '["relu", "gelu"]'))
        changed = "nets.py:build is not what the study was made with: build changed"
    assert changed in said("report", "own")
    again = report(file)
    assert again["table"] == told["table"]
    assert changed in " ".join(again["notes"])
    assert "4 learned nothing" in said("studies", "show", "own")
    assert "own" in said("studies", "list")
    for words in (("truth", "own", "--epochs", "1"), ("trust", "own", "--epochs", "1"), ("finish", "own")):
        assert f"ftdnas: {changed}" in said(*words, code=2)
    if not gone:
        assert "own stays as it is: give this search another --study" in said(*SEARCH, code=2)
    assert scores(file) == before
