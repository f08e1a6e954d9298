"""Which architectures a study looks at, and about how long that takes."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from distill.recipe import TrainingRecipe
from ftdnas.candidates import cost
from ftdnas.candidates.cost import CostModel
from ftdnas.candidates.materials import Material, Shelf
from ftdnas.runtime.processes import Executor
from search_spaces.base import Architecture, Choice, Restriction, SearchSpace, known_choices, stratified_sample

LOOKED_AT = 24  # of which a few are timed
FEWEST = 4  # candidates, where fewer fit the time: from less nothing is learned


@dataclass(frozen=True)
class Plan:
    """`candidates`: canonical names in the sampler's order; `size` counts the whole space, None where it has no end.

    `why` says in a clause why there are so many: because `wanted` were asked for, or fit the time `minutes`.
    """

    candidates: tuple[str, ...]
    size: int | None
    why: str
    wanted: int | None
    minutes: float | None

    def describe(self) -> str:
        """How many are looked at, and why."""
        of = f" of the space's {self.size:,}" if self.size is not None else ""
        return f"{len(self.candidates):,}{of} architectures: {self.why}"

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "candidates": list(self.candidates)}

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> Plan:
        return cls(**{**stored, "candidates": tuple(stored["candidates"])})


def make_plan(
    space: SearchSpace,
    order: Iterable[Architecture],
    seconds_of: Callable[[str], Sequence[float]],
    *,
    jobs: int,
    wanted: int | None,
    minutes: float | None,
) -> Plan:
    """As many candidates of `order` as asked for (`wanted`) or as fit `minutes`; all where neither is given.

    `seconds_of`: of each training that a candidate goes through, [] where nothing is trained; `jobs` trainings run at
    once.
    """
    names: list[str] = []
    total = largest = 0.0
    fits = ended = True
    budget_s = math.inf if minutes is None else 60 * minutes
    for architecture in order:
        if wanted is not None and len(names) == wanted:
            ended = False
            break
        parts = seconds_of(architecture.name)
        over = max(largest, *parts, (total + sum(parts)) / jobs) > budget_s if parts else False
        if over and wanted is None and len(names) >= FEWEST:
            ended = False
            break
        fits &= not over
        names.append(architecture.name)
        total, largest = total + sum(parts), max([largest, *parts])
    return Plan(
        candidates=tuple(names),
        size=space.size,
        why=_why(len(names), ended, wanted, minutes, fits),
        wanted=wanted,
        minutes=minutes,
    )


def _why(taken: int, ended: bool, wanted: int | None, minutes: float | None, fits: bool) -> str:
    if wanted is not None:
        return "as many as were asked for" if taken == wanted else f"all that are left; {wanted} were asked for"
    if ended or minutes is None:
        return "all that there are and that can carry the images"
    time = f"{minutes:g} minute{'' if minutes == 1 else 's'}"
    if not fits:
        return f"the fewest that say anything, though they do not fit {time}"
    return f"as many as fit {time}, by a few timed steps"


def measure_cost(
    space: SearchSpace,
    restrict: Restriction,
    material: Material,
    recipe: TrainingRecipe,
    seed: int,
    processes: Executor[Shelf],
) -> CostModel:
    """Time a few steps of a few architectures of different FLOPs. Raises ValueError where none could be timed."""
    shape, classes = material.image_shape, material.label.classes
    sample = stratified_sample(space, LOOKED_AT, shape, seed, restrict, classes)
    return cost.measure_cost([architecture.name for architecture in sample], material, recipe, processes)


def parse_restriction(space: SearchSpace, texts: Sequence[str]) -> Restriction:
    """What "width=32,64" and "norm=batch" say of a space's choices. Raises ValueError for what it does not have."""
    known = {key: {str(value): value for value in values} for key, values in known_choices(space).items()}
    restriction: dict[str, tuple[Choice, ...]] = {}
    for text in texts:
        key, equals, values = (part.strip() for part in text.partition("="))
        if equals and key not in known:
            raise ValueError(f"{space.name} has no {key!r}: its keys are {', '.join(known)}")
        if not equals:
            raise ValueError(f"{text!r} is not KEY=VALUE,VALUE with a key of {', '.join(known)}")
        for value in values.split(","):
            if value.strip() not in known[key]:
                raise ValueError(f"{space.name} has no {key} {value.strip()!r}: choose from {', '.join(known[key])}")
        restriction[key] = restriction.get(key, ()) + tuple(known[key][value.strip()] for value in values.split(","))
    return restriction
