"""The file of rows: what is read is what was appended whole, whatever happened to the last append."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from ftdnas.runtime.rows import RowFile


def test_rows_come_back_by_key_and_the_last_of_a_key_counts(tmp_path: Path) -> None:
    file = RowFile(tmp_path / "deep" / "rows.jsonl")
    assert file.read() == {}
    for row in ({"key": "a", "score": 0.5}, {"key": "b", "text": "é\nß"}, {"key": "a", "score": None}):
        file.append(row)
    assert file.read() == {"a": {"key": "a", "score": None}, "b": {"key": "b", "text": "é\nß"}}


@pytest.mark.parametrize("length", [1, 7, 200_000])
def test_a_torn_last_line_is_dropped_and_then_removed(tmp_path: Path, length: int) -> None:
    file = RowFile(tmp_path / "rows.jsonl")
    file.append({"key": "a"})
    whole = file.path.read_bytes()
    file.path.write_bytes(whole + b'{"key": "torn", "x": "' + b"y" * length)
    assert list(file.read()) == ["a"]
    file.append({"key": "b"})
    assert file.path.read_bytes().startswith(whole)
    assert b"torn" not in file.path.read_bytes()
    assert list(file.read()) == ["a", "b"]


def test_a_file_that_is_nothing_but_torn_starts_anew(tmp_path: Path) -> None:
    file = RowFile(tmp_path / "rows.jsonl")
    file.path.write_bytes(b'{"key": "to')
    assert file.read() == {}
    file.append({"key": "a"})
    assert list(file.read()) == ["a"]


SUMMED = '{"$sum": "sha256:%s", "key": "c", "score": 0.25}'


@pytest.mark.parametrize("line", ["{", "[]", '{"no": "key"}', "3", SUMMED % ("0" * 32), SUMMED % "short"])
def test_a_damaged_line_is_moved_away_and_counts_as_not_done(
    tmp_path: Path, line: str, caplog: pytest.LogCaptureFixture
) -> None:
    file = RowFile(tmp_path / "rows.jsonl")
    file.path.write_text(f'{{"key": "a"}}\n{line}\n{{"key": "b"}}\n')
    size = file.path.stat().st_size
    assert file.read_from(0) == ({"a": {"key": "a"}, "b": {"key": "b"}}, size)
    assert "rows.jsonl, byte 13: a damaged line" in caplog.text
    assert (tmp_path / "rows.jsonl.damaged").read_text() == line + "\n"
    caplog.clear()
    file.append({"key": "c", "score": 0.5})
    assert file.read_from(size)[0] == {"c": {"key": "c", "score": 0.5}}  # what others know by its place is there
    assert list(file.read()) == ["a", "b", "c"]
    assert not caplog.text


def test_a_changed_digit_is_no_row(tmp_path: Path) -> None:
    file = RowFile(tmp_path / "rows.jsonl")
    file.append({"key": "a", "score": 0.5})
    file.path.write_text(file.path.read_text().replace("0.5", "0.9"))
    assert file.read() == {}


def test_what_json_cannot_hold_is_refused_before_it_is_written(tmp_path: Path) -> None:
    file = RowFile(tmp_path / "rows.jsonl")
    with pytest.raises(ValueError, match="JSON"):
        file.append({"key": "a", "score": float("nan")})
    assert not file.path.exists()


def test_writers_at_once_lose_nothing(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"

    def write(writer: int) -> None:
        for number in range(25):
            RowFile(path).append({"key": f"{writer}/{number}", "filling": "x" * 500})

    threads = [threading.Thread(target=write, args=(writer,)) for writer in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(RowFile(path).read()) == 100
