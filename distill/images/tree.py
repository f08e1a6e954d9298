"""A folder tree with images in it, and what of it is left out, which is never done in silence."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

# What lies beside images without being one. Anything else must be readable: a photo in a format that Pillow lacks is
# named instead of being left out in silence.
_TEXT = {
    *(".txt", ".csv", ".tsv", ".json", ".jsonl", ".xml", ".yaml", ".yml", ".md", ".html", ".log"),
    *(".db", ".ini", ".lnk", ".py", ".mat", ".npy", ".aae", ".xmp"),
}
# Of file managers and storage devices: copies, thumbnails and what was thrown away.
_HIDDEN = {"@eadir", "@recycle", "@recently-snapshot", "#recycle", "#snapshot", "$recycle.bin", "lost+found"}
_HIDDEN |= {"system volume information"}


@dataclass(eq=False)
class LeftOut:
    """`found`: what it is -> the paths, relative to the folder that is read."""

    found: dict[str, list[str]] = field(default_factory=dict)

    def add(self, what: str, path: str) -> None:
        self.found.setdefault(what, []).append(path)

    def words(self) -> str:
        """How many of each, with the first; "" where nothing was."""
        parts = [
            f"{len(paths):,} {what} ({min(paths)}{', ...' if len(paths) > 1 else ''})"
            for what, paths in self.found.items()
        ]
        return f"left out: {', '.join(parts)}" if parts else ""


def subfolders(path: Path, left_out: LeftOut | None = None) -> list[Path]:
    """The folders in `path`, links to folders among them, in the order of their names.

    Hidden ones are left out, and links to a folder that they lie in.
    """
    folders, place = [], path.resolve()
    for child in sorted(path.iterdir(), key=lambda child: child.name):
        if child.is_dir():
            if is_hidden(child.name, folder=True):
                _leave(left_out, "hidden folders", child.name)
            elif place.is_relative_to(child.resolve()):
                _leave(left_out, "links to a folder around them", child.name)
            else:
                folders.append(child)
        elif not is_hidden(child.name) and child.suffix.lower() not in _TEXT:
            _leave(left_out, "files beside the folders", child.name)
    return folders


def images(path: Path, folder: str, left_out: LeftOut) -> list[str]:
    """Files in `path`/`folder` at any depth that are images, or may be, sorted, relative to `path`.

    Links are followed, but for one to a folder that it lies in. Raises OSError for a folder that cannot be read.
    """
    files: list[str] = []

    def visit(place: Path, inside: str, around: frozenset[str]) -> None:
        for entry in os.scandir(place):
            name = f"{inside}{entry.name}"
            if entry.is_dir():
                real = os.path.realpath(entry.path)
                if is_hidden(entry.name, folder=True):
                    left_out.add("hidden folders", name)
                elif real in around:
                    left_out.add("links to a folder around them", name)
                else:
                    visit(place / entry.name, f"{name}/", around | {real})
            elif is_hidden(entry.name):
                left_out.add("hidden files", name)
            elif Path(entry.name).suffix.lower() in _TEXT:
                left_out.add("files of text or data", name)
            elif entry.is_file() or not Path(entry.path).exists():  # a link to nothing is an image that is missing
                files.append(name)
            else:
                left_out.add("pipes or devices", name)

    top = path / folder
    visit(top, "" if folder == "." else f"{folder}/", frozenset({os.path.realpath(path), os.path.realpath(top)}))
    return sorted(files)


def is_hidden(name: str, folder: bool = False) -> bool:
    """Whether a file manager would not show it, or it is one's own."""
    return name.startswith(".") or (folder and (name.startswith("__") or name.lower() in _HIDDEN))


def _leave(left_out: LeftOut | None, what: str, path: str) -> None:
    if left_out is not None:
        left_out.add(what, path)
