"""Spaces written for Optuna: a define-by-run function is one; its distributions convert to NNI's JSON and back."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import optuna
import torch
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from torch import nn

from search_spaces.architecture import ImageShape
from search_spaces.decisions import Choice, Decisions, ReplayDecisions
from search_spaces.outside.definition import NOMINAL_CLASSES, NOMINAL_SHAPE, Plain, call_builder, labelled


class TrialDefinition(Plain):
    """`build(trial)` or `build(trial, image_shape, num_classes)`, which asks the trial and returns a network.

    Its decisions are found by running it on the meta device at a nominal 224 pixels and 10 classes, so they may depend
    on each other but not on the image shape. A build that fails or prunes there has been decided all the same: that it
    cannot carry its images is said when it is asked to.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function

    def decide(self, decisions: Decisions) -> dict[str, Choice]:
        trial = DecidedTrial(decisions)
        try:
            with torch.random.fork_rng(devices=[]), torch.device("meta"):
                self._run(trial, NOMINAL_SHAPE, NOMINAL_CLASSES)
        except Unanswered as error:
            raise ValueError(str(error)) from None
        except Exception as error:
            if not trial.decided:
                raise ValueError(f"it fails before it asks the trial anything: {error!r}") from None
        if not trial.decided:
            raise ValueError("it asks the trial nothing, so there is nothing to search")
        return trial.decided

    def build(self, choices: Mapping[str, Choice], image_shape: ImageShape, num_classes: int) -> nn.Module:
        try:
            return self._run(DecidedTrial(ReplayDecisions(choices)), image_shape, num_classes)
        except Unanswered as error:
            raise ValueError(f"its decisions depend on the image shape: {error}") from None

    def _run(self, trial: DecidedTrial, image_shape: ImageShape, num_classes: int) -> nn.Module:
        return call_builder(self._function, trial, image_shape, num_classes)


class Unanswered(Exception):
    """A question of the function that the decisions have no answer to: never to be swallowed as its own failure."""


class DecidedTrial(optuna.trial.FixedTrial):
    """What the function sees as its trial. `decided` holds what it asked, by the names of the choices.

    Nothing is pruned and reports go nowhere; attributes and constraints are kept as in Optuna's FixedTrial.
    """

    def __init__(self, decisions: Decisions) -> None:
        super().__init__({})
        self._decisions = decisions
        self._values: dict[str, Any] = {}
        self.decided: dict[str, Choice] = {}

    @property
    def params(self) -> dict[str, Any]:
        return dict(self._values)

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        try:
            named = labelled(choices)
        except ValueError as error:
            raise Unanswered(f"{name}: {error}") from None
        return self._once(name, CategoricalDistribution(tuple(named)), named, list(named))

    def suggest_int(self, name: str, low: int, high: int, *, step: int = 1, log: bool = False) -> int:
        distribution = IntDistribution(low, high, log=log, step=step)
        return int(self._once(name, distribution, None, low, distribution.high, step=step, log=log))

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False
    ) -> float:
        distribution = FloatDistribution(low, high, log=log, step=step)
        return float(self._once(name, distribution, None, low, distribution.high, step=step, log=log))

    def _once(
        self, name: str, distribution: BaseDistribution, named: Mapping[Choice, Any] | None, *question: Any, **more: Any
    ) -> Any:
        known = self.distributions.get(name)
        if known is not None:
            if isinstance(known, CategoricalDistribution) and known != distribution:
                raise Unanswered(f"{name} is asked twice with different choices: give each question a name of its own")
            return self._values[name]
        method = {
            CategoricalDistribution: "suggest_categorical",
            IntDistribution: "suggest_int",
            FloatDistribution: "suggest_float",
        }[type(distribution)]
        try:
            with torch.device("cpu"):  # whoever decides may draw numbers
                answer = getattr(self._decisions, method)(name, *question, **more)
        except ValueError as error:
            raise Unanswered(str(error)) from None
        if isinstance(distribution, IntDistribution):
            answer = int(answer)
        elif isinstance(distribution, FloatDistribution):
            answer = float(answer)
            if distribution.step is not None:  # a number read from text, or from another sampler, onto the grid
                number = round((answer - distribution.low) / distribution.step)
                answer = min(distribution.high, distribution.low + number * distribution.step)
        self.distributions[name] = distribution
        self.decided[name] = answer
        self._values[name] = answer if named is None else named[answer]
        return self._values[name]


