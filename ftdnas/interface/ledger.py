"""The time of a whole search, over all its runs, and what each of its stages chose and found: one whole file."""

from __future__ import annotations

import contextlib
import itertools
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ftdnas.runtime.home import read_json, write_json

BEAT_S = 5  # between two times that the time spent is written down


class Ledger:
    """`total_s`: the time for all. `asked`: what the stages depend on, beside it.

    Raises ValueError where the file is of another search.
    """

    def __init__(self, path: Path, total_s: float, asked: Mapping[str, Any]) -> None:
        self._path, self.total_s = path, total_s
        stored = read_json(path, "remove it to begin again; what was trained is kept")
        if stored and stored["asked"] != asked:
            changed = sorted(key for key in {*asked, *stored["asked"]} if asked.get(key) != stored["asked"].get(key))
            raise ValueError(
                f"{path.parent.parent.name} was begun with another {', '.join(changed)}: give --study NAME"
            )
        self._content: dict[str, Any] = stored or {"asked": asked, "spent_s": 0.0, "stages": {}}
        self._before = float(self._content["spent_s"])
        self._begun = time.monotonic()
        self._writing = threading.Lock()

    @property
    def spent_s(self) -> float:
        return self._before + time.monotonic() - self._begun

    @property
    def left_s(self) -> float:
        return self.total_s - self.spent_s

    @property
    def resumed(self) -> bool:
        return self._before > 0

    @contextlib.contextmanager
    def watched(self, ticked: Callable[[], None] = lambda: None) -> Iterator[None]:
        """Inside the block the time spent is written down every few seconds, and `ticked` is called every second."""
        over = threading.Event()

        def watch() -> None:
            for second in itertools.count(1):
                if over.wait(1.0):
                    return
                ticked()
                if second % BEAT_S == 0:
                    self.keep()

        watcher = threading.Thread(target=watch, daemon=True)
        watcher.start()
        try:
            yield
        finally:
            over.set()
            watcher.join()

    def keep(self) -> None:
        """Write everything down."""
        with self._writing:
            self._content["spent_s"] = self.spent_s
            write_json(self._path, self._content)

    def chosen(self, stage: str, choose: Callable[[], Mapping[str, Any]]) -> Mapping[str, Any]:
        """What a stage is about to do, by `choose`, or as it was when the stage began."""
        return self._stored(stage, "chosen", choose)

    def found(self, stage: str, find: Callable[[], Mapping[str, Any]]) -> Mapping[str, Any]:
        """What a stage found, by `find`, or before."""
        return self._stored(stage, "found", find)

    def known(self, stage: str) -> Mapping[str, Any] | None:
        """What a stage found, None where it did not yet."""
        found: Mapping[str, Any] | None = self._content["stages"].get(stage, {}).get("found")
        return found

    def _stored(self, stage: str, part: str, make: Callable[[], Mapping[str, Any]]) -> Mapping[str, Any]:
        known = self._content["stages"].get(stage, {})
        if part not in known:
            made = dict(make())
            with self._writing:
                known = self._content["stages"].setdefault(stage, {})
                known[part] = made
            self.keep()
        stored: Mapping[str, Any] = known[part]
        return stored
