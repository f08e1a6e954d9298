"""All images of a data set, decoded once into one memory-mapped uint8 file and reused ever after.

The file holds the images in the order of their split (test, validation, train), so every split is one contiguous piece
of it and nothing is ever copied into memory. Another order of the same images (another seed, another fraction) is taken
from a file that is there instead of being decoded again.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import re
import shutil
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from distill.files import digest, locked, whole_file
from distill.images.listing import Encoded, Listing
from distill.images.photos import ColourFoundError, decode
from distill.run import Listener, Progress

FORMAT = 1
COPY_ROWS = 256


@dataclass(frozen=True)
class CacheEntry:
    """What is known of one decoded order of images."""

    shape: tuple[int, int, int, int]  # (N, C, H, W)
    digest: str  # hex sha256 of the pixels of all images but the first `skipped`
    skipped: int
    short_side: int  # median of the originals
    encodings: dict[str, int]  # "JPEG-75" -> number of images
    format: int = FORMAT


def cached_pixels(
    listing: Listing, order: NDArray[np.int64], skipped: int, size: int, cache: Path, listener: Listener
) -> tuple[NDArray[np.uint8], CacheEntry]:
    """The images in the given order of rows, (N, C, size, size) uint8, read-only, with what is known of them.

    The first `skipped` images (those of the test split) stay out of the digest. Raises ValueError naming an image that
    cannot be read. A half-written file is never used; a second process waits for the first one.
    """
    stem = _stem(listing, size)
    arrangement = hashlib.sha256(order.astype("<i8").tobytes() + str(skipped).encode()).hexdigest()[:8]
    home = cache / "images"
    folder = home / f"{stem}-{arrangement}"
    entry = _entry(folder)
    if entry is None:
        with locked(home / f"{stem}.lock"):
            entry = _entry(folder)
            if entry is None:
                entry = _build(listing, order, skipped, size, folder, home.glob(f"{stem}-*"), listener)
    return np.memmap(folder / "pixels.u8", dtype=np.uint8, mode="r", shape=entry.shape), entry


def cached_rows(
    listing: Listing, size: int, what: str, cache: Path, compute: Callable[[], NDArray[np.int64]]
) -> NDArray[np.int64]:
    """An int64 array about the rows of a listing at a size, computed where it has not been."""
    path = cache / "images" / f"{_stem(listing, size)}.{what}.npy"
    try:
        rows: NDArray[np.int64] = np.load(path)
    except (OSError, ValueError, EOFError):
        rows = compute()
        with whole_file(path) as beside, beside.open("wb") as file:
            np.save(file, rows)
    return rows


def _stem(listing: Listing, size: int) -> str:
    """Of the names of all that is kept of these images at this size."""
    key = digest([FORMAT, listing.content, size, listing.photos], 16)
    return f"{re.sub(r'[^A-Za-z0-9_.-]+', '_', listing.name)}-{size}px-{key}"


def _entry(folder: Path) -> CacheEntry | None:
    """The entry in `folder` if it is whole."""
    try:
        fields = json.loads((folder / "entry.json").read_text(encoding="utf-8"))
        entry = CacheEntry(**{**fields, "shape": tuple(fields["shape"])})
        whole = (folder / "pixels.u8").stat().st_size == int(np.prod(entry.shape))
    except (OSError, ValueError, TypeError, KeyError):
        return None
    return entry if whole and entry.format == FORMAT else None


def _build(
    listing: Listing,
    order: NDArray[np.int64],
    skipped: int,
    size: int,
    folder: Path,
    others: Iterator[Path],
    listener: Listener,
) -> CacheEntry:
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    source = next(filter(None, map(_arranged, others)), None)
    with (partial / "pixels.u8").open("w+b") as file:
        if source is not None:
            facts = _copy(*source, order, file, listener)
        else:
            try:
                facts = _decode(listing, order, size, 3 if listing.photos else 1, file, listener)
            except ColourFoundError:
                facts = _decode(listing, order, size, 3, file, listener)
        file.flush()
        os.fsync(file.fileno())
        shape, short_side, encodings = facts
        file.seek(skipped * int(np.prod(shape[1:])))
        entry = CacheEntry(shape, hashlib.file_digest(file, "sha256").hexdigest(), skipped, short_side, encodings)
    np.save(partial / "order.npy", order)
    (partial / "entry.json").write_text(json.dumps(asdict(entry), sort_keys=True), encoding="utf-8")
    shutil.rmtree(folder, ignore_errors=True)  # one that is not whole
    partial.replace(folder)
    return entry


Facts = tuple[tuple[int, int, int, int], int, dict[str, int]]


def _decode(
    listing: Listing, order: NDArray[np.int64], size: int, channels: int, file: BinaryIO, listener: Listener
) -> Facts:
    """Decode every row to its place in the file, in as many threads as there are cores."""
    place = np.argsort(order)
    shape = (len(order), channels, size, size)
    row_bytes = channels * size * size
    sides: list[int] = []
    encodings: Counter[str] = Counter()
    file.truncate(len(order) * row_bytes)
    threads = min(len(os.sched_getaffinity(0)), 16)
    with warnings.catch_warnings(), ThreadPoolExecutor(threads) as pool:
        warnings.filterwarnings("ignore", module=r"PIL(\..*)?")  # of odd metadata in images that it reads well

        def work(batch: Sequence[tuple[int, Encoded]]) -> list[tuple[int, str]]:
            facts = []
            for row, encoded in batch:
                image = decode(encoded, size, channels, listing.describe(row))
                # Written by position instead of through a mapping, whose dirty pages would count as our memory.
                os.pwrite(file.fileno(), image.pixels.tobytes(), int(place[row]) * row_bytes)
                facts.append((image.short_side, image.encoding))
            return facts

        fetched = listing.fetch()
        while group := list(itertools.islice(fetched, 4 * threads)):  # so many encoded batches wait in memory
            for facts in pool.map(work, group):
                sides += [short_side for short_side, _ in facts]
                encodings.update(encoding for _, encoding in facts)
                listener(Progress("images", len(sides), len(order)))
    encodings.pop("", None)
    return shape, int(np.median(sides)), dict(sorted(encodings.items()))


def _arranged(folder: Path) -> tuple[Path, CacheEntry, NDArray[np.int64]] | None:
    """The entry in `folder` with the order of its rows, if it is whole."""
    entry = None if folder.suffix == ".partial" else _entry(folder)
    if entry is None:
        return None
    try:
        return folder, entry, np.load(folder / "order.npy")
    except (OSError, ValueError, EOFError):
        return None


def _copy(
    source: Path,
    entry: CacheEntry,
    there: NDArray[np.int64],
    order: NDArray[np.int64],
    file: BinaryIO,
    listener: Listener,
) -> Facts:
    """Rearrange the rows of an entry that is there."""
    rows: NDArray[Any] = np.memmap(source / "pixels.u8", dtype=np.uint8, mode="r", shape=entry.shape)
    place = np.argsort(there)
    for start in range(0, len(order), COPY_ROWS):
        file.write(rows[place[order[start : start + COPY_ROWS]]].tobytes())
        listener(Progress("images", min(start + COPY_ROWS, len(order)), len(order)))
    return entry.shape, entry.short_side, entry.encodings
