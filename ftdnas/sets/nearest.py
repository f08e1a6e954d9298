"""How much of the photos that it was made from a set still shows: the images that point to one photo, and what else.

An image points to one training photo where the nearest is nearer than all others by more than real images ever are:
where its distance over the distance of the second nearest is below what all but a twentieth of held-out images have.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING

from distill.run import Listener, ignore
from ftdnas.runtime.home import home, read_json, write_json
from ftdnas.sets.images import KEY, Source, images_at_hand

if TYPE_CHECKING:
    from torch import Tensor

    from distill.images.datasets import ImageDataset, Split
    from distill.images.preprocess import Preprocess
    from distill.synthetic import SyntheticSet

NEAREST = "nearest_photo"  # key of a set's provenance
REAL_IMAGES = "real images"  # what a set says that it has published, where its images are photos as they are
QUANTILE = 20  # one in so many held-out images is below the bound, at most
HELD_OUT = 1000  # images that the bound is taken from, at most
SIDE = 32  # in pixels: larger images are averaged down to it first
CHUNK = 1000


@dataclass(frozen=True)
class Nearest:
    """Of `images` of the set `pointing` point to one of `photos` training photos, of `held_out` real images `control`.

    `bound`: of the ratio of the two smallest distances, in the set's preprocessed space.
    """

    pointing: int
    images: int
    control: int
    held_out: int
    photos: int
    bound: float

    @property
    def above_control(self) -> bool:
        return self.pointing * self.held_out > self.control * self.images

    def describe(self) -> str:
        share, usual = self.pointing / self.images, self.control / self.held_out
        return (
            f"{self.pointing:,} of {self.images:,} images ({share:.0%}) point to one training photo; of real images "
            f"that were not trained on, {usual:.0%} do"
        )


def nearest_photos(synthetic: SyntheticSet, data: ImageDataset) -> Nearest | None:
    """The count for a set and the images that it was made from; None where too few were held out to compare with."""
    import numpy as np

    count = min(len(data.validation), HELD_OUT)
    below = count // QUANTILE
    if not below or len(data.train) < 2:
        return None
    real = data.validation.take(np.linspace(0, len(data.validation) - 1, count).astype(np.int64))
    preprocess = synthetic.preprocess
    control = _ratios(preprocess.apply(real.images), data.train, preprocess).sort().values
    own, bound = _ratios(synthetic.images, data.train, preprocess), control[below]
    pointing, usual = (int((ratios < bound).sum()) for ratios in (own, control))
    return Nearest(pointing, len(synthetic.images), usual, count, len(data.train), float(bound))


def stored_nearest(synthetic: SyntheticSet) -> Nearest | None:
    """What a set says itself; None where it does not, or says what no count can be."""
    told = synthetic.provenance.get(NEAREST)
    names = [field.name for field in fields(Nearest)]
    if not isinstance(told, Mapping) or set(told) != set(names):
        return None
    if any(type(told[name]) not in (int, float) or told[name] < 0 for name in names):
        return None
    return Nearest(**told) if told["images"] and told["held_out"] else None


def nearest_of(synthetic: SyntheticSet, given: Source, listener: Listener = ignore) -> Nearest | None:
    """What a set says itself, else counted once where its images are at hand; None where it cannot be known."""
    known = stored_nearest(synthetic)
    if known is not None or is_photos(synthetic):
        return known
    kept = home() / "cache" / f"nearest-{synthetic.identity[:32]}.json"
    stored = read_json(kept, None)
    if stored:
        return Nearest(**stored)
    try:
        data = images_at_hand(synthetic, given, listener)
    except ValueError:  # other images than it was made from
        return None
    found = None if data is None else nearest_photos(synthetic, data)
    if found is not None:
        write_json(kept, asdict(found))
    return found


def is_photos(synthetic: SyntheticSet) -> bool:
    """Whether its images are training photos as they are: those of the methods random, herding and kmeans."""
    return synthetic.provenance.get("published") == REAL_IMAGES


def describe_images(synthetic: SyntheticSet, nearest: Nearest | None) -> str:
    """What the images are, and how near to single photos, in a line."""
    if is_photos(synthetic):
        return f"real photos: all {len(synthetic.images):,} are training photos as they are"
    return "not known how many images point to one training photo" if nearest is None else nearest.describe()


def travels_along(synthetic: SyntheticSet, nearest: Nearest | None) -> list[str]:
    """What whoever gets the set learns of the photos beyond what real images that were not trained on would say."""
    told = []
    if is_photos(synthetic) or nearest is None or nearest.above_control:
        told.append(describe_images(synthetic, nearest))
    if synthetic.teachers is not None:
        told.append(f"its {len(synthetic.teachers)} teachers go with it: weights that were trained on the real images")
    origin = synthetic.provenance.get(KEY)
    places = [str(origin.get(key) or "") for key in ("spec", "split_file")] if isinstance(origin, Mapping) else []
    if paths := [place for place in places if "/" in place or ":" in place]:
        told.append(f"it says where its images are: {', '.join(paths)}")
    return told


def _ratios(images: Tensor, photos: Split, preprocess: Preprocess) -> Tensor:
    """(N,): the distance to the nearest photo over that to the second nearest; 0 for a photo itself."""
    import torch

    flat = _small(images)
    nearest = torch.full((len(flat), 2), torch.inf)
    for start in range(0, len(photos), CHUNK):
        distances = torch.cdist(flat, _small(preprocess.apply(photos.images[start : start + CHUNK])))
        nearest = torch.cat([nearest, distances], 1).topk(2, largest=False).values
    return nearest[:, 0] / nearest[:, 1].clamp_min(1e-6)


def _small(images: Tensor) -> Tensor:
    """(N, D), of at most `SIDE` x `SIDE` pixels."""
    import torch.nn.functional as F

    side = (min(SIDE, images.shape[2]), min(SIDE, images.shape[3]))
    return F.adaptive_avg_pool2d(images, side).flatten(1)
