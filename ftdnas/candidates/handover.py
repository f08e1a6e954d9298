"""How materials reach the processes that train on them: as files that all of them map into one memory."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from distill.files import naming
from distill.images.preprocess import Preprocess
from distill.training.examples import Examples
from ftdnas.candidates.materials import Label, Material, Shelf, Taught


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
        if 0 in self.shape:  # which cannot be mapped
            return np.empty(self.shape, self.dtype)
        # Copy on write, because torch warns of arrays that it may not write to; nothing here does.
        return np.memmap(self.path, dtype=self.dtype, mode="c", shape=self.shape, offset=self.offset)


@dataclass(frozen=True)
class _Parcel:
    label: Label
    images: _Array
    labels: _Array
    preprocess: tuple[str, Mapping[str, NDArray[np.float32]]] | None
    teachers: tuple[_Array, str, tuple[int, int, int], int] | None
    side: int | None


def _pack(material: Material, stem: Path) -> _Parcel:
    examples = material.examples
    preprocess = None
    if examples.preprocess is not None:
        tensors = {name: tensor.numpy() for name, tensor in examples.preprocess.to_tensors().items()}
        preprocess = (examples.preprocess.kind, tensors)
    teachers, taught = None, material.teachers
    if taught is not None:
        weights = _lay_down(taught.weights.numpy(), stem.with_suffix(".teachers"))
        teachers = weights, taught.backbone, taught.image_shape, taught.classes
    images = examples.images.numpy() if isinstance(examples.images, torch.Tensor) else examples.images
    return _Parcel(
        material.label,
        _lay_down(images, stem.with_suffix(".images")),
        _lay_down(examples.labels.numpy(), stem.with_suffix(".labels")),
        preprocess,
        teachers,
        material.side,
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
    with naming(path), path.open("wb") as file:
        file.write(np.ascontiguousarray(array).data)  # tofile does not say why it fails
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
        taught = None
        if parcel.teachers is not None:
            weights, backbone, shape, classes = parcel.teachers
            taught = Taught(backbone, torch.from_numpy(weights.open()).to(device), shape, classes)
        shelf[parcel.label.fingerprint] = Material(parcel.label, examples, taught, parcel.side)
    return shelf
