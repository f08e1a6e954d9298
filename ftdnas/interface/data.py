"""Images and synthetic sets, as a person holds them in Python."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from distill.run import Listener, ignore
from distill.synthetic import SyntheticSet
from ftdnas.sets.images import Source
from ftdnas.sets.library import Library
from ftdnas.sets.making import Distilled, distil
from ftdnas.sets.request import DistilRequest


def data(
    images: str | Path,
    *,
    root: Path | None = None,
    image_size: int | None = None,
    validation: float | None = None,
    split: Path | None = None,
    split_seed: int = 0,
    offline: bool = False,
) -> Source:
    """Real images: "cifar10" or another known name, "folder:PATH", "parquet:PATH", or the path of a folder or file.

    `root`: where NAME/train.parquet of known data sets are. `image_size`: side in pixels; None leaves it to the recipe,
    and so with `validation`, the fraction of the training images that is held back for every choice. `split`: a CSV of
    file,split for a folder. Nothing is read yet: `.load()` does, and raises what is wrong.
    """
    if isinstance(images, Path):
        images = f"{'folder' if images.is_dir() else 'parquet'}:{images}"
    return Source(images, root, image_size, validation, split, split_seed, offline)


def distill(images: Source | str | Path, listener: Listener = ignore, **asked: Any) -> Distilled:
    """Make a synthetic set and put it into the library, or go on with it where it was interrupted.

    `asked`: fields of `ftdnas.sets.request.DistilRequest`: ipc, method, recipe, settings, name, seed, device and more;
    they are the options of `ftdnas distill`. Raises what `ftdnas.sets.making.distil` raises.
    """
    source = images if isinstance(images, Source) else data(images)
    return distil(DistilRequest(**source.asked(), **asked), listener)


def load_set(name: str | Path) -> SyntheticSet:
    """A set of the library by its name or the beginning of it, or any set by its path.

    Raises LookupError where there is none, ValueError for a damaged file.
    """
    return Library().load(name)
