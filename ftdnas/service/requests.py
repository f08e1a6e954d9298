"""What may be asked of a server: each kind of job is a model, checked before it is queued, and becomes one command.

Nothing that comes from the network names a file or brings code: data sets, sets, studies, spaces, recipes go by name.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from ftdnas.runtime.home import home
from ftdnas.sets.library import Library, check_name

if TYPE_CHECKING:
    from distill.recipe import Recipe
    from ftdnas.service.queue import Job

NAME = r"^[A-Za-z0-9][A-Za-z0-9._+\-]{0,99}$"
NAME_SAID = "a name has letters, digits, . _ + - and at most 100 of them, the first a letter or digit"
WORD = r"^[A-Za-z0-9_.,:=()+-]{1,200}$"  # a proxy, a choice of a space, an operation of augmentation


@dataclass(frozen=True)
class Bounds:
    """What this server allows and can see.

    `folders`: name -> folder or parquet file of the operator's own images; `root`: as FTDNAS_DATA. The rest are the
    most that one job may ask for; `epochs` counts in every training of a recipe. `coming`: sets that jobs before this
    one are to make.
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
    coming: Collection[str] = ()
    executor: str = "local"
    ray_address: str | None = None

    def datasets(self) -> dict[str, str]:
        """Name -> spec of every data set that is here: nothing is downloaded for a client."""
        from distill.images.datasets import DATASETS

        found = {"digits": "digits"}
        for name in DATASETS:
            places = [place / name for place in (self.root, home() / "data") if place is not None]
            if any(place.is_dir() for place in places):
                found[name] = name
        for name, path in self.folders.items():
            found[name] = f"{'folder' if path.is_dir() and any(path.glob('*/')) else 'parquet'}:{path}"
        return found


