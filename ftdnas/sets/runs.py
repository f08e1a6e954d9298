"""The folder of one run: its checkpoints, a lock, and what was chosen by the machine when it began.

`run.json` keeps what is not determined by the request (device, threads), so that an interrupted run ends
in the set that an undisturbed one would have made. Once the set is in the library its name is all that stays.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distill.files import locked
from ftdnas.runtime.home import read_json, write_json
from ftdnas.runtime.records import from_json, to_json

RUN = "run.json"


@dataclass(frozen=True)
class Machine:
    """What a run was begun on."""

    device: str  # "cpu" or "cuda"
    threads: int
    versions: Mapping[str, str]


@dataclass(frozen=True)
class RunFolder:
    path: Path

    @property
    def checkpoints(self) -> Path:
        """For the method alone."""
        return self.path / "checkpoints"

    @property
    def begun(self) -> bool:
        """Whether a run was interrupted here after its first checkpoint."""
        return self.checkpoints.exists()

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the run inside the block; the system lets go when the process ends, however it ends.

        Raises ValueError where another process holds it.
        """
        with locked(self.path / "lock", wait=False) as ours:
            if not ours:
                raise ValueError(
                    "another process is making this very set: let it finish, or give another --seed or setting"
                )
            yield

    def machine(self) -> Machine | None:
        """What an unfinished run was begun on; None where there is none."""
        machine: Machine | None = from_json(Machine, self._read().get("machine"))
        return machine

    def finished(self) -> str | None:
        """The name of the set that this run ended in."""
        name: str | None = self._read().get("set")
        return name

    def begin(self, machine: Machine) -> None:
        """Write down, before the first step, what the run is made on."""
        write_json(self.path / RUN, {"machine": to_json(machine)})

    def finish(self, name: str) -> None:
        """Write down the set's name, then drop the checkpoints."""
        write_json(self.path / RUN, {"set": name})
        shutil.rmtree(self.checkpoints, ignore_errors=True)

    def _read(self) -> dict[str, Any]:
        return read_json(self.path / RUN, "remove this file, and the run goes on")
