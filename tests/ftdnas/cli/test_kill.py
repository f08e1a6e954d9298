"""SIGKILL at random moments, then the same command: the set is the one of an undisturbed run, bit for bit."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

from distill.synthetic import SyntheticSet

KILLS = 3
COMMAND = [sys.executable, "-m", "ftdnas", "distill", "--dataset", "digits", "--threads", "1", "--ipc", "2"]
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


def test_killed_at_random_moments_it_ends_in_the_same_set(tmp_path: Path) -> None:
    recipe = tmp_path / "tiny.toml"
    recipe.write_text(TINY)
    command = [*COMMAND, "--recipe", str(recipe)]
    begun = time.monotonic()
    undisturbed = _finish(command, tmp_path / "undisturbed")
    length = time.monotonic() - begun
    moments = random.Random(0)
    killed = tmp_path / "killed"
    for _ in range(KILLS):
        process = subprocess.Popen(
            command, env=_environment(killed), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        # Loading libraries takes most of the time: moments after it are what matters.
        time.sleep(moments.uniform(0.5, 0.95) * length)
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert _finish(command, killed).equal(undisturbed)


def _finish(command: list[str], home: Path) -> SyntheticSet:
    done = subprocess.run([*command, "--json"], env=_environment(home), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return SyntheticSet.load(json.loads(done.stdout)["path"])


def _environment(home: Path) -> dict[str, str]:
    return {**os.environ, "FTDNAS_HOME": str(home), "OMP_NUM_THREADS": "1"}
