"""The synthetic set: a few images that stand for a whole data set, with all that is needed to train on them.

One safetensors file holds everything and can execute nothing: the tensors `images`, `labels`, `preprocess.<name>` and,
where there are any, `teachers`, and under the metadata key "ftdnas" one canonical JSON object with the rest and a
checksum over the whole.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from distill.files import whole_file
from distill.images.augment import parse_augment
from distill.images.preprocess import Preprocess
from distill.tensors import KEY

FORMAT = 2
FORMATS = (1, 2)  # that are read
TEACHERS = "teachers"
PREFIX = "preprocess."
SOFT_TOLERANCE = 1e-4  # how far the probabilities of one image may be from summing to 1
PLAIN = ("step_size", "augment", "backbone", "ipc", "target_size", "provenance")  # fields stored as they are
MEMBERS = {"format", "checksum", "preprocess", "class_names", *PLAIN}


@dataclass(frozen=True, eq=False)
class SyntheticSet:
    """Distilled images and how to train on them; checked, and copied to the CPU, when made.

    `images` float32 (N, C, H, W) in preprocessed space; `labels` int64 (N,) in 0 .. K - 1, or float32 (N, K), a
    distribution per image. `step_size`: the learning rate that was learned with them. `augment`: DSA operations joined
    by "_", or "none". `backbone`: the architecture they were distilled with. `ipc`: images per class, at most.
    `target_size`: the side in pixels at which the user will train, where that is larger than the images, else None.
    `provenance`: a JSON object (no NaN) saying where they came from. `teachers`: float32 (T, P), the weights of T
    networks of `backbone` trained on real images, whose mean probabilities can label every augmented image; None where
    there are none. `format`: of the file it was read from, by which its identity is computed; studies name that. Raises
    ValueError for anything else.
    """

    images: Tensor
    labels: Tensor
    step_size: float
    preprocess: Preprocess
    augment: str
    backbone: str
    class_names: tuple[str, ...]
    ipc: int
    target_size: int | None = None
    provenance: Mapping[str, Any] = field(default_factory=dict)
    teachers: Tensor | None = None
    format: int = FORMAT

    def __post_init__(self) -> None:
        for name in ("images", "labels", *([TEACHERS] if self.teachers is not None else [])):
            tensor = getattr(self, name)
            if not isinstance(tensor, Tensor):
                raise ValueError(f"{name} are {_kind(tensor)}, not a tensor")
            # A copy, because a distiller goes on changing its images in place.
            kept = torch.empty_like(tensor, device="cpu", memory_format=torch.contiguous_format, requires_grad=False)
            object.__setattr__(self, name, kept.copy_(tensor.detach()))
        object.__setattr__(self, "provenance", _json_object(self.provenance))
        _check_names(self.class_names)
        _check_floats("images", self.images, "(N, C, H, W)")
        _check_labels(self.labels, len(self.images), self.num_classes)
        if self.teachers is not None:
            _check_floats(TEACHERS, self.teachers, "(T, P)")
        _check_settings(self)
        self.preprocess.apply(torch.zeros(1, *self.image_shape))  # refuses images of another shape

    @property
    def num_classes(self) -> int:
        """K."""
        return len(self.class_names)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W)."""
        _, channels, height, width = self.images.shape
        return channels, height, width

    @property
    def hard_labels(self) -> bool:
        """Whether every image has one class, not a distribution over all."""
        return self.labels.ndim == 1

    @cached_property
    def identity(self) -> str:
        """Hex sha256 of everything in it but its provenance; in format 1, of what `equal` compares alone."""
        if self.format == 1:
            return self._trained_on
        told = {name: value for name, value in self._settings().items() if name != "provenance"}
        return hashlib.sha256(f"{_canonical(told)}{self._trained_on}".encode()).hexdigest()

    @cached_property
    def _trained_on(self) -> str:
        """Hex sha256 of images, labels, teachers, step size and preprocessing."""
        digest = hashlib.sha256()
        for name, tensor in self._tensors().items():
            digest.update(f"/{name} {tensor.dtype} {tuple(tensor.shape)}/".encode())
            digest.update(tensor.numpy().tobytes())
        digest.update(f"/{self.step_size!r}/{self.preprocess.fingerprint}".encode())
        return digest.hexdigest()

    def equal(self, other: SyntheticSet) -> bool:
        """Whether both hold the same tensors and step size, bit for bit; provenance and names may differ."""
        return self._trained_on == other._trained_on

    @property
    def checksum(self) -> str:
        """Hex sha256 of everything in it, its provenance too."""
        return hashlib.sha256(f"{_canonical(self._settings())}{self.identity}".encode()).hexdigest()

    def as_tensors(self) -> tuple[Tensor, Tensor, float]:
        """(images, labels, step size): copies, for anybody's training loop."""
        return self.images.clone(), self.labels.clone(), self.step_size

    def with_provenance(self, **more: Any) -> SyntheticSet:
        """The same set with `more` written over its provenance."""
        return replace(self, provenance={**self.provenance, **more})

    def save(self, path: Path | str) -> None:
        """Write one .safetensors file, whole or not at all; equal sets with equal provenance give equal bytes."""
        path = Path(path)
        tensors = self._tensors()
        tensors |= {PREFIX + name: tensor for name, tensor in self.preprocess.to_tensors().items()}
        content = save(tensors, {KEY: _canonical({**self._settings(), "checksum": self.checksum})})
        with whole_file(path) as beside:
            beside.write_bytes(content)

    @classmethod
    def load(cls, path: Path | str) -> SyntheticSet:
        """Read and check a file written by `save`.

        Raises FileNotFoundError where there is none, and ValueError, naming the file and the reason, where it is not
        exactly what was saved: damaged, cut short, of another format, or written by something else.
        """
        path = Path(path)
        if not path.is_file():
            raise FileNotFoundError(f"no synthetic set at {path}")
        try:
            return cls._from_file(path)
        except SafetensorError as error:
            raise ValueError(f"{path}: not a readable safetensors file ({error})") from error
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error

    @classmethod
    def _from_file(cls, path: Path) -> SyntheticSet:
        with safe_open(path, framework="pt") as opened:
            settings = _parse((opened.metadata() or {}).get(KEY))
            names = set(opened.keys())
            if surplus := sorted(
                name for name in names - {"images", "labels", TEACHERS} if not name.startswith(PREFIX)
            ):
                raise ValueError(f"unknown tensors {', '.join(surplus)}")
            if missing := sorted({"images", "labels"} - names):
                raise ValueError(f"no tensor {' and no tensor '.join(missing)}")
            tensors = {name: opened.get_tensor(name) for name in names}
        images = tensors["images"]
        _check_floats("images", images, "(N, C, H, W)")
        channels, height, width = images.shape[1:]
        stored = {name.removeprefix(PREFIX): t.clone() for name, t in tensors.items() if name.startswith(PREFIX)}
        made = cls(
            images=images,
            labels=tensors["labels"],
            preprocess=Preprocess.from_tensors(settings["preprocess"], stored, (channels, height, width)),
            class_names=tuple(settings["class_names"]),
            teachers=tensors.get(TEACHERS),
            format=settings["format"],
            **{name: settings[name] for name in PLAIN},
        )
        if made.checksum != settings["checksum"]:
            raise ValueError("the checksum does not fit the content: the file was damaged or changed by hand")
        return made

    def _tensors(self) -> dict[str, Tensor]:
        """All but those of the preprocessing, by their names in the file."""
        taught = {} if self.teachers is None else {TEACHERS: self.teachers}
        return {"images": self.images, "labels": self.labels, **taught}

    def _settings(self) -> dict[str, Any]:
        return {
            "format": self.format,
            "preprocess": self.preprocess.kind,
            "class_names": list(self.class_names),
            **{name: getattr(self, name) for name in PLAIN},
        }


