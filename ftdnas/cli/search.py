"""ftdnas search: rank architectures of a space by a proxy."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from distill.run import Listener
from ftdnas.cli.options import NothingCame, Outcome, columns, command
from ftdnas.ranking.request import SearchRequest

if TYPE_CHECKING:
    from ftdnas.ranking.table import Ranking


@command(
    SearchRequest,
    examples=(
        "ftdnas search --dataset folder:photos --budget 2h",
        "ftdnas search --set digits --space convnet --where width=32,64 --candidates 16 --study first",
    ),
)
def search(request: SearchRequest, listener: Listener) -> Iterator[Outcome]:
    """Rank the architectures of a space by a proxy: by default by training them on a synthetic set.

    With --dataset and --budget, and neither --set, --proxy nor --candidates, it goes the whole way instead: in that
    time from the images to a trained network in files, beside a pretrained one where there are weights.
    The ranking is there when screening ends, before the baselines that --compare names. Interrupted, the same command
    goes on. How far to trust it: ftdnas check before, ftdnas trust after.
    """
    if request.whole:
        from ftdnas.cli.answer import describe
        from ftdnas.interface.answer import answer

        found = answer(request, listener)
        yield found.to_json(), describe(found)
        return
    from ftdnas.ranking.run import run_rankings
    from ftdnas.report.answer import beside

    shown = False
    for ranking in run_rankings(request, listener):
        yield ranking.to_json(), [f"  {beside(ranking)}"] if shown else lines(ranking, request.all)
        shown = True
    if shown and ranking.failures == len(ranking.candidates):
        raise NothingCame(f"no candidate has a score; the first: {ranking.candidates[0].error}")


def lines(ranking: Ranking, everything: bool) -> list[str]:
    """A ranking as text: on one screen, or whole."""
    from ftdnas.report import answer

    truth = ranking.truth()
    return (answer.everything if everything else answer.answer)(ranking, columns(), truth[1] if truth else None)
