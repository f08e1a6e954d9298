"""Damage files of ours at random, and read them: what is read must be what was written, or be refused.

    python benchmarks/fuzz.py [--seed 0] [--damages 2000]

For each reader a file is written, damaged (a bit, a byte, a sign here and there, a piece cut, moved, doubled or
overwritten) and read again by the library's own reader. Prints, reader by reader, how many were refused or set aside,
how many read as they were (the damage changed no value), and how many were accepted with another value, which must be
none. Exit code 1 where one was, or where a reader raised anything but ValueError.
"""

from __future__ import annotations

import argparse
import logging
import os
import random
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from distill.experts import ExpertBuffer, _Trajectory, expert_file
from distill.files import Damaged
from distill.images.listing import from_arrays
from distill.images.pixel_cache import cached_pixels, cached_rows
from distill.images.preprocess import fit_preprocess
from distill.restart import MatchingState, RestartPoints
from distill.run import ignore
from distill.tensors import read_tensors, write_tensors
from ftdnas.interface.ledger import Ledger
from ftdnas.runtime.home import read_json, write_json
from ftdnas.runtime.rows import RowFile

DRAWS = np.random.default_rng(0)
PIXELS = DRAWS.integers(256, size=(40, 6, 6, 3), dtype=np.uint8)
NUMBERS = torch.from_numpy(DRAWS.standard_normal((5, 40)).astype(np.float32))
FACTS: dict[str, Any] = {
    "architecture": "convnet:depth=2,width=32",
    "score": 0.8125,
    "losses": [2.25, 1.5, 0.75],
    "error": None,
    "seed": 3,
    "files": {"weights.safetensors": "the weights"},
}


@dataclass(frozen=True)
class Reader:
    """`write` into a folder; `read` gives what it holds, as what compares equal, or raises ValueError."""

    write: Callable[[Path], object]
    read: Callable[[Path], Any]


def _pixels(folder: Path) -> Any:
    listing = from_arrays("toys", "Toys", "here", ["it"], [("", PIXELS, np.zeros(40, np.int64))], content="toys")
    images, entry = cached_pixels(listing, np.arange(40), 8, 6, folder, ignore)
    return images.tobytes(), asdict(entry)


def _other_order(folder: Path) -> Any:
    """By copying the images of another order, where that is sound."""
    listing = from_arrays("toys", "Toys", "here", ["it"], [("", PIXELS, np.zeros(40, np.int64))], content="toys")
    before = set((folder / "images").iterdir())
    images, entry = cached_pixels(listing, np.arange(40)[::-1].copy(), 8, 6, folder, ignore)
    for made in set((folder / "images").iterdir()) - before:
        shutil.rmtree(made)
    return images.tobytes(), asdict(entry)


def _duplicates(folder: Path) -> Any:
    listing = from_arrays("toys", "Toys", "here", ["it"], [("", PIXELS, np.zeros(40, np.int64))], content="toys")
    return cached_rows(listing, 6, "twice", folder, lambda: np.arange(0, 40, 3)).tolist()


def _experts(folder: Path) -> Any:
    buffer = ExpertBuffer(folder, 1, 4)
    return [buffer.weights(0, epoch).tolist() for epoch in range(5)], buffer.seconds(), buffer.made_on()


def _write_expert(folder: Path) -> None:
    trajectory = _Trajectory(list(NUMBERS), NUMBERS[-1], [3.0, 2.0, 1.5, 1.25], 12.5, "CPU, 1 threads", False, None)
    trajectory.save(expert_file(folder, 0))


def _states(folder: Path) -> Any:
    """The latest point, or None: what is damaged is set aside, and the one before it counts."""
    state = RestartPoints(folder, torch.device("cpu")).latest()
    if state is None or (folder / "matching.safetensors.damaged").exists():
        raise Damaged(folder)
    return state.images.tolist(), state.velocity.tolist(), state.step, state.losses, state.step_size


def _write_states(folder: Path) -> None:
    images = NUMBERS.reshape(2, 1, 10, 10)
    for step in (1, 2):
        state = MatchingState(images * step, images / 2, images, 0.02, step=step, losses=[[1.0, 0.9], [2.0, 0.8]])
        RestartPoints(folder, torch.device("cpu")).keep(state)


def _rows(folder: Path) -> Any:
    """Those that are there; one less is refused."""
    rows = RowFile(folder / "rows.jsonl").read()
    if set(rows) != {"a", "b", "c"}:
        if any(row != {"key": key, **FACTS} for key, row in rows.items()):
            return rows
        raise Damaged(folder)
    return rows


