"""The local library of synthetic sets: one folder, one file per set, its figures beside it."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distill.files import set_aside
from ftdnas.runtime.home import sets_folder

if TYPE_CHECKING:
    from distill.synthetic import SyntheticSet

SUFFIX = ".safetensors"
RUN = "run"  # key of a set's provenance: the identity of the run that made it
LONGEST_NAME = 120  # bytes, so that a figure's and a temporary file's name still fit


class NameTaken(ValueError):
    """Another set is called so."""


@dataclass(frozen=True)
class Entry:
    """One set of the library: its facts, or the problem with its file."""

    name: str
    path: Path
    facts: Mapping[str, Any]
    problem: str | None = None

    def to_json(self) -> dict[str, Any]:
        """The same as one flat JSON object."""
        return {"name": self.name, "path": str(self.path), "problem": self.problem, **self.facts}


@dataclass(frozen=True)
class Library:
    """Sets by name in `folder`, by default the home folder's, which is made when the first one is added.

    Wherever a set is named, the beginning of its name is enough if no other begins so, and the path of a file does too.
    """

    folder: Path = field(default_factory=sets_folder)

    def names(self) -> list[str]:
        """All names, sorted."""
        return sorted(path.name.removesuffix(SUFFIX) for path in self.folder.glob(f"[!.]*{SUFFIX}"))

    def path(self, name: str | Path) -> Path:
        """The file of a set.

        Raises LookupError for a name that is unknown or the beginning of several, FileNotFoundError for a path at which
        there is no file.
        """
        text = str(name)
        if isinstance(name, Path) or "/" in text or os.sep in text or text.endswith(SUFFIX):
            path = Path(text).expanduser()
            if not path.is_file():
                raise FileNotFoundError(f"no synthetic set at {path}")
            return path
        names = self.names()
        found = [text] if text in names else [known for known in names if text and known.startswith(text)]
        if len(found) != 1:
            raise LookupError(_why_not(self.folder, text, names, found))
        return self.folder / f"{found[0]}{SUFFIX}"

    def load(self, name: str | Path) -> SyntheticSet:
        """The set itself, every part of it checked. Raises what `path` and `SyntheticSet.load` raise."""
        from distill.synthetic import SyntheticSet

        return SyntheticSet.load(self.path(name))

    def entry(self, name: str | Path) -> Entry:
        """A set's facts, or what is wrong with its file. Raises what `path` raises."""
        path = self.path(name)
        stem = path.name.removesuffix(SUFFIX)
        try:
            return Entry(stem, path, facts(self.load(path)))
        except (ValueError, OSError) as error:
            return Entry(stem, path, {}, str(error))

    def verify(self, name: str | Path) -> str:
        """Read a set anew, recompute every hash in it and return its identity.

        Raises ValueError, naming the file and the reason, where it is not what was saved.
        """
        return self.load(name).identity

    def add(self, synthetic: SyntheticSet, name: str | None = None, run: str | None = None) -> Path:
        """Write a set with its contact sheet and, where it was distilled, the course of that; return the set's path.

        `name` is by default `set_name` of it. The very set may have the name already, or the same images by the same
        `run`, and so may a damaged file, which is set aside; otherwise the name must be free, else NameTaken
        (`check_free` asks before the work).
        """
        from ftdnas.sets.figures import contact_sheet, curve

        given, name = name, set_name(synthetic) if name is None else check_name(name)
        path = self.folder / f"{name}{SUFFIX}"
        other = self._taken(path, synthetic, run)
        if other and given is None:
            return self.add(synthetic, f"{name}-{synthetic.checksum[:6]}", run)
        if other:
            raise NameTaken(
                f"the library has a set {name} of other {other}: choose another name, or remove it "
                f"(ftdnas sets remove {name})"
            )
        synthetic.save(path)
        contact_sheet(synthetic, sheet_of(path))
        curve(synthetic, curve_of(path))
        return path

    def _taken(self, path: Path, synthetic: SyntheticSet, run: str | None) -> str | None:
        """In what the set that is there differs, so that it must stay; None where this one may be written."""
        try:
            there = self.load(path)
        except FileNotFoundError:
            return None
        except ValueError:
            set_aside(path)
            return None
        if there.identity != synthetic.identity:
            return "content"
        ours = run is not None and there.provenance.get(RUN) == run
        return None if ours or there.checksum == synthetic.checksum else "provenance"

    def check_free(self, name: str) -> None:
        """Raise NameTaken where a new set cannot be called `name`."""
        if (self.folder / f"{check_name(name)}{SUFFIX}").exists():
            raise NameTaken(
                f"the library has a set {name}: choose another name, or remove it (ftdnas sets remove {name})"
            )

    def own(self, name: str | Path) -> Path:
        """The file of a set of this library. Raises what `path` raises, and ValueError for one that lies elsewhere."""
        path = self.path(name)
        if path.parent.resolve() != self.folder.resolve():
            raise ValueError(f"{path} is not in the library {self.folder}: remove it yourself")
        return path

    def remove(self, name: str | Path) -> list[Path]:
        """Delete a set of this library and its figures; return what was deleted. Raises what `own` raises."""
        path = self.own(name)
        belonging = [one for one in (path, sheet_of(path), curve_of(path)) if one.exists()]
        for one in belonging:
            one.unlink()
        return belonging

    def list(self) -> list[Entry]:
        """All sets, sorted by name, damaged ones among them."""
        return [self.entry(self.folder / f"{name}{SUFFIX}") for name in self.names()]


