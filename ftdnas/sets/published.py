"""Synthetic sets that the field publishes: image, label and learning-rate tensors in .pt files."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from distill.images.preprocess import Preprocess, fit_preprocess
from distill.recipe import Recipe, TrainingRecipe
from distill.run import Listener, ignore
from distill.synthetic import SOFT_TOLERANCE, SyntheticSet
from ftdnas.runtime.home import home
from ftdnas.sets.images import KEY, Source
from ftdnas.sets.library import SUFFIX, Library

if TYPE_CHECKING:
    from distill.images.datasets import ImageDataset

MOST_CLASSES = 100_000  # labels above this are no class numbers


@dataclass(frozen=True)
class Published:
    """The files, and what they do not say about themselves.

    `images` is a .pt file, or the folder that holds images_best.pt. Labels and step size, where not given, are looked
    for beside it, under the same name with "labels" and "lr" in it. `preprocess` is the space the images are in:
    "none"; "standardize" with `mean` and `std` per channel, or fitted on the data set of `source`; "zca" fitted on
    that. The data set also names the classes, unless `class_names` does; else they are called by their numbers.
    `logits`: two-dimensional labels are logits, not distributions (DATM publishes such).
    """

    images: Path
    labels: Path | None = None
    lr: Path | None = None
    step_size: float | None = None
    logits: bool = False
    preprocess: str = "none"
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    source: Source | None = None
    class_names: tuple[str, ...] = ()
    augment: str = TrainingRecipe().augment
    backbone: str = Recipe().backbone


def import_set(library: Library, published: Published, name: str | None = None, listener: Listener = ignore) -> Path:
    """Add a set to the library and return its path there: a .safetensors file under its own name, or .pt tensors.

    Raises what `SyntheticSet.load`, `read_published` and `Library.add` raise.
    """
    file = published.images
    if file.suffix != SUFFIX:
        return library.add(read_published(published, listener), name)
    if published != Published(file, source=published.source):
        raise ValueError(f"{file.name} says itself how it was made: give only its name")
    return library.add(SyntheticSet.load(file), name or file.name.removesuffix(SUFFIX))


def read_published(published: Published, listener: Listener = ignore) -> SyntheticSet:
    """The set, every part of it checked.

    Raises FileNotFoundError where a file is missing, ValueError where one holds something else or would execute
    anything, or where the parts do not fit together, and what loading the data set raises.
    """
    file = _images_file(published.images)
    images = _read_tensor(file).detach().float()
    if images.ndim != 4:
        raise ValueError(f"{file}: holds a tensor {tuple(images.shape)}, not images (N, C, H, W)")
    labels = _labels(_read_tensor(published.labels or _beside(file, "labels", "--labels")), published.logits)
    step_size = published.step_size or _read_number(published.lr or _beside(file, "lr", "--lr or --step-size"))
    data = _real_images(published, images, listener)
    names = published.class_names or (data.class_names if data else tuple(map(str, range(_count(labels)))))
    hard = labels if labels.ndim == 1 else labels.argmax(1)
    return SyntheticSet(
        images=images,
        labels=labels,
        step_size=float(step_size),
        preprocess=_preprocess(published, images, data, listener),
        augment=published.augment,
        backbone=published.backbone,
        class_names=names,
        ipc=int(torch.unique(hard, return_counts=True)[1].max()) if len(hard) else 1,
        provenance=_provenance(published, file, data),
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


def _real_images(published: Published, images: Tensor, listener: Listener) -> ImageDataset | None:
    """The data set that was distilled, all its training images together: the papers hold none back."""
    source = published.source
    if source is None or not source.spec:
        return None
    size = int(images.shape[2]) if source.image_size is None else source.image_size
    validation = 0.0 if source.validation is None else source.validation
    return replace(source, image_size=size, validation=validation).load(listener)


def _preprocess(published: Published, images: Tensor, data: ImageDataset | None, listener: Listener) -> Preprocess:
    kind = published.preprocess
    if published.mean or published.std:
        if kind != "standardize":
            raise ValueError(f"mean and std belong to preprocess standardize, not to {kind}")
        tensors = {"mean": torch.tensor(published.mean), "std": torch.tensor(published.std)}
        return Preprocess.from_tensors(kind, tensors, (images.shape[1], images.shape[2], images.shape[3]))
    if kind != "none" and data is None:
        given = "--mean and --std, or " if kind == "standardize" else ""
        raise ValueError(f"preprocess {kind} needs {given}the real images to fit it on (--dataset)")
    pixels = data.train.images if data else torch.zeros(1, 1, 1, 1, dtype=torch.uint8)
    return fit_preprocess(kind, pixels, cache=home() / "preprocess", listener=listener)


def _provenance(published: Published, file: Path, data: ImageDataset | None) -> dict[str, Any]:
    origin: dict[str, Any] = {"method": "imported", "notes": [f"imported from {file.name}; made by others"]}
    if data is None or published.source is None:
        return origin
    found = {"dataset": data.name, "source": data.source, "data_fingerprint": data.fingerprint}
    used = replace(published.source, image_size=data.image_shape[1], validation=published.source.validation or 0.0)
    return {**origin, **found, "split_note": data.split_note, KEY: used.to_json()}


def _images_file(path: Path) -> Path:
    if not path.is_dir():
        return path
    for name in ("images_best.pt", "images.pt"):
        if (path / name).is_file():
            return path / name
    found = sorted(path.glob("images*.pt"))
    if not found:
        raise FileNotFoundError(f"no images_best.pt, images.pt or images*.pt in {path}")
    if len(found) > 1:
        raise ValueError(f"{path} has {len(found)} files images*.pt: name the one to import")
    return found[0]


def _beside(images: Path, word: str, option: str) -> Path:
    beside = images.with_name(images.name.replace("images", word))
    if beside == images or not beside.is_file():
        looked = f" (looked for {beside.name} beside it)" if beside != images else ""
        raise FileNotFoundError(f"no {word} file for {images}{looked}: give {option}")
    return beside


def _read_tensor(path: Path) -> Tensor:
    found = read_torch(path)
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
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:120]
        raise ValueError(f"{path}: not plain tensors as torch.save writes them ({reason})") from error
