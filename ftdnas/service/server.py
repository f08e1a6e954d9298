"""What every route of one running server needs."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field, replace

from ftdnas.service import studies
from ftdnas.service.board import Board
from ftdnas.service.bounds import Bounds
from ftdnas.service.machine import Machine
from ftdnas.service.paths import without_places
from ftdnas.service.queue import Queue
from ftdnas.service.workers import Workers

UPLOAD_BYTES = 256 << 20


@dataclass
class Server:
    queue: Queue
    board: Board
    bounds: Bounds
    workers: int
    upload_bytes: int = UPLOAD_BYTES
    pool: Workers | None = None
    closing: threading.Event = field(default_factory=threading.Event)
    machine: Machine = field(init=False)

    def __post_init__(self) -> None:
        self.machine = Machine(self.queue)

    def study(self, name: str) -> studies.StudyView:
        """As `studies.study`, and why it stopped, where its last job is over and left no ranking."""
        view = studies.study(name)
        job = self.queue.of_study(name) if view.ranking is None else None
        if job is None or not job.over:
            return view
        return replace(view, stopped=job.error or f"its job was {job.state}", job=job.id)

    def problems(self) -> list[str]:
        """Why jobs cannot be taken or carried out now; [] when all is well."""
        found = [*self.machine.problems(), self.pool.problem if self.pool is not None else None]
        return [without_places(one) for one in dict.fromkeys(found) if one]
