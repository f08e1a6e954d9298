"""ftdnas search, truth, report, check and advise as a user types them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from distill.images.datasets import ImageDataset
from distill.images.preprocess import fit_preprocess
from distill.synthetic import SyntheticSet
from ftdnas.cli.main import run
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
    lines = [line for line in told.out.splitlines() if line]
    # What speaks against trusting the ranking comes before the ranking itself.
    heading = next(number for number, line in enumerate(lines) if line.startswith("rank"))
    assert lines[0].startswith("How far this ranking can be trusted is not known")
    assert heading == 1
    assert sum("convnet:width=32,depth=1" in line for line in lines) == 5
    assert "5 of the space's 720 architectures" in told.err

    assert run([*command, "--json"]) == 0
    told = capsys.readouterr()
    ranking = json.loads(told.out)
    assert told.err == ""
    assert [line.split()[-1] for line in lines[2:7]] == [one["architecture"] for one in ranking["candidates"]]

    assert run(["truth", "--study", "first", "--epochs", "1", "--seeds", "2", "--name", "short", "--jobs", "2"]) == 0
    told = capsys.readouterr()
    assert "accuracy after 1 epoch on all 1,284 training images of 8 pixels, 2 seeds" in told.out
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
