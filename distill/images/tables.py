"""Images in parquet files as the Hugging Face hub lays them out: encoded bytes in a struct column, an integer label."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from distill.images.listing import GROUND, SPLIT_WORDS, Encoded, Listing

BATCH = 64  # rows decoded as one task: a few batches wait in memory, of large photos too
_LABELS = ("label", "labels", "fine_label", "target", "class")


def find_tables(path: Path) -> dict[str, list[Path]]:
    """Split ("" where the names tell none) -> parquet files: of the folder or of its data/, or the one file given."""
    if path.is_file():
        return {"": [path]}
    files = sorted(path.glob("*.parquet")) or sorted((path / "data").glob("*.parquet"))
    if not files:
        return {}
    # "train.parquet" and the hub's "train-00000-of-00002.parquet".
    splits = [SPLIT_WORDS.get(file.stem.split("-")[0].lower(), "") for file in files]
    tables: dict[str, list[Path]] = {}
    for split, file in zip(splits, files, strict=True):
        if not split and any(splits):
            raise ValueError(f"{path.name}/{file.name}: the file's name says no split (train, validation or test)")
        tables.setdefault(split, []).append(file)
    return tables


def list_tables(path: Path, name: str, title: str, place: str) -> Listing:
    """List the parquet file or folder at `path`.

    Raises FileNotFoundError where there is none, and ValueError for an unsupported column layout or a label that is
    missing or out of range, naming file and row.
    """
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist: parquet:PATH wants a parquet file or a folder with them")
    tables = find_tables(path)
    if not tables:
        raise FileNotFoundError(f"{path} holds no .parquet file (looked in it and in its data folder)")
    files = [(split, file) for split, of_split in tables.items() for file in of_split]
    first = _schema(files[0][1])
    image, label = _columns(first, files[0][1])
    labels = [_labels(file, image, label, files[0][1]) for _, file in files]
    names = _class_names(first, label)
    if not names:
        highest = [
            part.max(initial=-1) for (split, _), part in zip(files, labels, strict=True) if split in ("", "train")
        ]
        names = tuple(str(i) for i in range(int(max(highest, default=-1)) + 1))
    for (_, file), part in zip(files, labels, strict=True):
        wrong = np.flatnonzero((part < 0) | (part >= len(names)))
        if len(wrong):
            raise ValueError(
                f"row {wrong[0]} of {file.name} has label {part[wrong[0]]}, out of range for {len(names)} classes "
                f"(0 .. {len(names) - 1})"
            )
    starts = np.cumsum([0, *(len(part) for part in labels)])

    def fetch() -> Iterator[Sequence[tuple[int, Encoded]]]:
        for start, (_, file) in zip(starts, files, strict=False):
            row = int(start)
            with _readable(file):
                for batch in pq.ParquetFile(file).iter_batches(BATCH, columns=[image]):
                    yield [(row + i, _bytes(value)) for i, value in enumerate(batch.column(0).to_pylist())]
                    row += batch.num_rows

    def sample() -> Sequence[tuple[int, Encoded]]:
        return list(itertools.chain(*itertools.islice(fetch(), 1)))

    def describe(row: int) -> str:
        part = int(np.searchsorted(starts, row, side="right")) - 1
        return f"row {row - starts[part]} of {files[part][1]}"

    stats = [(str(file.resolve()), file.stat().st_size, file.stat().st_mtime_ns, image) for _, file in files]
    return Listing(
        name=name,
        title=title,
        place=place,
        class_names=names,
        labels=np.concatenate(labels),
        given=np.concatenate(
            [np.full(len(part), split, "<U10") for (split, _), part in zip(files, labels, strict=True)]
        ),
        content=json.dumps([GROUND, stats]),
        fetch=fetch,
        sample=sample,
        describe=describe,
    )


@contextmanager
def _readable(file: Path) -> Iterator[None]:
    try:
        yield
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"{file} is not a readable parquet file: {str(error).splitlines()[0]}") from error


def _schema(file: Path) -> Any:
    with _readable(file):
        return pq.read_schema(file)


def _columns(schema: Any, file: Path) -> tuple[str, str]:
    """Names of the image and of the label column."""

    def holds_bytes(kind: Any) -> bool:
        return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))

    layout = ", ".join(f"{field.name}: {field.type}" for field in schema)
    images = [
        field.name
        for field in schema
        if holds_bytes(field.type)
        or (
            pa.types.is_struct(field.type)
            and any(part.name == "bytes" and holds_bytes(part.type) for part in field.type)
        )
    ]
    if len(images) != 1:
        raise ValueError(
            f"{file.name} has {len(images)} image columns, one is wanted (struct<bytes: binary, path: string>); "
            f"its columns: {layout}"
        )
    integers = [field.name for field in schema if pa.types.is_integer(field.type)]
    preferred = [name for name in _LABELS if name in integers] or (integers if len(integers) == 1 else [])
    if not preferred:
        raise ValueError(f"{file.name} has no integer column named {' or '.join(_LABELS)}; its columns: {layout}")
    return images[0], preferred[0]


def _class_names(schema: Any, label: str) -> tuple[str, ...]:
    """From the hub's metadata; () where it says nothing."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        names = features[label]["names"]
    except (KeyError, TypeError, json.JSONDecodeError):
        return ()
    if isinstance(names, dict):
        names = [names[key] for key in sorted(names, key=int)]
    return tuple(str(name) for name in names)


def _labels(file: Path, image: str, label: str, first: Path) -> NDArray[np.int64]:
    """The labels of a file, which must have both columns as the first has."""
    columns = _schema(file).names
    if label not in columns:
        raise ValueError(f"{file.name} has no label column {label!r}")
    if image not in columns:
        raise ValueError(f"{file.name} has no column {image!r} as {first.name} has")
    with _readable(file):
        column = pq.read_table(file, columns=[label]).column(0)
    if column.null_count:
        row = int(np.flatnonzero(column.is_null().to_numpy())[0])
        raise ValueError(f"row {row} of {file.name} has no label")
    values: NDArray[np.int64] = column.to_numpy().astype(np.int64)
    return values


def _bytes(value: Any) -> bytes:
    encoded = value["bytes"] if isinstance(value, dict) else value
    return encoded if isinstance(encoded, bytes) else b""
