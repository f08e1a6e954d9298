"""A few facts in a file of their own: one JSON object, there whole or not at all."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from distill.files import whole_file


def read_facts(path: Path, way_out: str) -> dict[str, Any]:
    """The object; {} where there is no file. Raises ValueError, with the way out, for a damaged one."""
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise ValueError(f"{path} is damaged ({error}): {way_out}") from None
    if not isinstance(facts, dict):
        raise ValueError(f"{path} is damaged: {way_out}")
    return facts


def write_facts(path: Path, facts: Mapping[str, Any]) -> None:
    """Put the object in the place of what was there."""
    with whole_file(path) as beside:
        beside.write_text(json.dumps(facts, indent=1, sort_keys=True) + "\n", encoding="utf-8")
