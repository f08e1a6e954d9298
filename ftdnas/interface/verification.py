"""Everything in the home that is read again, held up to its sums. Nothing is changed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from distill.files import check
from ftdnas.runtime.database import check_file
from ftdnas.runtime.home import home
from ftdnas.runtime.rows import RowFile

LARGE = ("cache", "experts", "preprocess")  # read for minutes, and made again where they are damaged
DOWNLOADED = "data"


@dataclass(frozen=True)
class Checked:
    """A file, or a folder of decoded images. `known`: whether it has a sum; earlier versions wrote none."""

    path: Path
    known: bool = True
    problem: str | None = None


def verified(everything: bool) -> Iterator[Checked]:
    """Each as it is read; the large ones, by which nothing is lost, only where `everything` is asked for."""
    for path in _files(home(), () if everything else LARGE):
        look = _reader(path)
        if look is None:
            continue
        try:
            yield Checked(path, look())
        except (ValueError, OSError) as error:
            yield Checked(path, problem=str(error))


def _files(folder: Path, without: tuple[str, ...]) -> Iterator[Path]:
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if path.name.startswith(".") or path.name.endswith((".damaged", ".partial")):
            continue
        if path.is_dir():
            if folder != home() or path.name not in (*without, DOWNLOADED):
                yield from _files(path, without)
        else:
            yield path


def _reader(path: Path) -> Callable[[], bool] | None:
    """What reads it; None for what is for people, or made anew each time."""
    inside = path.relative_to(home())
    if inside.parts[0] == "sets":
        return (lambda: _set(path)) if path.suffix == ".safetensors" else None
    if "materials" in inside.parts or inside.parts[0] == "spaces" or path.name == "report.json":
        return None
    if path.name == "entry.json":
        return lambda: _pixels(path.parent)
    if path.name == "card.json":
        return lambda: _card(path)
    if path == home() / "studies.db":
        return lambda: _database(path)
    if path.suffix == ".jsonl":
        return lambda: RowFile(path).check()
    return (lambda: check(path)) if path.suffix in (".json", ".safetensors", ".npy", ".restart") else None


def _set(path: Path) -> bool:
    from ftdnas.sets.library import Library

    return bool(Library().verify(path))


def _pixels(folder: Path) -> bool:
    from distill.images.pixel_cache import sound_entry

    if sound_entry(folder) is None:
        raise ValueError(f"{folder} is damaged: it is decoded again when it is needed")
    return check(folder / "entry.json")


def _card(path: Path) -> bool:
    from ftdnas.finishing.card import check_files, read_card

    card = read_card(path.parent)
    if card is not None:
        check_files(card, path.parent)
    return check(path)


def _database(path: Path) -> bool:
    check_file(path)
    return True
