"""What a source of images offers before any of them is decoded."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distill.run import Listener

Encoded = Path | bytes | NDArray[np.uint8]  # a file, an encoded image, or pixels (H, W) or (H, W, C)
SPLITS = ("train", "validation", "test")
SPLIT_WORDS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("validation", "validate", "valid", "val", "dev", "eval", "evaluation"), "validation"),
    **dict.fromkeys(("test", "testing"), "test"),
}  # how folders, files and split tables write them
GROUND = "white"  # what lies below transparent pixels


@dataclass(frozen=True)
class ListingRequest:
    """A registered name, the data set's proper name, and where its loader may look."""

    name: str
    title: str
    root: Path | None
    downloads: Path
    offline: bool
    listener: Listener


@dataclass(frozen=True, eq=False)
class Listing:
    """N labelled images that can be fetched, in a fixed order that does not depend on the machine.

    `labels` is int64 (N,). `given` holds per row "train", "validation" or "test", or "" for every row where the source
    makes no split. `content` is a text that changes when the images do (it keys the cache). `fetch` yields batches of
    (row, image) that cover every row once; `sample` gives a few of them, to learn sizes from. `describe(row)` names an
    image for an error message.
    """

    name: str
    title: str  # the data set's proper name, "CIFAR-10"
    place: str  # where it came from, without absolute paths
    class_names: tuple[str, ...]
    labels: NDArray[np.int64]
    given: NDArray[np.str_]
    content: str
    fetch: Callable[[], Iterator[Sequence[tuple[int, Encoded]]]]
    sample: Callable[[], Sequence[tuple[int, Encoded]]]
    describe: Callable[[int], str]
    photos: bool = False  # always RGB, and 64 pixels unless asked otherwise
    own_split: bool = False  # the split was written by the user, row by row: nothing is moved
    test_fraction: float = 0.1  # held out for testing where the source makes no split
    files: Sequence[str] = ()  # the images' files, relative to the folder, where they are files
    found: str = ""  # of a folder: classes, images, and what was left out


def from_arrays(
    name: str,
    title: str,
    place: str,
    class_names: Sequence[str],
    parts: Sequence[tuple[str, NDArray[np.uint8], NDArray[Any]]],
    *,
    content: str,
    test_fraction: float = 0.1,
) -> Listing:
    """A listing of pixels that are in memory: parts of (split or "", images (n, H, W) or (n, H, W, C), labels (n,))."""
    starts = np.cumsum([0, *(len(labels) for _, _, labels in parts)])

    def fetch() -> Iterator[Sequence[tuple[int, Encoded]]]:
        for start, (_, images, _) in zip(starts, parts, strict=False):
            for first in range(0, len(images), 256):
                yield [(int(start) + first + i, image) for i, image in enumerate(images[first : first + 256])]

    return Listing(
        name=name,
        title=title,
        place=place,
        class_names=tuple(class_names),
        labels=np.concatenate([np.asarray(labels, dtype=np.int64) for _, _, labels in parts]),
        given=np.concatenate([np.full(len(labels), split, dtype="<U10") for split, _, labels in parts]),
        content=content,
        fetch=fetch,
        sample=lambda: [(0, parts[0][1][0])],
        describe=lambda row: f"image {row} of {name}",
        test_fraction=test_fraction,
    )
