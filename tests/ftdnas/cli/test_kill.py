"""SIGKILL in the middle, then the same command: the set is the one of an undisturbed run, bit for bit."""

from __future__ import annotations

import json
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from distill.synthetic import SyntheticSet
from ftdnas.cli.main import run

KILLS = 3
COMMAND = ["distill", "--dataset", "digits", "--threads", "1", "--ipc", "2"]
TINY = """
name = "tiny"
backbone = "convnet:width=32,depth=1"
preprocess = "standardize"
[experts]
num_experts = 4
lr = 0.05
[matching]
outer_steps = 60
syn_steps = 4
expert_epochs = 1
max_start_epoch = 4
lr_images = 10
validate_every = 20
checkpoint_every = 5
[evaluation.validation]
epochs = 20
"""


def test_killed_at_random_moments_it_ends_in_the_same_set(
    tmp_path: Path, begin: Callable[..., Any], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = tmp_path / "tiny.toml"
    recipe.write_text(TINY)
    command = [*COMMAND, "--recipe", str(recipe), "--json"]

    def made(home: Path) -> SyntheticSet:
        monkeypatch.setenv("FTDNAS_HOME", str(home))
        assert run(command) == 0
        return SyntheticSet.load(json.loads(capsys.readouterr().out)["path"])

    moments, killed = random.Random(0), tmp_path / "killed"
    for _ in range(KILLS):
        process, seen = begin(*command, home=killed), written(killed)
        # After some files more: within the experts at first, then within the matching.
        changes = moments.randint(1, 4)
        while len(written(killed) - seen) < changes and process.process.is_alive():
            time.sleep(0.001)
        assert process.send(signal.SIGKILL) == -signal.SIGKILL
    assert made(killed).equal(made(tmp_path / "undisturbed"))


def written(folder: Path) -> set[tuple[Path, int]]:
    """Every file with the time at which it was last written."""
    found = set()
    for path in folder.rglob("*"):
        try:
            found.add((path, path.stat().st_mtime_ns))
        except FileNotFoundError:  # it was a file on its way to its name
            continue
    return found
