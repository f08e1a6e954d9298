"""What a machine needs that only computes: distilling, screening and real training without the shells' libraries.

Each test is a process in which the libraries named cannot be imported, nor in any that it starts.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import subprocess
import sys
from pathlib import Path

import gpu
import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("distill", "ftdnas", "search_spaces")
ABSENT = """
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {names!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Absent())
"""


def process(folder: Path, absent: tuple[str, ...], *words: str) -> subprocess.CompletedProcess[str]:
    """A Python in which the modules of these names are not there, with the packages of this checkout."""
    (folder / "sitecustomize.py").write_text(ABSENT.format(names=set(absent)))
    path = os.pathsep.join((str(folder), str(ROOT)))
    environment = {**os.environ, "PYTHONPATH": path, "FTDNAS_HOME": str(folder / "home")}
    return subprocess.run(
        [sys.executable, *words], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )


def test_computing_needs_none_of_the_shells_libraries(tmp_path: Path) -> None:
    absent = ("pydantic", "optuna", "nni", "sqlalchemy", "alembic", "fastapi", "starlette", "ray", "click")
    done = process(tmp_path, absent, str(ROOT / "tests/computing_alone.py"), *absent)
    assert (done.returncode, done.stdout.split()[-1:]) == (0, ["computed"]), done.stderr


def test_the_benchmark_of_a_gpu_runs_from_a_checkout_that_is_not_installed(tmp_path: Path) -> None:
    for folder in (*PACKAGES, "benchmarks"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))
    absent = ("pydantic", "optuna", "nni", "sqlalchemy", "alembic", "fastapi", "ray", "click")
    done = process(tmp_path, absent, "benchmarks/gpu.py", "out", "--device", "cpu", "--tiny")
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr
    lines = [json.loads(line) for line in (tmp_path / "out/gpu.jsonl").read_text().splitlines()]
    assert {line["stage"] for line in lines} == {"", "a", "b", "c"}
    assert Path(lines[0]["code"]).is_relative_to(tmp_path)
    held_up = [line for line in lines if line["stage"] == "a"]
    assert all(0 <= value <= line["bound"] for line in held_up for value in line["away"].values())
    found = {line["what"]: line for line in lines if line["stage"] != "a"}
    assert found["matching, eager"]["lines"][-1]["TFLOP/s"] > 0
    # Its time was up before it began, so it ended at the first restart point.
    assert found["matching"]["outer_steps"] == 1
    accuracies = [line["accuracies"] for what, line in found.items() if what.startswith("test accuracy")]
    assert [len(each) for each in accuracies] == [2, 3, 2]
    assert (tmp_path / "out/set.safetensors").stat().st_size > 0


def test_what_fails_on_a_gpu_is_told_and_passed_over(tmp_path: Path) -> None:
    book = gpu.Book(tmp_path)
    with book.part("a", "late", 1.0) as facts:
        facts["reached"] = 1
        while True:
            pass
    with book.part("a", "wrong", 60.0) as facts:
        gpu.agree(facts, {"images": math.nan}, 0.1)
    with book.part("a", "right", 60.0) as facts:
        gpu.agree(facts, {"images": 0.1}, 0.1)
    late, wrong, right = [json.loads(line) for line in (tmp_path / "gpu.jsonl").read_text().splitlines()]
    assert (late["reached"], late["failed"]) == (1, "Late: 1 s are over")
    assert wrong["failed"].startswith("ValueError: images")
    assert "failed" not in right
    assert book.failed == 2


@pytest.mark.parametrize("asked", ["--version", "--help"])
def test_a_checkout_that_is_not_installed_runs(tmp_path: Path, asked: str) -> None:
    """Without the metadata of an installation, and without torch, pydantic, Optuna or a database's library."""
    for package in PACKAGES:
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "run.py").write_text(
        "import importlib.metadata as metadata, runpy, sys\n"
        "def version(name):\n    raise metadata.PackageNotFoundError(name)\n"
        f"metadata.version = version\nsys.argv = ['ftdnas', {asked!r}]\n"
        "runpy.run_module('ftdnas', run_name='__main__', alter_sys=True)\n"
    )
    done = process(tmp_path, ("torch", "pydantic", "optuna", "nni", "sqlalchemy"), "run.py")
    assert done.returncode == 0, done.stderr
    assert "ftdnas" in done.stdout
