"""Where candidates stood in a ranking, for those who go on with its study."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from ftdnas.ranking.standing import standing


def test_a_ranking_gives_the_best_and_their_places(keep_ranking: Callable[..., Path]) -> None:
    with pytest.raises(LookupError, match="ftdnas search makes one"):
        standing("mine", 2)
    scores = {"convnet:depth=2": 3.0, "convnet:depth=1": 2.0, "convnet:depth=4": None}
    folder = keep_ranking("mine", scores, "late loss", source={"spec": "digits"}, title="Digits")
    best = standing("mine", 5)
    assert best.ranks == {"convnet:depth=2": 1, "convnet:depth=1": 2}
    assert (best.ranked, best.proxy, best.source["spec"], best.title) == (2, "late loss", "digits", "Digits")
    assert best.folder == folder
    assert list(standing("mine", 1).ranks) == ["convnet:depth=2"]
    with pytest.raises(LookupError, match="did you mean mine"):
        standing("mime", 1)
    (folder / "ranking.json").write_text('{"candidates": []}')
    with pytest.raises(ValueError, match="damaged"):
        standing("mine", 1)
