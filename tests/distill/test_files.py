"""Files that are there whole or not at all."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from distill.files import locked, whole_file


def test_a_failure_leaves_the_old_content_and_nothing_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "file.txt"
    with whole_file(path) as beside:
        beside.write_text("old")
    with pytest.raises(ZeroDivisionError), whole_file(path) as beside:
        beside.write_text(str(1 // 0))
    assert path.read_text() == "old"
    with whole_file(path) as beside:
        beside.write_text("new")
    assert path.read_text() == "new"
    assert _names(path.parent) == ["file.txt"]


def test_what_killed_processes_left_is_removed_and_what_living_ones_write_is_not(tmp_path: Path) -> None:
    path = tmp_path / "file"
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    (tmp_path / f".file.{ended.pid}").write_text("left by a dead process")
    (tmp_path / f".file.{os.getppid()}").write_text("being written")
    (tmp_path / ".file.lock").write_text("not ours")
    with whole_file(path) as beside:
        beside.write_text("new")
    assert _names(tmp_path) == sorted([".file.lock", f".file.{os.getppid()}", "file"])


def test_a_lock_is_held_once(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "lock"
    with locked(path) as ours:
        assert ours
        with locked(path, wait=False) as theirs:
            assert not theirs
    with locked(path, wait=False) as ours:
        assert ours


def _names(folder: Path) -> list[str]:
    return sorted(each.name for each in folder.iterdir())
