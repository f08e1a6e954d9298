"""Files that are there whole or not at all."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from distill.files import UNSUMMED, Damaged, check, locked, whole_file


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


def test_a_disk_that_does_not_take_it_is_named_with_the_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    with pytest.raises(OSError, match=r"No space left on device: '.*file'"), whole_file(path):
        raise RuntimeError("I/O error: No space left on device (os error 28)")  # as safetensors says it
    with monkeypatch.context() as patch:

        def full(number: int) -> None:  # noqa: ARG001
            raise OSError(errno.ENOSPC, "No space left on device")

        patch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match=r"No space left on device: '.*file'"), whole_file(path) as beside:
            beside.write_text("new")
    assert _names(tmp_path) == []


def test_a_sum_is_written_with_the_file_and_says_whether_it_still_fits(tmp_path: Path) -> None:
    path = tmp_path / "file.json"
    with whole_file(path, sums=True) as beside:
        beside.write_text(json.dumps({**UNSUMMED, "text": 'a "$sum" of its own'}))
    assert json.loads(path.read_text())["text"] == 'a "$sum" of its own'
    assert check(path)
    content = path.read_bytes()
    for damaged in (content.replace(b"own", b"owm"), content.replace(b"sha256:", b"sha255:"), content[:-1]):
        path.write_bytes(damaged)
        with pytest.raises(Damaged, match=r"file\.json is damaged"):
            check(path)
    path.write_text('{"text": "of an earlier version"}')
    assert not check(path)


def _names(folder: Path) -> list[str]:
    return sorted(each.name for each in folder.iterdir())
