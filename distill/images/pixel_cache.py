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
import torch
from numpy.typing import NDArray

from distill.files import SUM, UNSUMMED, check, digest, digest_of, locked, set_aside, whole_file
from distill.images.listing import Encoded, Listing
from distill.images.photos import ColourFoundError, decode
from distill.run import Listener, Progress
from distill.tensors import read_tensors, write_tensors

FORMAT = 1
ROWS = ".safetensors"
COPY_ROWS = 256


@dataclass(frozen=True)
class CacheEntry:
    """What is known of one decoded order of images."""

    shape: tuple[int, int, int, int]  # (N, C, H, W)
    digest: str  # hex sha256 of the pixels of all images but the first `skipped`
    skipped: int
    short_side: int  # median of the originals
    encodings: dict[str, int]  # "JPEG-75" -> number of images
    skipped_digest: str = ""  # of the first `skipped`; not known of what earlier versions decoded
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
    entry = sound_entry(folder)
    if entry is None:
        with locked(home / f"{stem}.lock"):
            entry = sound_entry(folder)
            if entry is None:
                entry = _build(listing, order, skipped, size, folder, home.glob(f"{stem}-*"), listener)
    return np.memmap(folder / "pixels.u8", dtype=np.uint8, mode="r", shape=entry.shape), entry


def cached_rows(
    listing: Listing, size: int, what: str, cache: Path, compute: Callable[[], NDArray[np.int64]]
) -> NDArray[np.int64]:
    """An int64 array about the rows of a listing at a size, computed where it has not been."""
    path = cache / "images" / f"{_stem(listing, size)}.{what}{ROWS}"
    rows = _load_rows(path)
    if rows is None:
        rows = compute()
        _save_rows(path, rows)
    return rows


def _save_rows(path: Path, rows: NDArray[np.int64]) -> None:
    write_tensors(path, {"rows": torch.from_numpy(rows)})


def _load_rows(path: Path) -> NDArray[np.int64] | None:
    """None where they are not there, or were damaged; earlier versions kept them as .npy."""
    if not path.exists():
        path = path.with_suffix(".npy")
    try:
        rows: NDArray[np.int64] = np.load(path) if path.suffix == ".npy" else read_tensors(path)[0]["rows"].numpy()
    except FileNotFoundError:
        return None
    except Exception:  # whatever numpy or the parser of its header raises
        set_aside(path)
        return None
    return rows


def _stem(listing: Listing, size: int) -> str:
    """Of the names of all that is kept of these images at this size."""
    key = digest([FORMAT, listing.content, size, listing.photos], 16)
    return f"{re.sub(r'[^A-Za-z0-9_.-]+', '_', listing.name)}-{size}px-{key}"


def sound_entry(folder: Path) -> CacheEntry | None:
    """The entry in `folder` if it is whole; its pixels are read once a process."""
    try:
        check(folder / "entry.json")
        fields = json.loads((folder / "entry.json").read_text(encoding="utf-8"))
        fields.pop(SUM, None)
        entry = CacheEntry(**{**fields, "shape": tuple(fields["shape"])})
        pixels, first = folder / "pixels.u8", entry.skipped * int(np.prod(entry.shape[1:]))
        whole = (
            pixels.stat().st_size == int(np.prod(entry.shape))
            and digest_of(pixels, first) == entry.digest
            and entry.skipped_digest in ("", digest_of(pixels, 0, first))
        )
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
    pixels, first = partial / "pixels.u8", skipped * int(np.prod(shape[1:]))
    digests = digest_of(pixels, first), digest_of(pixels, 0, first)
    entry = CacheEntry(shape, digests[0], skipped, short_side, encodings, digests[1])
    _save_rows(partial / f"order{ROWS}", order)
    with whole_file(partial / "entry.json", sums=True) as beside:
        beside.write_text(json.dumps({**UNSUMMED, **asdict(entry)}, sort_keys=True), encoding="utf-8")
    if folder.exists():
        set_aside(folder)
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
    entry = None if folder.suffix in (".partial", ".damaged") else sound_entry(folder)
    order = None if entry is None else _load_rows(folder / f"order{ROWS}")
    return None if entry is None or order is None else (folder, entry, order)


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
