"""How candidates are screened: what METHOD 5 leaves open as explicit choices, with a default for every space."""

from __future__ import annotations

import functools
import math
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

import torch
from torch import nn

from distill.images.augment import parse_augment
from distill.recipe import BATCH_NORM, PRECISIONS, SCHEDULES, TrainingRecipe
from distill.synthetic import SyntheticSet
from search_spaces.base import ImageShape, parse_architecture
from search_spaces.messages import FOREIGN

SET = "set"  # the learning rate or the augmentation that the synthetic set brings
OTHER = "other"
LABELS = (SET, "teachers")
Rates = float | str | Mapping[str, float | str]
_BY_NORM: Rates = {"batch": 0.1, OTHER: SET}
NORM_FAMILIES: dict[str, tuple[type[nn.Module], ...]] = {
    # A network is of the first family that it has a layer of, else of "none".
    "batch": (nn.modules.batchnorm._BatchNorm,),
    "group": (nn.GroupNorm, nn.modules.instancenorm._InstanceNorm),
    "layer": (nn.LayerNorm,),
    "none": (),
}
SCORES: dict[str, str] = {
    # Read from the row of any training; larger is better.
    "accuracy": "held-out accuracy",
    "loss": "held-out loss",
    "auc": "area under the training-loss curve",
    "late_loss": "late training loss",
}


@dataclass(frozen=True)
class Screening:
    """The training of every candidate on few images, and what is read from it.

    `steps`: of SGD, rounded up to whole epochs; `epochs` instead of them where given. `lr`: a number, "set" (the step
    size learned with the set), or one of these for each norm family of `NORM_FAMILIES`, "other" for those not named.
    `augment`: DSA operations, or "set". `labels`: the set's own, or those of its "teachers", where it has any.
    `batch_norm`: see `TrainingRecipe`. `shrink`: the smaller network of the same kind is trained, where the space has
    one. `pixels`: the side to which images are averaged down, None leaves them. `seeds`: trainings of each candidate.
    `shared`: all candidates see the same batches. `score`: of `SCORES`, what ranks unless a proxy says otherwise;
    `window`: the last part of training whose mean loss is the late loss. `reads`: of the held-out images, at equal
    distances. `precision`: of the training, see `PRECISIONS`. Raises ValueError for what is out of range.
    """

    steps: int = 300
    epochs: int | None = None
    lr: Rates = field(default_factory=lambda: _BY_NORM)
    batch_size: int = 100
    momentum: float = 0.9
    weight_decay: float = 5e-4
    schedule: str = "cosine"
    augment: str = SET
    labels: str = SET
    batch_norm: str = "batch"
    shrink: bool = False
    pixels: int | None = None
    seeds: int = 1
    shared: bool = True
    score: str = "late_loss"
    window: float = 0.1
    reads: int = 1
    precision: str = "float32"

    def __post_init__(self) -> None:
        for name in ("steps", "epochs", "batch_size", "pixels", "seeds", "reads"):
            number = getattr(self, name)
            if number is not None and (type(number) is not int or number < 1):
                raise ValueError(f"screening: {name} {number!r} is not a whole number of at least 1")
        names: dict[str, Collection[str]] = {
            "schedule": SCHEDULES,
            "batch_norm": BATCH_NORM,
            "score": SCORES,
            "precision": PRECISIONS,
            "labels": LABELS,
        }
        for name, choices in names.items():
            if getattr(self, name) not in choices:
                raise ValueError(f"screening: {name} {getattr(self, name)!r}: choose from {', '.join(choices)}")
        if not 0 < self.window <= 1:
            raise ValueError(f"screening: window {self.window!r} is not a part of the training, in (0, 1]")
        if not (0 <= self.momentum < 1 and 0 <= self.weight_decay < math.inf):
            raise ValueError(f"screening: momentum {self.momentum} or weight decay {self.weight_decay} out of range")
        if self.augment != SET:
            parse_augment(self.augment)
        _check_rates(self.lr)

    def recipe(self, images: int, synthetic: SyntheticSet | None, family: str) -> TrainingRecipe:
        """How a network of that norm family trains on so many images; the set gives what is left to it.

        Raises ValueError where they are left to a set and there is none.
        """
        epochs = self.epochs or math.ceil(self.steps / math.ceil(images / self.batch_size))
        lr = self.lr if not isinstance(self.lr, Mapping) else self.lr.get(family, self.lr.get(OTHER))
        augment = self.augment
        if synthetic is not None:
            lr = synthetic.step_size if lr == SET else lr
            augment = synthetic.augment if augment == SET else augment
        if lr == SET or augment == SET:
            what = "learning rate" if lr == SET else "augmentation"
            raise ValueError(f"the screening takes its {what} from a synthetic set, and there is none: say which")
        assert lr is not None
        known = {field.name for field in fields(self)}  # what only real trainings take stays as it is by default
        own = {field.name: getattr(self, field.name) for field in fields(TrainingRecipe) if field.name in known}
        return TrainingRecipe(**{**own, "epochs": epochs, "lr": float(lr), "augment": augment})

    def describe(self) -> str:
        """One line that leaves no choice out."""
        length = f"{self.epochs} epochs" if self.epochs else f"{self.steps} steps"
        augment = "as the set's" if self.augment == SET else self.augment
        smaller = ["networks shrunk"] * self.shrink + [f"images at {self.pixels} pixels"] * bool(self.pixels)
        return ", ".join(
            [
                f"{length} of SGD in batches of {self.batch_size} at {_describe_rates(self.lr)} ({self.schedule})",
                f"momentum {self.momentum:g}",
                f"weight decay {self.weight_decay:g}",
                f"augmentation {augment}",
                *(["labelled by the set's teachers, if it has any"] if self.labels == "teachers" else []),
                f"batch norm read with {BATCH_NORM[self.batch_norm]}",
                *smaller,
                *([] if self.precision == "float32" else [f"computed in {self.precision}"]),
                "the same batches for every candidate" if self.shared else "batches of its own for every candidate",
                f"{self.seeds} seed{'s' * (self.seeds > 1)} each",
                f"scored by {describe_score(self.score, self.window)}",
            ]
        )

    def to_json(self) -> dict[str, Any]:
        """A JSON object; the precision is left out where it is the usual one, as before there was a choice."""
        return {name: value for name, value in asdict(self).items() if (name, value) != ("precision", "float32")}

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> Screening:
        """The inverse of `to_json`. Raises ValueError for unknown members and what `Screening` refuses."""
        known = {one.name for one in fields(cls)}
        if unknown := sorted(set(stored) - known):
            raise ValueError(f"screening: unknown {', '.join(unknown)}: it has {', '.join(sorted(known))}")
        return cls(**{"shared": False, **stored})  # as it was before there was a choice


