"""A study brought home from a server: its ranking, to be finished on real images that the server never saw."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ftdnas.candidates.cost import CostModel
from ftdnas.ranking.study import study_folder
from ftdnas.ranking.table import Ranking
from ftdnas.service.bounds import check_architecture
from ftdnas.service.client import Client, ServerError
from ftdnas.sets.images import KEY
from ftdnas.sets.library import Library

FETCHED = "fetched from"  # key of a study's settings: the server


def fetch_study(client: Client, name: str) -> Ranking:
    """Put the ranking of a server's study into a study of the same name here, anew each time.

    Its images are those of the set of the library that it was searched by, if it is here. Nothing that a server says
    names a file or code: candidates are of built-in or installed spaces. Raises ServerError for what is no such
    ranking, ValueError where a study of that name is here that is not from there.
    """
    folder, told = study_folder(name), client.ranking(name)
    try:
        ranking = Ranking.from_json(told, folder.path)
        for candidate in ranking.candidates:
            check_architecture(candidate.architecture)
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise ServerError(0, f"the ranking of {name} cannot be used here: {error}") from None
    if folder.begun and folder.settings().get(FETCHED) != client.url:
        raise ValueError(f"there is a study {name} here that is not from {client.url}: rename or remove one of them")
    settings = {**ranking.settings, "source": _source_of(ranking.settings.get("set")), FETCHED: client.url}
    ranking = replace(ranking, settings=settings)
    folder.keep_plan(settings, ranking.plan, CostModel(0.0, 0.0, 0.0))
    folder.keep_ranking(ranking)
    return ranking


def _source_of(identity: object) -> dict[str, Any]:
    """Where the images of the set of that identity are, by the library here; {} where it has none."""
    library = Library()
    for entry in library.list():
        if entry.problem is None and entry.facts["identity"] == identity:
            return dict(library.load(entry.path).provenance.get(KEY) or {})
    return {}
