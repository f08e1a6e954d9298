"""Where candidates stood in a study's ranking: what those who go on with a study read."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ftdnas.runtime.home import studies_folder
from search_spaces.messages import hint


@dataclass(frozen=True)
class Standing:
    """The best of a study. `ranks`: architecture -> its place, 1 the best, of `ranked` candidates, by `proxy`.

    `source`: what finds the study's images again (`ftdnas.sets.images.Source.to_json`), {} where it does not say;
    `title`: whose they were.
    """

    study: str
    folder: Path
    ranks: Mapping[str, int] = field(default_factory=dict)
    ranked: int = 0
    proxy: str = ""
    source: Mapping[str, Any] = field(default_factory=dict)
    title: str = ""

    def to_json(self) -> dict[str, Any]:
        return {"study": self.study, "proxy": self.proxy, "ranked": self.ranked, "ranks": dict(self.ranks)}


def standing(study: str, top: int) -> Standing:
    """The `top` best of a study's ranking, those that failed left out.

    Raises LookupError for a study that is not there or has no ranking yet, and ValueError where its ranking is damaged
    or has no candidate with a score.
    """
    folder = studies_folder() / study
    path = folder / "ranking.json"
    if not path.is_file():
        known = sorted(one.parent.name for one in (studies_folder()).glob("*/ranking.json"))
        found = hint(study, known) if known else "ftdnas search makes one"
        raise LookupError(f"there is no ranking of a study {study!r} here: {found}")
    try:
        ranking = json.loads(path.read_text(encoding="utf-8"))
        candidates = [one["architecture"] for one in ranking["candidates"] if one["score"] is not None]
        settings = ranking["settings"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is damaged ({error}): repeat the search, its scores are kept") from None
    if not candidates:
        raise ValueError(f"no candidate of the study {study} has a score: there is nothing to finish")
    source = settings.get("source")
    return Standing(
        study,
        folder,
        {name: place for place, name in enumerate(candidates[:top], start=1)},
        len(candidates),
        str(ranking.get("title") or ranking.get("proxy") or "the study's score"),
        source if isinstance(source, Mapping) else {},
        str(settings.get("title") or ""),
    )
