"""What is the machine's trouble and not the work's: it passes, and then the same command goes on."""

from __future__ import annotations

import errno
import tempfile
from pathlib import Path

from ftdnas.runtime.home import home, shown_path
from ftdnas.runtime.leases import DatabaseAway

EXIT_CODE = 75  # EX_TEMPFAIL of sysexits.h
MEANT = {
    errno.ENOSPC: "no space is left on the disk",
    errno.EDQUOT: "no space is left that this user may take",
    errno.EROFS: "read-only",
    errno.EIO: "the disk does not read or write",
    errno.ESTALE: "the network disk is away",
}


class MachineTrouble(ValueError):
    """What met a work in another process."""


def trouble(error: BaseException) -> str | None:
    """In words, with the path; None for an error that comes of the work itself."""
    if isinstance(error, DatabaseAway | MachineTrouble):
        return str(error)
    if not isinstance(error, OSError):
        return None
    path = Path(str(error.filename)) if error.filename else None
    named = "" if path is None else f": {shown_path(path)}"
    if error.errno in MEANT:
        return MEANT[error.errno] + named
    if path is not None and path.is_absolute() and path.is_relative_to(home()):
        if not home().is_dir():
            return f"{shown_path(home())} has gone"
        if error.errno in (errno.EACCES, errno.EPERM):
            return f"may not be written{named}"
    return None


def node(path: Path) -> tuple[int, int] | None:
    """Which file or folder it is: one that took its place is another."""
    try:
        there = path.stat()
    except OSError:
        return None
    return there.st_dev, there.st_ino


def unwritable(folder: Path) -> str | None:
    """Why nothing can be written there, None where it can."""
    try:
        with tempfile.TemporaryFile(dir=folder):
            return None
    except FileNotFoundError:
        return f"{shown_path(folder)} has gone"
    except OSError as error:
        return f"{MEANT.get(error.errno or 0, 'may not be written')}: {shown_path(folder)}"
