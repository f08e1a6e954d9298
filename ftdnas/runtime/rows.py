"""A file of JSON rows, one a line: several processes may append to it, and it survives a kill at any moment."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

Row = Mapping[str, Any]


class RowFile:
    """Rows keyed by their "key"; of several with one key the last counts.

    A row is appended by one write under a lock. A last line without its end was torn by a kill or a full disk: it is
    not a row, and the next append removes it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self) -> dict[str, dict[str, Any]]:
        """Key -> row, in the order of first appearance. Raises ValueError naming a line that is not a row."""
        return self.read_from(0)[0]

    def read_from(self, offset: int) -> tuple[dict[str, dict[str, Any]], int]:
        """The rows that begin at byte `offset`, where a line begins, and the byte after the last of them."""
        try:
            with self.path.open("rb") as file:
                file.seek(offset)
                content = file.read()
        except FileNotFoundError:
            return {}, 0
        whole = content[: content.rfind(b"\n") + 1]
        rows: dict[str, dict[str, Any]] = {}
        for number, line in enumerate(whole.splitlines(), start=1):
            try:
                row = json.loads(line)
                rows[row["key"]] = row
            except (ValueError, TypeError, KeyError) as error:
                place = f"line {number}" if offset == 0 else f"line {number} after byte {offset}"
                raise ValueError(f"{self.path}, {place} is not a row of ours: remove that line") from error
        return rows, offset + len(whole)

    def settled(self) -> dict[str, dict[str, Any]]:
        """Those of `read` that are final: what crashed is to be tried again."""
        return {key: row for key, row in self.read().items() if not row.get("crashed")}

    def append(self, row: Row) -> None:
        """Add one row, which must hold a "key" and no NaN, and have it on the disk."""
        line = json.dumps({"key": row["key"], **row}, allow_nan=False, ensure_ascii=False) + "\n"
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX)  # released by the system when the file is closed, however that happens
            _cut_torn_line(file)
            file.write(line.encode())
            file.flush()
            os.fsync(file.fileno())


def _cut_torn_line(file: BinaryIO) -> None:
    """Shorten the file to the end of its last whole line."""
    file.seek(max(0, file.seek(0, os.SEEK_END) - 1))
    if file.read() not in (b"", b"\n"):
        file.seek(0)
        file.truncate(file.read().rfind(b"\n") + 1)
