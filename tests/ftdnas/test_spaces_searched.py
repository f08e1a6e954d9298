"""A real search of ten candidates in spaces from everywhere, on a few real digits."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from distill.images.datasets import ImageDataset
from distill.synthetic import SyntheticSet
from ftdnas.candidates.screening import Screening
from ftdnas.ranking.loop import search
from ftdnas.ranking.request import SearchRequest

SetOf = Callable[..., SyntheticSet]

NETS = """
import torch
from torch import nn


def build(trial):
    layers, width = [nn.Flatten()], 64
    for layer in range(trial.suggest_int("depth", 1, 3)):
        wide = trial.suggest_categorical(f"width{layer}", [8, 16, 24])
        layers += [nn.Linear(width, wide), nn.ReLU()]
        width = wide
    return nn.Sequential(*layers, nn.Linear(width, 10))


def from_json(params):
    block = params["block"]
    layers = [nn.Flatten(), nn.Linear(64, params["width"])]
    if block["_name"] == "normed":
        layers.append(nn.LayerNorm(params["width"], eps=block["eps"]))
    return nn.Sequential(*layers, nn.ReLU(), nn.Linear(params["width"], 10))
"""
MODEL_SPACE = """
import nni
from nni.nas.nn.pytorch import LayerChoice, ModelSpace, MutableLinear
from torch import nn


class Space(ModelSpace):
    def __init__(self):
        super().__init__()
        width = nni.choice("width", [8, 12, 16, 20, 24])
        self.first = MutableLinear(64, width)
        self.act = LayerChoice([nn.ReLU(), nn.Tanh(), nn.Sigmoid()], label="act")
        self.last = MutableLinear(width, 10)

    def forward(self, images):
        return self.last(self.act(self.first(images.flatten(1))))
"""
JSON = {
    "width": {"_type": "choice", "_value": [8, 16, 24, 32]},
    "block": {
        "_type": "choice",
        "_value": [{"_name": "plain"}, {"_name": "normed", "eps": {"_type": "choice", "_value": [1e-5, 1e-3]}}],
    },
}


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "nets.py").write_text(NETS)
    (tmp_path / "model_space.py").write_text(MODEL_SPACE)
    (tmp_path / "space.json").write_text(json.dumps(JSON))
    return tmp_path


def searched(space: str, data: ImageDataset, set_of: SetOf, **asked: object) -> None:
    synthetic = set_of(data, ipc=1, provenance={"data_fingerprint": data.fingerprint})
    request = SearchRequest(
        space=space,
        candidates=10,
        screening=Screening(epochs=3, lr=0.05),
        jobs=1,
        device="cpu",
        study="ten",
        **asked,  # type: ignore[arg-type]
    )
    ranking = search(request, synthetic, "few", data)
    assert len({one.architecture for one in ranking.candidates}) == 10
    assert ranking.failures == 0
    assert all(one.accuracy is not None and one.late_loss is not None for one in ranking.candidates)


@pytest.mark.parametrize("sampler", ["stratified", "nni-tpe", "tpe"])
def test_an_optuna_function(sampler: str, files: Path, digits: ImageDataset, set_of: SetOf) -> None:  # noqa: ARG001
    searched("nets.py:build", digits, set_of, sampler=sampler)


def test_an_nni_search_space_with_nested_choices(files: Path, digits: ImageDataset, set_of: SetOf) -> None:  # noqa: ARG001
    searched("space.json+nets.py:from_json", digits, set_of)


def test_an_nni_model_space(files: Path, digits: ImageDataset, set_of: SetOf) -> None:  # noqa: ARG001
    pytest.importorskip("pytorch_lightning", reason="nni.nas cannot be imported without it")
    searched("model_space.py:Space", digits, set_of, sampler="random")


def test_an_installed_package(
    files: Path, digits: ImageDataset, set_of: SetOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = files / "site" / "teamnets.py"
    package.parent.mkdir()
    package.write_text(NETS)
    info = files / "site" / "teamnets-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: teamnets\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[ftdnas.spaces]\nteam = teamnets:build\n")
    monkeypatch.syspath_prepend(str(package.parent))
    monkeypatch.setenv("PYTHONPATH", str(package.parent))  # for the worker processes
    try:
        searched("team", digits, set_of)
    finally:
        sys.modules.pop("teamnets", None)


@pytest.mark.parametrize("space", ["nasbench201", "macro", "residual", "mobilenet"])
def test_a_built_in_space(space: str, digits: ImageDataset, set_of: SetOf) -> None:
    synthetic = set_of(digits, ipc=1, provenance={"data_fingerprint": digits.fingerprint})
    request = SearchRequest(
        space=space,
        candidates=3,
        screening=Screening(epochs=1, lr=0.05, shrink=True),
        jobs=1,
        device="cpu",
        study="built",
    )
    ranking = search(request, synthetic, "few", digits)
    assert len(ranking.candidates) == 3
    assert ranking.failures == 0
