"""A command that another process started and follows: its job is the first line of standard input, and it ends with
that; its progress are JSON lines on stderr.

How a server runs a job: what is computed and printed is the command's, line for line.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from distill.run import Listener, Progress

FLAG = "FTDNAS_FOLLOWED"  # in the environment of such a command
ORPHANED = 79  # its exit code where the one who followed it has gone; no other command ends so


_state = {"following": False}


def following() -> bool:
    """Whether this process was started to be followed."""
    return _state["following"]


def begin() -> Mapping[str, Any] | None:
    """What to do, if this process is to be followed; from now on it ends, at once, when its standard input ends.

    Whoever held the other end is gone then. What it was doing is on disk as after any kill, and the same job goes on
    with it.
    """
    if os.environ.pop(FLAG, None) != "1":  # not left to processes that this one starts: they are its own
        return None
    line = sys.stdin.buffer.readline()
    if not line:
        sys.exit(ORPHANED)
    _state["following"] = True
    threading.Thread(target=_wait_for_the_end, daemon=True, name="ftdnas-followed").start()
    job: Mapping[str, Any] = json.loads(line)
    return job


def json_lines(stream: TextIO) -> Listener:
    """A listener that writes every progress as one line."""

    def listener(progress: Progress) -> None:
        print(json.dumps({"progress": asdict(progress)}), file=stream, flush=True)

    return listener


def read_line(line: str) -> Mapping[str, Any] | None:
    """The progress in a line that `json_lines` wrote; None for any other line."""
    if not line.startswith('{"progress"'):
        return None
    try:
        told: Mapping[str, Any] = json.loads(line)["progress"]
    except (ValueError, KeyError):
        return None
    return told


def _wait_for_the_end() -> None:
    while os.read(sys.stdin.fileno(), 4096):
        pass
    os._exit(ORPHANED)
