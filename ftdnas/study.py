"""The folder of one study: its settings, its plan, and the rows of its screenings, which are the record."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from distill.locks import locked
from ftdnas.candidates import CostModel
from ftdnas.facts_file import read_facts, write_facts
from ftdnas.plan import Plan
from ftdnas.rows import RowFile


@dataclass(frozen=True)
class StudyFolder:
    """`settings` is what the scores depend on: another study must not take this one's name."""

    path: Path
    settings: Mapping[str, Any]

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def rows(self) -> RowFile:
        return RowFile(self.path / "scores.jsonl")

    @property
    def materials(self) -> Path:
        """For the images that processes share; nothing in it is worth keeping."""
        return self.path / "materials"

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the study inside the block; the system lets go when the process ends, however it ends.

        Raises ValueError where another process holds it, or the name is taken by a study of other settings.
        """
        with locked(self.path / "lock", wait=False) as ours:
            if not ours:
                raise ValueError(
                    f"another process is working on study {self.name}: let it finish, or give another --study"
                )
            self._check_settings()
            yield

    def plan(self) -> tuple[Plan, CostModel] | None:
        """What was planned when the study began, and what a training cost then; None where nothing was yet."""
        stored = self._read()
        if "plan" not in stored:
            return None
        return Plan.from_json(stored["plan"]), CostModel(**stored["cost"])

    def keep(self, plan: Plan, cost: CostModel) -> None:
        """Write down what is planned, before the work."""
        self._write({"settings": self.settings, "plan": plan.to_json(), "cost": asdict(cost)})

    def _check_settings(self) -> None:
        theirs, ours = self._read().get("settings"), json.loads(json.dumps(self.settings))
        if theirs is None or theirs == ours:
            return
        changed = sorted(key for key in {*theirs, *ours} if theirs.get(key) != ours.get(key))
        raise ValueError(
            f"there is a study {self.name} with another {', '.join(changed)}: give this one another name (--study)"
        )

    def _read(self) -> dict[str, Any]:
        return read_facts(self.path / "study.json", "remove it, the scores beside it are kept")

    def _write(self, facts: Mapping[str, Any]) -> None:
        write_facts(self.path / "study.json", facts)