def _listed(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


Name = Annotated[str, Field(pattern=NAME)]
Word = Annotated[str, Field(pattern=WORD)]
Words = Annotated[list[Word], BeforeValidator(_listed), Field(max_length=40)]
Positive = Annotated[int, Field(ge=1, le=10**15)]


class JobRequest(BaseModel):
    """Fields are the options of the command, by the same names; what is left out takes the command's default."""

    model_config = ConfigDict(extra="forbid", strict=False, allow_inf_nan=False)
    kind: ClassVar[str]
    runs_trainings: ClassVar[bool] = True

    json_output: bool = Field(False, description="The job's output is one JSON object instead of text.")

    def check(self, bounds: Bounds) -> None:
        """Raise ValueError or LookupError for what this server has not, or does not allow."""

    def options(self, bounds: Bounds) -> dict[str, Any]:  # noqa: ARG002
        """Option -> value of the command; None, False and () are left out."""
        return {}

    def positional(self) -> list[str]:
        return []

    def named(self) -> JobRequest:
        """With a name for what it makes, where it needs one and none was given."""
        return self

    def argv(self, bounds: Bounds, threads: int) -> list[str]:
        given = self.options(bounds)
        if self.runs_trainings:
            given["threads"] = threads
        if self.json_output:
            given["json"] = True
        found = [self.kind, *self.positional()]
        for option, value in given.items():
            name = f"--{option.replace('_', '-')}"
            values = value if isinstance(value, list | tuple) else [value]
            for one in values:
                if one is True:
                    found.append(name)
                elif one is not None and one is not False:
                    found.append(f"{name}={one}")
        return found


class OnData(JobRequest):
    """A job on real images."""

    dataset: Name | None = Field(None, description="One of this server's data sets.")
    seed: int = Field(0, ge=0, le=2**31 - 1)

    def _data(self, bounds: Bounds) -> dict[str, Any]:
        spec = None
        if self.dataset is not None:
            datasets = bounds.datasets()
            _known("data set", self.dataset, datasets)
            spec = datasets[self.dataset]
        return {"dataset": spec, "offline": True, "data_root": bounds.root, "seed": self.seed}


class Distil(OnData):
    """Make a synthetic set."""

    kind = "distill"
    dataset: Name = Field("digits", description="One of this server's data sets.")
    ipc: int | None = Field(None, ge=1, description="Images per class.")
    method: Literal["ftd", "mtt", "random", "herding", "kmeans"] = "ftd"
    recipe: Name | None = Field(None, description="A shipped recipe; left out, a fitting one is chosen.")
    settings: dict[Annotated[str, Field(pattern=r"^[a-z_.]{1,60}$")], str | float | int | bool | list[float]] = Field(
        default_factory=dict,
        max_length=60,
        description="Settings of the recipe to change, such as experts.num_experts.",
    )
    image_size: int | None = Field(None, ge=1, description="Bring the images to this side, in pixels.")
    name: Name | None = Field(None, description="Of the set in the library.")

    def check(self, bounds: Bounds) -> None:
        from ftdnas.sets.making import choose_recipe
        from ftdnas.sets.recipes import load_recipe, override, recipe_names

        self._data(bounds)
        if self.recipe is not None:
            _known("recipe", self.recipe, recipe_names())
            recipes = [load_recipe(self.recipe)]
        else:  # whoever carries it out chooses, by whether there is a GPU
            recipes = [choose_recipe(bounds.datasets()[self.dataset], self.ipc, gpu)[0] for gpu in (False, True)]
        for recipe in recipes:
            self._check_recipe(override(recipe, self._changed()), bounds)
        if self.name is not None:
            check_name(self.name)

    def _check_recipe(self, recipe: Recipe, bounds: Bounds) -> None:
        from dataclasses import astuple

        _within("ipc", self.ipc or recipe.ipc, bounds.ipc)
        _within("image_size", self.image_size or 1, bounds.pixels)
        _within("data.image_size", recipe.data.image_size or 1, bounds.pixels)
        _within("experts.num_experts", recipe.experts.num_experts, bounds.experts)
        _within("teachers", recipe.teachers or 0, bounds.experts)
        _within("matching.outer_steps", recipe.matching.outer_steps, bounds.outer_steps)
        _within("matching.syn_steps", recipe.matching.syn_steps, bounds.epochs)
        grid = len(recipe.matching.lr_images_grid) * recipe.matching.grid_steps
        _within("the steps of matching.lr_images_grid", grid, bounds.outer_steps)
        _within("matching.max_start_epoch", recipe.matching.max_start_epoch, bounds.epochs)
        _within("matching.expert_epochs", recipe.matching.expert_epochs, bounds.epochs)
        for part in (recipe.evaluation.train, recipe.evaluation.validation, recipe.evaluation.full):
            _within("the epochs of an evaluation", part.epochs, bounds.epochs)
        if len(str(astuple(recipe))) > 5000:
            raise ValueError("these settings are too long for a recipe")
        check_architecture(recipe.backbone)

    def _changed(self) -> list[str]:
        for key, value in self.settings.items():
            if isinstance(value, str) and not value.isprintable():
                raise ValueError(f"settings: {key} is no printable text")
        return [
            f"{key}={value if isinstance(value, str) else json.dumps(value)}" for key, value in self.settings.items()
        ]

    def options(self, bounds: Bounds) -> dict[str, Any]:
        chosen = {"ipc": self.ipc, "method": self.method, "recipe": self.recipe, "set": self._changed()}
        return {**self._data(bounds), **chosen, "image_size": self.image_size, "name": self.name}


class Screened(OnData):
    """A job that scores candidates of a space by a proxy."""

    space: Name = Field("convnet", description="A built-in search space, or one that the operator installed.")
    set: Name | None = Field(None, description="A synthetic set of the library (default: the newest).")
    proxy: Word | None = Field(None, description="How candidates are scored (default: set.late_loss+params).")
    compare: Words = Field(default_factory=list, description="Proxies scored beside it; all: the usual baselines.")
    candidates: int | None = Field(None, ge=2, description="How many (default: all of the space, or what fits budget).")
    where: Words = Field(default_factory=list, description="Only these choices of the space, such as width=32,64.")
    epochs: int | None = Field(None, ge=1, description="On the set.")
    steps: int | None = Field(None, ge=1, description="Of SGD on the set, instead of epochs.")
    lr: float | Literal["set"] | None = Field(None, description="Learning rate on the set.")
    seeds: int | None = Field(None, ge=1, description="Trainings of each candidate.")
    labels: Literal["set", "teachers"] | None = Field(None, description="The set's own, or those of its teachers.")
    pixels: int | None = Field(None, ge=1, description="Average the images down to this side for screening.")
    precision: Literal["float32", "ieee", "bfloat16"] | None = Field(None, description="Of screening trainings.")
    study: Name | None = Field(None, description="Name of the study.")

    def check(self, bounds: Bounds) -> None:
        from ftdnas.proxies.names import DEFAULT, read_proxy
        from ftdnas.ranking.plan import parse_restriction
        from search_spaces.base import find_space

        if self.epochs is not None and self.steps is not None:
            raise ValueError("epochs and steps both say how long a candidate trains: give one of them")
        self._data(bounds)
        _known("search space", self.space, known_spaces())
        parse_restriction(find_space(self.space), self.where)
        for text in (self.proxy, *self.compare):
            if text is not None and text != "all":
                for epochs in read_proxy(text).real_epochs:
                    _within(f"the epochs of {text}", math.ceil(epochs), bounds.epochs)
        sets = [*Library().names(), *bounds.coming]
        if self.set is not None:
            _known("synthetic set", self.set, sets)
        elif not sets and read_proxy(self.proxy or DEFAULT).needs_set:
            raise ValueError(
                "there is no synthetic set yet: distil one, or choose a proxy that needs none, such as race"
            )
        _within("candidates", self.candidates or 1, bounds.candidates)
        _within("epochs", self.epochs or 1, bounds.epochs)
        _within("steps", self.steps or 1, 100 * bounds.epochs)
        _within("seeds", self.seeds or 1, bounds.seeds)
        _within("pixels", self.pixels or 1, bounds.pixels)
        if isinstance(self.lr, float | int) and not 0 < self.lr < 1000:
            raise ValueError(f"lr {self.lr:g}: a learning rate is above 0")

    def options(self, bounds: Bounds) -> dict[str, Any]:
        names = ["space", "set", "proxy", "compare", "candidates", "where"]
        names += ["epochs", "steps", "lr", "labels", "seeds", "pixels", "precision"]
        return {**self._data(bounds), **{name: getattr(self, name) for name in names}, "study": self.study}

    def named(self) -> JobRequest:
        """The same request is the same study."""
        if self.study is not None:
            return self
        digest = hashlib.sha256(json.dumps(self.model_dump(), sort_keys=True).encode()).hexdigest()[:6]
        return self.model_copy(update={"study": f"{self.set or self.dataset or self.kind}-{self.space}-{digest}"[:100]})


class Search(Screened):
    """Rank architectures of a space."""

    kind = "search"
    sampler: Word | None = Field(None, description="stratified, exhaustive, random, tpe, nsga2, gp, nni-tpe, ...")
    budget: str | None = Field(None, pattern=r"^\d{1,6}(\.\d{1,3})?[smh]$", description="For screening, such as 30m.")
    objectives: list[Literal["params", "flops", "latency"]] = Field(default_factory=list, max_length=3)
    max_params: Positive | None = Field(None, description="Hard limit, before anything is trained.")
    max_flops: Positive | None = Field(None, description="The same, of one forward pass.")
    max_latency_ms: float | None = Field(None, gt=0, description="The same, measured on this server.")
    calibrate: int | None = Field(None, ge=4, le=1000, description="Real trainings of a hybrid.")

    def check(self, bounds: Bounds) -> None:
        from ftdnas.ranking.samplers import SAMPLERS

        super().check(bounds)
        if self.sampler is not None:
            _known("sampler", self.sampler, SAMPLERS)

    def options(self, bounds: Bounds) -> dict[str, Any]:
        names = ["sampler", "budget", "max_params", "max_flops", "max_latency_ms", "calibrate"]
        given = {name: getattr(self, name) for name in names} | {"objective": self.objectives}
        where = {"executor": bounds.executor, "ray_address": bounds.ray_address}
        return {**super().options(bounds), **given, **where}


class Check(Screened):
    """Before a search: is the proxy worth it here?"""

    kind = "check"
    candidates: int | None = Field(None, ge=24, le=40, description="24 to 40, stratified.")
    real_epochs: int = Field(5, ge=1, description="Of real training: shortened.")
    real_seeds: int = Field(1, ge=1)

    def check(self, bounds: Bounds) -> None:
        super().check(bounds)
        _within("real_epochs", self.real_epochs, bounds.epochs)
        _within("real_seeds", self.real_seeds, bounds.seeds)

    def options(self, bounds: Bounds) -> dict[str, Any]:
        real = {"real_epochs": self.real_epochs, "real_seeds": self.real_seeds}
        return {**super().options(bounds), **real}


class OfStudy(JobRequest):
    """A job on a study that was ranked."""

    study: Name

    def check(self, bounds: Bounds) -> None:  # noqa: ARG002
        from ftdnas.ranking.standing import standing

        standing(self.study, 1)


class Truth(OfStudy):
    """Train the candidates of a study on all real images."""

    kind = "truth"
    epochs: int | None = Field(None, ge=1)
    seeds: int = Field(1, ge=1)
    name: Name | None = Field(None, description="Of the truth.")

    def check(self, bounds: Bounds) -> None:
        super().check(bounds)
        _within("epochs", self.epochs or 1, bounds.epochs)
        _within("seeds", self.seeds, bounds.seeds)

    def options(self, bounds: Bounds) -> dict[str, Any]:
        told = {"study": self.study, "epochs": self.epochs, "seeds": self.seeds, "name": self.name}
        return {**told, "offline": True, "data_root": bounds.root}


class Report(OfStudy):
    """How far a study's ranking can be trusted."""

    kind = "report"
    runs_trainings = False
    truth: Name | None = Field(None, description="The name of a truth, from a truth job.")

    def positional(self) -> list[str]:
        return [self.study]

    def check(self, bounds: Bounds) -> None:
        from ftdnas.service.studies import truths

        super().check(bounds)
        if self.truth is not None:
            _known("truth", self.truth, truths())

    def options(self, bounds: Bounds) -> dict[str, Any]:
        return {"truth": self.truth, "data_root": bounds.root}


class Finish(OfStudy):
    """Train the best candidates of a study and write the best as files."""

    kind = "finish"
    top: int = Field(5, ge=1, le=100)
    epochs: int | None = Field(None, ge=1)
    image_size: int | None = Field(None, ge=1)
    seed: int = Field(0, ge=0, le=2**31 - 1)

    def positional(self) -> list[str]:
        return [self.study]

    def check(self, bounds: Bounds) -> None:
        super().check(bounds)
        _within("epochs", self.epochs or 1, bounds.epochs)
        _within("image_size", self.image_size or 1, bounds.pixels)

    def options(self, bounds: Bounds) -> dict[str, Any]:
        told = {"top": self.top, "epochs": self.epochs, "image_size": self.image_size, "seed": self.seed}
        return {**told, "offline": True, "data_root": bounds.root}


KINDS: dict[str, type[JobRequest]] = {one.kind: one for one in (Distil, Search, Truth, Check, Report, Finish)}


def command_of(kind: str, request: Mapping[str, Any], bounds: Bounds, threads: int) -> list[str]:
    """The command line of a job. Raises ValueError or LookupError, one line, where it cannot be done here."""
    try:
        asked = KINDS[kind].model_validate(request)
    except ValidationError as error:
        raise ValueError(f"this {kind} job cannot be read: {error.errors()[0]['msg']}") from None
    asked.check(bounds)
    return asked.argv(bounds, threads)


def known_spaces() -> list[str]:
    """The built-in search spaces and those of installed packages."""
    from search_spaces.base import SPACES
    from search_spaces.outside.load import installed_spaces

    return [*SPACES, *installed_spaces()]


def check_architecture(text: str) -> None:
    """Raise ValueError or LookupError for one that is not of a built-in or installed space: no file is ever read."""
    from search_spaces.base import NETWORKS, parse_architecture

    _known("network", text.partition(":")[0], [*NETWORKS, *known_spaces()])
    parse_architecture(text)


def can_begin(job: Job, open_jobs: Sequence[Job]) -> bool:
    """Whether the set that a job names is there, or nobody is going to make it."""
    wanted = job.request.get("set")
    return wanted is None or wanted not in coming(open_jobs) or wanted in Library().names()


def coming(open_jobs: Sequence[Job]) -> list[str]:
    """The names of the sets that open jobs are to make."""
    return [job.request["name"] for job in open_jobs if job.kind == "distill" and job.request.get("name")]


def _known(what: str, name: str, known: Collection[str]) -> None:
    from search_spaces.messages import hint

    if name not in known:
        raise LookupError(f"unknown {what} {name!r}: {hint(name, list(known)) if known else 'there is none yet'}")


def _within(what: str, value: int, most: int) -> None:
    if value > most:
        raise ValueError(f"{what} {value:,} is more than this server allows ({most:,})")
