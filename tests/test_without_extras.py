"""What a machine needs that only computes: distilling, screening and real training without the shells' libraries.

Each test is a process in which the libraries named cannot be imported, nor in any that it starts.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

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
