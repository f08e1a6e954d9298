"""A workbench on digits, and works carried out here and now."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest

from distill.images.datasets import ImageDataset
from distill.recipe import TrainingRecipe
from distill.synthetic import SyntheticSet
from ftdnas.candidates.screening import Screening
from ftdnas.proxies.base import Proxy
from ftdnas.proxies.bench import Workbench
from ftdnas.runtime.processes import Failure, outcome_of

MakeBench = Callable[..., Workbench]
Carry = Callable[..., dict[str, Any]]


@pytest.fixture(scope="session")
def make_bench(digits: ImageDataset, set_of: Callable[..., SyntheticSet]) -> MakeBench:
    """make_bench(**fields): a set of 30 digits, trained on for 8 steps; the truth is 2 epochs at two seeds."""
    synthetic = set_of(digits).with_provenance(seconds={"experts": 0.2, "matching": 0.1})

    def make(**fields: Any) -> Workbench:
        given: dict[str, Any] = {
            "data": digits,
            "screening": Screening(steps=8, lr=0.05),
            "seed": 0,
            "synthetic": synthetic,
            "set_name": "tiny",
            "truth": TrainingRecipe(epochs=2, lr=0.02),
            "truth_seeds": (0, 1),
            "calibration": 10,
            "rungs": (0.05, 0.1, 0.2),
        }
        return Workbench(**(given | fields))

    return make


@pytest.fixture(scope="session")
def carry() -> Carry:
    """carry(proxy, bench, candidates, rows): the rows with all that the proxy asked for, done in this process."""

    def run(
        proxy: Proxy, bench: Workbench, candidates: Sequence[str], rows: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        rows = {} if rows is None else rows
        shelf = None
        while works := proxy.todo(candidates, rows):
            # What executors hand over is what lay there when the work began.
            shelf = shelf or bench.shelf
            keys = [work.key for work in works]
            assert len(set(keys)) == len(keys)
            assert not set(keys) & set(rows)
            for work in works:
                assert set(work.needs) <= set(shelf)  # type: ignore[attr-defined]
                outcome = outcome_of(work, shelf)
                row = work.failed(outcome) if isinstance(outcome, Failure) else outcome
                assert row["key"] == work.key
                rows[work.key] = row
        return rows

    return run


@pytest.fixture(scope="session")
def changed() -> Callable[..., Workbench]:
    """changed(bench, **fields) with another screening: fields of it."""

    def change(bench: Workbench, **fields: Any) -> Workbench:
        made = {
            name: getattr(bench, name)
            for name in ("data", "seed", "synthetic", "set_name", "truth", "truth_seeds", "calibration", "rungs")
        }
        return Workbench(screening=replace(bench.screening, **fields), **made)

    return change
