"""Which real images a command works on, and how those behind a synthetic set are found again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distill.recipe import DataRecipe, Recipe
from distill.run import Listener, Progress, ignore
from ftdnas.runtime.home import home
from ftdnas.runtime.records import to_json

if TYPE_CHECKING:
    from distill.images.datasets import ImageDataset
    from distill.synthetic import SyntheticSet

KEY = "data"  # of a set's provenance
ALONE = "no real images"  # in place of their fingerprint


@dataclass(frozen=True)
class Source:
    """A data set and how it is brought in; None leaves the choice to the recipe."""

    spec: str  # a registered name, folder:PATH or parquet:PATH
    root: Path | None = None  # folder with <name>/train.parquet
    image_size: int | None = None
    validation: float | None = None
    split_file: Path | None = None
    split_seed: int = 0  # the same for every seed of a distillation, so that all share the experts
    offline: bool = False
    # As earlier versions drew a split:
    parted: bool = False  # near-duplicates are not kept together
    lone: bool = False  # a class may have one validation image, which then chooses and scores
    metric: str = "accuracy"  # how networks are read on them: see `distill.images.datasets.METRICS`

    def within(self, recipe: Recipe) -> Recipe:
        """`recipe` with what was asked for here."""
        asked = {"image_size": self.image_size, "validation": self.validation}
        given = {name: value for name, value in asked.items() if value is not None}
        return replace(recipe, data=replace(recipe.data, **given))  # type: ignore[arg-type]

    def load(self, listener: Listener = ignore) -> ImageDataset:
        """The images. Raises what `distill.images.datasets.load_dataset` raises."""
        from distill.images.datasets import load_dataset

        data = load_dataset(
            self.spec,
            root=self.root,
            cache=home() / "cache",
            downloads=home() / "data",
            image_size=self.image_size,
            validation=DataRecipe().validation if self.validation is None else self.validation,
            split_file=self.split_file,
            seed=self.split_seed,
            offline=self.offline,
            parted=self.parted,
            lone=self.lone,
            listener=listener,
        )
        left_out = data.found.partition("; ")[2]
        for said in (*([f"{self.spec}: {left_out}"] if left_out else []), *data.unsure):
            listener(Progress("images", 0, 0, message=said))
        return replace(data, metric=self.metric)

    def known_by(self, fingerprint: str | None, listener: Listener = ignore) -> tuple[Source, ImageDataset]:
        """Itself and its images; split as earlier versions did where they have this fingerprint only so."""
        data = self.load(listener)
        if fingerprint not in (None, data.fingerprint):
            for parted in dict.fromkeys((self.parted, True)):
                earlier = replace(self, parted=parted, lone=True)
                if (found := earlier.load(listener)).fingerprint == fingerprint:
                    return earlier, found
        return self, data

    def asked(self) -> dict[str, Any]:
        """The same as fields of a request on images."""
        own = {"dataset": self.spec or None, "data_root": self.root, "split": self.split_file}
        return {**own, **{name: getattr(self, name) for name in ("image_size", "validation", "split_seed", "offline")}}

    @classmethod
    def from_json(cls, stored: Mapping[str, Any], root: Path | None = None, offline: bool = False) -> Source:
        """The inverse of `to_json`, where the known data sets lie now; without a spec where nothing was stored."""
        split = stored.get("split_file")
        own = {
            name: stored[name]
            for name in ("spec", "image_size", "validation", "split_seed", "parted", "lone", "metric")
            if name in stored
        }
        return cls(**{"spec": "", **own}, root=root, split_file=Path(split) if split else None, offline=offline)

    def to_json(self) -> dict[str, Any]:
        """What finds the same images again, for a set's provenance; without where the user keeps known data sets."""
        usual = {"parted": False, "lone": False, "metric": "accuracy"}  # as where they were not known
        left_out = {"root", "offline", *(name for name in usual if getattr(self, name) == usual[name])}
        return {name: value for name, value in to_json(self).items() if name not in left_out}


def source_of(synthetic: SyntheticSet, given: Source | None = None) -> Source:
    """Where the images behind a set are, by its provenance; `given` (a spec, a root, a split file) comes first.

    Raises ValueError for a set that does not say where it came from, as imported ones, where no spec is given.
    """
    given, stored = given or Source(""), synthetic.provenance.get(KEY) or {}
    recorded = Source.from_json(stored)
    if not stored and not given.spec:
        raise ValueError("this set does not say which real images it was made from: name them by --dataset")
    return replace(
        given,
        spec=given.spec or recorded.spec,
        image_size=synthetic.image_shape[1],
        validation=recorded.validation if given.validation is None else given.validation,
        split_file=given.split_file or recorded.split_file,
        split_seed=recorded.split_seed if stored else given.split_seed,
    )


def images_at_hand(synthetic: SyntheticSet, given: Source, listener: Listener = ignore) -> ImageDataset | None:
    """As `images_of`, without a download; None where they are not here, or the set does not say where they are."""
    if not given.spec and not synthetic.provenance.get(KEY):
        return None
    try:
        return images_of(synthetic, replace(given, offline=True), listener)
    except (FileNotFoundError, LookupError):
        return None


def no_images(synthetic: SyntheticSet) -> ImageDataset:
    """What stands for the real images of a set where they are not here: of its shape and classes, and empty."""
    import numpy as np

    from distill.images.datasets import ImageDataset, Split

    empty = Split(np.empty((0, *synthetic.image_shape), np.uint8), np.empty(0, np.int64))
    name = str(synthetic.provenance.get("dataset") or "unknown")
    title = f"{name}, by a set alone"
    return ImageDataset(name, title, synthetic.class_names, empty, empty, empty, ALONE, synthetic.target_size, "")


def images_of(synthetic: SyntheticSet, given: Source | None = None, listener: Listener = ignore) -> ImageDataset:
    """The real images that a set was made from, checked by their fingerprint.

    Raises ValueError where the images found are others: a set must not be judged on images that it may have seen.
    """
    source = source_of(synthetic, given)
    expected = synthetic.provenance.get("data_fingerprint")
    try:
        _, data = source.known_by(expected, listener)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{error} (--dataset and --data-root say where the set's images are now)") from error
    if data.class_names != synthetic.class_names:
        raise ValueError(
            f"{source.spec} has {data.num_classes} classes ({', '.join(data.class_names[:3])}, ...), "
            f"the set {synthetic.num_classes} ({', '.join(synthetic.class_names[:3])}, ...)"
        )
    if data.image_shape != synthetic.image_shape:
        raise ValueError(f"images of {source.spec} are {data.image_shape}, those of the set {synthetic.image_shape}")
    if expected is not None and data.fingerprint != expected:
        raise ValueError(
            f"the images of {source.spec} are not those that the set was made from "
            f"(fingerprint {data.fingerprint[:12]}, not {str(expected)[:12]}): "
            "give the same files, --split and --split-seed"
        )
    return data
