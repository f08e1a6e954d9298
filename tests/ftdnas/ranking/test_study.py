"""A study's folder: what is read of it by those who go on with the study."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from distill.files import locked
from ftdnas.ranking.study import ranked_study, remove_study, studies, study_folder
from ftdnas.ranking.trials import Evaluated, open_study
from ftdnas.runtime.database import open_storage
from search_spaces.base import SPACES


def test_a_ranking_gives_the_best_and_their_places(keep_ranking: Callable[..., Path]) -> None:
    with pytest.raises(LookupError, match="ftdnas search makes one"):
        ranked_study("mine")
    scores = {"convnet:depth=2": 3.0, "convnet:depth=1": 2.0, "convnet:depth=4": None}
    place = keep_ranking("mine", scores, "late loss", source={"spec": "digits"}, title="Digits")
    folder, ranking = ranked_study("mine")
    assert folder.path == ranking.folder == place
    assert ranking.best(5) == ["convnet:depth=2", "convnet:depth=1"]
    ranks = {"convnet:depth=2": 1}
    assert ranking.standing(1) == {"study": "mine", "proxy": "late loss", "ranked": 2, "ranks": ranks}
    with pytest.raises(LookupError, match="did you mean mine"):
        ranked_study("mime")
    (place / "ranking.json").write_text('{"candidates": []}')
    with pytest.raises(ValueError, match="damaged"):
        ranked_study("mine")


def test_a_ranking_without_scores_cannot_be_finished(keep_ranking: Callable[..., Path]) -> None:
    keep_ranking("dead", {"convnet:depth=4": None}, "late loss")
    assert ranked_study("dead")[1].failures == 1
    with pytest.raises(ValueError, match="nothing to finish"):
        ranked_study("dead", to_finish=True)


def test_a_removed_study_leaves_nothing_and_one_at_work_stays(keep_ranking: Callable[..., Path]) -> None:
    place = keep_ranking("gone", {"convnet:depth=2": 3.0}, "late loss")
    (place / "finish" / "digits").mkdir(parents=True)
    with open_storage() as storage:
        with open_study(storage, "gone", SPACES["convnet"]) as study:
            study.add([Evaluated("convnet:depth=2", (3.0,))])
        for lock in (place / "lock", place / "finish" / "digits" / "lock"):
            with locked(lock), pytest.raises(ValueError, match="another process is working on study gone"):
                remove_study(study_folder("gone"))
        with storage.leases("rows/gone") as joined:
            assert joined.claim("a training") == "ours"
            with pytest.raises(ValueError, match="another process is working on study gone"):
                remove_study(study_folder("gone"))
            joined.finish("a training", {"key": "a training"})
        assert place.is_dir()
        remove_study(study_folder("gone"))
        assert not place.exists()
        with open_study(storage, "gone", SPACES["convnet"]) as study, storage.leases("rows/gone") as leases:
            assert not study.evaluated()
            assert not leases.results()


def test_names_that_lead_elsewhere_are_no_studies() -> None:
    with pytest.raises(ValueError, match="cannot name a file or folder"):
        study_folder("../elsewhere")
    with pytest.raises(LookupError, match="was ranked"):
        ranked_study("../elsewhere")
    assert studies() == []
    assert not study_folder("new").begun