def _canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False, ensure_ascii=False)


def _parse(text: str | None) -> dict[str, Any]:
    """The metadata's JSON object with exactly the members of a set; their values are checked by SyntheticSet."""
    if text is None:
        raise ValueError("not a synthetic set: a safetensors file without ftdnas metadata")
    try:
        settings = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"the metadata is not JSON ({error})") from error
    if not isinstance(settings, dict):
        raise ValueError(f"the metadata is {_kind(settings)}, not a JSON object")
    if settings.get("format") not in FORMATS:
        raise ValueError(f"format {settings.get('format')!r} is none of those read by this version, 1 and 2")
    if set(settings) != MEMBERS:
        wrong = sorted(set(settings) ^ MEMBERS)
        raise ValueError(f"the metadata has missing or unknown members: {', '.join(wrong)}")
    if not isinstance(settings["preprocess"], str):
        raise ValueError(f"preprocess is {_kind(settings['preprocess'])}, not a name")
    if not isinstance(settings["class_names"], list):
        raise ValueError(f"class_names is {_kind(settings['class_names'])}, not a list")
    return settings


def _json_object(value: object) -> dict[str, Any]:
    """A copy of a JSON object, as it will be read back: tuples become lists."""
    if not isinstance(value, Mapping):
        raise ValueError(f"provenance is {_kind(value)}, not a JSON object")
    try:
        text = _canonical(dict(value))
        text.encode()
        copy: dict[str, Any] = json.loads(text)
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"provenance cannot be written as JSON ({error})") from error
    return copy


