"""Files that are there whole or not at all and say whether they still hold what was written; locks; digests.

A sum is the first field of the JSON object with which a file begins (a JSON file, a line of rows, the metadata of
tensors), so that every file stays readable by whatever reads its format: SHA-256 of all bytes, those of the sum itself
taken as zeros. A file of an earlier version has none and is believed.
"""

from __future__ import annotations

import fcntl
import functools
import glob
import hashlib
import io
import json
import logging
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

SUM = "$sum"  # sorts before every other key
HEX = 32
UNSUMMED = {SUM: f"sha256:{'0' * HEX}"}  # stands for the sum in what is written, until it is filled in
_SUMMED = re.compile(rb'"\$sum\\?": ?\\?"sha256:([0-9a-f]{%d})' % HEX)
_TRACE = re.compile(rb"\$sum|sha256:")  # two, so that no single damage makes a file one of an earlier version
_HEAD, _CHUNK = 4096, 1 << 20  # the sum is among the first bytes
_OS_ERROR = re.compile(r"\(os error (\d+)\)")  # as safetensors tells it
log = logging.getLogger("ftdnas")


class Damaged(ValueError):
    """A file, `path`, that does not hold what was written."""

    def __init__(self, path: Path, why: object = "its sum does not fit", way_out: str = "") -> None:
        super().__init__(f"{path} is damaged ({why})" + (f": {way_out}" if way_out else ""))
        self.path, self.why = path, why


@contextmanager
def whole_file(path: Path, *, sums: bool = False) -> Iterator[Path]:
    """A path beside `path` to write to; if the block ends well, what was written is on disk and takes its place.

    `sums`: what is written holds `UNSUMMED`, and gets its sum. Whatever happens, `path` holds its old content or all of
    the new. What killed processes left beside it is removed. Raises OSError, with the path, for a disk that does not
    take it.
    """
    with naming(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        for left in path.parent.glob(f".{glob.escape(path.name)}.*"):
            if not _alive(left.suffix[1:]):
                left.unlink(missing_ok=True)
        beside = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            yield beside
            with beside.open("r+b") as file:
                if sums:
                    place = _place(file)
                    assert place is not None
                    total = _sum(file, place)
                    file.seek(place)
                    file.write(total)
                    file.flush()
                os.fsync(file.fileno())
            beside.replace(path)
        finally:
            beside.unlink(missing_ok=True)


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """What the system says inside the block names `path`."""
    try:
        yield
    except Exception as error:
        told = _OS_ERROR.search(str(error))
        number = error.errno if isinstance(error, OSError) else int(told[1]) if told else None
        if number is None or getattr(error, "filename", None) is not None:
            raise
        raise OSError(number, os.strerror(number), str(path)) from error


def summed(content: bytes) -> bytes:
    """The same, which holds `UNSUMMED`, with its sum."""
    file = io.BytesIO(content)
    place = _place(file)
    assert place is not None
    return content[:place] + _sum(file, place) + content[place + HEX :]


def fits(content: bytes) -> bool:
    """Whether the sum in it is right; of what has none, True."""
    return _fits(io.BytesIO(content)) is not False


def check(path: Path) -> bool:
    """Whether it has a sum, which is right. Raises Damaged where it is wrong; looked at once a process."""
    there = path.stat()
    return _checked(path, there.st_mtime_ns, there.st_size, there.st_ino)


def digest_of(path: Path, start: int = 0, end: int | None = None) -> str:
    """Hex SHA-256 of the bytes from `start` to `end`, read once a process."""
    there = path.stat()
    return _digest_of(path, start, end, there.st_mtime_ns, there.st_size, there.st_ino)


def set_aside(path: Path) -> None:
    """Rename a damaged file or folder, so that what it held is made again, and say so."""
    aside = path.with_name(f"{path.name}.damaged")
    with suppress(FileNotFoundError):  # another process was quicker
        if aside.is_dir():
            shutil.rmtree(aside)
        path.replace(aside)
    log.warning("%s is damaged: it is set aside as %s, what it held is made again", path, aside.name)


@contextmanager
def locked(path: Path, *, wait: bool = True) -> Iterator[bool]:
    """Hold the lock on the file at `path` (made if need be) inside the block; True where it is ours.

    `wait` for whoever has it; without, False where someone does. The system releases it when the process ends, however
    it ends.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            yield False
        else:
            yield True


def digest(value: Any, length: int = 64) -> str:
    """The first `length` hex digits of the SHA-256 of a JSON value, its keys sorted."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:length]


@functools.lru_cache(4096)
def _checked(path: Path, *state: int) -> bool:  # noqa: ARG001
    with path.open("rb") as file:
        found = _fits(file)
    if found is False:
        raise Damaged(path)
    return found is True


@functools.lru_cache(4096)
def _digest_of(path: Path, start: int, end: int | None, *state: int) -> str:  # noqa: ARG001
    found = hashlib.sha256()
    with path.open("rb") as file:
        file.seek(start)
        for chunk in _chunks(file, None if end is None else end - start):
            found.update(chunk)
    return found.hexdigest()


def _fits(file: BinaryIO) -> bool | None:
    """None where there is no sum."""
    place = _place(file)
    if place is None:
        file.seek(0)
        return False if _TRACE.search(file.read(_HEAD)) else None
    file.seek(place)
    return file.read(HEX) == _sum(file, place)


def _place(file: BinaryIO) -> int | None:
    """The byte at which the digits of its sum begin."""
    file.seek(0)
    found = _SUMMED.search(file.read(_HEAD))
    return None if found is None else found.start(1)


def _sum(file: BinaryIO, place: int) -> bytes:
    found = hashlib.sha256()
    file.seek(0)
    for chunk in _chunks(file, place):
        found.update(chunk)
    found.update(b"0" * HEX)
    file.seek(place + HEX)
    for chunk in _chunks(file):
        found.update(chunk)
    return found.hexdigest()[:HEX].encode()


def _chunks(file: BinaryIO, length: int | None = None) -> Iterator[bytes]:
    """From where it is, `length` bytes or all."""
    while chunk := file.read(_CHUNK if length is None else min(_CHUNK, length)):
        length = None if length is None else length - len(chunk)
        yield chunk


def _alive(process: str) -> bool:
    if not process.isdigit():
        return True  # not ours to judge
    try:
        os.kill(int(process), 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
