"""What the machine does to a work is told apart from what the work does itself."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from distill.synthetic import SyntheticSet
from ftdnas.cli.main import run
from ftdnas.runtime.home import home
from ftdnas.runtime.leases import DatabaseAway
from ftdnas.runtime.processes import Tasks, outcome_of
from ftdnas.runtime.rows import RowFile
from ftdnas.runtime.shared import Record, carry_out
from ftdnas.runtime.trouble import EXIT_CODE, MachineTrouble, trouble, unwritable


def refused(number: int, path: Path | None = None) -> OSError:
    return OSError(number, os.strerror(number), *([] if path is None else [str(path)]))


def test_what_passes_is_told_with_its_path() -> None:
    inside = home() / "sets" / "mine.safetensors"
    home().mkdir(parents=True, exist_ok=True)
    assert trouble(refused(errno.ENOSPC, inside)) == "no space is left on the disk: $FTDNAS_HOME/sets/mine.safetensors"
    assert trouble(refused(errno.EROFS, inside)) == "read-only: $FTDNAS_HOME/sets/mine.safetensors"
    assert trouble(refused(errno.EACCES, inside)) == "may not be written: $FTDNAS_HOME/sets/mine.safetensors"
    assert trouble(refused(errno.EIO)) == "the disk does not read or write"
    assert trouble(DatabaseAway("the database does not answer")) == "the database does not answer"
    home().rename(home().with_name(f"{home().name}-moved"))
    assert trouble(refused(errno.ENOENT, inside)) == "$FTDNAS_HOME has gone"
    assert unwritable(home()) == "$FTDNAS_HOME has gone"


def test_what_is_wrong_with_the_request_is_not_the_machines(tmp_path: Path) -> None:
    home().mkdir(parents=True, exist_ok=True)
    for error in (
        ValueError("no recipe"),
        refused(errno.EACCES, tmp_path / "photos" / "one.png"),
        refused(errno.ENOENT, home() / "sets" / "none"),
    ):
        assert trouble(error) is None
    assert unwritable(tmp_path) is None


def test_a_full_disk_ends_a_command_with_its_own_code_and_a_line(
    make_set: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert callable(make_set)
    made: SyntheticSet = make_set()
    made.save(tmp_path / "made.safetensors")

    def full(number: int) -> None:  # noqa: ARG001
        raise refused(errno.ENOSPC)

    monkeypatch.setattr("distill.files.os.fsync", full)
    assert run(["sets", "import", str(tmp_path / "made.safetensors"), "--name", "mine"]) == EXIT_CODE
    assert capsys.readouterr().err == ("ftdnas: no space is left on the disk: $FTDNAS_HOME/sets/mine.safetensors\n")


def test_a_candidate_that_the_machine_failed_has_no_row(tmp_path: Path) -> None:
    def work(_: object) -> None:
        raise refused(errno.ENOSPC, Path("/somewhere/weights"))

    outcome = outcome_of(work, None)
    assert outcome.error == "no space is left on the disk: /somewhere/weights"

    class Full:
        def map(self, works: Any, limit_s: float | None = None) -> Iterator[tuple[int, Any]]:  # noqa: ARG002
            tasks = Tasks(works)
            while (task := tasks.pull()) is not None:
                yield from tasks.settle(task, outcome, 0.0)

    file = RowFile(tmp_path / "rows.jsonl")
    with pytest.raises(MachineTrouble, match="no space is left") as caught:
        carry_out([SimpleNamespace(key="a")], Record(file), Full(), lambda row: None)  # noqa: ARG005
    assert file.read() == {}
    assert trouble(caught.value) == outcome.error
