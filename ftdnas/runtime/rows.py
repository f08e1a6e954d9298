"""A file of JSON rows, one a line: several processes may append to it, and it survives a kill at any moment."""

from __future__ import annotations

import fcntl
import json
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

from distill.files import SUM, UNSUMMED, Damaged, fits, naming, summed

Row = Mapping[str, Any]
log = logging.getLogger("ftdnas")


class RowFile:
    """Rows keyed by their "key"; of several with one key the last counts.

    A row is appended by one write under a lock, with its sum. A last line without its end was torn by a kill or a full
    disk: it is not a row, and the next append removes it. A damaged line is moved to a file beside, blanks take its
    place, and what it held counts as not done.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self) -> dict[str, dict[str, Any]]:
        """Key -> row, in the order of first appearance."""
        return self.read_from(0)[0]

    def read_from(self, offset: int) -> tuple[dict[str, dict[str, Any]], int]:
        """The rows that begin at byte `offset`, where a line begins, and the byte after the last of them."""
        try:
            with self.path.open("rb") as file:
                file.seek(offset)
                content = file.read()
        except FileNotFoundError:
            return {}, 0
        rows, damaged, at = _rows(content[: content.rfind(b"\n") + 1], offset)
        if damaged:
            self._set_aside(damaged)
        return rows, at

    def settled(self) -> dict[str, dict[str, Any]]:
        """Those of `read` that are final: what crashed is to be tried again."""
        return {key: row for key, row in self.read().items() if not row.get("crashed")}

    def check(self) -> bool:
        """Whether every row has a sum. Raises Damaged where one is not as it was written."""
        content = self.path.read_bytes()
        damaged = _rows(content, 0)[1]
        if damaged:
            raise Damaged(self.path, f"{len(damaged)} of its lines", "what they held is done again when it is needed")
        return content.count(b"\n") == content.count(SUM.encode())

    def append(self, row: Row) -> None:
        """Add one row, which must hold a "key" and no NaN, and have it on the disk."""
        text = json.dumps({**UNSUMMED, "key": row["key"], **row}, allow_nan=False, ensure_ascii=False)
        line = summed(text.encode()) + b"\n"
        with naming(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a+b") as file:
                fcntl.flock(file, fcntl.LOCK_EX)  # released by the system when the file is closed, however that happens
                _cut_torn_line(file)
                file.write(line)
                file.flush()
                os.fsync(file.fileno())

    def _set_aside(self, damaged: Mapping[int, bytes]) -> None:
        """Move these lines, by the bytes they begin at; a folder that may not be written keeps them."""
        aside = self.path.with_name(f"{self.path.name}.damaged")
        told = "%s, byte %d: a damaged line, which counts as not done; it is kept in %s"
        try:
            with self.path.open("r+b") as file, aside.open("ab") as kept:
                fcntl.flock(file, fcntl.LOCK_EX)
                for at, line in damaged.items():
                    file.seek(at)
                    if file.read(len(line)) == line:  # nobody was quicker
                        kept.write(line + b"\n")
                        kept.flush()
                        file.seek(at)
                        file.write(b" " * len(line))  # others know the rest by its place
                        log.warning(told, self.path, at, aside.name)
        except OSError as error:
            log.warning(f"{told} (%s)", self.path, next(iter(damaged)), self.path.name, error.strerror)


def _rows(content: bytes, at: int) -> tuple[dict[str, dict[str, Any]], dict[int, bytes], int]:
    """Of lines from byte `at` on: rows by key, damaged ones by the byte they begin at, the byte after the last."""
    rows: dict[str, dict[str, Any]] = {}
    damaged: dict[int, bytes] = {}
    for line in content.splitlines(keepends=True):
        text = line.strip()
        try:
            if text:
                row = json.loads(text)
                row.pop(SUM, None)
                if not fits(text):
                    raise ValueError
                rows[row["key"]] = row
        except (ValueError, TypeError, KeyError, AttributeError):
            damaged[at] = line.rstrip(b"\r\n")
        at += len(line)
    return rows, damaged, at


def _cut_torn_line(file: BinaryIO) -> None:
    """Shorten the file to the end of its last whole line."""
    file.seek(max(0, file.seek(0, os.SEEK_END) - 1))
    if file.read() not in (b"", b"\n"):
        file.seek(0)
        file.truncate(file.read().rfind(b"\n") + 1)
