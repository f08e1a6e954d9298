"""The short form of benchmarks/fuzz.py: no damage is read as another value, and none ends in a traceback."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from fuzz import READERS, campaign


@pytest.mark.parametrize("name", READERS)
def test_damaged_files_are_refused_set_aside_or_read_as_they_were(name: str, tmp_path: Path) -> None:
    found = campaign(READERS[name], tmp_path, 40, random.Random(name))
    assert set(found) <= {"refused", "the same"}
