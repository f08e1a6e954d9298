"""How long an architecture takes for one image: measured here, or in a table from the user's own device."""

from __future__ import annotations

import csv
import functools
import math
import statistics
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import nn

from distill.files import whole_file
from distill.run import Listener, Progress, ignore
from ftdnas.candidates.onnx import write_onnx
from ftdnas.runtime.device import one_thread
from search_spaces.base import Architecture, ImageShape, SearchSpace, parse_architecture, stratified_sample

MEASURED = "the median of 7 to 50 passes of one batch after a warm-up, float32, PyTorch on one thread of this CPU"
WARM_UP, FEWEST, MOST = 2, 7, 50
ENOUGH_S = 0.5  # after which no more passes are timed, the fewest aside
COLUMNS = ("architecture", "latency_ms")
TABLE = "latency.csv"


@functools.lru_cache(maxsize=100_000)
def measure_latency(architecture: Architecture, image_shape: ImageShape, num_classes: int, batch: int = 1) -> float:
    """Milliseconds of a forward pass of `batch` images, as MEASURED says; measured once in a process.

    Raises ValueError where the network cannot be built for these images.
    """
    with torch.random.fork_rng(devices=[]):
        return network_latency(architecture.build(image_shape, num_classes), image_shape, batch)


@torch.inference_mode()
def network_latency(network: nn.Module, image_shape: ImageShape, batch: int = 1) -> float:
    """The same of a network on the CPU, which is put into evaluation mode."""
    network.eval()
    images = torch.zeros(batch, *image_shape)
    with one_thread():
        seconds: list[float] = []
        for number in range(WARM_UP + MOST):
            start = time.perf_counter()
            network(images)
            if number >= WARM_UP:
                seconds.append(time.perf_counter() - start)
            if len(seconds) >= FEWEST and sum(seconds) >= ENOUGH_S:
                break
    return 1000 * statistics.median(seconds)


def read_latency_table(path: Path, space: SearchSpace | None = None) -> dict[str, float]:
    """Canonical name -> milliseconds, of a CSV file with the columns architecture and latency_ms.

    Raises FileNotFoundError, and ValueError in one line for a file without these columns, an architecture that does not
    exist (or is not of `space`) or stands there twice, and a latency that is missing or not a number above 0.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            missing = [column for column in COLUMNS if column not in (reader.fieldnames or ())]
            if missing:
                raise ValueError(f"{path} has no column {missing[0]}: it needs the columns {' and '.join(COLUMNS)}")
            rows = [(reader.line_num, row) for row in reader]
    except FileNotFoundError:
        raise FileNotFoundError(f"there is no latency table {path}: ftdnas spaces export writes one to fill") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path} is not a CSV file: {error}") from None
    table: dict[str, float] = {}
    lines: dict[str, int] = {}
    for line, row in rows:
        where = f"{path}, line {line}"
        try:
            architecture = parse_architecture(row["architecture"] or "")
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from None
        name = architecture.name
        if space is not None and architecture.space != space.name:
            raise ValueError(f"{where}: {name} is of the space {architecture.space}, not {space.name}")
        if name in table:
            raise ValueError(f"{where}: {name} stands in line {lines[name]} already: keep one of the two")
        table[name], lines[name] = _milliseconds(row["latency_ms"], f"{where}: {name}"), line
    if not table:
        raise ValueError(f"{path} has no rows: ftdnas spaces export writes a table to fill")
    return table


def _milliseconds(text: str | None, where: str) -> float:
    if text is None or not text.strip():
        raise ValueError(f"{where} has no latency: measure it on the device, or remove the line")
    try:
        value = float(text)
    except ValueError:
        raise ValueError(f"{where} has the latency {text!r}, which is no number") from None
    if not (math.isfinite(value) and value > 0):
        raise ValueError(f"{where} has the latency {text.strip()}: milliseconds are above 0")
    return value


def write_latency_table(path: Path, files: Mapping[str, str]) -> None:
    """A table to be filled: architecture names, no latencies yet, and what file holds each network."""
    with whole_file(path) as beside, beside.open("w", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows(
            [(*COLUMNS, "file"), *((name, "", files[name]) for name in files)]
        )


def export_candidates(
    space: SearchSpace,
    image_shape: ImageShape,
    num_classes: int,
    folder: Path,
    candidates: int,
    seed: int = 0,
    listener: Listener = ignore,
) -> Path:
    """ONNX files of stratified candidates, and the table of their latencies to be filled on a device.

    Networks have fresh weights, which make no difference to their speed. A file that is there already is kept. Raises
    ValueError where the folder has a table with other candidates in it, and what `write_onnx` and `stratified_sample`
    raise.
    """
    chosen = stratified_sample(space, candidates, image_shape, seed, num_classes=num_classes)
    files = {one.name: f"{number:04d}.onnx" for number, one in enumerate(chosen, start=1)}
    table = folder / TABLE
    if table.exists() and _names(table) != list(files):
        raise ValueError(f"{table} lists other candidates: give another folder, or remove it")
    for number, architecture in enumerate(chosen):
        listener(Progress("exporting", number, len(chosen)))
        file = folder / files[architecture.name]
        if not file.exists():
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed)
                write_onnx(architecture.build(image_shape, num_classes), image_shape, file)
    listener(Progress("exporting", len(chosen), len(chosen)))
    if not table.exists():
        write_latency_table(table, files)
    return table


def _names(table: Path) -> Sequence[str]:
    with table.open(encoding="utf-8-sig", newline="") as file:
        return [row.get("architecture", "") for row in csv.DictReader(file)]
