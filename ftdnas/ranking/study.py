"""The folder of a study: its settings, plan, rows and ranking, which are the record. Nobody else reads or writes it."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from distill.files import Damaged, locked, whole_file
from ftdnas.candidates.cost import CostModel
from ftdnas.ranking.changed import check_unchanged, what_changed
from ftdnas.ranking.plan import Plan
from ftdnas.ranking.table import Ranking
from ftdnas.ranking.trials import forget_study
from ftdnas.runtime.database import open_storage
from ftdnas.runtime.home import folder_name, read_json, studies_folder, write_json
from ftdnas.runtime.rows import RowFile
from search_spaces.messages import hint

INNER = "-free"  # ends the name of the study of scores without training, which a search of the whole way makes
WAY_OUT = "repeat the search, its scores are kept"


@dataclass(frozen=True)
class StudyFolder:
    """A study on disk, there or not yet. `path`: the folder, whose name is the study's."""

    path: Path

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def begun(self) -> bool:
        """Whether anything was written down of it."""
        return (self.path / "study.json").is_file()

    @property
    def answer(self) -> Path:
        """Where a search of the whole way keeps where it stands."""
        return self.path / "answer"

    @property
    def inner(self) -> bool:
        """Whether a search of the whole way made it for itself."""
        whole = self.name.removesuffix(INNER)
        return whole != self.name and StudyFolder(self.path.with_name(whole)).answer.is_dir()

    @property
    def rows(self) -> RowFile:
        """What was evaluated, a row a work."""
        return RowFile(self.path / "scores.jsonl")

    @property
    def materials(self) -> Path:
        """For the images that processes share; nothing in it is worth keeping."""
        return self.path / "materials"

    @contextlib.contextmanager
    def locked(self, settings: Mapping[str, Any]) -> Iterator[None]:
        """Hold the study inside the block; the system lets go when the process ends, however it ends.

        Raises ValueError where another process holds it, or the name is taken by a study of other settings.
        """
        with locked(self.path / "lock", wait=False) as ours:
            if not ours:
                raise ValueError(
                    f"another process is working on study {self.name}: let it finish, or give another --study"
                )
            self.check(settings)
            yield

    def check(self, settings: Mapping[str, Any]) -> None:
        """Raise ValueError where the study is there with other settings, on which its scores depend."""
        stored, wanted = self.settings(), json.loads(json.dumps(settings))
        if not stored or stored == wanted:
            return
        changed = sorted(key for key in {*stored, *wanted} if stored.get(key) != wanted.get(key))
        if changed == ["code"]:
            raise ValueError(f"{what_changed(stored)}; {self.name} stays as it is: give this search another --study")
        raise ValueError(
            f"there is a study {self.name} with another {', '.join(changed)}: give this one another name (--study)"
        )

    def settings(self) -> dict[str, Any]:
        """What its scores depend on; {} where nothing was written down yet."""
        settings: dict[str, Any] = self._read().get("settings", {})
        return settings

    def plan(self) -> tuple[Plan, CostModel] | None:
        """What was planned when the study began, and what a training cost then; None where nothing was yet."""
        stored = self._read()
        if "plan" not in stored:
            return None
        return Plan.from_json(stored["plan"]), CostModel(**stored["cost"])

    def keep_plan(self, settings: Mapping[str, Any], plan: Plan, cost: CostModel) -> None:
        """Write down what is planned, before the work."""
        content = {"settings": settings, "plan": plan.to_json(), "cost": asdict(cost)}
        write_json(self.path / "study.json", content)

    def ranking(self) -> Ranking | None:
        """None where the search has not come to its end. Raises ValueError for a damaged file."""
        path = self.path / "ranking.json"
        stored = read_json(path, WAY_OUT)
        try:
            return Ranking.from_json(stored, self.path) if stored else None
        except (KeyError, TypeError, ValueError) as error:
            raise Damaged(path, error, WAY_OUT) from None

    def keep_ranking(self, ranking: Ranking) -> None:
        """ranking.csv, which `pandas.read_csv` reads, and ranking.json."""
        with whole_file(self.path / "ranking.csv") as beside:
            beside.write_text(ranking.to_csv(), encoding="utf-8")
        write_json(self.path / "ranking.json", ranking.to_json(), sort=False)

    def _read(self) -> dict[str, Any]:
        return read_json(self.path / "study.json", "remove it, the scores beside it are kept")


def study_folder(name: str) -> StudyFolder:
    """The study of that name in the home folder, there or not. Raises ValueError for what cannot be a name."""
    return StudyFolder(studies_folder() / folder_name("study", name))


def studies(*, inner: bool = False) -> list[StudyFolder]:
    """Those that were begun, the newest first; those of a search within a search only where `inner`."""
    files = studies_folder().glob("*/study.json")
    found = [StudyFolder(file.parent) for file in sorted(files, key=lambda file: -file.parent.stat().st_mtime)]
    return [folder for folder in found if inner or not folder.inner]


def remove_study(folder: StudyFolder, storage_url: str | None = None) -> None:
    """Delete the folder with all that is in it, and what the database knows of the study.

    Raises ValueError where another process works on it, or on one of its networks.
    """
    with contextlib.ExitStack() as held:
        for lock in (folder.path / "lock", *folder.path.glob("finish/*/lock")):
            if not held.enter_context(locked(lock, wait=False)):
                raise ValueError(f"another process is working on study {folder.name}: nothing was removed")
        forget_study(held.enter_context(open_storage(storage_url)), folder.name)
        shutil.rmtree(folder.path)


def ranked_study(name: str, *, to_finish: bool = False) -> tuple[StudyFolder, Ranking]:
    """A study and its ranking. Raises LookupError, with those there are, where it is not there or was not ranked.

    `to_finish`: raises ValueError where no candidate has a place, or the space's files say something else now.
    """
    folder = StudyFolder(studies_folder() / name)
    ranking = folder.ranking() if Path(name).name == name else None
    if ranking is None:
        known = sorted(file.parent.name for file in studies_folder().glob("*/ranking.json"))
        way_out = hint(name, known) if known else "ftdnas search makes one"
        raise LookupError(f"no study {name!r} was ranked: {way_out}")
    if to_finish:
        check_unchanged(ranking.settings)
    if to_finish and not ranking.best(1):
        why = "has a score" if not ranking.dead else "learned anything: screen them longer (--epochs)"
        raise ValueError(f"no candidate of the study {name} {why}; there is nothing to finish")
    return folder, ranking
