"""Optuna's samplers, asked and told directly, and what an architecture's choices are to Optuna."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ftdnas.ranking.ask_tell import Restricted, Settings
from search_spaces.base import Architecture, Choice, SearchSpace
from search_spaces.decisions import Answering, Decisions, Question, ReplayDecisions

if TYPE_CHECKING:
    import optuna


Known = dict[str, tuple[Any, ...]]  # name of a decision -> what it was first asked from


class OptunaBrain:
    """An Optuna sampler on a study of its own in memory; the stored study is not its concern.

    `sampler`: the name of its class in `optuna.samplers`.
    """

    def __init__(self, space: SearchSpace, settings: Settings, sampler: str) -> None:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        directions = [optuna.study.StudyDirection[direction.upper()] for direction in settings.directions]
        with _quiet():
            made = getattr(optuna.samplers, sampler)(seed=settings.seed)
            self._study = optuna.create_study(sampler=made, directions=directions)
        self._space = space
        self._restrict = settings.restrict
        self._pending: dict[str, list[optuna.Trial]] = {}
        self._known: Known = {}

    def propose(self) -> Architecture:
        with _quiet():
            trial = self._study.ask()
            architecture = self._space.suggest(Restricted(_Apart(trial, self._known), self._restrict))
        self._pending.setdefault(architecture.name, []).append(trial)
        return architecture

    def learn(self, architecture: Architecture, values: Sequence[float] | None) -> None:
        import optuna

        trials = self._pending.get(architecture.name)
        with _quiet():
            if trials and values is not None:
                self._study.tell(trials.pop(), list(values))
            elif trials:
                self._study.tell(trials.pop(), state=optuna.trial.TrialState.FAIL)
            elif values is not None:
                try:
                    params, distributions = decided(self._suggest, architecture.choices, self._known)
                except ValueError:
                    return  # outside of the restriction: not a place to learn about
                self._study.add_trial(
                    optuna.trial.create_trial(params=params, distributions=distributions, values=list(values))
                )

    def _suggest(self, decisions: Decisions) -> Architecture:
        return self._space.suggest(Restricted(decisions, self._restrict))


def decided(
    suggest: Callable[[Decisions], Any], choices: Mapping[str, Choice], known: Known | None = None
) -> tuple[dict[str, Choice], dict[str, optuna.distributions.BaseDistribution]]:
    """The choices as an Optuna trial has them, each with the distribution that it was asked from.

    `known`: how names were asked for before, see `_apart`.
    Raises ValueError where `suggest` asks for something that they do not answer.
    """
    noting = _Noting(choices, {} if known is None else known)
    suggest(noting)
    return noting.params, noting.distributions


class _Noting(Answering):
    """Answers as once decided, and notes the distributions."""

    def __init__(self, choices: Mapping[str, Choice], known: Known) -> None:
        self._replay = ReplayDecisions(choices)
        self._known = known
        self.params: dict[str, Choice] = {}
        self.distributions: dict[str, optuna.distributions.BaseDistribution] = {}

    def answer(self, question: Question) -> Any:
        answer, name = self._replay.answer(question), _apart(question, self._known)
        self.params[name] = answer
        self.distributions[name] = _distribution(question)
        return answer


class _Apart(Answering):
    """An Optuna trial that is asked by names of which each has one meaning."""

    def __init__(self, trial: Decisions, known: Known) -> None:
        self._trial = trial
        self._known = known

    def answer(self, question: Question) -> Any:
        return replace(question, name=_apart(question, self._known)).put_to(self._trial)


def _apart(question: Question, known: Known) -> str:
    """The name of a parameter: of a decision with other choices than it had at first, as a smaller one of a wider
    choice before it, Optuna makes nothing under one name.
    """
    meant = tuple(question.values or ()) if question.kind is str else (question.kind, question.log)
    if known.setdefault(question.name, meant) == meant:
        return question.name
    return f"{question.name} of {', '.join(map(str, question.values or meant))}"


def _distribution(question: Question) -> optuna.distributions.BaseDistribution:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if question.kind is str:
        return CategoricalDistribution(tuple(question.values or ()))
    if question.kind is int:
        return IntDistribution(int(question.low), int(question.high), log=question.log, step=int(question.step or 1))
    return FloatDistribution(question.low, question.high, log=question.log, step=question.step)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without Optuna's notes on what it calls experimental."""
    import optuna

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        yield
