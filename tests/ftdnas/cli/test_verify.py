"""ftdnas verify: what is damaged is named, and nothing else."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from distill.synthetic import SyntheticSet
from ftdnas.cli.main import run
from ftdnas.runtime.home import home, write_json
from ftdnas.runtime.rows import RowFile
from ftdnas.sets.library import Library

EARLIER = Path(__file__).parents[2] / "compatibility" / "home"


def change(path: Path, old: bytes, new: bytes) -> None:
    content = path.read_bytes()
    assert old in content
    path.write_bytes(content.replace(old, new, 1))


def test_what_is_damaged_is_named_and_nothing_is_changed(
    make_set: Callable[..., SyntheticSet], keep_ranking: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["verify"]) == 0
    assert capsys.readouterr().out == "0 files: 0 sound, 0 damaged\n"
    Library().add(make_set(), "mine")
    study = keep_ranking("study", {"convnet:depth=2": 0.5}, "late loss")
    rows = RowFile(study / "scores.jsonl")
    for key in "ab":
        rows.append({"key": key, "score": 0.5})
    write_json(home() / "truth" / "one.json", {"title": "one"})
    for name in ("spaces/0.json", "studies/study/report/report.json"):  # made anew, without sums
        (home() / name).parent.mkdir(exist_ok=True)
        (home() / name).write_text("{}")
    assert run(["verify"]) == 0
    assert capsys.readouterr().out == "4 files: 4 sound, 0 damaged\n"
    change(rows.path, b"0.5", b"0.6")
    change(study / "ranking.json", b"0.5", b"0.6")
    change(home() / "truth" / "one.json", b'"one"', b'"two"')
    before = {path: path.read_bytes() for path in home().rglob("*") if path.is_file()}
    assert run(["verify", "--all", "--json"]) == 1
    told = json.loads(capsys.readouterr().out)
    assert {Path(name).name for name in told["damaged"]} == {"scores.jsonl", "ranking.json", "one.json"}
    assert {path: path.read_bytes() for path in home().rglob("*") if path.is_file()} == before


def test_a_home_of_an_earlier_version_has_no_sums_and_is_sound(capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(EARLIER, home(), dirs_exist_ok=True)
    assert run(["verify", "--all", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["files"] > told["unknown"] > 10
