"""Synthetic sets that the field publishes: image, label and learning-rate tensors in .pt files."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from distill.images.preprocess import Preprocess, fit_preprocess
from distill.run import Listener, ignore
from distill.synthetic import SOFT_TOLERANCE, SyntheticSet
from ftdnas.runtime.home import home
from ftdnas.runtime.options import shared
from ftdnas.sets.images import KEY
from ftdnas.sets.library import SUFFIX, Library
from ftdnas.sets.request import ImportRequest, OnImages

if TYPE_CHECKING:
    from distill.images.datasets import ImageDataset

MOST_CLASSES = 100_000  # labels above this are no class numbers
CHANNELS = (1, 3)
CODE = (
    "more than plain tensors, which is not read, for it could run code: where you trust it, load it yourself and save "
    "the images, the labels and the learning rate, a tensor a file"
)
RESULTS = (
    f"a file of results, as DatasetCondensation releases them (its data[-1] is images and labels): it holds {CODE}"
)


def import_set(library: Library, request: ImportRequest, listener: Listener = ignore) -> Path:
    """Add a set to the library and return its path there: a .safetensors file under its own name, or .pt tensors.

    Raises what `SyntheticSet.load`, `read_published` and `Library.add` raise.
    """
    file = request.images
    if file.suffix != SUFFIX:
        return library.add(read_published(request, listener), request.name)
    if request != ImportRequest(images=file, name=request.name, **vars(shared(request, OnImages))):
        raise ValueError(f"{file.name} says itself how it was made: give only its name")
    return library.add(SyntheticSet.load(file), request.name or file.name.removesuffix(SUFFIX))


def read_published(request: ImportRequest, listener: Listener = ignore) -> SyntheticSet:
    """The set, every part of it checked.

    Raises FileNotFoundError where a file is missing, ValueError where one holds something else or would execute
    anything, or where the parts do not fit together, and what loading the data set raises.
    """
    file = _images_file(request.images)
    images = _read_tensor(file).detach().float()
    if images.ndim != 4:
        raise ValueError(f"{file}: holds a tensor {tuple(images.shape)}, not images (N, C, H, W)")
    if images.shape[1] not in CHANNELS and images.shape[3] in CHANNELS:
        raise ValueError(
            f"{file}: holds a tensor {tuple(images.shape)}, whose channels stand last: images are (N, C, H, W), so "
            "save images.permute(0, 3, 1, 2)"
        )
    labels = _labels(_read_tensor(request.labels or _beside(file, "labels", "--labels")), request.logits)
    step_size = request.step_size or _read_number(request.lr or _beside(file, "lr", "--lr or --step-size"))
    data = _real_images(request, images, listener)
    names = request.class_names or (data.class_names if data else tuple(map(str, range(_count(labels)))))
    hard = labels if labels.ndim == 1 else labels.argmax(1)
    return SyntheticSet(
        images=images,
        labels=labels,
        step_size=float(step_size),
        preprocess=_preprocess(request, images, data, listener),
        augment=request.augment,
        backbone=request.backbone,
        class_names=names,
        ipc=int(torch.unique(hard, return_counts=True)[1].max()) if len(hard) else 1,
        provenance=_provenance(request, file, data),
    )


def _labels(labels: Tensor, logits: bool) -> Tensor:
    """int64 (N,), or float32 (N, K) distributions."""
    labels = labels.detach()
    if labels.ndim == 1 and not labels.is_floating_point():
        return labels.long()
    if labels.ndim != 2 or not labels.is_floating_point():
        raise ValueError(f"labels are {labels.dtype} {tuple(labels.shape)}, not whole numbers (N,) or floats (N, K)")
    if logits:
        return labels.float().softmax(1)
    if not ((labels.double().sum(1) - 1).abs() <= SOFT_TOLERANCE).all():
        raise ValueError("soft labels do not sum to 1 for each image: if they are logits, say so (--logits)")
    return labels.float()


def _count(labels: Tensor) -> int:
    """The number of classes that labels know of."""
    if labels.ndim == 2:
        return labels.shape[1]
    wrong = labels[(labels < 0) | (labels >= MOST_CLASSES)]
    if len(wrong):
        raise ValueError(f"label {int(wrong[0])} is no class number")
    return int(labels.max()) + 1 if len(labels) else 1


def _real_images(request: ImportRequest, images: Tensor, listener: Listener) -> ImageDataset | None:
    """The data set that was distilled, all its training images together: the papers hold none back."""
    source = request.source
    if not source.spec:
        return None
    size = int(images.shape[2]) if source.image_size is None else source.image_size
    validation = 0.0 if source.validation is None else source.validation
    return replace(source, image_size=size, validation=validation).load(listener)


def _preprocess(request: ImportRequest, images: Tensor, data: ImageDataset | None, listener: Listener) -> Preprocess:
    kind = request.preprocess
    if request.mean or request.std:
        if kind != "standardize":
            raise ValueError(f"mean and std belong to preprocess standardize, not to {kind}")
        tensors = {"mean": torch.tensor(request.mean), "std": torch.tensor(request.std)}
        return Preprocess.from_tensors(kind, tensors, (images.shape[1], images.shape[2], images.shape[3]))
    if kind != "none" and data is None:
        given = "--mean and --std, or " if kind == "standardize" else ""
        raise ValueError(f"preprocess {kind} needs {given}the real images to fit it on (--dataset)")
    pixels = data.train.images if data else torch.zeros(1, 1, 1, 1, dtype=torch.uint8)
    name = data.name if data else ""
    return fit_preprocess(kind, pixels, dataset=name, cache=home() / "preprocess", listener=listener)


def _provenance(request: ImportRequest, file: Path, data: ImageDataset | None) -> dict[str, Any]:
    origin: dict[str, Any] = {"method": "imported", "notes": [f"imported from {file.name}; made by others"]}
    if data is None:
        return origin
    found = {"dataset": data.name, "source": data.source, "data_fingerprint": data.fingerprint}
    used = replace(request.source, image_size=data.image_shape[1], validation=request.source.validation or 0.0)
    return {**origin, **found, "split_note": data.split_note, KEY: used.to_json()}


def _images_file(path: Path) -> Path:
    if not path.is_dir():
        return path
    files: list[Path] = []
    for pattern in ("images_best.pt", "images.pt", "images*.pt"):
        files = sorted(path.glob(pattern))
        if len(files) == 1:
            return files[0]
    if not files:
        raise FileNotFoundError(f"no images_best.pt, images.pt or images*.pt in {path}")
    raise ValueError(f"{path} has {len(files)} files images*.pt: name the one to import")


def _beside(images: Path, word: str, option: str) -> Path:
    beside = images.with_name(images.name.replace("images", word))
    if beside == images or not beside.is_file():
        looked = f" (looked for {beside.name} beside it)" if beside != images else ""
        raise FileNotFoundError(f"no {word} file for {images}{looked}: give {option}")
    return beside


def _read_tensor(path: Path) -> Tensor:
    found = read_torch(path)
    if isinstance(found, Mapping) and "data" in found:
        raise ValueError(f"{path}: {RESULTS}")
    if not isinstance(found, Tensor) or found.layout != torch.strided or found.is_complex() or found.is_quantized:
        raise ValueError(f"{path}: holds a {type(found).__name__} that is not one dense tensor of real numbers")
    return found


def _read_number(path: Path) -> float:
    found = read_torch(path)
    if isinstance(found, Tensor) and found.numel() == 1:
        found = found.item()
    if type(found) not in (int, float) or not math.isfinite(found):
        raise ValueError(f"{path}: holds a {type(found).__name__}, not one finite number")
    return float(found)


def read_torch(path: Path) -> Any:
    """The one place where torch.load occurs; weights_only refuses whatever would execute."""
    if not path.is_file():
        raise FileNotFoundError(f"no file {path}")
    try:
        with warnings.catch_warnings(action="ignore"):  # of old formats: no concern of who imports the file
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged or hostile file makes it raise almost anything
        said = str(error)
        if "weights_only" in said:  # torch's own advice is to run whatever the file says
            what = RESULTS if path.name.startswith("res_") else f"it holds {CODE}"
            raise ValueError(f"{path}: not plain tensors as torch.save writes them: {what}") from None
        reason = (said.strip() or type(error).__name__).splitlines()[0].partition(". ")[0][:120]
        raise ValueError(f"{path}: not plain tensors as torch.save writes them ({reason})") from error
