"""A user's own code does what it likes: its candidate fails alone, and what is said and printed stays ours."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from distill.synthetic import SyntheticSet
from ftdnas.cli.main import run
from ftdnas.runtime.home import home
from ftdnas.sets.library import Library

NETS = """
import sys
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.inner, self.outer = nn.Linear(64, width), nn.Linear(width, 10)
    def forward(self, images):
        return self.outer(self.inner(images.flatten(1)).relu())

def width(trial):
    return trial.suggest_int("width", 4, 8)

class Talks(Net):
    def forward(self, images):
        print("{ forward")
        return super().forward(images)

def talks(trial):
    print("{ build")
    return Talks(width(trial))

class Breaks(Net):
    def forward(self, images):
        if len(images) > 2:
            raise RuntimeError("too many images")
        return super().forward(images)

def breaks(trial):
    return Breaks(width(trial))

def ends(trial):
    if width(trial) > 6:
        sys.exit("width too large")
    return Net(width(trial))

class Names(Net):
    def forward(self, images):
        return {"logits": super().forward(images)}

def names(trial):
    return Names(width(trial))

class Helps(Net):
    def forward(self, images):
        logits = super().forward(images)
        return (logits, logits) if self.training else logits

def helps(trial):
    return Helps(width(trial))

def colours(trial):
    return nn.Sequential(nn.Conv2d(3, width(trial), 3), nn.Flatten(), nn.LazyLinear(10))
"""


@pytest.fixture
def search(make_set: Callable[..., SyntheticSet], tmp_path: Path) -> Callable[..., int]:
    """search(function, *words): the exit code of a search among the networks that a function of the file builds."""
    Library().add(make_set(classes=10, ipc=1), "tiny")
    (tmp_path / "nets.py").write_text(NETS)
    usual = ["--set", "tiny", "--candidates", "3", "--steps", "2", "--jobs", "1", "--device", "cpu", "--study", "own"]
    return lambda function, *words: run(["search", "--space", f"{tmp_path / 'nets.py'}:{function}", *usual, *words])


def test_what_networks_print_is_not_in_the_json(search: Callable[..., int], capfd: pytest.CaptureFixture[str]) -> None:
    assert search("talks", "--json") == 0
    out, err = capfd.readouterr()
    assert len(json.loads(out)["candidates"]) == 3
    assert "{ build" in err
    assert "{ forward" in err


def test_where_no_candidate_has_a_score_the_command_has_failed(
    search: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert search("breaks", "--json") == 1
    out, err = capsys.readouterr()
    assert [one["score"] for one in json.loads(out)["candidates"]] == [None] * 3
    assert "ftdnas: no candidate has a score; the first: " in err
    assert "RuntimeError: too many images" in err
    assert search("breaks") == 1
    capsys.readouterr()
    space = ["--space", f"{tmp_path / 'nets.py'}:breaks", "--dataset", "digits", "--sample", "2", "--epochs", "1"]
    assert run(["truth", *space, "--jobs", "1"]) == 1
    assert "ftdnas: no training has a result; the first: RuntimeError: too many images" in capsys.readouterr().err


def test_a_build_that_ends_the_program_leaves_the_others(search: Callable[..., int]) -> None:
    assert search("ends", "--candidates", "9") == 0
    ranking = json.loads((home() / "studies/own/ranking.json").read_text())
    assert sorted(one["choices"]["width"] for one in ranking["candidates"]) == [4, 5, 6]


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        ("names", "it returns a dict, not one tensor"),
        ("helps", "it returns a tuple while it trains, not one tensor"),
        ("colours", "RuntimeError: Invalid channel dimensions"),
    ],
)
def test_the_obstacle_that_all_have_is_said_before_the_work(
    function: str, reason: str, search: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert search(function) == 2
    err = capsys.readouterr().err
    assert "can carry 1 x 8 x 8 images" in err
    assert reason in err


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_leaves_nothing_behind(
    number: signal.Signals, make_set: Callable[..., SyntheticSet], begin: Callable[..., Any]
) -> None:
    Library().add(make_set(classes=10, ipc=1), "tiny")
    words = ["search", "--set", "tiny", "--space", "convnet", "--where", "width=32", "--candidates", "2"]
    words += ["--epochs", "100000", "--jobs", "1", "--device", "cpu", "--study", "own"]
    apart = begin(*words, code="from ftdnas.cli.main import main; main()")
    materials = home() / "studies/own/materials"
    end = time.monotonic() + 300
    while not list(materials.glob("*/*")):
        assert time.monotonic() < end, apart.err.read_text()
        time.sleep(0.01)
    assert apart.send(number) == 128 + number
    assert not list(materials.glob("*"))
    assert "interrupted: the same command goes on from here" in apart.err.read_text()
