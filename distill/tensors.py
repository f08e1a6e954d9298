"""Tensors and facts as one safetensors file with a sum."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from distill.files import SUM, UNSUMMED, Damaged, check, set_aside, whole_file

KEY = "ftdnas"


def write_tensors(path: Path, tensors: Mapping[str, Tensor], facts: Mapping[str, Any] | None = None) -> None:
    """A whole file with `facts` as JSON."""
    stored = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    with whole_file(path, sums=True) as beside:
        beside.touch()
        mode = beside.stat().st_mode
        save_file(stored, beside, metadata={KEY: json.dumps({**UNSUMMED, **(facts or {})}, sort_keys=True)})
        beside.chmod(mode)  # save_file lets nobody else read it


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The inverse of `write_tensors`. Raises Damaged, naming the file."""
    with opened(path) as file:
        return {name: file.get_tensor(name) for name in file.keys()}, facts_of(file)  # noqa: SIM118


@contextmanager
def opened(path: Path) -> Iterator[Any]:
    """The file, checked, to read from. Raises Damaged, naming the file, where it or what is read of it is wrong."""
    try:
        check(path)
        with safe_open(path, framework="pt") as file:
            yield file
    except Damaged:
        raise
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise Damaged(path, error) from error


def sound(path: Path) -> bool:
    """Whether it is there and as it was written; a damaged one is set aside."""
    try:
        with opened(path):
            return True
    except FileNotFoundError:
        return False
    except Damaged:
        set_aside(path)
        return False


def facts_of(file: Any) -> dict[str, Any]:
    """Of an open file."""
    facts: dict[str, Any] = json.loads((file.metadata() or {}).get(KEY, "{}"))
    facts.pop(SUM, None)
    return facts