@dataclass(frozen=True)
class Default:
    """A space's screening and, in a sentence, why."""

    screening: Screening
    why: str


def default_screening(space: str) -> Default:
    """Of a space by its name; of any other space one that goes by the norms that a network has."""
    return DEFAULTS.get(space, _OTHERWISE)


def describe_score(score: str, window: float) -> str:
    """In words, with the window of the late loss."""
    return f"{SCORES[score]} (the last {window:.0%})" if score == "late_loss" else SCORES[score]


def norm_family(network: nn.Module) -> str:
    """The first of `NORM_FAMILIES` that the network has a layer of, else "none"."""
    kinds = {type(module) for module in network.modules()}
    return next(
        (family for family, types in NORM_FAMILIES.items() if types and any(issubclass(kind, types) for kind in kinds)),
        "none",
    )


@functools.lru_cache(maxsize=100_000)
def family_of(architecture: str, image_shape: ImageShape, num_classes: int, code: str = "") -> str:  # noqa: ARG001
    """Of an architecture by its name; "none" where it cannot be built, which its training will say.

    `code`: of a space from outside, whose names may come to mean other networks.
    """
    try:
        with torch.device("meta"):
            return norm_family(parse_architecture(architecture).build(image_shape, num_classes))
    except FOREIGN:  # a network of the user's own may raise anything
        return "none"


def _check_rates(lr: object) -> None:
    if isinstance(lr, Mapping):
        known = {*NORM_FAMILIES, OTHER}
        if unknown := sorted(map(str, set(lr) - known)):
            raise ValueError(f"screening: unknown norm family {', '.join(unknown)}: choose from {', '.join(known)}")
        if OTHER not in lr and set(lr) != set(NORM_FAMILIES):
            missing = ", ".join(sorted(set(NORM_FAMILIES) - set(lr)))
            raise ValueError(f"screening: no learning rate for the norm families {missing}: name them, or {OTHER}")
    for rate in lr.values() if isinstance(lr, Mapping) else (lr,):
        if rate != SET and not (isinstance(rate, int | float) and not isinstance(rate, bool) and 0 < rate < math.inf):
            raise ValueError(f"screening: learning rate {rate!r} is neither a positive number nor {SET!r}")


def _describe_rates(lr: Rates) -> str:
    if isinstance(lr, Mapping):
        return " and ".join(f"{_describe_rates(rate)} ({family} norm)" for family, rate in lr.items())
    return "the set's step size" if isinstance(lr, str) else f"{lr:.4g}"


_PROBED = "300 steps at 0.1 with batch statistics, as in the probes of METHOD 6 that ranked cells with batch norm"
_OTHERWISE = Default(
    Screening(), f"networks with batch norm: {_PROBED}; others at the step size that was learned with the set"
)
DEFAULTS: dict[str, Default] = {
    "convnet": Default(
        Screening(epochs=200, lr=SET, batch_size=256, schedule="step", batch_norm="running"),
        "200 epochs, the paper's, as sets are judged (METHOD 4), at the step size that was learned with the set",
    ),
    "nasbench201": Default(
        Screening(lr=0.1, shrink=True, labels="teachers"),
        "300 steps at 0.1 with batch statistics on networks of one cell a stage: results/2026-11-25_ranking_study",
    ),
    "macro": Default(Screening(lr=0.1), f"{_PROBED}: it has batch norm everywhere too"),
    "residual": Default(Screening(lr=0.1), f"{_PROBED}: it has batch norm everywhere too"),
    "mobilenet": Default(Screening(lr=0.1), f"{_PROBED}: it has batch norm everywhere too"),
}
