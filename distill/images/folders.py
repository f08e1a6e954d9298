"""Images in folders, one a class, with or without train/, validation/ and test/ above; also as Tiny ImageNet lies."""

from __future__ import annotations

import csv
import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from distill.images.listing import GROUND, SPLIT_WORDS, SPLITS, Encoded, Listing
from distill.images.tree import LeftOut, images, subfolders

BATCH = 32  # photos decoded as one task
SAMPLE = 64  # photos whose sizes are looked at beforehand


class _Item(NamedTuple):
    file: str  # relative to the folder, with forward slashes
    folder: str  # the class's folder
    split: str


def list_folder(
    path: Path, *, name: str = "", title: str = "", place: str = "", split_file: Path | None = None
) -> Listing:
    """List the images below `path`, in the order of their names.

    Classes are the folders in `path`, or those in `path`/train; what is hidden, no file, or text beside the images is
    left out, which `found` says.
    A folder with val/val_annotations.txt is read as Tiny ImageNet is laid out, its validation images as the test
    split; names in words.txt stand for WordNet numbers. split_file: see `read_split_file`.

    Raises FileNotFoundError for a missing folder or file, and ValueError for folders that hold no classes, one class,
    an empty class, or test or validation images of a class that is not trained.
    """
    if not path.is_dir():
        raise FileNotFoundError(f"{path} is not a folder: one is wanted that holds a folder of images for every class")
    tiny = (path / "val" / "val_annotations.txt").is_file()
    left_out = LeftOut()
    classes, items = (_tiny_imagenet if tiny else _class_folders)(path, left_out)
    _check_classes(path, classes, items)
    files = tuple(item.file for item in items)
    number = {folder: label for label, folder in enumerate(classes)}
    given = [item.split for item in items] if split_file is None else read_split_file(split_file, files, path)

    def batches(rows: Sequence[int]) -> Iterator[Sequence[tuple[int, Encoded]]]:
        for start in range(0, len(rows), BATCH):
            yield [(row, path / files[row]) for row in rows[start : start + BATCH]]

    some = sorted({row * (len(files) - 1) // max(SAMPLE - 1, 1) for row in range(SAMPLE)})
    return Listing(
        name=name or path.resolve().name,
        title=title or path.resolve().name,
        place=place or "a folder of images",
        class_names=_class_names(path, classes),
        labels=np.array([number[item.folder] for item in items], dtype=np.int64),
        given=np.array(given, dtype="<U10"),
        content=json.dumps([str(path.resolve()), GROUND, [_stamp(path, file) for file in files]]),
        fetch=lambda: batches(range(len(files))),
        sample=lambda: [pair for batch in batches(some) for pair in batch],
        describe=lambda row: str(path / files[row]),
        photos=True,
        own_split=split_file is not None,
        files=files,
        found=_found(classes, given, left_out),
    )


def _found(classes: Sequence[str], given: Sequence[str], left_out: LeftOut) -> str:
    """Classes, images, splits and what was left out, in one line."""
    named = ", ".join([*classes[:4], *(["..."] if len(classes) > 4 else [])])
    parts = Counter(filter(None, given))
    splits = [f"{parts[split]:,} {split}" for split in SPLITS if parts[split]]
    of_splits = f" ({', '.join(splits)})" if splits else ""
    text = f"{len(given):,} images{of_splits} in {len(classes)} classes ({named})"
    return "; ".join(filter(None, [text, left_out.words()]))


def read_split_file(split_file: Path, files: Sequence[str], folder: Path) -> list[str]:
    """The split of each of `files` (relative to `folder`) by a CSV with the columns file and split.

    The split is train, validation (val, valid) or test; the heading may be missing. Every image must be listed once:
    one that was forgotten could be a photo of an object that is tested. Raises ValueError naming the line.
    """
    if not split_file.is_file():
        raise FileNotFoundError(f"{split_file} is not a file: the split wants a CSV with the columns file and split")
    split_of: dict[str, str] = {}
    known = set(files)
    with split_file.open(encoding="utf-8-sig", newline="") as text:
        rows = csv.reader(text)
        columns = (0, 1)
        for row in rows:
            where = f"{split_file.name} line {rows.line_num}"
            words = [word.strip() for word in row]
            lowered = [word.lower() for word in words]
            if not any(words):
                continue
            if not split_of and {"file", "split"} <= set(lowered):
                columns = lowered.index("file"), lowered.index("split")
                continue
            if len(words) <= max(columns):
                raise ValueError(f"{where}: {','.join(row)!r} is not a file and its split")
            file = words[columns[0]].replace("\\", "/").removeprefix("./")
            split = SPLIT_WORDS.get(lowered[columns[1]])
            if split is None:
                raise ValueError(f"{where}: split {words[columns[1]]!r} is not train, validation or test")
            if file not in known:
                raise ValueError(f"{where}: no image {file!r} in {folder} (names are relative to that folder)")
            if file in split_of:
                raise ValueError(f"{where}: {file!r} is listed a second time")
            split_of[file] = split
    forgotten = [file for file in files if file not in split_of]
    if forgotten:
        raise ValueError(
            f"{split_file.name} leaves out {len(forgotten):,} of {len(files):,} images of {folder}, the first is "
            f"{forgotten[0]!r}: list every image, or move it away"
        )
    return [split_of[file] for file in files]


def images_below(path: Path) -> list[str]:
    """Files below `path` that are images, or may be, sorted, relative to it."""
    return images(path, ".", LeftOut())


def _splits(tops: Sequence[Path]) -> list[str]:
    """The split of each of the folders on top; [] where they are classes.

    They are splits where all are called so, or one of those that hold folders is "train"; or where names hold such
    words, one of training, and differ in nothing else, as seg_train and seg_test, or no other holds folders.
    """
    exact = [SPLIT_WORDS.get(top.name.lower(), "") for top in tops]
    deep = [bool(subfolders(top)) for top in tops]
    spoken = [_split_in(top.name) for top in tops]
    loose = [word or (split if below else "") for word, below, (split, _) in zip(exact, deep, spoken, strict=True)]
    whole = bool(tops) and all(exact)
    if whole or ("train", True) in zip(exact, deep, strict=True):
        return loose
    others = any(below and not split for below, split in zip(deep, loose, strict=True))
    alike = len({rest for (_, rest), split in zip(spoken, loose, strict=True) if split}) == 1
    if {"train"} < set(loose) - {""} and (alike or not others):
        return loose
    return []


def _split_in(name: str) -> tuple[str, str]:
    """The one split that a name speaks of, as in "TestImages", and its other words; "" where it is none or more."""
    words = re.findall(r"[A-Z]?[a-z]+|[A-Z]+", name)
    splits = [SPLIT_WORDS.get(word.lower().removesuffix("set"), "") for word in words]
    found = set(splits) - {""}
    rest = [word.lower() for word, split in zip(words, splits, strict=True) if not split]
    return (found.pop(), " ".join(rest)) if len(found) == 1 else ("", "")


def _class_folders(path: Path, left_out: LeftOut) -> tuple[list[str], list[_Item]]:
    tops = subfolders(path, left_out)
    splits = _splits(tops)
    if not splits:
        return [top.name for top in tops], [
            _Item(file, top.name, "") for top in tops for file in images(path, top.name, left_out)
        ]
    for top, split in zip(tops, splits, strict=True):
        if not split:
            train = tops[splits.index("train")].name
            raise ValueError(f"{path} has the folder {top.name} beside {train}, and it is no split: move it away")
    if sorted(set(splits)) != sorted(splits):
        raise ValueError(f"{path} has the same split twice: {', '.join(top.name for top in tops)}")
    if "train" not in splits:
        raise ValueError(f"{path} has no train split, only {' and '.join(top.name for top in tops)}: add one")
    items = [
        _Item(file, folder.name, split)
        for top, split in zip(tops, splits, strict=True)
        for folder in subfolders(top, left_out)
        for file in images(path, f"{top.name}/{folder.name}", left_out)
    ]
    return [folder.name for folder in subfolders(tops[splits.index("train")])], items


def _tiny_imagenet(path: Path, left_out: LeftOut) -> tuple[list[str], list[_Item]]:
    """Classes in the order of wnids.txt. The images in test/ have no labels."""
    listed = path / "wnids.txt"
    if listed.is_file():
        classes = listed.read_text(encoding="utf-8").split()
    else:
        classes = [folder.name for folder in subfolders(path / "train")]
    items = [_Item(file, wnid, "train") for wnid in classes for file in images(path, f"train/{wnid}", left_out)]
    annotations = (path / "val" / "val_annotations.txt").read_text(encoding="utf-8").splitlines()
    for number, line in enumerate(annotations, start=1):
        words = line.split("\t")
        if len(words) < 2:
            raise ValueError(f"{path / 'val' / 'val_annotations.txt'} line {number}: {line!r} names no image and class")
        items.append(_Item(f"val/images/{words[0]}", words[1], "test"))
    return classes, items


def _check_classes(path: Path, classes: Sequence[str], items: Sequence[_Item]) -> None:
    if not classes:
        raise ValueError(f"{path} holds no class folders: one is wanted for every class, with its images in it")
    if len(classes) == 1:
        raise ValueError(f"{path} holds the one class {classes[0]!r}: two are the least")
    trained = Counter(item.folder for item in items if item.split in ("", "train"))
    for folder in classes:
        if not trained[folder]:
            raise ValueError(f"class {folder!r} of {path} is empty: put images into its folder or remove it")
    strange = next((item for item in items if item.folder not in trained), None)
    if strange is not None:
        raise ValueError(f"class {strange.folder!r} of {path / strange.file} has no training images")


def _class_names(path: Path, classes: Sequence[str]) -> tuple[str, ...]:
    """The first word that words.txt gives for each, with the WordNet number where two share it."""
    words: dict[str, str] = {}
    if (path / "words.txt").is_file():
        for line in (path / "words.txt").read_text(encoding="utf-8").splitlines():
            wnid, _, synonyms = line.partition("\t")
            words[wnid] = synonyms.split(",")[0].strip()
    names = [words.get(folder) or folder for folder in classes]
    shared = Counter(names)
    return tuple(
        name if shared[name] == 1 else f"{name} ({folder})" for name, folder in zip(names, classes, strict=True)
    )


def _stamp(path: Path, file: str) -> tuple[str, int, int]:
    """What changes when a file does."""
    try:
        facts = (path / file).stat()
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{path / file} is listed but is not there") from error
    return file, facts.st_size, facts.st_mtime_ns
