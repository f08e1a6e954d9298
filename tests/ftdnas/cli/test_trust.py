"""ftdnas trust, and what real accuracies decide after it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import pytest

from distill.images.datasets import ImageDataset
from distill.synthetic import SyntheticSet
from ftdnas.candidates.truth import truth_rows
from ftdnas.cli.main import WRONG_INPUT, run
from ftdnas.ranking.study import study_folder
from ftdnas.sets.library import Library

RECIPE = {"name": "tiny", "evaluation": {"train": {"epochs": 5}, "full": {"epochs": 1, "lr": 0.05}}}
SEARCH = ["search", "--where", "width=32,64", "--where", "depth=1", "--where", "activation=relu", "--epochs", "3"]
HERE = ["--jobs", "1", "--device", "cpu"]
FINISH = ["--top", "2", "--epochs", "1", "--no-onnx", "--jobs", "1", "--threads", "1"]


@pytest.fixture
def study(digits: ImageDataset, set_of: Callable[..., SyntheticSet], capsys: pytest.CaptureFixture[str]) -> str:
    """6 ConvNets, ranked on 10 images."""
    data = {"spec": "digits", "image_size": None, "validation": 0.1, "split_file": None, "split_seed": 0}
    provenance = {"dataset": "digits", "data_fingerprint": digits.fingerprint, "recipe": RECIPE, "data": data}
    Library().add(set_of(digits, 1, provenance=provenance | {"seconds": {"experts": 3.0}}), "tiny")
    assert run([*SEARCH, *HERE, "--candidates", "6", "--compare", "random1.late_loss+params", "--study", "one"]) == 0
    capsys.readouterr()
    return "one"


def test_trust_names_a_network_and_finish_delivers_it(
    study: str, digits: ImageDataset, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["report", study]) == 0
    unknown = capsys.readouterr().out
    assert unknown.startswith("Take         Not known")
    assert f"ftdnas trust {study}" in unknown

    assert run(["trust", study, *HERE]) == 0
    told = capsys.readouterr()
    assert re.search(r"6 of 6 trainings to do\nthis takes \d+ to \d+ (s|min)", told.err)
    lines = told.out.splitlines()
    assert len(lines) <= 20
    assert max(map(len, lines)) <= 80
    headings = [line.split("  ")[0] for line in lines if line[:1].strip()]
    assert [one for one in headings if one != "Beware"] == ["Take", "The ranking", "The set", "Next", "Page"]
    assert any(line.startswith("  if you train the first ...") for line in lines)
    assert "the set + size (used)" in told.out
    assert "random images 1 + size" in told.out
    assert "picked blindly" in told.out
    assert "noise ceiling" not in told.out

    assert run(["report", study, "--all"]) == 0
    whole = capsys.readouterr().out
    assert whole.startswith(told.out.rstrip())
    assert "noise ceiling" in whole
    assert "note: accuracies are of" in whole

    # Further seeds of the first three; asked for again, nothing is trained.
    assert run(["trust", study, "--seeds", "2", *HERE]) == 0
    assert "3 of 6 trainings to do" in capsys.readouterr().err
    assert run(["trust", study, "--seeds", "2", *HERE, "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    rows = truth_rows(digits.fingerprint).read()
    assert len(rows) == 6 + 3
    take = report["take"]
    assert report["schema"] == 2
    assert take["seeds"][1] in (1, 2)
    assert take["name"] in take["equal"]
    assert take["name"] == min(take["equal"], key=lambda name: size(report, name))
    assert take["parameters"] == size(report, take["name"])

    # What is known decides: nothing is trained but the weights of the one that is taken.
    assert run(["finish", study, *FINISH]) == 0
    finished = capsys.readouterr().out.splitlines()
    answer = finished[-5:]
    assert [line.split()[0] for line in answer] == ["Network", "Test", "Size", "Files", "Next"]
    assert all(f"{name} {value}" in answer[0] for name, value in take["choices"][0].items())
    assert max(map(len, finished)) <= 110
    assert run(["finish", study, *FINISH, "--json"]) == 0
    card = json.loads(capsys.readouterr().out)
    assert card["architecture"] == take["name"]
    assert card["chosen"] == "the smallest not shown worse in validation than the best"
    assert card["recipe"]["name"] == "as the candidates were really trained"
    assert card["standing"]["truth"].startswith("accuracy after 1 epoch")
    assert {row["seed"] for row in truth_rows(digits.fingerprint).read().values()} == {0, 1}
    assert len(truth_rows(digits.fingerprint).read()) == 6 + 3

    page = study_folder(study).path / "report" / "report.html"
    assert "Classes, the hardest first" not in page.read_text()
    assert run(["report", study]) == 0  # now with what the finished network makes of each class
    assert "Classes, the hardest first" in page.read_text()


def size(report: dict[str, Any], name: str) -> int:
    table = report["table"]
    parameters: int = table["parameters"][table["candidates"].index(name)]
    return parameters


def test_wrong_input_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["trust"]) == WRONG_INPUT
    assert "Missing argument 'STUDY'" in capsys.readouterr().err
    assert run(["trust", "none"]) == WRONG_INPUT
    assert "no study 'none' was ranked" in capsys.readouterr().err
