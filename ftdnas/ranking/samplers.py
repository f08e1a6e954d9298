"""Which architecture to look at next: samplers that are asked and told, none of which proposes the same one twice."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import torch

from ftdnas.ranking.trials import decided
from search_spaces.base import (
    Architecture,
    Choice,
    ImageShape,
    Restriction,
    SearchSpace,
    stratified_sample,
)
from search_spaces.decisions import Decisions, RandomDecisions
from search_spaces.messages import hint

if TYPE_CHECKING:
    import optuna

TRIES = 20  # proposals in a row that are known or do not fit, before a sampler is helped out by chance
GP_TRIES = 3  # the same where a proposal takes a second
DRAWS = 2_000  # random architectures in a row without a new one: then there seem to be no more
STARTED_WITH = 64  # of a stratified order; it is made twice as long when it ends


@dataclass(frozen=True)
class Settings:
    """What a sampler works under.

    `restrict`: name of a decision -> the choices that are looked at. `fits`: why an architecture must not be proposed,
    None where it may. `directions`: "maximize" or "minimize" for each objective; the first is the score.
    """

    seed: int
    image_shape: ImageShape
    num_classes: int
    restrict: Restriction = field(default_factory=dict)
    fits: Callable[[Architecture], str | None] = lambda architecture: None  # noqa: ARG005
    directions: tuple[str, ...] = ("maximize",)


class Sampler(Protocol):
    reason: str
    """Why the last answer was None."""

    def ask(self) -> Architecture | None:
        """One that was neither proposed nor told of before; None where there is none left, see `reason`."""
        ...

    def tell(self, architecture: Architecture, values: Sequence[float] | None) -> None:
        """Its objectives, None where it failed; also of those that others proposed."""
        ...


class Brain(Protocol):
    """A strategy, which may repeat itself and propose what does not fit."""

    def propose(self) -> Architecture | None:
        """None where it is at its end."""
        ...

    def learn(self, architecture: Architecture, values: Sequence[float] | None) -> None:
        """What came of its newest proposal of that architecture, or of another's; None takes the proposal back."""
        ...


def make_sampler(name: str, space: SearchSpace, settings: Settings) -> Sampler:
    """The sampler of a name. Raises LookupError for an unknown one, ValueError for a space that it cannot walk."""
    if name not in SAMPLERS:
        raise LookupError(f"unknown sampler {name!r}: {hint(name, SAMPLERS)}")
    return SAMPLERS[name](space, settings)


class Sieve:
    """What may be proposed still: new, within the restriction, feasible for the images, and within the limits."""

    def __init__(self, space: SearchSpace, settings: Settings) -> None:
        self._space = space
        self._settings = settings
        self.seen: set[str] = set()
        self.refused: dict[str, str] = {}  # an example of a name for each reason

    def obstacle(self, architecture: Architecture) -> str | None:
        """Why it must not be proposed, whether new or not."""
        for key, allowed in self._settings.restrict.items():
            if architecture.choices.get(key) not in allowed:
                return f"{key} is {architecture.choices.get(key)}"
        obstacle = architecture.obstacle(self._settings.image_shape) or self._settings.fits(architecture)
        if obstacle is not None:
            self.refused.setdefault(architecture.name, obstacle)
        return obstacle

    def take(self, architecture: Architecture) -> bool:
        """Whether it may be proposed, which it may only once."""
        if architecture.name in self.seen or self.obstacle(architecture) is not None:
            return False
        self.seen.add(architecture.name)
        return True

    def why(self, looked_at: str) -> str:
        """That nothing is left."""
        text = f"{looked_at}: {len(self.seen):,} proposed or known"
        if self.refused:
            name, obstacle = next(iter(self.refused.items()))
            text += f", {len(self.refused):,} do not fit (as {name}: {obstacle})"
        return text


class Listed:
    """One after the other of an order that is known beforehand."""

    def __init__(self, sieve: Sieve, order: Iterator[Architecture], what: str) -> None:
        self._sieve = sieve
        self._order = order
        self._what = what
        self.reason = ""

    def ask(self) -> Architecture | None:
        for architecture in self._order:
            if self._sieve.take(architecture):
                return architecture
        self.reason = self._sieve.why(self._what)
        return None

    def tell(self, architecture: Architecture, values: Sequence[float] | None) -> None:  # noqa: ARG002
        self._sieve.seen.add(architecture.name)


