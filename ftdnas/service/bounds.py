"""What this server allows and can see, and whether a request keeps to it."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import astuple, dataclass, field
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ftdnas.candidates.ids import resolved
from ftdnas.finishing.request import FinishRequest
from ftdnas.ranking.request import Screened
from ftdnas.runtime.home import home
from ftdnas.runtime.options import asked_of
from ftdnas.sets.library import Library
from ftdnas.sets.request import METHODS, DistilRequest, setting_texts

if TYPE_CHECKING:
    from distill.recipe import Recipe

LIMITS = {  # setting of a recipe -> the bound that it keeps to
    "ipc": "ipc",
    "data.image_size": "pixels",
    "experts.num_experts": "experts",
    "teachers": "experts",
    "matching.outer_steps": "outer_steps",
    **dict.fromkeys(("matching.syn_steps", "matching.max_start_epoch", "matching.expert_epochs"), "epochs"),
    **{f"evaluation.{training}.epochs": "epochs" for training in ("train", "validation", "full")},
}


@dataclass(frozen=True)
class Bounds:
    """`folders`: name -> folder or parquet file of the operator's own images; `root`: as FTDNAS_DATA.

    The numbers are the most that one job may ask for; `epochs` counts in every training of a recipe. `coming`: sets
    that jobs before this one are to make.
    """

    folders: Mapping[str, Path] = field(default_factory=dict)
    root: Path | None = None
    ipc: int = 100
    epochs: int = 5000
    experts: int = 200
    outer_steps: int = 20_000
    candidates: int = 20_000
    seeds: int = 20
    pixels: int = 256
    seed: int = 2**31 - 1
    calibrate: int = 1000
    top: int = 100
    coming: Collection[str] = ()
    executor: str = "local"
    ray_address: str | None = None

    @property
    def steps(self) -> int:
        """Of SGD, of one training."""
        return 100 * self.epochs

    def datasets(self) -> dict[str, str]:
        """Name -> spec of every data set that is here: nothing is downloaded for a client."""
        from distill.images.datasets import DATASETS

        specs = {"digits": "digits"}
        for name in DATASETS:
            places = [place / name for place in (self.root, home() / "data") if place is not None]
            if any(place.is_dir() for place in places):
                specs[name] = name
        for name, path in self.folders.items():
            specs[name] = f"{'folder' if path.is_dir() and any(path.glob('*/')) else 'parquet'}:{path}"
        return specs

    def sets(self) -> list[str]:
        """Those of the library, and those that are coming."""
        return [*Library().names(), *self.coming]

    def names(self) -> dict[str, tuple[str, Collection[str]]]:
        """Field of a request -> (what it names, the names that this server knows)."""
        from ftdnas.ranking.samplers import SAMPLERS
        from ftdnas.service.studies import truths
        from ftdnas.sets.recipes import recipe_names

        return {
            "dataset": ("data set", self.datasets()),
            "space": ("search space", known_spaces()),
            "set": ("synthetic set", self.sets()),
            "recipe": ("recipe", recipe_names()),
            "method": ("method", METHODS),
            "sampler": ("sampler", list(SAMPLERS)),
            "truth": ("truth", truths()),
        }


def check(request: Any, bounds: Bounds) -> None:
    """Raise ValueError or LookupError for what this server has not, or does not allow."""
    names = bounds.names()
    for asked in asked_of(type(request)):
        value = getattr(request, asked.name)
        if value in (None, "") or asked.option.local:
            continue
        if asked.name in names:
            _check_known(*names[asked.name], value)
        if asked.option.counts is not None:
            _check_within(asked.name, value, getattr(bounds, asked.option.counts))
    known: Mapping[str, str] = {}
    if isinstance(request, DistilRequest):
        _check_distillation(request, bounds)
    elif isinstance(request, Screened):
        if not request.whole:
            _check_screening(request, bounds)
    elif request.study is not None:
        from ftdnas.ranking.study import ranked_study

        named = getattr(request, "architectures", ())
        _, ranking = ranked_study(request.study, to_finish=isinstance(request, FinishRequest) and not named)
        known = ranking.ids
    if isinstance(request, FinishRequest):
        for text in request.architectures:
            check_architecture(resolved(text, known, request.study) if request.study else text)
    if getattr(request, "where", ()) and request.space:
        from ftdnas.ranking.plan import parse_restriction
        from search_spaces.base import find_space

        parse_restriction(find_space(request.space), request.where)


def known_spaces() -> list[str]:
    """The built-in search spaces and those of installed packages."""
    from search_spaces.base import SPACES
    from search_spaces.outside.load import installed_spaces

    return [*SPACES, *installed_spaces()]


def check_architecture(text: str) -> None:
    """Raise ValueError or LookupError for one that is not of a built-in or installed space: no file is ever read."""
    from search_spaces.base import NETWORKS, parse_architecture

    _check_known("network", [*NETWORKS, *known_spaces()], text.partition(":")[0])
    parse_architecture(text)


def _check_screening(request: Screened, bounds: Bounds) -> None:
    from ftdnas.proxies.names import DEFAULT, read_proxy

    request.screened()
    for text in (request.proxy or DEFAULT, *request.compared):
        for epochs in read_proxy(text).real_epochs:
            _check_within(f"the epochs of {text}", math.ceil(epochs), bounds.epochs)
    if request.set is None and read_proxy(request.proxy or DEFAULT).needs_set and not bounds.sets():
        raise ValueError("there is no synthetic set yet: distil one, or choose a proxy that needs none, such as race")


def _check_distillation(request: DistilRequest, bounds: Bounds) -> None:
    from ftdnas.sets.making import choose_recipe
    from ftdnas.sets.recipes import load_recipe, override

    for key, value in (request.settings or {}).items():
        if isinstance(value, str) and not value.isprintable():
            raise ValueError(f"settings: {key} is no printable text")
    if isinstance(request.recipe, str):
        recipes = [load_recipe(request.recipe)]
    else:  # whoever carries it out chooses, by whether there is a GPU
        recipes = [choose_recipe(bounds.datasets()[request.dataset], request.ipc, gpu)[0] for gpu in (False, True)]
    for recipe in recipes:
        _check_recipe(override(recipe, setting_texts(request.settings)), bounds)


def _check_recipe(recipe: Recipe, bounds: Bounds) -> None:
    for name, limit in LIMITS.items():
        _check_within(name, attrgetter(name)(recipe) or 0, getattr(bounds, limit))
    grid = len(recipe.matching.lr_images_grid) * recipe.matching.grid_steps
    _check_within("the steps of matching.lr_images_grid", grid, bounds.outer_steps)
    if len(str(astuple(recipe))) > 5000:
        raise ValueError("these settings are too long for a recipe")
    check_architecture(recipe.backbone)


def _check_known(what: str, known: Collection[str], name: str) -> None:
    from search_spaces.messages import hint

    if name not in known:
        raise LookupError(f"unknown {what} {name!r}: {hint(name, list(known)) if known else 'there is none yet'}")


def _check_within(what: str, value: int, most: int) -> None:
    if value > most:
        raise ValueError(f"{what} {value:,} is more than this server allows ({most:,})")
