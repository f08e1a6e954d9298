"""Pixels to the space in which networks train, and back: none, standardize or ZCA whitening.

Fitted on training images only, or standardized by the constants that the field publishes; kept inside every artifact
made with it. Images go in as uint8 in 0 .. 255 or as floats in [0, 1]; preprocessed images are float32. D = C * H * W
below.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from distill.files import set_aside
from distill.recipe import PREPROCESSES
from distill.run import Listener, Progress, ignore
from distill.tensors import read_tensors, write_tensors

ZCA_EPSILON = 0.1  # added to every eigenvalue of the covariance of pixels in [0, 1]
_CIFAR = ((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010))
_IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
PUBLISHED = {
    # By data set: mean and deviation per channel with which MTT, FTD and DC standardise. CIFAR's deviations are means
    # over single images (0.246, 0.244 and 0.262 over all pixels); CIFAR-100 and Tiny ImageNet have none of their own.
    **dict.fromkeys(("cifar10", "cifar100"), _CIFAR),
    **dict.fromkeys(("tiny-imagenet", "imagenette", "imagewoof"), _IMAGENET),
    "svhn": ((0.4377, 0.4438, 0.4728), (0.1980, 0.2010, 0.1970)),
    "mnist": ((0.1307,), (0.3081,)),
    "fashionmnist": ((0.2861,), (0.3530,)),
}
CHUNK = 1000  # images converted at once, so that only the result is ever held whole

Pixels = Tensor | np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True, eq=False)
class Preprocess:
    """A fitted preprocessing.

    `tensors`, all float32: none: nothing; standardize: `mean` and `std`, (C,); zca: `mean`, (D,), and `whitening`, the
    symmetric positive definite (D, D) matrix U (S + 0.1)^(-1/2) U^T.
    """

    kind: str
    tensors: Mapping[str, Tensor]

    def apply(self, images: Pixels, device: torch.device | str | None = None) -> Tensor:
        """(N, C, H, W) uint8 in 0 .. 255, or floats in [0, 1], to float32 (N, C, H, W), computed on the device.

        None is that of the images.

        Raises ValueError where the images' shape is not the one it was fitted on or their type is neither.
        """
        shape = self._checked_shape(images)
        if device is None:
            device = images.device if isinstance(images, Tensor) else "cpu"
        result = torch.empty(shape, dtype=torch.float32, device=device)
        for rows, pixels in _chunks(images):
            result[rows] = self._forward(pixels.to(device))
        return result

    def invert(self, images: Tensor) -> Tensor:
        """Preprocessed float (N, C, H, W) to float32 in pixel space: [0, 1] for real images, not clamped for others.

        ZCA is inverted by solving with the stored whitening matrix (Cholesky, float64), which needs no second matrix:
        its condition number is sqrt((S_max + 0.1) / 0.1), some tens, so float32 images come back to about 1e-5.
        """
        shape = self._checked_shape(images)
        images = images.detach().float()
        if self.kind == "none":
            return images.clone()
        if self.kind == "standardize":
            mean, std = (self.tensors[name].to(images.device).view(1, -1, 1, 1) for name in ("mean", "std"))
            return images * std + mean
        factor = self._whitening_factor.to(images.device)
        result = torch.empty_like(images)
        for start in range(0, shape[0], CHUNK):
            flat = images[start : start + CHUNK].flatten(1).double()
            pixels = torch.cholesky_solve(flat.T, factor).T + self.tensors["mean"].to(images.device)
            result[start : start + CHUNK] = pixels.float().view(-1, *shape[1:])
        return result

    @cached_property
    def fingerprint(self) -> str:
        """Hex sha256 of the kind and of the stored tensors."""
        digest = hashlib.sha256(self.kind.encode())
        for name, tensor in sorted(self.to_tensors().items()):
            digest.update(f"/{name}{tuple(tensor.shape)}".encode())
            digest.update(tensor.numpy().tobytes())
        return digest.hexdigest()

    def to_tensors(self) -> dict[str, Tensor]:
        """What to store, on the CPU: `tensors`, but for the whitening matrix `whitening_upper`, (D (D + 1) / 2,).

        That is its upper triangle, diagonal included, row by row: 19 MB instead of 38 at 3,072 dimensions.
        """
        stored = {name: tensor.detach().cpu().contiguous() for name, tensor in self.tensors.items()}
        if self.kind == "zca":
            whitening = stored.pop("whitening")
            stored["whitening_upper"] = whitening[_upper(len(whitening))]
        return stored

    @classmethod
    def from_tensors(cls, kind: str, tensors: Mapping[str, Tensor], image_shape: tuple[int, int, int]) -> Preprocess:
        """The inverse of `to_tensors`, for images of shape (C, H, W).

        Raises ValueError where the kind is unknown or a tensor is missing, surplus, misshapen, not float32, not finite,
        or not positive where it must be.
        """
        wanted = _stored_shapes(kind, image_shape)
        if set(tensors) != set(wanted):
            raise ValueError(f"preprocess {kind} needs tensors {sorted(wanted)}, not {sorted(tensors)}")
        for name, shape in wanted.items():
            tensor = tensors[name]
            if tensor.dtype != torch.float32 or tuple(tensor.shape) != shape:
                stored = f"{str(tensor.dtype).removeprefix('torch.')} {tuple(tensor.shape)}"
                raise ValueError(f"preprocess {kind}: {name} is {stored}, not float32 {shape}")
            if not torch.isfinite(tensor).all():
                raise ValueError(f"preprocess {kind}: {name} holds values that are not finite")
        if kind == "standardize" and not (tensors["std"] > 0).all():
            raise ValueError("preprocess standardize: std is not positive")
        if kind != "zca":
            return cls(kind, dict(tensors))
        mean = tensors["mean"]
        whitening = torch.zeros(len(mean), len(mean))
        whitening[_upper(len(mean))] = tensors["whitening_upper"]
        whitening += whitening.triu(1).T.clone()
        if not (whitening.diagonal() > 0).all():
            raise ValueError("preprocess zca: the whitening matrix is not positive definite")
        return cls(kind, {"mean": mean, "whitening": whitening})

    def _forward(self, pixels: Tensor) -> Tensor:
        if self.kind == "none":
            return pixels
        if self.kind == "standardize":
            mean, std = (self._on(pixels.device)[name].view(1, -1, 1, 1) for name in ("mean", "std"))
            return pixels.sub(mean).div(std)
        there = self._on(pixels.device)
        return torch.mm(pixels.flatten(1) - there["mean"], there["whitening"]).view(pixels.shape)

    def _on(self, device: torch.device) -> Mapping[str, Tensor]:
        """The tensors on a device: moved once, for images that do not fit in memory are preprocessed batch by batch."""
        if device not in self._moved:
            self._moved[device] = {name: tensor.to(device) for name, tensor in self.tensors.items()}
        return self._moved[device]

    @cached_property
    def _moved(self) -> dict[torch.device, Mapping[str, Tensor]]:
        return {}

    def _checked_shape(self, images: Pixels) -> tuple[int, ...]:
        shape = tuple(images.shape)
        if len(shape) != 4:
            raise ValueError(f"images must be (N, C, H, W), not {shape}")
        if self.kind == "standardize" and len(self.tensors["mean"]) != shape[1]:
            raise ValueError(f"fitted on {len(self.tensors['mean'])} channels, got images of {shape[1]}")
        if self.kind == "zca" and len(self.tensors["mean"]) != shape[1] * shape[2] * shape[3]:
            raise ValueError(f"fitted on {len(self.tensors['mean'])} values per image, got images of shape {shape[1:]}")
        return shape

    @cached_property
    def _whitening_factor(self) -> Tensor:
        factor, failed = torch.linalg.cholesky_ex(self.tensors["whitening"].double().cpu())
        if failed:
            raise ValueError("preprocess zca: the whitening matrix is not positive definite")
        return torch.as_tensor(factor)


def published_preprocess(dataset: str, channels: int) -> Preprocess:
    """Standardising by the constants of `PUBLISHED`. Raises ValueError for a data set without or of other channels."""
    mean, std = PUBLISHED.get(dataset, ((), ()))
    if len(mean) != channels:
        what = f"images of {channels} channels of {dataset}" if mean else f"data set {dataset!r}"
        raise ValueError(
            f"preprocess published: no published constants for {what}, only for {', '.join(PUBLISHED)}; "
            "take preprocess standardize"
        )
    return Preprocess("standardize", {"mean": torch.tensor(mean), "std": torch.tensor(std)})


def fit_preprocess(
    kind: str, images: Pixels, *, dataset: str = "", cache: Path | None = None, listener: Listener = ignore
) -> Preprocess:
    """Fit on uint8 training images (N, C, H, W) of `dataset`, whose name "published" needs.

    `cache` is a folder for ZCA decompositions (about a minute of a CPU at D = 3,072), one file named by the hash of the
    pixels; a damaged one is made again. Raises ValueError for an unknown kind, no images, images that aren't uint8, or
    where nothing is published.
    """
    if kind not in PREPROCESSES:
        raise ValueError(f"unknown preprocess {kind!r}: choose from {', '.join(PREPROCESSES)}")
    if str(images.dtype).removeprefix("torch.") != "uint8" or images.ndim != 4 or len(images) == 0:
        raise ValueError(f"fitting needs uint8 images (N, C, H, W), not {images.dtype} {tuple(images.shape)}")
    if kind == "none":
        return Preprocess("none", {})
    if kind == "published":
        return published_preprocess(dataset, int(images.shape[1]))
    if kind == "standardize":
        return Preprocess("standardize", _fit_standardize(images))
    if len(images) < 2:
        raise ValueError("zca needs at least two images")
    channels, height, width = (int(side) for side in images.shape[1:])
    stored = None if cache is None else cache / f"zca-{_pixels_hash(images)}.safetensors"
    if stored is not None and stored.exists():
        try:
            return Preprocess.from_tensors("zca", read_tensors(stored)[0], (channels, height, width))
        except ValueError:
            set_aside(stored)
    size = channels * height * width
    megabytes = round(size * (size + 1) * 2 / 1e6)
    listener(Progress("preprocess", 0, 1, message=f"ZCA in {size:,} dimensions, {megabytes:,} MB in every set made"))
    fitted = Preprocess("zca", _fit_zca(images))
    if stored is not None:
        write_tensors(stored, fitted.to_tensors())
    listener(Progress("preprocess", 1, 1))
    return fitted


def _fit_standardize(images: Pixels) -> dict[str, Tensor]:
    # Counting the 256 levels is exact and needs no floating copy of the images.
    channels = int(images.shape[1])
    counts = np.zeros((channels, 256))
    for start in range(0, len(images), CHUNK):
        block = np.asarray(images[start : start + CHUNK])
        for channel in range(channels):
            counts[channel] += np.bincount(block[:, channel].ravel(), minlength=256)
    weights = counts / counts.sum(axis=1, keepdims=True)
    levels = np.arange(256) / 255
    mean = weights @ levels
    std = np.sqrt((weights * (levels - mean[:, None]) ** 2).sum(axis=1))
    std[std < 1e-6] = 1.0  # a constant channel stays constant
    return {"mean": torch.from_numpy(mean).float(), "std": torch.from_numpy(std).float()}


def _fit_zca(images: Pixels) -> dict[str, Tensor]:
    # float64 throughout: the sums are over 50,000 images, and the decomposition is made once and kept.
    total = len(images)
    mean = sum((pixels.flatten(1).double().sum(0) for _, pixels in _chunks(images)), torch.zeros(())) / total
    covariance = torch.zeros(len(mean), len(mean), dtype=torch.float64)
    for _, pixels in _chunks(images):
        centred = pixels.flatten(1).double() - mean
        covariance.addmm_(centred.T, centred)
    values, vectors = torch.linalg.eigh(covariance / (total - 1))
    whitening = (vectors * (values.clamp_min(0) + ZCA_EPSILON).rsqrt()) @ vectors.T
    return {"mean": mean.float(), "whitening": ((whitening + whitening.T) / 2).float()}


def _chunks(images: Pixels) -> Iterator[tuple[slice, Tensor]]:
    """Slices of the images as float32 in [0, 1]."""
    for start in range(0, len(images), CHUNK):
        rows = slice(start, start + CHUNK)
        # The copy is for read-only memory maps, which torch does not take as they are.
        block = images[rows] if isinstance(images, Tensor) else torch.from_numpy(np.array(images[rows]))
        if block.dtype == torch.uint8:
            yield rows, block.float() / 255
        elif block.is_floating_point():
            yield rows, block.float()
        else:
            raise ValueError(f"images must be uint8 or floats in [0, 1], not {block.dtype}")


def _stored_shapes(kind: str, image_shape: tuple[int, int, int]) -> dict[str, tuple[int, ...]]:
    channels, height, width = image_shape
    size = channels * height * width
    shapes: dict[str, dict[str, tuple[int, ...]]] = {
        "none": {},
        "standardize": {"mean": (channels,), "std": (channels,)},
        "zca": {"mean": (size,), "whitening_upper": (size * (size + 1) // 2,)},
    }
    if kind not in shapes:
        raise ValueError(f"unknown preprocess {kind!r}: choose from {', '.join(shapes)}")
    return shapes[kind]


def _upper(size: int) -> Tensor:
    return torch.ones(size, size, dtype=torch.bool).triu()


def _pixels_hash(images: Pixels) -> str:
    digest = hashlib.sha256(f"zca {ZCA_EPSILON} {tuple(images.shape)}".encode())
    for start in range(0, len(images), CHUNK):
        digest.update(np.ascontiguousarray(np.asarray(images[start : start + CHUNK])).tobytes())
    return digest.hexdigest()[:32]
