"""ftdnas search as a user types it."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from distill.datasets import ImageDataset
from distill.preprocess import fit_preprocess
from distill.synthetic import SyntheticSet
from ftdnas.cli.main import run
from ftdnas.library import Library, home

TINY = {"name": "tiny", "evaluation": {"train": {"epochs": 5}, "full": {"epochs": 2, "lr": 0.05}}}
COMMAND = ["search", "--widths", "32", "--where", "depth=1", "--candidates", "4", "--jobs", "1", "--device", "cpu"]


def _add_set(data: ImageDataset) -> None:
    preprocess = fit_preprocess("standardize", data.train.images)
    rows = np.concatenate([np.flatnonzero(data.train.labels == label)[:1] for label in range(10)])
    synthetic = SyntheticSet(
        images=preprocess.apply(data.train.images[rows]),
        labels=torch.arange(10),
        step_size=0.02,
        preprocess=preprocess,
        augment="none",
        backbone="convnet:width=32,depth=1",
        class_names=data.class_names,
        ipc=1,
        provenance={
            "dataset": "digits",
            "data_fingerprint": data.fingerprint,
            "recipe": TINY,
            "data": {"spec": "digits", "image_size": None, "validation": 0.1, "split_file": None, "split_seed": 0},
        },
    )
    Library(home() / "sets").add(synthetic, "tiny-digits")


def test_a_ranking_in_words_and_the_same_as_json(digits: ImageDataset, capsys: pytest.CaptureFixture[str]) -> None:
    _add_set(digits)
    command = [*COMMAND, "--truth-epochs", "1", "--random-draws", "1"]
    assert run(command) == 0
    told = capsys.readouterr()
    lines = [line for line in told.out.splitlines() if line]
    # What speaks against trusting the ranking comes before the ranking itself.
    verdict = next(number for number, line in enumerate(lines) if line.startswith(("Undecided", "Use it", "Do not")))
    heading = next(number for number, line in enumerate(lines) if line.startswith("rank"))
    assert verdict == 0 < heading
    assert sum("convnet:width=32,depth=1" in line for line in lines) == 4
    assert any(line.strip().startswith("the parameter count") for line in lines)
    assert any("test images were not read" in line for line in lines)
    assert "4 of 45 feasible architectures" in told.err
    assert "screening: 10 images, 5 epochs" in told.err

    assert run([*command, "--json"]) == 0
    told = capsys.readouterr()
    ranking = json.loads(told.out)
    assert told.err == ""
    assert [line.split()[-1] for line in lines[heading + 1 : heading + 5]] == [
        candidate["architecture"] for candidate in ranking["candidates"]
    ]
    assert ranking["comparison"]["lines"][2]["title"] == "the parameter count"
    assert ranking["settings"]["recipe"]["name"] == "screening-5"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--set", "nosuch"], "no set 'nosuch'"),
        (["--dataset", "svhn"], "the library has no set of svhn yet"),
        (["--where", "depth=9"], "convnet has no depth '9'"),
        (["--space", "convnets"], "did you mean convnet?"),
        (["--validation", "0"], "are not those that the set was made from"),
        (["--candidates", "1"], "--candidates"),
    ],
)
def test_what_cannot_be_is_one_line_and_exit_code_2(
    arguments: list[str], words: str, digits: ImageDataset, capsys: pytest.CaptureFixture[str]
) -> None:
    _add_set(digits)
    assert run([*COMMAND, *arguments]) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert words in told.err.splitlines()[-1]