def _write_rows(folder: Path) -> None:
    for key in "abc":
        RowFile(folder / "rows.jsonl").append({"key": key, **FACTS})


def _tensors(folder: Path) -> Any:
    tensors, facts = read_tensors(folder / "weights.safetensors")
    return {name: (tensor.dtype, tensor.tolist()) for name, tensor in tensors.items()}, facts


def _ledger(folder: Path) -> Any:
    ledger = Ledger(folder / "answer.json", 60.0, {"data": "digits"})
    if not ledger.resumed:
        raise Damaged(folder)
    return ledger._before, ledger.known("finalists")


def _write_ledger(folder: Path) -> None:
    write_json(
        folder / "answer.json",
        {"asked": {"data": "digits"}, "spent_s": 12.5, "stages": {"finalists": {"found": {"best": "net", "lr": 0.1}}}},
    )


def _whitening(folder: Path) -> Any:
    fitted = fit_preprocess("zca", PIXELS.transpose(0, 3, 1, 2), cache=folder)
    return {name: tensor.tolist() for name, tensor in fitted.tensors.items()}


READERS = {
    "decoded images": Reader(_pixels, _pixels),
    "decoded images in another order": Reader(_pixels, _other_order),
    "rows of images": Reader(_duplicates, _duplicates),
    "whitening": Reader(_whitening, _whitening),
    "experts": Reader(_write_expert, _experts),
    "restart points": Reader(_write_states, _states),
    "rows": Reader(_write_rows, _rows),
    "weights": Reader(
        lambda folder: write_tensors(folder / "weights.safetensors", {"1.weight": NUMBERS, "n": torch.arange(3)}),
        _tensors,
    ),
    "JSON": Reader(
        lambda folder: write_json(folder / "card.json", FACTS), lambda folder: read_json(folder / "card.json", "again")
    ),
    "the time spent": Reader(_write_ledger, _ledger),
}


def damaged(content: bytes, draw: random.Random) -> bytes:
    """Other bytes."""
    new = bytearray(content)
    at, length = draw.randrange(len(new)), draw.choice((1, 2, 8, 64, 512))
    kind = draw.choice(("bit", "byte", "digit", "many", "signs", "cut", "lose", "double", "zeros", "noise", "append"))
    if kind == "bit":
        new[at] ^= 1 << draw.randrange(8)
    elif kind == "byte":
        new[at] = draw.randrange(256)
    elif kind == "digit":  # stays readable as text
        new[at] = draw.choice(b"0123456789abcdef")
    elif kind == "many":
        for _ in range(20):
            new[draw.randrange(len(new))] = draw.choice(b"0123456789abcdef")
    elif kind == "signs":
        for place in range(at, len(new), 7):
            new[place] ^= 0x80
    elif kind == "cut":
        del new[at:]
    elif kind == "lose":
        del new[at : at + length]
    elif kind == "double":
        new[at:at] = new[at : at + length]
    elif kind == "zeros":
        new[at : at + length] = bytes(len(new[at : at + length]))
    elif kind == "noise":
        new[at : at + length] = draw.randbytes(len(new[at : at + length]))
    else:
        new += draw.randbytes(length)
    return bytes(new)


def campaign(reader: Reader, folder: Path, damages: int, draw: random.Random) -> Counter[str]:
    """How often it "refused", read "the same" and "another value", or raised an "error", of so many damages."""
    sound = folder / "sound"
    sound.mkdir(parents=True)
    reader.write(sound)
    held = reader.read(sound)
    files = sorted(path for path in sound.rglob("*") if path.is_file() and path.stat().st_size)
    found: Counter[str] = Counter()
    for number in range(damages):
        here = folder / str(number)
        shutil.copytree(sound, here)
        file = here / draw.choice(files).relative_to(sound)
        content = file.read_bytes()
        file.write_bytes(damaged(content, draw))
        os.utime(file, ns=(number, number))
        try:
            read = reader.read(here)
            found["the same" if read == held else "another value"] += 1
        except (ValueError, FileNotFoundError):
            found["refused"] += 1
        except Exception as error:
            found[f"error: {type(error).__name__}"] += 1
        shutil.rmtree(here)
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--damages", type=int, default=2000, help="of each reader's files")
    asked = parser.parse_args()
    logging.getLogger("ftdnas").setLevel(logging.ERROR)
    wrong = 0
    for name, reader in READERS.items():
        with tempfile.TemporaryDirectory() as folder:
            found = campaign(reader, Path(folder) / "files", asked.damages, random.Random(f"{asked.seed}/{name}"))
        wrong += found.total() - found["refused"] - found["the same"]
        print(f"{name:32s}{dict(found)}", flush=True)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
