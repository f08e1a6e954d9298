"""ftdnas studies, and candidates by their ids."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from ftdnas.candidates.cost import CostModel
from ftdnas.candidates.ids import short_ids
from ftdnas.cli.main import run
from ftdnas.finishing.run import named_in
from ftdnas.ranking.study import ranked_study, study_folder
from ftdnas.service.studies import study_names

SCORES = {"convnet:depth=2": 3.0, "convnet:depth=1": 2.0, "convnet:depth=4": None}
Keep = Callable[..., Path]


def test_studies_are_listed_shown_and_removed(
    keep_ranking: Keep, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run(["studies", "list"]) == 0
    assert "ftdnas search makes one" in capsys.readouterr().out
    for name in ("mine", "yours"):
        settings = {"space": "convnet", "title": "digits, bundled", "set name": ""}
        keep_ranking(name, SCORES, "late loss", **settings)
        _, ranking = ranked_study(name)
        study_folder(name).keep_plan(settings, ranking.plan, CostModel(0.0, 0.0, 0.0))
    (study_folder("yours").path / "ranking.json").write_text("[]")
    for name in ("mine-free", "gluten-free"):  # what a search of the whole way makes for itself, and a user's own
        study_folder(name).keep_plan(settings, ranking.plan, CostModel(0.0, 0.0, 0.0))
    study_folder("mine").answer.mkdir()
    for options, others in ([], set()), (["--all"], {"mine-free"}):
        assert run(["studies", "list", *options, "--json"]) == 0
        names = {one["name"] for one in json.loads(capsys.readouterr().out)}
        assert names == {"mine", "yours", "gluten-free"} | others
    assert set(study_names()) == {"mine", "yours", "gluten-free"}  # of the service
    for name in ("mine-free", "gluten-free"):
        assert run(["studies", "remove", name, "--yes"]) == 0
    capsys.readouterr()
    assert run(["studies", "list", "--json"]) == 0
    told = {one["name"]: one for one in json.loads(capsys.readouterr().out)}
    best = short_ids(SCORES)["convnet:depth=2"]
    assert told["mine"] | {"when": ""} == {
        "name": "mine",
        "when": "",
        "problem": None,
        "space": "convnet",
        "set": None,
        "images": "digits, bundled",
        "ranked": True,
        "candidates": 3,
        "best": best,
        "really_trained": 0,
        "report": False,
    }
    assert "damaged" in told["yours"]["problem"]
    assert run(["studies", "list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert any(line.split()[:5] == ["mine", "3", "convnet", "digits", best] for line in lines)
    assert max(map(len, lines[:3])) <= 80

    assert run(["studies", "show", "mine"]) == 0
    assert capsys.readouterr().out.startswith(f"Best guess   {best}  convnet:depth=2\n")
    assert run(["studies", "show", "mime"]) == 2
    assert "did you mean mine?" in capsys.readouterr().err

    assert run(["studies", "remove", "nosuch", "--yes"]) == 2
    assert "no study 'nosuch'" in capsys.readouterr().err
    monkeypatch.setattr("sys.stdin", io.StringIO(""))  # nobody answers
    assert run(["studies", "remove", "mine"]) == 1
    assert study_folder("mine").path.is_dir()
    assert run(["studies", "remove", "mine", "yours", "--yes"]) == 0
    assert not study_folder("mine").path.exists()
    assert not study_folder("yours").path.exists()


def test_finalists_are_named_by_their_ids(keep_ranking: Keep, capsys: pytest.CaptureFixture[str]) -> None:
    keep_ranking("mine", SCORES, "late loss")
    ids = short_ids(SCORES)
    named = named_in(ranked_study("mine")[1], (ids["convnet:depth=4"], "convnet:depth=3"))
    assert named == ("convnet:depth=4", "convnet:depth=3")
    assert run(["finish", "mine", "-a", "0" * 64, "--dataset", "digits"]) == 2
    assert "no candidate of mine has the id" in capsys.readouterr().err
