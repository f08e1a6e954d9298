"""ftdnas search, truth, report, check and advise as a user types them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from distill.images.datasets import ImageDataset
from distill.images.preprocess import fit_preprocess
from distill.synthetic import SyntheticSet
from ftdnas.cli.main import run
from ftdnas.ranking import loop
from ftdnas.ranking.loop import Evaluations
from ftdnas.ranking.study import ranked_study
from ftdnas.report.ledger import EACH
from ftdnas.report.study import ledger, open_ranked_study, table_of
from ftdnas.runtime.home import home
from ftdnas.sets.library import Library

TINY = {"name": "tiny", "evaluation": {"train": {"epochs": 5}, "full": {"epochs": 2, "lr": 0.05}}}
SMALL = ["--where", "width=32", "--where", "depth=1", "--jobs", "1", "--device", "cpu", "--epochs", "5"]
COMMAND = ["search", *SMALL, "--candidates", "5"]


@pytest.fixture
def tiny_set(digits: ImageDataset) -> None:
    preprocess = fit_preprocess("standardize", digits.train.images)
    rows = np.concatenate([np.flatnonzero(digits.train.labels == label)[:1] for label in range(10)])
    synthetic = SyntheticSet(
        images=preprocess.apply(digits.train.images[rows]),
        labels=torch.arange(10),
        step_size=0.02,
        preprocess=preprocess,
        augment="none",
        backbone="convnet:width=32,depth=1",
        class_names=digits.class_names,
        ipc=1,
        provenance={
            "dataset": "digits",
            "data_fingerprint": digits.fingerprint,
            "recipe": TINY,
            "seconds": {"experts": 3.0, "matching": 4.0},
            "data": {"spec": "digits", "image_size": None, "validation": 0.1, "split_file": None, "split_seed": 0},
        },
    )
    Library().add(synthetic, "tiny-digits")


@pytest.mark.usefixtures("tiny_set")
def test_from_a_search_to_a_report(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    command = [*COMMAND, "--study", "first", "--compare", "random1.late_loss"]
    assert run(command) == 0
    told = capsys.readouterr()
    lines = told.out.splitlines()
    assert [line.split("  ")[0] for line in lines if line[:1].strip()] == ["Best guess", "How sure", "Next"]
    assert len(lines) <= 20
    assert max(map(len, lines)) <= 80
    assert "5 of the space's 720 architectures" in told.err

    assert run([*command, "--json"]) == 0
    told = capsys.readouterr()
    ranking = json.loads(told.out)
    assert told.err == ""
    best = ranking["candidates"][0]
    assert lines[0].startswith(f"Best guess   {best['id']}  width 32, depth 1, norm {best['choices']['norm']}")
    assert [one["place"] for one in ranking["candidates"]] == [1, 2, 3, None, None]  # sigmoids: the last are dead
    assert lines[-2:] == ["  2 learned nothing and have no place", "  1 other way to rank is beside it in the report"]
    assert run(["show", "--study", "first", best["id"]]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith(
        f"{best['architecture']}\nfor 1 x 8 x 8 images and 10 classes: {best['parameters']:,} weights"
    )
    assert shown.endswith(f"in first {best['id']}, place 1 of 3\n")
    assert run(["show", "--study", "first", "0" * 64]) == 2
    assert "no candidate of first has the id 000" in capsys.readouterr().err

    assert run(["truth", "--study", "first", "--epochs", "1", "--seeds", "2", "--name", "short", "--jobs", "2"]) == 0
    told = capsys.readouterr()
    assert "accuracy after 1 epoch on all 1,284 training images of 8 pixels, 2 seeds" in told.out
    assert told.out.endswith("next      ftdnas report first --truth short\n")
    assert "10 of 10 trainings to do" in told.err
    assert run(["truth", "--study", "first", "--epochs", "1", "--seeds", "2", "--name", "short", "--json"]) == 0
    truth = json.loads(capsys.readouterr().out)
    assert [len(seed) for seed in truth["by_seed"]] == [5, 5]

    assert run(["report", "first", "--truth", "short", "--out", str(tmp_path / "report")]) == 0
    told = capsys.readouterr()
    assert told.out.startswith("Take ")
    assert "random images 1" in told.out
    page = (tmp_path / "report" / "report.html").read_text()
    assert "Take this one: width 32" in page
    assert "http://" not in page.replace("http://www.w3.org", "")
    assert run(["report", "--study", "first"]) == 0
    assert capsys.readouterr().out.splitlines()[:5] == told.out.splitlines()[:5]  # held up to the truth that it has

    table = tmp_path / "table.csv"
    rows = [f'"{one["architecture"]}",{90 - number},{50 - number}' for number, one in enumerate(ranking["candidates"])]
    table.write_text("\n".join(["arch,long,short", *rows]) + "\n")
    columns = ["--truth-column", "long", "--column", "12 epochs=short"]
    assert run(["report", "first", "--truth", str(table), *columns, "--json"]) == 0
    told_json = json.loads(capsys.readouterr().out)
    assert [column["name"] for column in told_json["table"]["columns"]][-2:] == [
        "table:12 epochs",
        "table:12 epochs+params",
    ]

    for damaged, words in (
        ([*rows, rows[0]], "both are convnet"),
        ([*rows[1:], rows[0].replace("90", "")], "is nan, not an accuracy"),
        ([*rows, "convnet:width=31x,1,1"], "line 7"),
    ):
        table.write_text("\n".join(["arch,long,short", *damaged]) + "\n")
        assert run(["report", "first", "--truth", str(table), *columns]) == 2
        assert words in capsys.readouterr().err
    assert run(["report", "first", "--truth", "shor"]) == 2
    assert "did you mean short?" in capsys.readouterr().err


@pytest.mark.usefixtures("tiny_set")
def test_the_ranking_is_printed_before_the_baselines_and_kept_when_they_are_interrupted(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Interrupting(Evaluations):
        def settle(self, proxies: Any, names: Any, cost: Any, stage: str) -> None:
            if stage == "baselines":
                raise KeyboardInterrupt
            super().settle(proxies, names, cost, stage)

    command = [*COMMAND, "--study", "cut", "--compare", "set.accuracy", "--compare", "random.accuracy"]
    with monkeypatch.context() as patch:
        patch.setattr(loop, "Evaluations", Interrupting)
        assert run(command) == 130
    printed = capsys.readouterr().out
    assert printed.startswith("Best guess")
    assert run(["studies", "show", "cut"]) == 0
    assert capsys.readouterr().out == printed
    assert ranked_study("cut")[1].compared == ("set.accuracy",)  # of the same trainings
    assert run(command) == 0
    whole = capsys.readouterr().out
    assert whole == f"{printed}  2 other ways to rank are beside it in the report\n"
    assert len(whole.splitlines()) <= 20
    seconds = ranked_study("cut")[1].seconds
    rows = ranked_study("cut")[0].rows.read().values()
    assert sum(seconds.values()) == pytest.approx(sum(row["seconds"] for row in rows))
    assert seconds["set.accuracy"] == 0 < seconds["random.accuracy"]
    study = open_ranked_study("cut")
    stages = [stage for stage in ledger(study, table_of(study, None)[0]) if stage.paid == EACH]
    assert sum(stage.seconds for stage in stages) == pytest.approx(sum(seconds.values()))
    assert [stage.note for stage in stages] == ["", "the same trainings as above", ""]
    assert run([*command, "--all"]) == 0
    everything = capsys.readouterr().out
    assert "measured before" in " ".join(everything.split())
    assert "5 epochs of SGD" in everything
    assert max(map(len, everything.splitlines())) <= 80


@pytest.mark.usefixtures("tiny_set")
def test_a_check_before_a_search(capsys: pytest.CaptureFixture[str]) -> None:
    command = ["check", "--where", "width=32", "--where", "depth=1", "--device", "cpu", "--epochs", "2"]
    assert run([*command, "--candidates", "10"]) == 2
    assert "take 24 to 40" in capsys.readouterr().err
    by_race = ["--proxy", "race", "--compare", "params", "--dataset", "digits", "--study", "raced"]
    assert run([*command, "--candidates", "24", "--real-epochs", "1", "--jobs", "2", *by_race]) == 0
    told = capsys.readouterr()
    assert any(word in told.out for word in ("Undecided", "Use it", "Do not use it"))
    assert "the real trainings were shortened: accuracy after 1 epoch" in told.out
    report = json.loads((home() / "studies" / "raced" / "report" / "report.json").read_text())
    assert "race" in report["comparison"]["lines"][0]["title"]  # the race itself, found again by how it trained
    assert not [note for note in report["notes"] if "left out" in note]


@pytest.mark.usefixtures("tiny_set")
def test_advice_alone(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["advise", *SMALL, "--candidates", "50"]) == 0
    told = capsys.readouterr().out
    assert told.startswith("about, for 50 candidates: distil and screen ")
    assert "train all for 2 epochs" in told


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--set", "nosuch"], "no set 'nosuch'"),
        (["--dataset", "svhn"], "the library has no set of svhn yet"),
        (["--where", "depth=9"], "convnet has no depth '9'"),
        (["--space", "convnets"], "did you mean convnet?"),
        (["--validation", "0"], "are not those that the set was made from"),
        (["--candidates", "1"], "--candidates"),
        (["--max-params", "10"], "within the limits"),
        (["--budget", "soon"], "not a duration such as"),
        (["--lr", "fast"], "a positive number, or set"),
    ],
)
@pytest.mark.usefixtures("tiny_set")
def test_what_cannot_be_is_one_line_and_exit_code_2(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run([*COMMAND, *arguments]) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert words in told.err.splitlines()[-1]


def test_without_a_set_both_ways_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["search", "--space", "convnet"]) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert "ftdnas distill --dataset digits" in line
    assert "--proxy race" in line


@pytest.mark.usefixtures("tiny_set")
def test_a_damaged_storage_is_named_and_left_alone(capsys: pytest.CaptureFixture[str]) -> None:
    path = home() / "studies.db"
    path.write_bytes(b"no database at all" * 100)
    assert run([*COMMAND]) == 2
    assert "is damaged or no SQLite file" in capsys.readouterr().err.splitlines()[-1]
    assert path.read_bytes().startswith(b"no database")
