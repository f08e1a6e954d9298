"""Studies as the server shows them: what lies in their folders, while they run and after."""

from __future__ import annotations

import contextlib
import functools
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ftdnas.candidates.reading import score_value
from ftdnas.proxies.names import read_proxy
from ftdnas.ranking.study import StudyFolder, study_folder
from ftdnas.ranking.study import studies as all_studies
from ftdnas.ranking.table import Ranking
from ftdnas.runtime.home import home, read_json, truth_folder
from ftdnas.runtime.rows import RowFile
from ftdnas.service.names import NAME
from ftdnas.service.paths import without_places
from search_spaces.messages import hint


@dataclass(frozen=True)
class StudyView:
    """A study's folder, as it was at one moment.

    `state`: "ranked", "stopped" where its job ended without a ranking (`stopped` says why, `job` is its id), else
    "running".
    """

    folder: StudyFolder
    settings: Mapping[str, Any]
    planned: int | None
    ranking: Ranking | None
    stopped: str | None = None
    job: str | None = None

    @property
    def state(self) -> str:
        return "ranked" if self.ranking is not None else "running" if self.stopped is None else "stopped"

    @property
    def guide(self) -> str:
        """The score that orders what is scored so far: of the proxy's first part, where it is one of a training."""
        with contextlib.suppress(ValueError, LookupError):  # settings that are damaged
            return read_proxy(str(self.settings.get("proxy", ""))).leaves[0].score or "late_loss"
        return "late_loss"

    def summary(self) -> dict[str, Any]:
        """What a list shows."""
        best = self.ranking.best(1) if self.ranking is not None else []
        return {
            "name": self.folder.name,
            "state": self.state,
            "stopped": self.stopped,
            "job": self.job,
            "problem": None,
            "space": self.settings.get("space"),
            "proxy": self.settings.get("proxy"),
            "set": self.settings.get("set name") or None,
            "images": self.settings.get("title"),
            "planned": self.planned,
            "best": best[0] if best else None,
            "verdict": (self.report() or {}).get("verdict"),
            "has_report": self.report_page() is not None,
        }

    def trials(self) -> list[dict[str, Any]]:
        """The candidates, best first; while the study runs those that are scored so far, by `guide`."""
        if self.ranking is not None:
            return self.ranking.rows()
        rows = _rows(self.folder.rows.path)
        if not rows:
            return []
        names: Counter[str] = Counter(_place(row) for row in rows)
        (main, _), *_ = names.most_common(1)
        of_set = [place for place in names if place.startswith("the set ")]
        scored = [row for row in rows if _place(row) == (of_set[0] if of_set else main)]
        found = {str(row["architecture"]): _trial(row, self.guide) for row in scored}
        return sorted(found.values(), key=lambda one: (one["score"] is None, -(one["score"] or 0.0)))

    def report(self) -> dict[str, Any] | None:
        """What the report says, where there is one."""
        return read_json(self.folder.path / "report" / "report.json", "make it again") or None

    def report_page(self) -> Path | None:
        path = self.folder.path / "report" / "report.html"
        return path if path.is_file() else None


def study_names() -> list[str]:
    """The newest first; without those whose name no address can hold."""
    return [folder.name for folder in all_studies() if re.match(NAME, folder.name)]


def listed(name: str) -> dict[str, Any]:
    """The summary of a study, or what is wrong with its folder: one that is damaged must not hide the others."""
    try:
        return study(name).summary()
    except (ValueError, LookupError, TypeError) as error:
        blank = StudyView(StudyFolder(home()), {}, None, None).summary()
        return {**blank, "name": name, "state": "damaged", "problem": without_places(str(error.args[0]))}


def study(name: str) -> StudyView:
    """Raises LookupError for a name that no study here has, ValueError for a folder that is damaged."""
    if not re.match(NAME, name) or not study_folder(name).begun:
        known = study_names()
        raise LookupError(f"no study {name!r}: {hint(name, known) if known else 'there is none yet'}")
    folder = study_folder(name)
    plan = folder.plan()
    return StudyView(folder, folder.settings(), len(plan[0].candidates) if plan else None, folder.ranking())


def truths() -> list[str]:
    """The named truths that reports can be held up to."""
    return sorted(path.stem for path in truth_folder().glob("*.json"))


def with_set(identity: str) -> list[StudyView]:
    """The studies that a set was used in."""
    found: list[StudyView] = []
    for name in study_names():
        with contextlib.suppress(ValueError, LookupError):  # damaged: its own page says how
            view = study(name)
            if view.settings.get("set") == identity:
                found.append(view)
    return found


def _place(row: Mapping[str, Any]) -> str:
    return str((row.get("trained_on") or {}).get("name", row.get("measure", "")))


def _rows(path: Path) -> list[dict[str, Any]]:
    try:
        told = path.stat()
    except FileNotFoundError:
        return []
    return _read_rows(path, told.st_mtime_ns, told.st_size)


@functools.lru_cache(maxsize=16)
def _read_rows(path: Path, changed: int, size: int) -> list[dict[str, Any]]:  # noqa: ARG001
    """However many look, a file is read once for each of its states."""
    return list(RowFile(path).settled().values())


def _trial(row: Mapping[str, Any], guide: str) -> dict[str, Any]:
    return {
        "architecture": row["architecture"],
        "score": score_value(row, guide) if "losses" in row else row.get("score"),
        "accuracy": row.get("score"),
        "late_loss": row.get("late_loss"),
        "parameters": None,
        "flops": None,
        "seconds": row.get("seconds"),
        "error": row.get("error"),
    }
