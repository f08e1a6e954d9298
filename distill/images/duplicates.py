"""Near-duplicates (copies, photos of a burst, slight crops), found by a perceptual hash and checked.

Of the lowest 63 frequencies of a cosine transform, one bit each says whether it is above the image's median. Images
whose bits differ in 8 at most, and whose frequencies have a cosine above 0.95, are called near-duplicates. On CIFAR-10
(60,000 images of 32 pixels) all 877 such pairs are of one class, where one pair in ten would be by chance; of
8-pixel digits a fifth are called so and are other people's writing, wherefore images below 32 pixels are left alone.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

FEWEST_PIXELS = 32
BITS_APART = 8  # of 63
ALIKE = 0.95  # cosine
SIDE = 8  # of the square of frequencies; the lowest is the mean brightness, which is left out
FLAT = 4.0  # standard deviation, of 255, below which an image shows nothing to be compared by
CHUNK = 1000  # images at once
Pixels = NDArray[np.uint8]
Pairs = tuple[NDArray[np.int64], NDArray[np.int64]]


def near_duplicates(images: Pixels) -> NDArray[np.int64]:
    """(N,): for each of the images (N, C, H, W) the first one that it is a near-duplicate of, directly or by others."""
    found = frequencies(images)
    (shown,) = np.nonzero(found.any(axis=1))
    found = found[shown]
    # Equal hashes are compared with the first of them alone: many copies of one photo are not many pairs.
    distinct, first, which = np.unique(hashes(found), return_index=True, return_inverse=True)
    pairs = [(first[which], np.arange(len(found))), *((first[i], first[j]) for i, j in _close(distinct))]
    alike = [np.einsum("nf,nf->n", found[i], found[j]) > ALIKE for i, j in pairs]
    ends = tuple(
        shown[np.concatenate([end[same] for end, same in zip(side, alike, strict=True)])]
        for side in zip(*pairs, strict=True)
    )
    graph = coo_array((np.ones(len(ends[0]), dtype=np.int8), ends), shape=(len(images), len(images)))
    _, member_of = connected_components(graph, directed=False)
    _, first, which = np.unique(member_of, return_index=True, return_inverse=True)
    return first[which].astype(np.int64)


def frequencies(images: Pixels) -> NDArray[np.float32]:
    """(N, 63): the lowest frequencies of the images' brightness, as unit vectors; 0 where an image is flat."""
    height, width = images.shape[2:]
    down, across = _cosines(height), _cosines(width)
    found = np.empty((len(images), SIDE * SIDE - 1), dtype=np.float32)
    for start in range(0, len(images), CHUNK):
        grey = images[start : start + CHUNK].mean(axis=1, dtype=np.float32)
        low = (down @ grey @ across.T).reshape(len(grey), -1)[:, 1:]
        size = np.linalg.norm(low, axis=1, keepdims=True)
        flat = size < FLAT * np.sqrt(height * width)
        found[start : start + CHUNK] = np.where(flat, 0, low / np.maximum(size, 1e-9))
    return found


def hashes(found: NDArray[np.float32]) -> NDArray[np.uint64]:
    """(N,): a bit for each frequency that is above the median of the image's own."""
    bits = found > np.median(found, axis=1, keepdims=True)
    return np.packbits(np.pad(bits, ((0, 0), (0, 1))), axis=1).view(np.uint64).ravel()


def _cosines(side: int) -> NDArray[np.float32]:
    """(8, side): orthonormal, the same waves for every size of an image."""
    angles = np.outer(np.arange(SIDE), 2 * np.arange(side) + 1) * (np.pi / (2 * side))
    scale = np.where(np.arange(SIDE) == 0, 1.0, np.sqrt(2.0))[:, None] / np.sqrt(side)
    waves: NDArray[np.float32] = (np.cos(angles) * scale).astype(np.float32)
    return waves


def _close(distinct: NDArray[np.uint64]) -> Iterator[Pairs]:
    """Pairs of hashes that differ in few bits, some more than once.

    Two of them agree in at least one of nine bands of bits, so only those that share a band are compared.
    """
    edges = np.linspace(0, 64, BITS_APART + 2).round().astype(np.uint64)
    for low, high in itertools.pairwise(edges):
        band = (distinct >> low) & ((np.uint64(1) << (high - low)) - np.uint64(1))
        order = np.argsort(band, kind="stable")
        for bucket in np.split(order, np.flatnonzero(np.diff(band[order])) + 1):
            for start in range(0, len(bucket), CHUNK):
                few, rest = bucket[start : start + CHUNK], bucket[start:]
                apart = np.bitwise_count(distinct[few][:, None] ^ distinct[rest][None, :])
                i, j = np.nonzero(np.triu(apart <= BITS_APART, 1))
                yield few[i], rest[j]