def _check_names(names: object) -> None:
    if not isinstance(names, tuple) or not names:
        raise ValueError("class_names must be a tuple of at least one name")
    for name in names:
        if not isinstance(name, str) or not name or not name.isprintable():
            raise ValueError(f"class name {name!r} is not printable text")
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"class name {twice!r} occurs twice")


def _check_floats(name: str, tensor: Tensor, form: str) -> None:
    """Raise ValueError where a tensor is not float32 of as many dimensions as "(N, C, H, W)", say, or is not finite."""
    if tensor.dtype != torch.float32 or tensor.ndim != len(form.split(",")) or 0 in tensor.shape:
        raise ValueError(f"{name} are {_describe(tensor)}, not float32 {form}")
    if not torch.isfinite(tensor).all():
        raise ValueError(f"{name} hold values that are not finite")


def _check_labels(labels: Tensor, count: int, classes: int) -> None:
    if labels.dtype == torch.int64 and tuple(labels.shape) == (count,):
        wrong = labels[(labels < 0) | (labels >= classes)]
        if len(wrong):
            raise ValueError(f"label {int(wrong[0])} is outside 0 .. {classes - 1} ({classes} class names)")
    elif labels.dtype == torch.float32 and tuple(labels.shape) == (count, classes):
        sums = labels.double().sum(1)  # NaN and infinite labels fail the comparisons too
        if not ((labels >= 0).all() and ((sums - 1).abs() <= SOFT_TOLERANCE).all()):
            raise ValueError(
                "soft labels are not distributions: values below 0, not finite, or rows that do not sum to 1"
            )
    else:
        raise ValueError(
            f"labels are {_describe(labels)}, not int64 ({count},) or float32 ({count}, {classes}) "
            f"for {count} images of {classes} classes"
        )


def _check_settings(made: SyntheticSet) -> None:
    if type(made.step_size) is not float or not 0 < made.step_size < math.inf:
        raise ValueError(f"step size {made.step_size!r} is not a positive finite float")
    if type(made.ipc) is not int or made.ipc < 1:
        raise ValueError(f"ipc {made.ipc!r} is not a positive integer")
    if len(made.images) > made.ipc * made.num_classes:
        raise ValueError(f"{len(made.images)} images are more than {made.ipc} for each of {made.num_classes} classes")
    if made.target_size is not None and (type(made.target_size) is not int or made.target_size < 1):
        raise ValueError(f"target size {made.target_size!r} is neither a positive integer nor None")
    for name in ("augment", "backbone"):
        value = getattr(made, name)
        if not isinstance(value, str) or not value.isprintable():
            raise ValueError(f"{name} {value!r} is not printable text")
    parse_augment(made.augment)
    if not isinstance(made.preprocess, Preprocess):
        raise ValueError(f"preprocess is {_kind(made.preprocess)}, not a Preprocess")


def _describe(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} {tuple(tensor.shape)}"


def _kind(value: object) -> str:
    return f"a {type(value).__name__}"
