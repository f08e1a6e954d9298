"""Which candidates of a study are finalists, and which of the trained ones is delivered: real accuracies decide."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from distill.recipe import TrainingRecipe
from ftdnas.agreement.winner import Readings, difference, smallest_not_worse
from ftdnas.candidates.truth import RealTrainings, Truth, known_truth, named_trainings
from ftdnas.finishing.card import Finalist
from ftdnas.ranking.table import Ranking

BEST, SMALLEST = "the best in validation", "the smallest not shown worse in validation than the best"


@dataclass(frozen=True, eq=False)
class Known:
    """What real trainings said of a study's candidates; `sizes`: their weights."""

    trainings: RealTrainings
    truth: Truth
    candidates: tuple[str, ...]
    sizes: Mapping[str, int]

    @staticmethod
    def of(ranked: Ranking | None, data: str, metric: str) -> Known | None:
        """Of a truth on these images, else on those that the study was made with; None where none is known."""
        if ranked is None:
            return None
        names = tuple(one.architecture for one in ranked.candidates)
        found = known_truth(data, names, metric) or known_truth(str(ranked.settings.get("data")), names, metric)
        if found is None:
            return None
        sizes = {one.architecture: one.parameters for one in ranked.candidates}
        return Known(named_trainings(found[0]), found[1], names, sizes)

    def readings(self, data: str, recipe: TrainingRecipe) -> Mapping[str, Readings]:
        """Of all candidates that were trained so on these images, whoever did it."""
        return replace(self.trainings, data=data, recipe=recipe).truth(self.candidates).readings

    def better(self, data: str, name: str, delivered: Readings) -> str | None:
        """What an earlier training reached that the one delivered is shown to be worse than, in words."""
        take = self.truth.take(self.sizes)
        if take is None or data != self.trainings.data or not take.images:
            return None
        best = self.truth.readings[take.best]
        if difference(best, delivered, take.images, take.deviation or 0.0)[0] <= 0:
            return None
        reached = f"{100 * best.accuracy:.1f} % against {100 * delivered.accuracy:.1f} %"
        return f"{name} is shown worse than {take.best} was after {self.trainings.recipe.epochs} epochs ({reached})"


def finalists(ranked: Ranking, known: Known | None, top: int) -> tuple[str, ...]:
    """The network to take by real accuracy and the best by it; those without one after them, as they were ranked."""
    scored = ranked.best(len(ranked.candidates))
    if known is None:
        return tuple(scored[:top])
    take = known.truth.take(known.sizes)
    able = {*scored, *known.truth.readings}
    best = known.truth.first([name for name in known.candidates if name in able])
    return tuple(dict.fromkeys([*([take.name] if take else []), *best]))[:top]


def chosen(trained: Sequence[Finalist], readings: Mapping[str, Readings], images: int) -> tuple[Finalist, str]:
    """(the finalist that is delivered, by which rule). `readings`: real accuracies by the same training, {} for none.

    Raises ValueError where no finalist could be trained.
    """
    able = {one.architecture: one for one in trained if one.validation_accuracy is not None}
    if not able:
        reasons = "; ".join(f"{finalist.architecture}: {finalist.error}" for finalist in trained)
        raise ValueError(f"no finalist could be trained: {reasons}")
    sizes = {name: able[name].parameters if name in able else 0 for name in readings}
    take = smallest_not_worse(readings, sizes, images)
    equal = [able[name] for name in (take.equal if take else ()) if name in able]
    if equal:
        return equal[0], SMALLEST
    return max(able.values(), key=lambda one: (one.validation_accuracy or 0.0, -one.parameters)), BEST
