"""Real images by name: decoded, split and fingerprinted, whatever form they come in."""

from __future__ import annotations

import difflib
import hashlib
import itertools
import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from distill.images.downloads import PUBLISHED, list_published
from distill.images.duplicates import FEWEST_PIXELS, near_duplicates
from distill.images.folders import list_folder
from distill.images.listing import Listing, ListingRequest, from_arrays
from distill.images.photos import dimensions
from distill.images.pixel_cache import CacheEntry, cached_pixels, cached_rows
from distill.images.splits import Partition, Rows, halves, partition, told_duplicates
from distill.images.tables import find_tables, list_tables
from distill.run import Listener, Progress, ignore

METRICS = ("accuracy", "balanced")  # over all images, or the mean over the classes
ACCURACY = METRICS[0]
DEFAULT_PHOTO_SIZE = 64
MAX_TARGET_SIZE = 224  # photos of 3,000 pixels are trained at this side by everyone's defaults


@dataclass(frozen=True, eq=False)
class Split:
    """`images` uint8 (N, C, H, W), read-only and usually a memory map; `labels` int64 (N,) in 0 .. K - 1."""

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, rows: NDArray[np.int64]) -> Split:
        """The images at `rows`: a view where they follow each other, else a copy."""
        if len(rows) == 0:
            return Split(self.images[:0], self.labels[:0])
        first = int(rows[0])
        if np.array_equal(rows, np.arange(first, first + len(rows))):
            return Split(self.images[first : first + len(rows)], self.labels[first : first + len(rows)])
        return Split(self.images[rows], self.labels[rows])


