"""What is asked of a distillation, and the options that every command on real images takes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from distill.recipe import Recipe, TrainingRecipe
from ftdnas.runtime.options import duration_text, option, seconds, size
from ftdnas.sets.library import check_name

if TYPE_CHECKING:
    from ftdnas.sets.images import Source

RECIPE_HELP = "A shipped recipe or a TOML file; see ftdnas recipes."
SETTINGS_HELP = "Change one setting of the recipe; may be repeated."
METHODS = ("ftd", "mtt", "random", "herding", "kmeans")


def pair(text: str) -> tuple[str, str]:
    """("section.key", "value"). Raises ValueError for a text that is none."""
    key, equals, value = (part.strip() for part in text.partition("="))
    if not equals or not key:
        raise ValueError(f"{text}: write section.key=value, for example matching.outer_steps=400")
    return key, value


def setting_texts(settings: Mapping[str, Any] | None) -> list[str]:
    """Settings as `ftdnas.sets.recipes.override` reads them."""
    settings = settings or {}
    return [f"{key}={value if isinstance(value, str) else json.dumps(value)}" for key, value in settings.items()]


def numbers(text: str) -> tuple[float, ...]:
    """Of "0.5,0.5,0.5". Raises ValueError for anything else."""
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise ValueError(f"{text!r} is not numbers with commas between them") from None


def words(text: str) -> tuple[str, ...]:
    """Of "a,b,c"."""
    return tuple(part.strip() for part in text.split(","))


@dataclass(frozen=True, kw_only=True)
class WithRoot:
    """Where known data sets are."""

    GROUP: ClassVar = "Data"
    data_root: Path | None = option(
        None,
        "Folder with NAME/train.parquet of known data sets; also FTDNAS_DATA.",
        environment="FTDNAS_DATA",
        folder=True,
        local=True,
    )


@dataclass(frozen=True, kw_only=True)
class OnImages(WithRoot):
    """Which real images: a data set and how it is brought in; None leaves the choice to the recipe."""

    GROUP: ClassVar = "Data"
    dataset: str | None = option(
        None, "A known data set, folder:PATH or parquet:PATH (default: the set's own).", metavar="NAME"
    )
    image_size: int | None = option(None, "Bring the images to this side.", least=1, metavar="PIXELS", counts="pixels")
    validation: float | None = option(
        None,
        "Training images held back for every choice; 0 is the papers' protocol.",
        least=0,
        most=1,
        metavar="FRACTION",
    )
    split: Path | None = option(None, "CSV of file,split: which photo is for train, validation, test.", local=True)
    split_seed: int = option(0, "Of the split, if drawn.", least=0, counts="seed")
    offline: bool = option(False, "Never download.", local=True)

    @property
    def source(self) -> Source:
        """The images, their spec "" where no data set is named."""
        from ftdnas.sets.images import Source

        spec = self.dataset or ""
        return Source(
            spec,
            self.data_root,
            self.image_size,
            self.validation,
            self.split,
            self.split_seed,
            self.offline,
            metric=getattr(self, "metric", None) or "accuracy",
        )


@dataclass(frozen=True, kw_only=True)
class Counted:
    """How accuracies are counted."""

    GROUP: ClassVar = "Data"
    metric: Literal["accuracy", "balanced"] | None = option(
        None, "balanced: every class counts the same (default: the study's, else accuracy)."
    )


@dataclass(frozen=True, kw_only=True)
class OnMachine:
    """What computes."""

    GROUP: ClassVar = "Machine"
    device: Literal["auto", "cpu", "cuda"] = option("auto", "What computes.", local=True)
    threads: int | None = option(None, "CPU threads (default: one per core).", least=1, local=True)


@dataclass(frozen=True, kw_only=True)
class InProcesses(OnMachine):
    """How many processes work side by side."""

    GROUP: ClassVar = "Machine"
    jobs: int | None = option(None, "Processes, of one thread each (default: --threads).", least=1, local=True)

    @property
    def processes(self) -> int | None:
        return self.jobs or self.threads


@dataclass(frozen=True, kw_only=True)
class Joined:
    """Work that several processes or machines share."""

    GROUP: ClassVar = "Machine"
    storage: str | None = option(
        None,
        "Of the study (default: SQLite in FTDNAS_HOME; postgresql://...).",
        metavar="URL",
        environment="FTDNAS_STORAGE",
        local=True,
    )
    join: bool = option(False, "Work on it beside other processes or machines.", local=True)
    time_limit_per_candidate: str | None = option(
        None, "For one evaluation.", metavar="TIME", parse=duration_text, group="Limits"
    )

    @property
    def limit_s(self) -> float | None:
        return None if self.time_limit_per_candidate is None else seconds(self.time_limit_per_candidate)


@dataclass(frozen=True, kw_only=True)
class Seeded:
    """Whose draws are repeatable."""

    seed: int = option(0, "Of every draw.", least=0, counts="seed")


@dataclass(frozen=True, kw_only=True)
class ExpertsRequest(OnMachine, OnImages):
    """The expert trajectories of a distillation. `recipe`: a shipped one, a file, or a recipe itself."""

    FIRST: ClassVar = ("dataset", "recipe", "ipc")
    dataset: str = option("digits", "A known data set, folder:PATH or parquet:PATH.", metavar="NAME")
    ipc: int | None = option(None, "Images per class (default: the recipe's, mostly 10).", least=1, counts="ipc")
    method: str = option("ftd", f"{', '.join(METHODS)}; experts are those of ftd and mtt.")
    recipe: str | Recipe | None = option(None, RECIPE_HELP, metavar="NAME|FILE")
    settings: Mapping[str, Any] | None = option(
        None, SETTINGS_HELP, metavar="SECTION.KEY=VALUE", flags="--override", parse=pair
    )
    memory: int | None = option(
        None, "To keep to, such as 4G: minibatches are cut.", metavar="SIZE", parse=size, local=True, group="Limits"
    )
    compiled: bool | None = option(
        None, "By torch.compile (default: where it pays).", flags="--compile/--eager", local=True, group="Machine"
    )
    seed: int = 0


@dataclass(frozen=True, kw_only=True)
class DistilRequest(ExpertsRequest):
    """Make a synthetic set. Raises ValueError for a name that no set can have."""

    FIRST: ClassVar = ("dataset", "ipc", "name")
    name: str | None = option(None, "Of the set in the library (default: made of what it is).")
    init: Literal["photos", "noise", "mean"] | None = option(
        None,
        "What ftd and mtt start from [default: photos]: real photos, near which the images stay; noise; the mean of a "
        "class. The last two begin farther from any photo.",
    )
    seed: int = option(0, "Of every draw.", least=0, counts="seed")

    def __post_init__(self) -> None:
        if self.name is not None:
            check_name(self.name)


@dataclass(frozen=True, kw_only=True)
class EvaluateRequest(OnMachine, OnImages):
    """What is asked of a set: its name in the library, or a path."""

    FIRST: ClassVar = ("against", "networks", "seeds")
    set: str = option(None, "Which set: its name, or a file.", metavar="SET", flags="--set", argument=True)
    networks: tuple[str, ...] = option(
        (), "Architecture to train (default: the set's backbone).", flags="--network", free=True
    )
    against: str = option("", "random, herding, kmeans, full: real images beside it.", metavar="KIND,...", free=True)
    seeds: int = option(5, "Trainings of each.", least=1, counts="seeds")
    recipe: str | None = option(None, RECIPE_HELP, metavar="NAME|FILE", group="Training")
    settings: Mapping[str, Any] | None = option(
        None, SETTINGS_HELP, metavar="SECTION.KEY=VALUE", flags="--override", parse=pair, group="Training"
    )


@dataclass(frozen=True, kw_only=True)
class ImportRequest(OnImages):
    """A set's own file, or the .pt files that the field publishes, and what they do not say about themselves.

    `images` is the file, or the folder that holds images_best.pt. Labels and step size, where not given, are looked for
    beside it, under the same name with "labels" and "lr" in it. `preprocess` is the space the images are in: "none";
    "standardize" with `mean` and `std` per channel, or fitted on the data set; "published", the field's constants for
    it; "zca" fitted on it. The data set also names the classes, unless `class_names` does; else they are called by
    their numbers. `logits`: two-dimensional labels are logits, not distributions (DATM publishes such).
    """

    FIRST: ClassVar = ("name", "labels", "lr")
    images: Path = option(None, "", metavar="PATH", parse=Path, argument=True)
    name: str | None = option(None, "What to call it (default: made of data set, ipc, method and identity).")
    labels: Path | None = option(None, "The labels' .pt file.")
    lr: Path | None = option(None, "The learning rate's .pt file.")
    step_size: float | None = option(None, "The learning rate as a number.")
    logits: bool = option(False, "The labels are logits, as DATM's.")
    preprocess: Literal["none", "standardize", "published", "zca"] = option(
        "none", "The space the images are in: by --dataset, unless --mean and --std are given."
    )
    mean: tuple[float, ...] = option((), "Per channel, of pixels in [0, 1].", metavar="A,B,C", parse=numbers)
    std: tuple[float, ...] = option((), "Per channel.", metavar="A,B,C", parse=numbers)
    class_names: tuple[str, ...] = option((), "In the order of the labels.", metavar="A,B,...", parse=words)
    augment: str = option(TrainingRecipe().augment, "DSA operations, or none.")
    backbone: str = option(Recipe().backbone, "What it was distilled with.")
