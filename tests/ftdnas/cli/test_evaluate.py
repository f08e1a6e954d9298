from __future__ import annotations

import json
from typing import Any

import pytest

from ftdnas.cli.main import run
from ftdnas.runtime.home import home
from ftdnas.sets.judging import judge, judging_recipe
from ftdnas.sets.library import Library
from ftdnas.sets.making import distil
from ftdnas.sets.recipes import load_recipe
from ftdnas.sets.request import DistilRequest, EvaluateRequest

SHORT = ["--override", "evaluation.train.epochs=5", "--override", "evaluation.validation.epochs=3", "--threads", "1"]


@pytest.fixture
def few() -> str:
    """A set of one real image per class in the library."""
    short = ["evaluation.full.epochs=1", "evaluation.validation.epochs=2", "matching.max_start_epoch=1"]
    recipe = load_recipe("quick", ["ipc=1", *short])
    return distil(DistilRequest(recipe=recipe, method="random", name="few", threads=1)).name


def answer(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> Any:
    code = run(arguments)
    captured = capsys.readouterr()
    assert code == 0, captured.err
    assert captured.err == ""
    return json.loads(captured.out)


def test_table_and_json(few: str, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["evaluate", few, "--against", "random, herding,kmeans,full", "--seeds", "2", *SHORT]
    told = answer([*arguments, "--json"], capsys)
    assert told["set"] == few
    assert told["test_images"] == 364
    rows = told["evaluations"]
    assert [row["name"] for row in rows] == ["few", "random", "herding", "kmeans", "full"]
    assert [row["train_images"] for row in rows] == [10, 10, 10, 10, 1143]
    for row in rows:
        assert len(row["accuracies"]) == 2
        assert row["mean"] == pytest.approx(sum(row["accuracies"]) / 2)
        assert row["deviation"] == pytest.approx(abs(row["accuracies"][0] - row["accuracies"][1]) / 2**0.5)
        assert row["network"].startswith("convnet:width=32")
    assert rows[-1]["mean"] > rows[0]["mean"]

    before = (home() / "evaluations.jsonl").read_text()
    assert run(arguments) == 0
    text = capsys.readouterr().out
    assert (home() / "evaluations.jsonl").read_text() == before  # nothing was trained again
    lines = text.splitlines()
    assert lines[0].startswith("digits, bundled with scikit-learn: accuracy on 364 test images")
    (line,) = [line for line in lines if line.split()[:1] == ["full"]]
    assert line.split()[1:5] == ["1,143", f"{100 * rows[-1]['mean']:.1f}", "+-", f"{100 * rows[-1]['deviation']:.1f}"]
    assert "1 epochs, lr 0.05, step, 2 seeds" in line


def test_what_was_measured_is_kept_for_just_that_question(few: str) -> None:
    def count() -> int:
        return len((home() / "evaluations.jsonl").read_text().splitlines())

    settings = {"evaluation.train.epochs": 2, "evaluation.validation.epochs": 1}
    question = EvaluateRequest(set=few, seeds=1, settings=settings, threads=1)
    first = judge(question)
    assert count() == 1
    other = EvaluateRequest(
        set=few, networks=("convnet:width=32,depth=1", "resnet18"), seeds=1, settings=settings, threads=1
    )
    with pytest.raises(ValueError, match="cannot carry"):
        judge(EvaluateRequest(set=few, networks=("convnet:depth=4",), seeds=1, settings=settings))
    assert count() == 1
    assert [each.network[:7] for each in judge(other).evaluations] == ["convnet", "resnet1"]
    assert count() == 3
    judge(EvaluateRequest(set=few, seeds=2, settings=settings, threads=1))
    assert count() == 4
    again = judge(question)
    assert count() == 4
    assert again.evaluations == first.evaluations
    assert first.to_json()["evaluations"][0]["deviation"] is None  # of one seed


def test_the_recipe_that_judges(few: str) -> None:
    synthetic = Library().load(few)
    own = judging_recipe(synthetic, EvaluateRequest(set=few))
    assert (
        own.evaluation
        == load_recipe("quick", ["evaluation.full.epochs=1", "evaluation.validation.epochs=2"]).evaluation
    )
    named = judging_recipe(synthetic, EvaluateRequest(set=few, recipe="cpu", settings={"evaluation.train.epochs": 9}))
    assert named.evaluation.train.epochs == 9
    assert named.evaluation.full == load_recipe("cpu").evaluation.full
    assert (named.ipc, named.backbone) == (1, synthetic.backbone)
    foreign = synthetic.with_provenance(recipe=None)
    assert judging_recipe(foreign, EvaluateRequest(set=few)).evaluation.train.epochs == 1000


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["fewer"], "no set 'fewer' in the library: did you mean few"),
        (["few", "--against", "best"], "unknown comparison 'best': choose from random"),
        (["few", "--network", "convent"], "unknown architecture 'convent'"),
        (["few", "--validation", "0.4"], "are not those that the set was made from"),
        (["few", "--split-seed", "3", "--dataset", "digitz"], "unknown data set 'digitz'"),
        (["few", "--seeds", "0"], "Invalid value for '--seeds'"),
    ],
)
def test_what_cannot_be_judged_is_one_line(
    few: str, arguments: list[str], line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert few == "few"
    assert run(["evaluate", *arguments, *SHORT, "--json"]) == 2
    captured = capsys.readouterr()
    assert captured.err.count("\n") == 1
    assert line in captured.err
