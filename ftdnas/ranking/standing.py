"""Where candidates stood in a study's ranking: what those who go on with a study read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ftdnas.ranking.study import ranked_study


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
    folder, ranking = ranked_study(study)
    best = ranking.best(len(ranking.candidates))
    if not best:
        raise ValueError(f"no candidate of the study {study} has a score: there is nothing to finish")
    source = ranking.settings.get("source")
    return Standing(
        study,
        folder.path,
        {architecture: place for place, architecture in enumerate(best[:top], start=1)},
        len(best),
        ranking.title or ranking.proxy or "the study's score",
        source if isinstance(source, Mapping) else {},
        str(ranking.settings.get("title") or ""),
    )
