"""Optuna functions as spaces."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import optuna
import pytest
import torch
import torch.nn.functional as F
from optuna.distributions import FloatDistribution, IntDistribution
from torch import nn

from search_spaces.architecture import SearchSpace
from search_spaces.decisions import RandomDecisions, ReplayDecisions, UnsteadyError, enumerate_decisions
from search_spaces.outside.definition import DefinedSpace
from search_spaces.outside.load import load_space
from search_spaces.outside.optuna import DecidedTrial, TrialDefinition

SHAPE = (3, 8, 8)


def head(trial: optuna.Trial, channels: int = 3, classes: int = 10) -> nn.Module:
    del trial
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, classes))


def everything(trial: optuna.Trial) -> nn.Module:
    """Every kind of question."""
    trial.suggest_categorical("norm", ["none", "batch", None, True])
    trial.suggest_int("width", 4, 20, step=4)
    trial.suggest_int("groups", 1, 64, log=True)
    trial.suggest_float("dropout", 0.1, 0.7, step=0.2)
    trial.suggest_float("slope", 0.0, 0.3)
    trial.suggest_float("lr", 1e-4, 1e-1, log=True)
    return head(trial)


def space_of(function: Callable[..., Any]) -> SearchSpace:
    return DefinedSpace("here.py:build", "code", TrialDefinition(function), load_space)


def drawn(function: Callable[..., Any], n: int = 20) -> list[Any]:
    generator = torch.Generator().manual_seed(0)
    space = space_of(function)
    return [space.suggest(RandomDecisions(generator)) for _ in range(n)]


def test_optuna_gives_the_function_the_same_answers_for_the_choices() -> None:
    def recorded(trial: optuna.Trial) -> nn.Module:
        network = everything(trial)
        network.told = dict(trial.params)  # type: ignore[assignment]
        return network

    for architecture in drawn(recorded):
        told: Any = architecture.build(SHAPE, 10).told
        fixed = optuna.trial.FixedTrial(told)  # Optuna's own answers to the same parameters
        everything(fixed)  # type: ignore[arg-type]
        assert fixed.params == told
        assert list(told) == list(architecture.choices)
        assert (
            space_of(everything).parse(architecture.name.removeprefix("here.py:build:")).choices == architecture.choices
        )


def test_a_study_decides_and_its_trial_holds_the_choices() -> None:
    study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=0, n_startup_trials=4))
    space = space_of(everything)
    for _ in range(12):
        trial = study.ask()
        architecture = space.suggest(trial)
        assert trial.params == architecture.choices
        study.tell(trial, float(architecture.choices["width"]))
    assert study.best_value < 20


def test_all_stepped_values_are_those_that_optuna_draws() -> None:
    def stepped(trial: optuna.Trial) -> nn.Module:
        trial.suggest_float("dropout", 0.1, 0.7, step=0.2)
        trial.suggest_int("width", 4, 20, step=4)
        return head(trial)

    space = space_of(stepped)
    assert space.size == 20
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    names = {space.suggest(study.ask()).name for _ in range(300)}
    assert names == {architecture.name for architecture in space.architectures()}
    # A number that somebody wrote is the one on the grid.
    assert space.parse('{"dropout":0.3,"width":4}') in space.architectures()


def test_build_that_prunes_or_fails_is_an_architecture_with_an_obstacle() -> None:
    def pruning(trial: optuna.Trial) -> nn.Module:
        depth = trial.suggest_int("depth", 1, 3)
        if depth == 2:
            raise optuna.TrialPruned("two is not wanted")
        return head(trial, channels=4 if depth == 3 else 3)

    one, two, three = space_of(pruning).architectures()
    assert one.obstacle(SHAPE) is None
    assert str(two.obstacle(SHAPE)).endswith("end in TrialPruned: two is not wanted")
    assert "RuntimeError" in str(three.obstacle(SHAPE))
    with pytest.raises(ValueError, match="two is not wanted"):
        two.build(SHAPE, 10)


def test_decisions_that_depend_on_the_image_are_refused_where_they_differ() -> None:
    def by_image(trial: optuna.Trial, image_shape: tuple[int, int, int], num_classes: int) -> nn.Module:
        for block in range(1 if image_shape[1] == 224 else 2):
            trial.suggest_int(f"width{block}", 1, 2)
        return head(trial, image_shape[0], num_classes)

    architecture = space_of(by_image).architectures()[0]
    assert architecture.obstacle((3, 224, 224)) is None
    assert "its decisions depend on the image shape: width1 is not given" in str(architecture.obstacle(SHAPE))


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda trial: head(trial), "it asks the trial nothing"),
        (lambda trial: trial.undefined, "it fails before it asks the trial anything: AttributeError"),
        (
            lambda trial: [trial.suggest_categorical("a", [1, 2]), trial.suggest_categorical("a", [3])],
            "a is asked twice with different choices",
        ),
        (lambda trial: trial.suggest_categorical("a", [1, 1]), "a: the choice 1 stands there twice"),
    ],
)
def test_function_that_is_no_space(function: Callable[..., Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        drawn(function, 1)


def test_trial_answers_like_optunas_own() -> None:
    trial = DecidedTrial(ReplayDecisions({"a": 1, "b": 0.5}))
    assert trial.suggest_int("a", 0, 3) == trial.suggest_int("a", 0, 3) == 1
    assert isinstance(trial.suggest_float("b", 0, 1), float)
    trial.report(0.3, step=1)
    trial.set_user_attr("note", 1)
    assert not trial.should_prune()
    assert trial.user_attrs == {"note": 1}
    assert trial.params == {"a": 1, "b": 0.5}
    assert trial.distributions == {"a": IntDistribution(0, 3), "b": FloatDistribution(0, 1)}


def test_function_of_a_file_sees_its_image_shape(tmp_path: Path) -> None:
    (tmp_path / "nets.py").write_text(
        "from torch import nn\n"
        "def build(trial, image_shape, num_classes):\n"
        "    width = trial.suggest_int('width', 2, 4)\n"
        "    return nn.Sequential(nn.Conv2d(image_shape[0], width, 3), nn.Flatten(),\n"
        "        nn.Linear(width * (image_shape[1] - 2) * (image_shape[2] - 2), num_classes))\n"
    )
    architecture = load_space(f"{tmp_path / 'nets.py'}:build").architectures()[2]
    for shape, classes in (((1, 5, 7), 3), ((3, 9, 9), 12)):
        assert architecture.build(shape, classes)(torch.zeros(2, *shape)).shape == (2, classes)


def choosing(*values: object) -> TrialDefinition:
    def build(trial: Any) -> nn.Module:
        act = trial.suggest_categorical("act", values)
        return nn.Sequential(nn.Flatten(), act() if isinstance(act, type) else nn.ReLU(), nn.LazyLinear(10))

    return TrialDefinition(build)


def named_activation(x: torch.Tensor) -> torch.Tensor:
    return x.relu()


@pytest.mark.parametrize(
    ("values", "names"),
    [
        ((F.relu, torch.tanh, F.elu), ["torch.nn.functional.relu", "torch.tanh", "torch.nn.functional.elu"]),
        ((nn.ReLU, nn.Tanh), [repr(nn.ReLU), repr(nn.Tanh)]),
        (
            (partial(nn.LeakyReLU, 0.1), partial(F.leaky_relu, negative_slope=0.2)),
            [
                f"functools.partial({nn.LeakyReLU!r}, 0.1)",
                "partial(torch.nn.functional.leaky_relu, negative_slope=0.2)",
            ],
        ),
        ((named_activation, None), [f"{__name__}.named_activation", "null"]),
    ],
)
def test_functions_are_chosen_by_names_that_last(values: tuple[object, ...], names: list[str]) -> None:
    definition = choosing(*values)
    assert [choices["act"] for choices in enumerate_decisions(definition.decide, 10)] == names


@pytest.mark.parametrize(
    ("value", "what"), [(lambda: nn.ReLU(), "a lambda"), (partial(lambda x: x, 1), "a lambda"), (object(), "a object")]
)
def test_what_has_no_name_that_lasts_is_refused_with_the_way_out(value: object, what: str) -> None:
    with pytest.raises(ValueError, match=f"act: {what} among the choices has no name that lasts: choose among names"):
        choosing(value, nn.ReLU).decide(RandomDecisions(torch.Generator()))


def test_a_space_that_is_another_each_time_is_refused_in_one_line() -> None:
    calls = itertools.count()

    def build(trial: Any) -> nn.Module:
        width = trial.suggest_int("width", 4, 8)
        if next(calls) % 3 == 0:
            trial.suggest_categorical("extra", ["a", "b"])
        return nn.Linear(width, 10)

    space = DefinedSpace("mine.py:build", "0", TrialDefinition(build), load_space)
    with pytest.raises(ValueError, match=r"^mine.py:build is another space each time it is asked: .* does not ask for"):
        _ = space.size
    with pytest.raises(UnsteadyError):
        list(enumerate_decisions(TrialDefinition(build).decide, 100))


@pytest.mark.parametrize("ended", [SystemExit("too wide"), RuntimeError("too wide")])
def test_a_build_that_ends_the_program_is_an_obstacle_of_its_own(ended: BaseException) -> None:
    def build(trial: Any) -> nn.Module:
        if trial.suggest_int("width", 4, 5) == 5:
            raise ended
        return nn.Sequential(nn.Flatten(), nn.LazyLinear(10))

    space = DefinedSpace("mine.py:build", type(ended).__name__, TrialDefinition(build), load_space)
    small, wide = space.architectures()
    assert small.obstacle((1, 8, 8)) is None
    assert f"{type(ended).__name__}: too wide" in str(wide.obstacle((1, 8, 8)))


def test_what_makes_a_network_quick_does_not_name_its_weights() -> None:
    def build(trial: Any) -> nn.Module:
        width = trial.suggest_int("width", 4, 5)
        inner = nn.Sequential(nn.Flatten(), nn.Linear(64, width), nn.Linear(width, 10))
        inner[1] = torch.compile(inner[1])  # type: ignore[assignment]
        return torch.compile(inner)  # type: ignore[return-value]

    network = space_of(build).parse('{"width":4}').build((1, 8, 8), 10)
    assert list(network.state_dict()) == ["1.weight", "1.bias", "2.weight", "2.bias"]
