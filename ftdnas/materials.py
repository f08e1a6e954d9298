"""What candidates are trained on and scored on, and how it reaches the processes that train them."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from distill.datasets import ImageDataset, Split
from distill.examples import Examples
from distill.preprocess import Preprocess
from distill.randomness import generator
from distill.synthetic import SyntheticSet


@dataclass(frozen=True)
class Label:
    """The name of a material for people and its identity; `images` is N, `classes` K."""

    name: str
    fingerprint: str
    images: int
    classes: int


@dataclass(frozen=True, eq=False)
class Material:
    """Labelled images under their label."""

    label: Label
    examples: Examples


Shelf = Mapping[str, Material]  # by fingerprint


def set_material(synthetic: SyntheticSet, name: str) -> Material:
    """The synthetic images themselves."""
    label = Label(f"the set {name}", f"set/{synthetic.identity}", len(synthetic.images), synthetic.num_classes)
    return Material(label, Examples(synthetic.images, synthetic.labels))


def random_material(data: ImageDataset, synthetic: SyntheticSet, seed: int, draw: int) -> Material:
    """As many random real training images of each class as the set has, preprocessed as the set's.

    Soft labels are counted by their largest entry; the real images have their own, hard labels. A class with too few
    images gives all it has.
    """
    labels = synthetic.labels if synthetic.hard_labels else synthetic.labels.argmax(1)
    wanted = torch.bincount(labels, minlength=data.num_classes).tolist()
    rows = []
    for of_class, count in enumerate(wanted):
        members = np.flatnonzero(data.train.labels == of_class)
        order = torch.randperm(len(members), generator=generator(seed, "random subset", draw, of_class)).numpy()
        rows.append(members[order[:count]])
    taken = np.sort(np.concatenate(rows))
    identity = f"{data.fingerprint}/{synthetic.preprocess.fingerprint}/{hashlib.sha256(taken.tobytes()).hexdigest()}"
    label = Label(f"random subset {draw + 1}", f"random/{_digest(identity)}", len(taken), data.num_classes)
    return Material(label, Examples.from_split(data.train.take(taken), synthetic.preprocess))


def held_out_material(data: ImageDataset, preprocess: Preprocess) -> Material:
    """The half of validation that scores candidates, which chose nothing.

    Raises ValueError where no validation images were held back.
    """
    split: Split = data.score()
    if len(split) == 0:
        raise ValueError(
            f"{data.name} was loaded without validation images, and candidates are not scored on test images: "
            "hold some back (--validation 0.1)"
        )
    identity = f"{data.fingerprint}/{preprocess.fingerprint}"
    label = Label(
        "validation images (the half that scores)", f"score/{_digest(identity)}", len(split), data.num_classes
    )
    return Material(label, Examples.from_split(split, preprocess))


def hand_over(materials: Sequence[Material], folder: Path, device: str) -> Callable[[], Shelf]:
    """A picklable function that finds the materials again in another process, on `device`.

    Images become files in `folder`, which all processes map into one memory; decoded photos that lie in a file already
    stay there. The folder is emptied first and must outlive the processes.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    parcels = [_pack(material, folder / str(number)) for number, material in enumerate(materials)]
    return partial(_receive, parcels, device)


@dataclass(frozen=True)
class _Array:
    """An array that lies in a file."""

    path: Path
    dtype: str
    shape: tuple[int, ...]
    offset: int

    def open(self) -> NDArray[Any]:
        # Copy on write, because torch warns of arrays that it may not write to; nothing here does.
        return np.memmap(self.path, dtype=self.dtype, mode="c", shape=self.shape, offset=self.offset)


@dataclass(frozen=True)
class _Parcel:
    label: Label
    images: _Array
    labels: _Array
    preprocess: tuple[str, Mapping[str, NDArray[np.float32]]] | None


def _pack(material: Material, stem: Path) -> _Parcel:
    examples = material.examples
    preprocess = None
    if examples.preprocess is not None:
        tensors = {name: tensor.numpy() for name, tensor in examples.preprocess.to_tensors().items()}
        preprocess = (examples.preprocess.kind, tensors)
    images = examples.images.numpy() if isinstance(examples.images, torch.Tensor) else examples.images
    return _Parcel(
        material.label,
        _lay_down(images, stem.with_suffix(".images")),
        _lay_down(examples.labels.numpy(), stem.with_suffix(".labels")),
        preprocess,
    )


def _lay_down(array: NDArray[Any], path: Path) -> _Array:
    """Where the array lies in a file: the one that it is mapped from, else a new one."""
    if isinstance(array, np.memmap) and array.flags.c_contiguous:
        whole = array
        while isinstance(whole.base, np.memmap):
            whole = whole.base
        if whole.filename is not None:
            offset = whole.offset + array.ctypes.data - whole.ctypes.data
            return _Array(Path(whole.filename), array.dtype.str, array.shape, offset)
    array.tofile(path)
    return _Array(path, array.dtype.str, array.shape, 0)


def _receive(parcels: Sequence[_Parcel], device: str) -> Shelf:
    torch.set_num_threads(1)  # there are as many processes as cores
    shelf = {}
    for parcel in parcels:
        images, labels = parcel.images.open(), torch.from_numpy(parcel.labels.open()).to(device)
        if parcel.preprocess is None:
            examples = Examples(torch.from_numpy(images).to(device), labels)
        else:
            kind, arrays = parcel.preprocess
            channels, height, width = images.shape[1:]
            tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
            examples = Examples(images, labels, Preprocess.from_tensors(kind, tensors, (channels, height, width)))
        shelf[parcel.label.fingerprint] = Material(parcel.label, examples)
    return shelf


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