class Chance:
    """Independent random decisions; when they bring nothing new, what is left of a space that can be enumerated."""

    def __init__(self, space: SearchSpace, settings: Settings, sieve: Sieve) -> None:
        self._space = space
        self._sieve = sieve
        self._generator = torch.Generator().manual_seed(settings.seed)
        self._decisions = RandomDecisions(self._generator)
        self._restrict = settings.restrict
        self._rest: Listed | None = None
        self.reason = ""

    def ask(self) -> Architecture | None:
        if self._rest is None:
            small = self._space.size is not None and self._space.size <= DRAWS
            for _ in range(TRIES if small else DRAWS):
                architecture = self._space.suggest(Restricted(self._decisions, self._restrict))
                if self._sieve.take(architecture):
                    return architecture
            self._rest = self._left_over()
        left = self._rest.ask()
        self.reason = self._rest.reason
        return left

    def tell(self, architecture: Architecture, values: Sequence[float] | None) -> None:  # noqa: ARG002
        self._sieve.seen.add(architecture.name)

    def _left_over(self) -> Listed:
        try:
            everything = self._space.architectures()
        except ValueError:
            return Listed(self._sieve, iter(()), f"{DRAWS:,} random draws of {self._space.name} brought nothing new")
        order = torch.randperm(len(everything), generator=self._generator).tolist()
        return Listed(self._sieve, (everything[row] for row in order), _all_of(self._space, everything))


class Adaptive:
    """A brain that learns from the scores.

    A proposal that is known is answered from what is known, one that does not fit with the worst values so far, and
    the brain is asked again; after `tries` of them chance proposes one. So it ends only where nothing new is found.
    """

    def __init__(self, brain: Brain, sieve: Sieve, chance: Chance, directions: Sequence[str], tries: int) -> None:
        self._tries = tries
        self._brain = brain
        self._sieve = sieve
        self._chance = chance
        self._signs = [1.0 if direction == "maximize" else -1.0 for direction in directions]
        self._known: dict[str, tuple[float, ...] | None] = {}
        self.reason = ""

    def ask(self) -> Architecture | None:
        for _ in range(self._tries):
            proposed = self._brain.propose()
            if proposed is None:
                break
            if self._sieve.take(proposed):
                return proposed
            waiting = proposed.name in self._sieve.seen and proposed.name not in self._known
            self._brain.learn(proposed, None if waiting else self._known.get(proposed.name) or self._worst())
        by_chance = self._chance.ask()
        self.reason = self._chance.reason
        return by_chance

    def tell(self, architecture: Architecture, values: Sequence[float] | None) -> None:
        if values is not None and len(values) != len(self._signs):
            raise ValueError(f"{architecture.name} has {len(values)} objectives, the sampler {len(self._signs)}")
        if architecture.name in self._known and self._known[architecture.name] == (values and tuple(values)):
            return
        self._sieve.seen.add(architecture.name)
        self._known[architecture.name] = None if values is None else tuple(values)
        self._brain.learn(architecture, self._known[architecture.name] or self._worst())

    def _worst(self) -> tuple[float, ...] | None:
        known = [values for values in self._known.values() if values is not None]
        if not known:
            return None
        return tuple(sign * min(sign * values[place] for values in known) for place, sign in enumerate(self._signs))


class OptunaBrain:
    """An Optuna sampler on a study of its own in memory; the stored study is not its concern."""

    def __init__(
        self, space: SearchSpace, settings: Settings, sampler: Callable[[int], optuna.samplers.BaseSampler]
    ) -> None:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        directions = [optuna.study.StudyDirection[direction.upper()] for direction in settings.directions]
        with _quiet():
            self._study = optuna.create_study(sampler=sampler(settings.seed), directions=directions)
        self._space = space
        self._restrict = settings.restrict
        self._pending: dict[str, list[optuna.Trial]] = {}

    def propose(self) -> Architecture:
        with _quiet():
            trial = self._study.ask()
            architecture = self._space.suggest(Restricted(trial, self._restrict))
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
                    params, distributions = decided(self._suggest, architecture.choices)
                except ValueError:
                    return  # outside of the restriction: not a place to learn about
                self._study.add_trial(
                    optuna.trial.create_trial(params=params, distributions=distributions, values=list(values))
                )

    def _suggest(self, decisions: Decisions) -> Architecture:
        return self._space.suggest(Restricted(decisions, self._restrict))


