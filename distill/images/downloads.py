"""The data sets that torchvision knows how to read: found where they lie, else downloaded and checked."""

from __future__ import annotations

import hashlib
import http.client
import os
import urllib.request
import warnings
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from distill.files import locked
from distill.images.listing import Listing, ListingRequest, from_arrays
from distill.run import Listener, Progress

CLASSES = {
    "cifar10": "CIFAR10",
    "cifar100": "CIFAR100",
    "svhn": "SVHN",
    "mnist": "MNIST",
    "fashionmnist": "FashionMNIST",
}  # name -> class in torchvision.datasets
_TIMEOUT_S = 30
_MB = 1_000_000
_Parts = list[tuple[str, NDArray[np.uint8], NDArray[Any]]]


class _Archive(NamedTuple):
    """A file to fetch: its addresses, the best first, its place below the folder of the data set, its checksum."""

    addresses: tuple[str, ...]
    path: str
    md5: str


def list_published(request: ListingRequest) -> Listing:
    """List one of `CLASSES` as torchvision stores it, in `root`, `root`/name or `downloads`/name.

    What is nowhere is downloaded to `downloads`/name, with its progress in megabytes. Raises FileNotFoundError, with
    what was looked for, where, and how to bring it, if that is not allowed or fails.
    """
    from torchvision import datasets
    from torchvision.datasets.utils import check_integrity

    name, title, root = request.name, request.title, request.root
    kind = getattr(datasets, CLASSES[name])
    home = request.downloads / name
    places = [home] if root is None else [root / name, root, home]
    content = next(filter(None, (_read(kind, place) for place in places)), None)
    if content is None:
        with locked(home / ".lock"):
            for archive in _archives(kind):
                target = home / archive.path
                if check_integrity(target, archive.md5):
                    continue
                reason = "offline" if request.offline else _download(archive, target, title, request.listener)
                if reason:
                    looked = " and ".join(str(place) for place in places if place != root)
                    raise FileNotFoundError(
                        f"{title} is not here: looked in {looked} for train.parquet or what torchvision keeps; "
                        f"not downloaded ({reason}): put {archive.addresses[0]} into {target.parent}, "
                        "or run again with a network and without --offline"
                    )
            content = _read(kind, home, unpack=True)
    if content is None:
        raise ValueError(f"{title} in {home} cannot be read: remove that folder and run again")
    names, parts = content
    pixels = hashlib.sha256()
    for _, images, _ in parts:
        pixels.update(images.data)
    return from_arrays(name, title, "as torchvision reads it", names, parts, content=f"{name} {pixels.hexdigest()}")


def _read(kind: Any, folder: Path, unpack: bool = False) -> tuple[list[str], _Parts] | None:
    """Class names and parts by torchvision's own reader; None where they are not there or not whole."""
    parts: _Parts = []
    names: list[str] = []
    for split in ("train", "test"):
        which = {"split": split} if hasattr(kind, "split_list") else {"train": split == "train"}
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # CIFAR was pickled by a numpy of 2009
                data = kind(folder, download=unpack, **which)
        except (RuntimeError, ValueError, AssertionError, OSError):
            return None
        images = np.asarray(data.data)
        if images.ndim == 4 and images.shape[1] == 3:  # SVHN
            images = images.transpose(0, 2, 3, 1)
        labels = np.asarray(data.targets if hasattr(data, "targets") else data.labels)
        names = [str(label) for label in getattr(data, "classes", range(10))]
        parts.append((split, np.ascontiguousarray(images), labels))
    return names, parts


def _archives(kind: Any) -> list[_Archive]:
    """What to fetch, by the addresses and checksums that torchvision carries."""
    if hasattr(kind, "split_list"):
        return [_Archive((address,), file, md5) for address, file, md5 in map(kind.split_list.get, ("train", "test"))]
    if hasattr(kind, "mirrors"):
        return [
            _Archive(tuple(f"{mirror}{file}" for mirror in kind.mirrors), f"{kind.__name__}/raw/{file}", md5)
            for file, md5 in kind.resources
        ]
    return [_Archive((kind.url,), kind.filename, kind.tgz_md5)]


def _download(archive: _Archive, target: Path, title: str, listener: Listener) -> str:
    """Fetch one file and check it; "" or the reason why it did not come.

    Not by torchvision's own function: that waits without end, tells stderr alone how far it is, and takes http where
    https fails.
    """
    from torchvision.datasets.utils import check_integrity

    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{target.name}.{os.getpid()}")
    reason = ""
    for address in archive.addresses:
        try:
            with urllib.request.urlopen(address, timeout=_TIMEOUT_S) as answer, partial.open("wb") as file:
                total = int(answer.headers.get("Content-Length") or 0)
                listener(Progress("download", 0, -(-total // _MB), message=f"downloading {title}: {address}"))
                while piece := answer.read(_MB):
                    file.write(piece)
                    listener(Progress("download", -(-file.tell() // _MB), -(-total // _MB)))
            if check_integrity(partial, archive.md5):
                partial.replace(target)
                return ""
            reason = f"{address} sent other data than the published ones"
        except (OSError, http.client.HTTPException) as error:
            reason = f"{address}: {getattr(error, 'reason', None) or error}"
        finally:
            partial.unlink(missing_ok=True)
    return reason
