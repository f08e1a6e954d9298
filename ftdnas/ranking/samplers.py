"""Which architecture to look at next: the samplers by their names."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from ftdnas.ranking.ask_tell import TRIES, Adaptive, Brain, Chance, Listed, Restricted, Sampler, Settings, Sieve, all_of
from search_spaces.base import Architecture, SearchSpace, stratified_sample
from search_spaces.messages import hint

GP_TRIES = 3  # proposals that are known or do not fit, where one takes a second
STARTED_WITH = 64  # of a stratified order; it is made twice as long when it ends


def make_sampler(name: str, space: SearchSpace, settings: Settings) -> Sampler:
    """The sampler of a name. Raises LookupError for an unknown one, ValueError for a space that it cannot walk."""
    if name not in SAMPLERS:
        raise LookupError(f"unknown sampler {name!r}: {hint(name, SAMPLERS)}")
    return SAMPLERS[name](space, settings)


def _exhaustive(space: SearchSpace, settings: Settings) -> Sampler:
    everything = space.architectures()
    return Listed(Sieve(space, settings), iter(everything), all_of(space, everything))


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
                sieve.obstacle,
            )
            yield from sample[given:]
            if len(sample) < wanted:
                return
            given, wanted = wanted, 2 * wanted

    sieve = Sieve(space, settings)
    return Listed(sieve, order(), f"the stratified order of {space.name} is at its end")


def _random(space: SearchSpace, settings: Settings) -> Sampler:
    return Chance(space, settings, Sieve(space, settings))


def _adaptive(space: SearchSpace, settings: Settings, brain: Brain, tries: int) -> Sampler:
    sieve = Sieve(space, settings)
    return Adaptive(brain, sieve, Chance(space, settings, sieve), settings.directions, tries)


def _optuna(name: str, tries: int = TRIES) -> Callable[[SearchSpace, Settings], Sampler]:
    def make(space: SearchSpace, settings: Settings) -> Sampler:
        from ftdnas.ranking.optuna_brain import OptunaBrain

        return _adaptive(space, settings, OptunaBrain(space, settings, name), tries)

    return make


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
        return _adaptive(space, settings, brain, TRIES)

    return make


SAMPLERS: dict[str, Callable[[SearchSpace, Settings], Sampler]] = {
    "exhaustive": _exhaustive,
    "stratified": _stratified,
    "random": _random,
    "tpe": _optuna("TPESampler"),
    "nsga2": _optuna("NSGAIISampler"),
    "gp": _optuna("GPSampler", GP_TRIES),
    "nni-tpe": _nni("nni-tpe"),
    "nni-evolution": _nni("nni-evolution"),
}
ADAPTIVE = ("tpe", "nsga2", "gp", "nni-tpe", "nni-evolution")  # samplers that learn from the scores
