"""The data sets that torchvision knows how to read: found where they lie, else downloaded and checked."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import socket
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distill.files import locked
from distill.images.listing import Listing, ListingRequest, from_arrays
from distill.run import Progress

PUBLISHED = {
    "cifar10": ("CIFAR-10", "CIFAR10"),
    "cifar100": ("CIFAR-100", "CIFAR100"),
    "svhn": ("SVHN", "SVHN"),
    "mnist": ("MNIST", "MNIST"),
    "fashionmnist": ("Fashion-MNIST", "FashionMNIST"),
}  # name -> proper name, class in torchvision.datasets
_TIMEOUT_S = 30
_FAILURES = (RuntimeError, ValueError, AssertionError, OSError)  # of torchvision where data are missing or not whole


def list_published(request: ListingRequest) -> Listing:
    """List one of `PUBLISHED` as torchvision stores it, in `root`, `root`/name or `downloads`/name.

    What is nowhere is downloaded to `downloads`/name and checked there, by torchvision. Raises FileNotFoundError, with
    what was looked for, where, and how to bring it, if that is not allowed or fails.
    """
    from torchvision import datasets

    name, title, root = request.name, request.title, request.root
    kind = getattr(datasets, PUBLISHED[name][1])
    home = request.downloads / name
    places = [home] if root is None else [root / name, root, home]
    for place in places:
        with contextlib.suppress(*_FAILURES):
            return _listing(request, kind, place)
    with locked(home / ".lock"):
        missing = _missing(kind, home)
        reason = "offline"
        if missing and not request.offline:
            address = next(iter(missing.values()))
            request.listener(Progress("download", 0, 1, message=f"downloading {title}: {address}"))
            reason = _download(kind, home)
            missing = _missing(kind, home)
            request.listener(Progress("download", not missing, 1))
            for file in missing:
                file.unlink(missing_ok=True)  # cut short, or other data than the published ones
        for file, address in missing.items():
            looked = " and ".join(str(place) for place in places if place != root)
            raise FileNotFoundError(
                f"{title} is not here: looked in {looked} for train.parquet or what torchvision keeps; "
                f"not downloaded ({reason}): put {address} into {file.parent}, "
                "or run again with a network and without --offline"
            )
        try:
            return _listing(request, kind, home, download=True)  # which unpacks what is there
        except _FAILURES as error:
            raise ValueError(f"{title} in {home} cannot be read: remove that folder and run again") from error


def _listing(request: ListingRequest, kind: Any, folder: Path, *, download: bool = False) -> Listing:
    """What torchvision's own reader finds; raises one of _FAILURES where that is nothing or not whole."""
    parts: list[tuple[str, NDArray[np.uint8], NDArray[Any]]] = []
    pixels = hashlib.sha256()
    for split in ("train", "test"):
        data = _read(kind, folder, split, download)
        images = np.asarray(data.data)
        if images.ndim == 4 and images.shape[1] == 3:  # SVHN
            images = images.transpose(0, 2, 3, 1)
        images = np.ascontiguousarray(images)
        pixels.update(images.data)
        parts.append((split, images, np.asarray(data.targets if hasattr(data, "targets") else data.labels)))
    names = [str(label) for label in getattr(data, "classes", range(10))]
    content = f"{request.name} {pixels.hexdigest()}"
    return from_arrays(request.name, request.title, "as torchvision reads it", names, parts, content=content)


def _read(kind: Any, folder: Path, split: str, download: bool) -> Any:
    which = {"split": split} if hasattr(kind, "split_list") else {"train": split == "train"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # CIFAR was pickled by a numpy of 2009
        return kind(folder, download=download, **which)


def _download(kind: Any, home: Path) -> str:
    """Fetch what is missing; "" or the reason why something did not come."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(_TIMEOUT_S)  # torchvision would wait without end
    try:
        for split in ("train", "test"):
            _read(kind, home, split, download=True)
    except (*_FAILURES, http.client.HTTPException) as error:
        return str(error).strip().splitlines()[-1]
    finally:
        socket.setdefaulttimeout(before)
    return ""


def _missing(kind: Any, home: Path) -> dict[Path, str]:
    """The archives that are not in `home` whole by torchvision's checksums, and the addresses that it has for them."""
    from torchvision.datasets.utils import check_integrity

    if hasattr(kind, "split_list"):
        archives = [kind.split_list[split] for split in ("train", "test")]
    elif hasattr(kind, "mirrors"):
        archives = [(f"{kind.mirrors[0]}{file}", f"{kind.__name__}/raw/{file}", md5) for file, md5 in kind.resources]
    else:
        archives = [(kind.url, kind.filename, kind.tgz_md5)]
    return {home / file: address for address, file, md5 in archives if not check_integrity(home / file, md5)}
