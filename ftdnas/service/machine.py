"""Whether the machine can take jobs and carry them out: home, disk and database."""

from __future__ import annotations

import contextlib
import shutil
from dataclasses import dataclass, field

from ftdnas.runtime.home import home, shown_path
from ftdnas.runtime.trouble import node, unwritable
from ftdnas.service.queue import Queue

SPARE_BYTES = 200 << 20  # with less free disk nothing is begun


def _made() -> tuple[int, int] | None:
    with contextlib.suppress(OSError):  # which `problems` tells of
        home().mkdir(parents=True, exist_ok=True)
    return node(home())


@dataclass(frozen=True)
class Machine:
    """Made when the service begins: a home that is another one since then is gone."""

    queue: Queue
    place: tuple[int, int] | None = field(default_factory=_made)

    def problems(self) -> list[str]:
        """Why jobs cannot be carried out now; [] when all is well."""
        found = self.losing()
        if not found and (free := shutil.disk_usage(home()).free) < SPARE_BYTES:
            found.append(f"only {free >> 20:,} MB of disk are free")
        return found

    def losing(self) -> list[str]:
        """Why a job that is accepted now would be lost."""
        gone = f"{shown_path(home())} is not the folder that this began with: start again" if self.moved else None
        return list(filter(None, (gone or unwritable(home()), self.queue.answers())))

    @property
    def moved(self) -> bool:
        return self.place is not None and node(home()) not in (self.place, None)