def distributions_to_nni(distributions: Mapping[str, BaseDistribution]) -> dict[str, Any]:
    """The NNI search space of the same values: choice, randint, uniform, loguniform, quniform.

    A stepped float becomes quniform where both its ends are whole multiples of the step, so that the values are the
    same (NNI draws the two ends half as often). `distributions_from_nni` gives equal distributions again. Raises
    ValueError naming what NNI has no type for: an int with log or a step, other stepped floats, a choice of None.
    """
    return {name: _to_nni(name, distribution) for name, distribution in distributions.items()}


def distributions_from_nni(space: Mapping[str, Any]) -> dict[str, BaseDistribution]:
    """Optuna's distributions of a flat NNI search space: the inverse of `distributions_to_nni`.

    Raises ValueError naming what Optuna has no distribution for: nested choices, the normal types, qloguniform, and
    quniform with an end that is no multiple of q. Such a space is searched as it is, through its own adapter.
    """
    from search_spaces.outside.nni_json import check_search_space

    check_search_space(space)
    return {name: _from_nni(name, spec["_type"], spec["_value"]) for name, spec in space.items()}


def _to_nni(name: str, distribution: BaseDistribution) -> dict[str, Any]:
    if isinstance(distribution, CategoricalDistribution):
        strange = [choice for choice in distribution.choices if not isinstance(choice, str | int | float)]
        if strange:
            raise ValueError(f"{name}: NNI's choice holds numbers and text, not {strange[0]!r}")
        return {"_type": "choice", "_value": list(distribution.choices)}
    if isinstance(distribution, IntDistribution):
        if distribution.log or distribution.step != 1:
            what = "a logarithmic scale" if distribution.log else f"a step of {distribution.step}"
            raise ValueError(
                f"{name}: NNI has no whole numbers on {what} (Optuna's {distribution}): write it as a choice"
            )
        return {"_type": "randint", "_value": [distribution.low, distribution.high + 1]}
    if isinstance(distribution, FloatDistribution):
        ends = [distribution.low, distribution.high]
        if distribution.low == distribution.high:
            raise ValueError(f"{name}: NNI has no range of one number (Optuna's {distribution}): write it as a choice")
        if distribution.step is None:
            return {"_type": "loguniform" if distribution.log else "uniform", "_value": ends}
        if all(_is_multiple(end, distribution.step) for end in ends):
            return {"_type": "quniform", "_value": [*ends, distribution.step]}
        raise ValueError(
            f"{name}: NNI's quniform has only multiples of its step, and {distribution} starts between two: "
            "write it as a choice"
        )
    raise ValueError(f"{name}: unknown distribution {distribution!r}")


def _from_nni(name: str, kind: str, values: Sequence[Any]) -> BaseDistribution:
    if kind == "choice":
        if any(isinstance(value, dict | list) or value is None for value in values):
            raise ValueError(f"{name}: Optuna's distributions are flat, they cannot hold the nested choice {values!r}")
        return CategoricalDistribution(tuple(values))
    if kind == "randint":
        return IntDistribution(values[0], values[1] - 1)
    if kind in ("uniform", "loguniform"):
        return FloatDistribution(float(values[0]), float(values[1]), log=kind == "loguniform")
    if kind == "quniform":
        low, high, step = map(float, values)
        if _is_multiple(low, step) and _is_multiple(high, step):
            return FloatDistribution(low, high, step=step)
        raise ValueError(f"{name}: quniform {list(values)} is clipped to an end that is no multiple of {step:g}")
    raise ValueError(f"{name}: Optuna has no distribution for NNI's {kind}")


def _is_multiple(number: float, step: float) -> bool:
    return math.isclose(number, round(number / step) * step, rel_tol=1e-9, abs_tol=1e-12)
