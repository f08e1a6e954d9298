"""`import ftdnas` and what it gives, whatever was imported before."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from pathlib import Path

import pytest

import ftdnas
from distill.run import Progress
from distill.synthetic import SyntheticSet

TINY = {
    "backbone": "convnet:width=32,depth=1",
    "experts.num_experts": 1,
    "matching.outer_steps": 1,
    "matching.syn_steps": 1,
    "matching.expert_epochs": 1,
    "matching.max_start_epoch": 1,
    "matching.validate_every": 1,
    "evaluation.validation.epochs": 1,
}


def test_no_module_hides_a_name_however_many_were_imported() -> None:
    for module in pkgutil.walk_packages(ftdnas.__path__, "ftdnas."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    for name in ftdnas.__all__:
        assert inspect.isfunction(getattr(ftdnas, name)), name


def test_a_wrong_name_is_told_what_there_is() -> None:
    with pytest.raises(
        AttributeError, match="has no 'serch': it has answer, data, distill, load_set, open, score, search"
    ):
        _ = ftdnas.serch


def test_from_images_to_a_ranking_and_back(tmp_path: Path) -> None:
    heard: list[Progress] = []
    made = ftdnas.distill("digits", heard.append, name="tiny", settings=TINY)
    assert heard
    assert made.new
    loaded = ftdnas.load_set("tiny")
    assert isinstance(loaded, SyntheticSet)
    assert loaded.equal(made.synthetic)
    ranking = ftdnas.search(
        "convnet", made, where=("depth=1", "width=32"), candidates=3, proxy="set.late_loss", epochs=1, jobs=1, study="s"
    )
    assert len(ranking.candidates) == 3
    assert ftdnas.open("s") == ranking
    images = ftdnas.data("digits", image_size=8)
    free = ftdnas.search("convnet", images=images, where=("depth=1",), candidates=4, proxy="params", study="free")
    assert [one.parameters for one in free.candidates] == sorted(one.parameters for one in free.candidates)[::-1]
    assert ftdnas.data(tmp_path).spec == f"folder:{tmp_path}"
