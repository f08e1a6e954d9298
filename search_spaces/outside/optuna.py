"""Spaces written for Optuna: a define-by-run function is one."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import optuna
import torch
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from torch import nn

from search_spaces.architecture import ImageShape
from search_spaces.decisions import Choice, Decisions, ReplayDecisions
from search_spaces.messages import FOREIGN
from search_spaces.outside.definition import NOMINAL_CLASSES, NOMINAL_SHAPE, Definition, call_builder, labelled


class TrialDefinition(Definition):
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
        except FOREIGN as error:
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
        ask = functools.partial(self._decisions.suggest_categorical, name, list(named))
        return self._once(name, CategoricalDistribution(tuple(named)), ask, named)

    def suggest_int(self, name: str, low: int, high: int, *, step: int = 1, log: bool = False) -> int:
        distribution = IntDistribution(low, high, log=log, step=step)
        ask = functools.partial(self._decisions.suggest_int, name, low, distribution.high, step=step, log=log)
        return int(self._once(name, distribution, ask))

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False
    ) -> float:
        distribution = FloatDistribution(low, high, log=log, step=step)
        ask = functools.partial(self._decisions.suggest_float, name, low, distribution.high, step=step, log=log)
        return float(self._once(name, distribution, ask))

    def _once(
        self,
        name: str,
        distribution: BaseDistribution,
        ask: Callable[[], Any],
        named: Mapping[Choice, Any] | None = None,
    ) -> Any:
        known = self.distributions.get(name)
        if known is not None:
            if isinstance(known, CategoricalDistribution) and known != distribution:
                raise Unanswered(f"{name} is asked twice with different choices: give each question a name of its own")
            return self._values[name]
        try:
            with torch.device("cpu"):  # whoever decides may draw numbers
                answer = ask()
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
