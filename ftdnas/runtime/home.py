"""Where ftdnas keeps its files, and what all that lies there shares: JSON files, names."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from distill.files import SUM, UNSUMMED, Damaged, fits, set_aside, whole_file
from search_spaces.outside.meaning import CODES

END = b" \n"  # of a file with a sum, which may have lost it


def home() -> Path:
    """Where ftdnas keeps its files: the folder FTDNAS_HOME, by default .ftdnas in the user's own.

    In it: data/ (downloads), cache/ (decoded images), preprocess/, experts/, runs/, sets/ (the library), studies/,
    truth/, spaces/, evaluations.jsonl, studies.db.
    """
    named = os.environ.get("FTDNAS_HOME")
    return Path(named).expanduser() if named else Path.home() / ".ftdnas"


CODES.place = lambda: home() / "spaces"  # what was first met under which code, so that a comment changes no key


def sets_folder() -> Path:
    """The library of synthetic sets."""
    return home() / "sets"


def studies_folder() -> Path:
    """One folder a study."""
    return home() / "studies"


def truth_folder() -> Path:
    """The pool of real trainings, and the truths that were given names."""
    return home() / "truth"


def shown_path(path: Path) -> str:
    """As a person can type it, the shorter way: by $FTDNAS_HOME or ~ where it lies there."""
    for folder, name in ((home() if "FTDNAS_HOME" in os.environ else None, "$FTDNAS_HOME"), (Path.home(), "~")):
        if folder is not None and path.absolute().is_relative_to(folder.absolute()):
            return f"{name}/{path.absolute().relative_to(folder.absolute())}".removesuffix("/.")
    return str(path)


def typed(name: str, kind: str = "study") -> str:
    """The name of a study or set as a shell takes it, in place of the argument."""
    return f"--{kind}={shlex.quote(name)}" if name.startswith("-") else shlex.quote(name)


def folder_name(what: str, name: str) -> str:
    """`name`, if a file or folder can be called that. Raises ValueError, naming `what` it is the name of, otherwise."""
    if Path(name).name != name or name.startswith("."):
        raise ValueError(f"{what} name {name!r} cannot name a file or folder: leave out slashes and a leading dot")
    return name


def read_json(path: Path, way_out: str | None) -> dict[str, Any]:
    """The object in a file; {} where there is no file. Raises Damaged, with the way out, where it is not as written.

    Without a way out, as what it held is made again anyway, a damaged one is set aside, and taken for none.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return {}
    try:
        if not fits(content):
            raise Damaged(path)
        found = json.loads(content)
        if not isinstance(found, dict):
            raise Damaged(path, "it holds no object")
        if SUM not in found and content.endswith(END):
            raise Damaged(path, "its sum is not there")
    except ValueError as error:
        if way_out is None:
            set_aside(path)
            return {}
        raise Damaged(path, error.why if isinstance(error, Damaged) else error, way_out) from None
    found.pop(SUM, None)
    return found


def write_json(path: Path, content: Mapping[str, Any], *, sort: bool = True) -> None:
    """Put the object, with a sum, in the place of what was there, whole or not at all."""
    text = json.dumps({**UNSUMMED, **content}, indent=1, sort_keys=sort, allow_nan=False) + END.decode()
    with whole_file(path, sums=True) as beside:
        beside.write_text(text, encoding="utf-8")
