"""NNI's JSON spaces against NNI 3.0 itself: what its tuners draw, what they give to a trial, what they refuse."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from nni.algorithms.hpo.random_tuner import RandomTuner, suggest
from nni.algorithms.hpo.tpe_tuner import TpeTuner
from nni.common.hpo_utils import deformat_parameters, format_search_space, validate_search_space
from scipy import stats
from torch import nn

from search_spaces.base import random_architectures
from search_spaces.decisions import RandomDecisions
from search_spaces.outside.definition import DefinedSpace
from search_spaces.outside.load import load_space
from search_spaces.outside.nni_json import EDGE, JsonDefinition, Number, check_search_space, read_search_space

TYPES: dict[str, list[Any]] = {
    "choice": ["a", 1, 2.5],
    "randint": [3, 7],
    "uniform": [-1, 2],
    "quniform": [0.5, 4.2, 0.7],
    "loguniform": [0.001, 10],
    "qloguniform": [0.5, 20, 3],
    "normal": [2, 0.5],
    "qnormal": [2, 1.5, 0.5],
    "lognormal": [1, 0.5],
    "qlognormal": [1, 0.7, 2],
}
SPACE: dict[str, Any] = {
    **{kind: {"_type": kind, "_value": value} for kind, value in TYPES.items()},
    "conv": {
        "_type": "choice",
        "_value": [
            {"_name": "none"},
            {"_name": "plain", "kernel": {"_type": "choice", "_value": [3, 5]}},
            {
                "_name": "deep",
                "kernel": {"_type": "randint", "_value": [1, 4]},
                "act": {
                    "_type": "choice",
                    "_value": [
                        {"_name": "relu"},
                        {"_name": "leaky", "slope": {"_type": "uniform", "_value": [0, 0.3]}},
                    ],
                },
            },
        ],
    },
}


def builder(params: dict[str, Any]) -> nn.Module:
    network = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 10))
    network.params = params  # type: ignore[assignment]
    return network


def space_of(space: dict[str, Any]) -> DefinedSpace:
    return DefinedSpace("space.json+nets.py:builder", "code", JsonDefinition(space, builder), load_space)


def numbers_of_nni(kind: str, n: int) -> list[float]:
    space = format_search_space({"x": {"_type": kind, "_value": TYPES[kind]}})
    rng = np.random.default_rng(1)
    return [deformat_parameters(suggest(rng, space), space)["x"] for _ in range(n)]  # as RandomTuner, but with repeats


def our_numbers(kind: str, n: int) -> list[float]:
    space = space_of({"x": {"_type": kind, "_value": TYPES[kind]}})
    decisions = RandomDecisions(torch.Generator().manual_seed(1))
    return [json.loads(space.suggest(decisions).name.partition("builder:")[2])["x"] for _ in range(n)]


@pytest.mark.parametrize("kind", [kind for kind in TYPES if kind != "choice"])
def test_numbers_are_distributed_as_nni_draws_them(kind: str) -> None:
    theirs, ours = numbers_of_nni(kind, 2_000), our_numbers(kind, 2_000)
    assert stats.ks_2samp(theirs, ours).pvalue > 1e-3
    assert type(theirs[0]) is type(ours[0])
    if kind.startswith("q") or kind == "randint":
        assert set(map(float, ours)) <= set(map(float, numbers_of_nni(kind, 40_000)))


def test_clipped_ends_come_half_as_often() -> None:
    counts = np.unique(our_numbers("quniform", 4_000), return_counts=True)
    assert counts[0].tolist() == [0.7, 1.4, 2.0999999999999996, 2.8, 3.5, 4.199999999999999]
    expected = np.array([0.55, 0.7, 0.7, 0.7, 0.7, 0.35]) / 3.7 * 4_000
    assert stats.chisquare(counts[1], expected).pvalue > 1e-3


def test_nested_configurations_of_nni_are_members_and_reach_the_builder_unchanged() -> None:
    shallow = json.loads(json.dumps(SPACE))
    del shallow["conv"]["_value"][2]["act"]  # NNI's tuners raise KeyError for a choice nested twice
    space = space_of(shallow)
    formatted, rng = format_search_space(shallow), np.random.default_rng(3)
    for _ in range(60):
        params = deformat_parameters(suggest(rng, formatted), formatted)
        told: Any = space.parse(json.dumps(params, default=float)).build((3, 8, 8), 10).params
        assert list(told) == list(params)
        for name, value in params.items():
            if name in ("normal", "lognormal"):
                assert told[name] == pytest.approx(value, rel=1e-8)  # ours are on a grid of 1e-9 sigma
            else:
                assert told[name] == value


def test_tpe_tuner_drives_a_nested_space() -> None:
    kinds = [kind for kind in TYPES if "normal" not in kind]  # of which TPE draws beyond one in a million
    shallow = {kind: SPACE[kind] for kind in kinds} | {
        "conv": {"_type": "choice", "_value": SPACE["conv"]["_value"][:2]}
    }
    space = space_of(shallow)
    tuner = TpeTuner(optimize_mode="maximize", seed=1)
    tuner.update_search_space(shallow)
    found = []
    for number in range(60):
        params = tuner.generate_parameters(number)
        told: Any = space.parse(json.dumps(params)).build((3, 8, 8), 10).params
        assert told == params
        found.append(told["uniform"] + (told["conv"] == {"_name": "plain", "kernel": 5}))
        tuner.receive_trial_result(number, params, found[-1])
    assert np.mean(found[40:]) > np.mean(found[:20]) + 0.5


def test_names_come_back_exactly() -> None:
    space = space_of(SPACE)
    for architecture in random_architectures(space, 120, seed=0):
        again = space.parse(architecture.name.removeprefix("space.json+nets.py:builder:"))
        assert again == architecture
        assert again.name == architecture.name
        assert dict(again.choices) == dict(architecture.choices)
        told: Any = again.build((3, 8, 8), 10).params
        assert (
            set(told["conv"]) - {"_name"}
            == {"none": set(), "plain": {"kernel"}, "deep": {"kernel", "act"}}[told["conv"]["_name"]]
        )


@pytest.mark.parametrize("mu", [0.0, 3.0, -1e4])
@pytest.mark.parametrize("log", [False, True])
@pytest.mark.parametrize("q", [None, 0.3, 100.0])
def test_normal_numbers_and_their_quantiles_are_each_others(mu: float, log: bool, q: float | None) -> None:
    number = Number(mu if not log else mu / 1e4, 2.0, normal=True, log=log, q=q)
    quantiles = np.concatenate(
        [[EDGE, 1 - EDGE, 0.5, 0.5 + 1e-9], np.random.default_rng(0).uniform(EDGE, 1 - EDGE, 500)]
    )
    for quantile in quantiles.tolist():
        value = number.value(quantile)
        decision = number.decision(value)
        assert EDGE <= decision <= 1 - EDGE
        assert number.value(decision) == value
        assert number.decision(number.value(decision)) == decision
        assert number.read("x", value) == decision
        if q is None:
            assert decision == pytest.approx(quantile, abs=1e-8)


def test_space_with_an_end_is_enumerated_as_nnis_grid_would() -> None:
    finite = {
        "width": {"_type": "choice", "_value": [4, 8]},
        "n": {"_type": "randint", "_value": [0, 3]},
        "q": {"_type": "quniform", "_value": [0.5, 4.2, 0.7]},
        "log": {"_type": "qloguniform", "_value": [0.5, 20, 3]},
    }
    space = space_of(finite)
    assert space.size == 2 * 3 * 6 * 8
    drawn = random_architectures(space, 250, seed=0)
    assert set(drawn) <= set(space.architectures())
    tuner = RandomTuner(seed=2)
    tuner.update_search_space(finite)
    assert all(space.parse(json.dumps(tuner.generate_parameters(i))) in space.architectures() for i in range(100))
    bell = space_of({"x": {"_type": "qnormal", "_value": [0, 1, 2]}})
    assert [json.loads(a.name.partition("builder:")[2])["x"] for a in bell.architectures()] == [
        -4.0,
        -2.0,
        0.0,
        2.0,
        4.0,
    ]
    assert space_of({"x": {"_type": "normal", "_value": [0, 1]}}).size is None
    nested = space_of({"conv": SPACE["conv"]})
    assert nested.size is None
    nested = space_of({"conv": {"_type": "choice", "_value": SPACE["conv"]["_value"][:2]}})
    assert [dict(a.choices) for a in nested.architectures()] == [
        {"conv": "none"},
        {"conv": "plain", "conv/plain/kernel": 3},
        {"conv": "plain", "conv/plain/kernel": 5},
    ]


@pytest.mark.parametrize(
    ("space", "message"),
    [
        ([], "a search space is an object of parameters, not []"),
        ({}, "the search space is empty"),
        ({"a": 3}, '\'a\' is not an object with "_type" and "_value": 3'),
        ({"a": {"_type": "choice"}}, "'a' is not an object with"),
        ({"a": {"_type": "choice", "_value": []}}, "'a': the _value of choice is not a list with something in it: []"),
        ({"a": {"_type": "choice", "_value": [1, 1]}}, "'a': the choice 1 stands there twice"),
        ({"a": {"_type": "mutable_layer", "_value": [1]}}, "'a': unknown _type 'mutable_layer': choose from choice"),
        ({"a": {"_type": "randint", "_value": [1.5, 3]}}, "'a': the _value of randint is [lower, upper], not [1.5, 3]"),
        ({"a": {"_type": "uniform", "_value": [3, 1]}}, "'a': the _value of uniform is [low, high], not [3, 1]"),
        ({"a": {"_type": "uniform", "_value": [3]}}, "'a': the _value of uniform is [low, high], not [3]"),
        ({"a": {"_type": "uniform", "_value": [True, 3]}}, "'a': the _value of uniform"),
        ({"a": {"_type": "quniform", "_value": [0, 3, 0]}}, "'a': the _value of quniform is [low, high, q]"),
        ({"a": {"_type": "loguniform", "_value": [0, 3]}}, "'a': the _value of loguniform is [low, high], not [0, 3]"),
        ({"a": {"_type": "normal", "_value": [0, 0]}}, "'a': the _value of normal is [mu, sigma], not [0, 0]"),
        ({"a": {"_type": "choice", "_value": [{"_name": "b"}, 3]}}, "'a': either every choice has a \"_name\" or none"),
        (
            {"a": {"_type": "choice", "_value": [{"_name": "b", "c": {"_type": "randint", "_value": "x"}}]}},
            "'a/b/c': the _value of randint is not a list",
        ),
    ],
)
def test_wrong_space_is_refused_with_its_key(space: Any, message: str, tmp_path: Path) -> None:
    file = tmp_path / "space.json"
    file.write_text(json.dumps(space))
    with pytest.raises(ValueError, match=r"space\.json: ") as raised:
        read_search_space(file)
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


def test_what_nni_accepts_is_accepted() -> None:
    assert validate_search_space(SPACE, raise_exception=True)
    check_search_space(SPACE)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"x": 5}', "x=5 is not a value of Number"),
        ('{"x": 1.5}', "x=1.5 is not a value of Number"),
        ('{"x": true}', "x=true is not a value"),
        ('{"x": "1"}', 'x="1" is not a value'),
        ("[1]", "is not a JSON object of choices"),
    ],
)
def test_value_out_of_place(text: str, message: str) -> None:
    space = space_of({"x": {"_type": "quniform", "_value": [0, 4, 1]}})
    assert space.parse('{"x": 4}').choices == {"x": 4.0}
    with pytest.raises(ValueError, match=r"space\.json") as raised:
        space.parse(text)
    assert message in str(raised.value)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_a_file_may_be_saved_by_any_editor(encoding: str, newline: str, tmp_path: Path) -> None:
    text = newline.join(["{", '"n": {"_type": "choice", "_value": [8, 16]}', "}", ""])
    (tmp_path / "space.json").write_bytes(text.encode(encoding))
    assert read_search_space(tmp_path / "space.json") == {"n": {"_type": "choice", "_value": [8, 16]}}
