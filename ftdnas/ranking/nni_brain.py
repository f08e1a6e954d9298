"""NNI's TPE and Evolution tuners, asked and told directly: no NNI manager, no server."""

from __future__ import annotations

import contextlib
import logging
import math
import random
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from search_spaces.base import Architecture, Choice
from search_spaces.decisions import Answering, Decisions, Question, RandomDecisions, ReplayDecisions

PROBES = 200  # random walks through a space that find what it asks
LISTED = 1_000  # a range with more values than this is asked as an interval


class NNIBrain:
    """A tuner that proposes for `suggest`; see `ftdnas.ranking.ask_tell.Brain`. `name`: nni-tpe or nni-evolution.

    NNI wants to know all decisions beforehand: they are found by random walks. Those that an architecture does not ask
    for are proposed all the same and count for nothing; one that no walk found is decided at random. Raises ValueError
    for a space that asks for one name in different ways.
    """

    def __init__(self, suggest: Callable[[Decisions], Architecture], name: str, seed: int, direction: str) -> None:
        self._suggest = suggest
        self._chance = RandomDecisions(torch.Generator().manual_seed(seed))
        self._questions = _questions(suggest, name, seed)
        self._random = random.Random(seed)
        self._number = 0
        self._pending: dict[str, list[tuple[int, Mapping[str, Any]]]] = {}
        with self._seeded():
            self._tuner = _tuner(name, seed, direction)
            self._tuner.update_search_space({key: asked.as_nni() for key, asked in self._questions.items()})
            if name == "nni-evolution":
                _start_again(self._tuner, seed)
            else:
                # Its own way out of a duplicate is the next point of a grid, which begins in the same corner for all.
                self._tuner.dedup = _AsItIs()

    def propose(self) -> Architecture | None:
        import nni

        try:
            with self._seeded():
                parameters = self._tuner.generate_parameters(self._number)
        except (nni.NoMoreTrialError, RuntimeError):  # a whole population is being evaluated
            return None
        choices = {key: asked.choice(parameters[key]) for key, asked in self._questions.items()}
        architecture = self._suggest(ReplayDecisions(choices, fallback=self._chance))
        self._pending.setdefault(architecture.name, []).append((self._number, parameters))
        self._number += 1
        return architecture

    def learn(self, architecture: Architecture, values: Sequence[float] | None) -> None:
        pending = self._pending.get(architecture.name)
        with self._seeded():
            if pending:
                number, parameters = pending.pop()
                if values is not None:
                    self._tuner.receive_trial_result(number, parameters, values[0])
                self._tuner.trial_end(number, values is not None)
            elif values is not None:
                given = {key: asked.parameter(architecture.choices.get(key)) for key, asked in self._questions.items()}
                self._tuner.import_data([{"parameter": given, "value": values[0]}])

    @contextlib.contextmanager
    def _seeded(self) -> Iterator[None]:
        """The Evolution tuner draws from Python's own generator: it gets one of this sampler's."""
        before = random.getstate()
        random.setstate(self._random.getstate())
        try:
            yield
        finally:
            self._random.setstate(random.getstate())
            random.setstate(before)


@dataclass(frozen=True)
class Listed:
    """One of several values."""

    values: tuple[Any, ...]

    def as_nni(self) -> dict[str, Any]:
        return {"_type": "choice", "_value": list(range(len(self.values)))}

    def choice(self, parameter: Any) -> Choice:
        chosen: Choice = self.values[int(parameter)]
        return chosen

    def parameter(self, choice: Choice | None) -> Any:
        return self.values.index(choice) if choice in self.values else 0


@dataclass(frozen=True)
class Interval:
    """A number between two ends, whole or a multiple of `step` above the lower one where asked."""

    low: float
    high: float
    log: bool
    step: float | None
    whole: bool

    def as_nni(self) -> dict[str, Any]:
        return {"_type": "loguniform" if self.log else "uniform", "_value": [self.low, self.high]}

    def choice(self, parameter: Any) -> Choice:
        number = min(self.high, max(self.low, float(parameter)))
        if self.step is not None:
            number = self.low + math.floor((number - self.low) / self.step + 0.5) * self.step
            number -= self.step if number > self.high else 0
        return int(number) if self.whole else number

    def parameter(self, choice: Choice | None) -> Any:
        return float(choice) if isinstance(choice, int | float) else self.low


def _questions(suggest: Callable[[Decisions], Any], name: str, seed: int) -> dict[str, Listed | Interval]:
    """Everything that random walks were asked."""
    noting = _Noting(RandomDecisions(torch.Generator().manual_seed(seed)))
    for _ in range(PROBES):
        suggest(noting)
    if noting.ambiguous:
        raise ValueError(
            f"{name} needs decisions that are always asked in the same way, and {noting.ambiguous} is not: "
            "take tpe, or give each its own name"
        )
    return noting.asked


class _Noting(Answering):
    def __init__(self, inner: Answering) -> None:
        self._inner = inner
        self.asked: dict[str, Listed | Interval] = {}
        self.ambiguous = ""

    def answer(self, question: Question) -> Any:
        if self.asked.setdefault(question.name, _noted(question)) != _noted(question):
            self.ambiguous = question.name
        return self._inner.answer(question)


def _noted(question: Question) -> Listed | Interval:
    values = question.values
    if question.kind is str or (question.kind is int and len(values or ()) <= LISTED):
        return Listed(tuple(values or ()))
    if question.kind is int:
        return Interval(question.low, (values or ())[-1], question.log, question.step or 1, whole=True)
    if question.low == question.high:
        return Listed((question.low,))
    return Interval(question.low, question.high, question.log, question.step, whole=False)


def _tuner(name: str, seed: int, direction: str) -> Any:
    with warnings.catch_warnings():  # NNI 3.0 is older than what it imports
        warnings.simplefilter("ignore")
        from nni.algorithms.hpo.evolution_tuner import EvolutionTuner
        from nni.algorithms.hpo.tpe_tuner import TpeTuner

    logging.getLogger("nni").setLevel(logging.ERROR)  # it writes every step to stdout
    if name == "nni-tpe":
        return TpeTuner(optimize_mode=direction, seed=seed)
    return EvolutionTuner(optimize_mode=direction)


class _AsItIs:
    """A deduplicator that leaves duplicates to us."""

    def __call__(self, parameters: Any) -> Any:
        return parameters

    def add_history(self, parameters: Any) -> None:
        pass


def _start_again(tuner: Any, seed: int) -> None:
    """The first population of the Evolution tuner, from a seed, which it does not take."""
    import numpy as np

    tuner.random_state = np.random.RandomState(seed)
    tuner.population.clear()
    for _ in range(tuner.population_size):
        tuner._random_generate_individual()
