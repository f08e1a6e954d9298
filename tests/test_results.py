"""Every folder of results says what its own files say."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

from distill.synthetic import SyntheticSet
from ftdnas.config import load_recipe

ROOT = Path(__file__).parents[1]
FOLDERS = sorted(path.parent for path in (ROOT / "results").glob("*/scores.json"))


@pytest.fixture(scope="module")
def compare_methods() -> ModuleType:
    spec = importlib.util.spec_from_file_location("compare_methods", ROOT / "benchmarks" / "compare_methods.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_there_are_results() -> None:
    assert FOLDERS


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_the_tables_are_computed_from_the_scores(folder: Path, compare_methods: ModuleType) -> None:
    assert compare_methods.tables(folder) in (folder / "README.md").read_text()


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_recipe_and_set_are_whole_and_belong_together(folder: Path) -> None:
    recipe = load_recipe(folder / "recipe.toml")
    made = SyntheticSet.load(folder / "set.safetensors")
    assert made.ipc == recipe.ipc
    assert made.backbone == recipe.backbone
    assert made.provenance["recipe"]["matching"]["outer_steps"] == recipe.matching.outer_steps