class Restricted:
    """Decisions of which only the allowed choices are offered."""

    def __init__(self, inner: Decisions, restrict: Mapping[str, Any]) -> None:
        self._inner = inner
        self._restrict = restrict

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        return self._inner.suggest_categorical(name, self._allowed(name, choices))

    def suggest_int(self, name: str, low: int, high: int, *, step: int = 1, log: bool = False) -> int:
        if name in self._restrict:
            return int(self._inner.suggest_categorical(name, self._allowed(name, range(low, high + 1, step))))
        return self._inner.suggest_int(name, low, high, step=step, log=log)

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False
    ) -> float:
        if name in self._restrict:
            between = [value for value in self._restrict[name] if low <= float(value) <= high]
            return float(self._inner.suggest_categorical(name, self._some(name, sorted(between))))
        return self._inner.suggest_float(name, low, high, step=step, log=log)

    def _allowed(self, name: str, choices: Sequence[Any]) -> Sequence[Any]:
        if name not in self._restrict:
            return choices
        return self._some(name, [choice for choice in choices if choice in self._restrict[name]])

    def _some(self, name: str, left: Sequence[Choice]) -> Sequence[Choice]:
        if not left:
            raise ValueError(f"{name} has none of the choices {', '.join(map(str, self._restrict[name]))}")
        return left


def _exhaustive(space: SearchSpace, settings: Settings) -> Sampler:
    everything = space.architectures()
    return Listed(Sieve(space, settings), iter(everything), _all_of(space, everything))


def _stratified(space: SearchSpace, settings: Settings) -> Sampler:
    def order() -> Iterator[Architecture]:
        given, wanted = 0, STARTED_WITH
        while True:
            sample = stratified_sample(
                space,
                wanted,
                settings.image_shape,
                settings.seed,
                settings.restrict,
                settings.num_classes,
                lambda architecture: sieve.obstacle(architecture) is None,
            )
            yield from sample[given:]
            if len(sample) < wanted:
                return
            given, wanted = wanted, 2 * wanted

    sieve = Sieve(space, settings)
    return Listed(sieve, order(), f"the stratified order of {space.name} is at its end")


def _random(space: SearchSpace, settings: Settings) -> Sampler:
    return Chance(space, settings, Sieve(space, settings))


def _adaptive(space: SearchSpace, settings: Settings, brain: Brain, tries: int = TRIES) -> Sampler:
    sieve = Sieve(space, settings)
    return Adaptive(brain, sieve, Chance(space, settings, sieve), settings.directions, tries)


def _tpe(space: SearchSpace, settings: Settings) -> Sampler:
    from optuna.samplers import TPESampler

    return _adaptive(space, settings, OptunaBrain(space, settings, lambda seed: TPESampler(seed=seed)))


def _nsga2(space: SearchSpace, settings: Settings) -> Sampler:
    from optuna.samplers import NSGAIISampler

    return _adaptive(space, settings, OptunaBrain(space, settings, lambda seed: NSGAIISampler(seed=seed)))


def _gp(space: SearchSpace, settings: Settings) -> Sampler:
    from optuna.samplers import GPSampler

    return _adaptive(space, settings, OptunaBrain(space, settings, lambda seed: GPSampler(seed=seed)), GP_TRIES)


def _nni(name: str) -> Callable[[SearchSpace, Settings], Sampler]:
    def make(space: SearchSpace, settings: Settings) -> Sampler:
        from ftdnas.ranking.nni_brain import NNIBrain

        if len(settings.directions) != 1:
            raise ValueError(f"{name} weighs one objective, not {len(settings.directions)}: take nsga2, tpe or gp")
        brain = NNIBrain(
            lambda decisions: space.suggest(Restricted(decisions, settings.restrict)),
            name,
            settings.seed,
            settings.directions[0],
        )
        return _adaptive(space, settings, brain)

    return make


SAMPLERS: dict[str, Callable[[SearchSpace, Settings], Sampler]] = {
    "exhaustive": _exhaustive,
    "stratified": _stratified,
    "random": _random,
    "tpe": _tpe,
    "nsga2": _nsga2,
    "gp": _gp,
    "nni-tpe": _nni("nni-tpe"),
    "nni-evolution": _nni("nni-evolution"),
}


def _all_of(space: SearchSpace, everything: Sequence[Architecture]) -> str:
    return f"all {len(everything):,} architectures of {space.name} were looked at"


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without Optuna's notes on what it calls experimental."""
    import optuna

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        yield
