from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from ftdnas.cli.main import run
from ftdnas.sets.recipes import load_recipe, recipe_names


def test_list(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["recipes", "list"]) == 0
    text = capsys.readouterr().out
    assert [line for line in text.splitlines() if not line.startswith(" ")] == recipe_names()
    assert load_recipe("cpu").hardware in text
    assert run(["recipes", "list", "--json"]) == 0
    assert [row["name"] for row in json.loads(capsys.readouterr().out)] == recipe_names()


def test_what_show_prints_is_a_recipe_of_ones_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["recipes", "show", "cpu", "--override", "ipc=50", "--override", "name=mine"]) == 0
    path = tmp_path / "anything.toml"
    path.write_text(capsys.readouterr().out)
    assert load_recipe(path) == dataclasses.replace(load_recipe("cpu"), ipc=50, name="mine")
    assert run(["recipes", "show", str(path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["ipc"] == 50
