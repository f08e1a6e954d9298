"""Searches and what they found, as a person holds them in Python."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from distill.run import Listener, ignore
from ftdnas.interface.data import data
from ftdnas.ranking.request import SearchRequest
from ftdnas.ranking.run import run_search
from ftdnas.ranking.study import ranked_study
from ftdnas.ranking.table import Ranking
from ftdnas.sets.images import Source
from ftdnas.sets.making import Distilled

if TYPE_CHECKING:
    from ftdnas.finishing.winner import Answer


def search(
    space: str = "convnet",
    set: Distilled | str | Path | None = None,
    images: Source | None = None,
    listener: Listener = ignore,
    **asked: Any,
) -> Ranking:
    """Rank the architectures of a space.

    `set`: what they are trained on; None takes the newest of the library that fits. `images`: the real ones that score
    them; None finds those that the set was made from. `asked`: fields of `ftdnas.ranking.request.SearchRequest`:
    candidates, proxy, compare, where, budget, study and more; they are the options of `ftdnas search`. A script of
    one's own starts it below `if __name__ == "__main__":`, for processes are started. Raises what
    `ftdnas.ranking.run.run_search` raises.
    """
    name = set.name if isinstance(set, Distilled) else set if set is None else str(set)
    source = {} if images is None else images.asked()
    return run_search(SearchRequest(space=space, set=name, **source, **asked), listener)


def answer(images: Source | str | Path, budget: str, listener: Listener = ignore, **asked: Any) -> Answer:
    """Go the whole way in the time `budget`, such as "2h": which network, trained, in files, beside a pretrained one.

    `asked`: space, where, seed, study, jobs and what else `ftdnas.ranking.request.SearchRequest` has that says neither
    set, proxy nor candidates. Raises what `ftdnas.interface.answer.answer` raises.
    """
    from ftdnas.interface.answer import answer as whole  # it imports all that trains and finishes

    source = images if isinstance(images, Source) else data(images)
    return whole(SearchRequest(**source.asked(), budget=budget, **asked), listener)


def open(study: str) -> Ranking:
    """The ranking of a study that was made before, here or by the command line.

    Raises LookupError where there is none.
    """
    return ranked_study(study)[1]