@dataclass(frozen=True, eq=False)
class ImageDataset:
    """Labelled real images in three splits; validation may be empty.

    `fingerprint` is a hex sha256 over shapes, pixels and labels of train and validation: equal data have equal
    fingerprints on every machine. `target_size` is the side in pixels at which the user will train, where that is
    larger than the images here. `source` and `split_note` are sentences for the provenance, without absolute paths.
    `choosing`: how many validation images, the first ones, choose; None: half of each class. `test_files`: of the test
    images, relative to their folder; empty where they are no files of their own. `metric`: how accuracies on these
    images are counted, one of `METRICS`. `found`: what of the files are images and what was left out, "" elsewhere.
    """

    name: str
    source: str
    class_names: tuple[str, ...]
    train: Split
    validation: Split
    test: Split
    fingerprint: str
    target_size: int | None
    split_note: str
    choosing: int | None = None
    test_files: tuple[str, ...] = ()
    metric: str = ACCURACY
    found: str = ""

    @property
    def num_classes(self) -> int:
        return len(self.class_names)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W)."""
        _, channels, height, width = self.train.images.shape
        return channels, height, width

    def choose(self) -> Split:
        """The half of validation that picks sets, step sizes and checkpoints (METHOD 6)."""
        return self.validation.take(self._halves()[0])

    def score(self) -> Split:
        """The other half, stratified and disjoint, that scores candidates: no choice is scored on what chose it.

        But for the image of a class that has no other, see `unsure`: accuracies that cannot see a class are worse.
        """
        chosen, scored = self._halves()
        alone = np.isin(self.validation.labels[chosen], self._alone)
        return self.validation.take(np.sort(np.concatenate([scored, chosen[alone]])) if alone.any() else scored)

    @cached_property
    def unsure(self) -> tuple[str, ...]:
        """What is to be said of classes that accuracies see too little of, a sentence each."""
        if not len(self.validation):
            return ()
        absent = np.setdiff1d(np.arange(self.num_classes), self.validation.labels)
        told = {
            "no validation image, so no accuracy sees it: add some to the validation images": absent,
            "one validation image, which chooses and scores: add some for figures to lean on": self._alone,
        }
        return tuple(f"{self._named(rows)} has {what}" for what, rows in told.items() if len(rows))

    @property
    def shared(self) -> bool:
        """Whether an image both chooses and scores."""
        return len(self._alone) > 0

    @cached_property
    def _alone(self) -> NDArray[np.int64]:
        """Classes whose validation images are all in the half that chooses."""
        chosen, scored = self._halves()
        return np.setdiff1d(self.validation.labels[chosen], self.validation.labels[scored])

    def _named(self, classes: NDArray[np.int64]) -> str:
        names = [f"'{self.class_names[number]}'" for number in classes[:3]]
        more = [f"{len(classes) - 3} more"] if len(classes) > 3 else []
        return f"{'class' if len(classes) == 1 else 'each of the classes'} {', '.join([*names, *more])}"

    def _halves(self) -> tuple[Rows, Rows]:
        if self.choosing is None:
            return halves(self.validation.labels)
        rows = np.arange(len(self.validation))
        return rows[: self.choosing], rows[self.choosing :]


def _digits(request: ListingRequest) -> Listing:
    from sklearn.datasets import load_digits

    bunch = load_digits()
    pixels = np.rint(bunch.images * (255 / 16)).astype(np.uint8)  # 0 .. 16 to 0 .. 255
    return from_arrays(
        request.name,
        request.title,
        "bundled with scikit-learn",
        [str(digit) for digit in range(10)],
        [("", pixels, bunch.target)],
        content=f"digits {hashlib.sha256(pixels.tobytes()).hexdigest()}",
        test_fraction=0.2,
    )


def _unpacked(address: str, *folders: str) -> Callable[[ListingRequest], Listing]:
    """A loader of what the user has unpacked: the archive at `address`, as one of `folders`."""

    def load(request: ListingRequest) -> Listing:
        places = [place for place in (request.root, request.downloads) if place is not None]
        for place, folder in itertools.product(places, folders):
            if (place / folder / "train").is_dir():
                said = f"unpacked as {folder}"
                return list_folder(place / folder, name=request.name, title=request.title, place=said)
        raise FileNotFoundError(
            f"{request.title} is not here: looked for {' and '.join(folders)} in {' and '.join(map(str, places))}; "
            f"unpack {address} there"
        )

    return load


_FAST_AI = "https://s3.amazonaws.com/fast-ai-imageclas"
# name -> proper name, loader
DATASETS: dict[str, tuple[str, Callable[[ListingRequest], Listing]]] = {
    "digits": ("digits", _digits),
    **{name: (title, list_published) for name, (title, _) in PUBLISHED.items()},
    "tiny-imagenet": (
        "Tiny ImageNet",
        _unpacked("http://cs231n.stanford.edu/tiny-imagenet-200.zip", "tiny-imagenet-200", "tiny-imagenet"),
    ),
    "imagenette": (
        "ImageNette",
        _unpacked(f"{_FAST_AI}/imagenette2-160.tgz", "imagenette2-160", "imagenette2-320", "imagenette2", "imagenette"),
    ),
    "imagewoof": (
        "ImageWoof",
        _unpacked(f"{_FAST_AI}/imagewoof2-160.tgz", "imagewoof2-160", "imagewoof2-320", "imagewoof2", "imagewoof"),
    ),
}


def load_dataset(
    spec: str,
    *,
    root: Path | None,
    cache: Path,
    image_size: int | None = None,
    validation: float = 0.1,
    split_file: Path | None = None,
    seed: int = 0,
    offline: bool = False,
    downloads: Path | None = None,
    parted: bool = False,
    lone: bool = False,
    listener: Listener = ignore,
) -> ImageDataset:
    """Load a registered data set, `folder:PATH` or `parquet:PATH`.

    root: the data root; `<root>/<name>/train.parquet` (and test.parquet) serves any registered name. cache: where
    decoded images are kept. image_size: side in pixels of the result; None keeps the images' own size, and takes 64 for
    photos and for images of different sizes. validation, seed: see `distill.images.splits`. split_file: a CSV of
    file, split for a folder. downloads: defaults to `data` beside the cache. parted: draw a split as if there were no
    near-duplicates, as was done before they were looked for. lone: a class may have one validation image, as it could
    then.

    Raises LookupError for an unknown name, FileNotFoundError for data that are not there, ValueError for data that
    cannot be used (an unreadable image, a label out of range, a missing split, a small class); one line each.
    """
    if image_size is not None and not 4 <= image_size <= 1024:
        raise ValueError(f"image size {image_size} is not between 4 and 1024 pixels")
    listing = _listing(spec, root, downloads or cache.parent / "data", split_file, offline, listener)
    size = _size(listing, image_size, listener)
    parts = partition(listing, validation=validation, seed=seed, lone=lone)
    told = ""
    own = listing.photos or not np.any(listing.given != "")  # the splits of published data are everybody's
    groups = _duplicates(listing, parts, None if own else size, cache, listener)
    if groups is not None:
        if own and not parted:
            parts = partition(listing, validation=validation, seed=seed, groups=groups, lone=lone)
        told = f"; {told_duplicates(parts, groups, own and not parted)}"
    order = np.concatenate([parts.test, parts.validation, parts.train])
    images, entry = cached_pixels(listing, order, len(parts.test), size, cache, listener)
    labels = listing.labels[order]
    labels.flags.writeable = False
    first, second = len(parts.test), len(parts.test) + len(parts.validation)
    test, held, train = (
        Split(images[piece], labels[piece]) for piece in (slice(first), slice(first, second), slice(second, None))
    )
    return ImageDataset(
        name=listing.name,
        source=_source(listing, entry),
        class_names=listing.class_names,
        train=train,
        validation=held,
        test=test,
        fingerprint=_fingerprint(train, held, entry.digest),
        target_size=_target_size(listing, entry, size),
        split_note=parts.note + told,
        choosing=parts.choosing,
        test_files=tuple(listing.files[row] for row in parts.test) if listing.files else (),
        found=listing.found,
    )


def _listing(
    spec: str, root: Path | None, downloads: Path, split_file: Path | None, offline: bool, listener: Listener
) -> Listing:
    kind, colon, rest = spec.partition(":")
    if split_file is not None and kind != "folder":
        raise ValueError(f"a split file is for folder:PATH, {spec!r} has its own split")
    if colon:
        path = Path(rest).expanduser()
        if kind == "folder" and rest:
            return list_folder(path, split_file=split_file)
        if kind == "parquet" and rest:
            return list_tables(path, path.stem if path.is_file() else path.resolve().name, path.stem, path.name)
        raise LookupError(f"unknown data set {spec!r}: write folder:PATH or parquet:PATH")
    if spec not in DATASETS:
        near = difflib.get_close_matches(spec.lower(), DATASETS, n=3)
        near = near or difflib.get_close_matches(spec.lower().replace("-", ""), DATASETS, n=3, cutoff=0.5)
        hint = f"did you mean {' or '.join(near)}?" if near else f"choose one of {', '.join(DATASETS)}"
        raise LookupError(f"unknown data set {spec!r}: {hint} (your own images: folder:PATH or parquet:PATH)")
    title, load = DATASETS[spec]
    if root is not None:
        if not root.is_dir():
            raise FileNotFoundError(f"the data root {root} is not a folder")
        tables = find_tables(root / spec)
        if tables:
            files = [file.relative_to(root).as_posix() for of_split in tables.values() for file in of_split]
            place = f"{files[0]}{f' and {len(files) - 1} more' if len(files) > 1 else ''} under the data root"
            return list_tables(root / spec, spec, title, place)
    return load(ListingRequest(spec, title, root, downloads, offline, listener))


def _duplicates(listing: Listing, parts: Partition, size: int | None, cache: Path, listener: Listener) -> Rows | None:
    """Each row's group, None where the images are too small to say; looked for once for all splits and sizes.

    size: at which they are looked at; None takes their own, so that they are the same whatever size is trained at.
    """
    size = size or _size(listing, None, ignore)
    if size < FEWEST_PIXELS:
        return None
    order = np.concatenate([parts.test, parts.validation, parts.train])

    def look() -> Rows:
        images, entry = cached_pixels(listing, order, len(parts.test), size, cache, listener)
        if entry.short_side < FEWEST_PIXELS:
            return np.arange(0)
        found = order[near_duplicates(images)]  # by rows of the listing, in this order of them
        return found[np.argsort(order)]

    groups = cached_rows(listing, size, "duplicates", cache, look)
    return groups if len(groups) else None


def _size(listing: Listing, asked: int | None, listener: Listener) -> int:
    if asked is not None:
        return asked
    sizes = {dimensions(encoded, listing.describe(row)) for row, encoded in listing.sample()}
    width, height = min(sizes)
    if len(sizes) == 1 and width == height and not (listing.photos and width > DEFAULT_PHOTO_SIZE):
        return width
    message = (
        f"images of {listing.name} are brought to {DEFAULT_PHOTO_SIZE} x {DEFAULT_PHOTO_SIZE} pixels "
        "(--image-size chooses another size)"
    )
    listener(Progress("images", 0, len(listing.labels), message=message))
    return DEFAULT_PHOTO_SIZE


def _target_size(listing: Listing, entry: CacheEntry, size: int) -> int | None:
    side = min(entry.short_side, MAX_TARGET_SIZE) if listing.photos else entry.short_side
    return side if side > size else None


def _source(listing: Listing, entry: CacheEntry) -> str:
    """The proper name, the lossy encoding of its pixels if there is one, and the place."""
    lossy = [name for name in entry.encodings if name.startswith("JPEG") or name == "WEBP"]
    if listing.photos or not lossy:
        return f"{listing.title}, {listing.place}"
    encoding = lossy[0] if len(entry.encodings) == 1 else "JPEG in part or of several qualities"
    return f"{listing.title} ({encoding}), {listing.place}"


def _fingerprint(train: Split, validation: Split, pixels_digest: str) -> str:
    head = json.dumps([list(train.images.shape), list(validation.images.shape), pixels_digest])
    digest = hashlib.sha256(head.encode())
    for split in (train, validation):
        digest.update(split.labels.astype("<i8").tobytes())
    return digest.hexdigest()
