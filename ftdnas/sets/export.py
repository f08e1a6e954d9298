"""Synthetic sets in other formats: for other programs, and to look at."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from PIL import Image
from safetensors.torch import save

from distill.synthetic import SyntheticSet
from ftdnas.sets.figures import classes_of, contact_sheet, pixels


def export_set(synthetic: SyntheticSet, form: str, place: Path) -> None:
    """Write a set to `place` in one of FORMATS.

    set: the same .safetensors file; tensors: a .safetensors file of plain tensors (images, labels, step_size, and
    pixels, the images with the preprocessing inverted, not clipped); sheet: a PNG with all classes; folder: a folder of
    PNGs per class, clipped to what PNG can hold: to look at rather than to train on.
    Raises LookupError for another format and ValueError where something is at `place` already.
    """
    if form not in FORMATS:
        raise LookupError(f"unknown format {form!r}: choose from {', '.join(FORMATS)}")
    if place.exists():
        raise ValueError(f"{place} exists: choose another place or remove it")
    place.parent.mkdir(parents=True, exist_ok=True)
    beside = place.with_name(f".{place.name}.{os.getpid()}")
    try:
        FORMATS[form](synthetic, beside)
        beside.replace(place)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
        beside.unlink(missing_ok=True)


def _write_tensors(synthetic: SyntheticSet, place: Path) -> None:
    images, labels, step_size = synthetic.as_tensors()
    tensors = {"images": images, "labels": labels, "step_size": torch.tensor(step_size, dtype=torch.float64)}
    place.write_bytes(save({**tensors, "pixels": synthetic.preprocess.invert(images)}))


def _write_folder(synthetic: SyntheticSet, place: Path) -> None:
    shown = pixels(synthetic.preprocess.invert(synthetic.images))
    folders = [place / name for name in folder_names(synthetic.class_names)]
    for folder in folders:
        folder.mkdir(parents=True)
    grey = synthetic.image_shape[0] == 1
    for index, label in enumerate(classes_of(synthetic).tolist()):
        image = Image.fromarray(shown[index, :, :, 0] if grey else shown[index])
        image.save(folders[label] / f"{index:05d}.png", format="PNG")


FORMATS: Mapping[str, Callable[[SyntheticSet, Path], None]] = {
    "set": SyntheticSet.save,
    "tensors": _write_tensors,
    "sheet": contact_sheet,
    "folder": _write_folder,
}


def folder_names(class_names: Sequence[str]) -> list[str]:
    """A folder name per class: its own where that is safe and unique, else its number and what is safe of it.

    Names come from files that strangers may have made: none may lead out of the folder.
    """
    names: dict[str, str] = {}  # by how a file system that ignores case sees them
    for label, name in enumerate(class_names):
        safe = re.sub(r"[^\w .()+-]", "_", name)[:60].strip(". ")
        chosen = name
        if safe != name or name.casefold() in names:
            chosen = f"{label:04d} {safe}".rstrip()
        while chosen.casefold() in names:
            chosen += "_"
        names[chosen.casefold()] = chosen
    return list(names.values())