def sheet_of(path: Path) -> Path:
    """Where the contact sheet of the set at `path` is."""
    return path.with_name(f"{path.name.removesuffix(SUFFIX)}.png")


def curve_of(path: Path) -> Path:
    """Where the figure of losses and accuracies of the set at `path` is, if it was distilled."""
    return path.with_name(f"{path.name.removesuffix(SUFFIX)}-curve.png")


def set_name(synthetic: SyntheticSet) -> str:
    """`<dataset>-ipc<ipc>-<method>-<recipe>-<6 hex of the identity>`."""
    recipe = synthetic.provenance.get("recipe")
    parts = [
        _slug(synthetic.provenance.get("dataset"), "unknown"),
        f"ipc{synthetic.ipc}",
        _slug(synthetic.provenance.get("method"), "unknown"),
        _slug(recipe.get("name") if isinstance(recipe, Mapping) else recipe, "custom"),
        synthetic.identity[:6],
    ]
    return "-".join(parts)


def check_name(name: str) -> str:
    """`name`, if a set can be called that: one part of a path, not hidden, printable. Raises ValueError otherwise."""
    wrong = not name.isprintable() or name.startswith(".") or re.search(r'[/\\:*?"<>|]', name) or name != name.strip()
    if not name or wrong or name.endswith(SUFFIX):
        raise ValueError(f"{name!r} is no name for a set: take letters, digits, - and _")
    if len(name.encode()) > LONGEST_NAME:
        raise ValueError(f"the name {name[:20]}... is longer than {LONGEST_NAME} bytes")
    return name


def facts(synthetic: SyntheticSet) -> dict[str, Any]:
    """What one wants to know of a set, as JSON; accuracies are fractions."""
    from ftdnas.sets.nearest import is_photos, stored_nearest

    channels, height, width = synthetic.image_shape
    nearest = stored_nearest(synthetic)
    known = {key: synthetic.provenance.get(key) for key in ("dataset", "source", "method", "seed", "published")}
    recipe = synthetic.provenance.get("recipe")
    return {
        **known,
        "recipe": recipe.get("name") if isinstance(recipe, Mapping) else recipe,
        "validation_accuracy": synthetic.provenance.get("validation_accuracy"),
        "real_photos": is_photos(synthetic),
        "nearest_photo": None if nearest is None else asdict(nearest),
        "images": len(synthetic.images),
        "classes": synthetic.num_classes,
        "ipc": synthetic.ipc,
        "channels": channels,
        "height": height,
        "width": width,
        "target_size": synthetic.target_size,
        "labels": "hard" if synthetic.hard_labels else "soft",
        "teachers": 0 if synthetic.teachers is None else len(synthetic.teachers),
        "step_size": synthetic.step_size,
        "preprocess": synthetic.preprocess.kind,
        "augment": synthetic.augment,
        "backbone": synthetic.backbone,
        "identity": synthetic.identity,
    }


def _why_not(folder: Path, text: str, names: list[str], found: list[str]) -> str:
    if not names:
        return f"no set {text!r}: the library {folder} is empty (ftdnas distill makes a set)"
    if found:
        return f"{text!r} begins the names of {len(found)} sets, give more of one: {_some(found)}"
    inside = [known for known in names if text and text.casefold() in known.casefold()]
    near = inside or difflib.get_close_matches(text, names, n=3, cutoff=0.4)
    return f"no set {text!r} in the library: {'did you mean' if near else 'it has'} {_some(near or names)}"


def _slug(value: object, otherwise: str) -> str:
    return re.sub(r"\W+", "-", str(value or "").lower()).strip("-")[:24].strip("-") or otherwise


def _some(names: list[str]) -> str:
    return ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
