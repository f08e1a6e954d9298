"""The short form of benchmarks/fuzz.py: no damage is read as another value, and none ends in a traceback."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from fuzz import READERS, campaign

from distill.files import Damaged
from ftdnas.runtime.home import read_json, write_json


@pytest.mark.parametrize("name", READERS)
def test_damaged_files_are_refused_set_aside_or_read_as_they_were(name: str, tmp_path: Path) -> None:
    found = campaign(READERS[name], tmp_path, 40, random.Random(name))
    assert set(found) <= {"refused", "the same"}


def test_a_sum_that_was_cut_out_is_missed(tmp_path: Path) -> None:
    path = tmp_path / "card.json"
    write_json(path, {"a": 1, "b": 2})
    content = path.read_bytes()
    path.write_bytes(content[:1] + content[content.index(b',\n "a"') + 1 :])
    with pytest.raises(Damaged, match="its sum is not there"):
        read_json(path, "again")
