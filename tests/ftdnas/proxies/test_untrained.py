"""Measures as proxies: what is asked for, how rows become columns, and what fails."""

from __future__ import annotations

import json
import math
import pickle
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch

from distill.images.datasets import ImageDataset
from ftdnas.candidates.screening import Screening
from ftdnas.proxies.bench import Workbench
from ftdnas.proxies.measures import MEASURES, Measurement
from ftdnas.proxies.untrained import COUNTS, Counted, Measured, rank_product
from ftdnas.runtime.processes import Failure
from search_spaces.messages import one_line

CONV = "nasbench201:|nor_conv_3x3~0|+|none~0|skip_connect~1|+|none~0|none~1|nor_conv_1x1~2|"
# The same function: the second node and the first change places.
TWIN = "nasbench201:|none~0|+|nor_conv_3x3~0|none~1|+|none~0|none~1|nor_conv_1x1~2|"
IDENTITY = "nasbench201:|none~0|+|none~0|none~1|+|skip_connect~0|none~1|none~2|"
NOTHING = "nasbench201:|none~0|+|none~0|none~1|+|none~0|none~1|none~2|"
CELLS = [CONV, IDENTITY, NOTHING]


@pytest.fixture(scope="module")
def bench(digits: ImageDataset) -> Workbench:
    return Workbench(digits, Screening(), seed=0)


def done(works: Sequence[Measurement], bench: Workbench) -> dict[str, Any]:
    shelf = {bench.material("train").label.fingerprint: bench.material("train")}
    rows = {}
    for work in works:
        try:
            row = work(shelf if work.needs else {})
        except Exception as error:
            row = work.failed(Failure(one_line(error)))
        rows[work.key] = json.loads(json.dumps(row, allow_nan=False))
    return rows


@pytest.mark.parametrize("measure", MEASURES)
def test_every_measure_ranks_cells_and_puts_nothing_last(measure: str, bench: Workbench) -> None:
    proxy = Measured(measure, bench, shrunk=True)
    rows = done(proxy.todo(CELLS, {}), bench)
    assert proxy.todo(CELLS, rows) == []
    column = proxy.column(CELLS, rows)
    assert proxy.errors(CELLS, rows) == [None] * 3
    assert all(value is not None and math.isfinite(value) for value in column)
    assert column[0] == max(column)  # type: ignore[type-var]
    assert column[2] == min(column)  # type: ignore[type-var]
    assert proxy.seconds(CELLS, rows) == pytest.approx(sum(row["seconds"] for row in rows.values()))
    assert proxy.name == f"{measure}.shrunk"


def test_cells_that_compute_the_same_are_measured_once(bench: Workbench) -> None:
    proxy = Measured("synflow", bench)
    assert len(proxy.todo([CONV, TWIN, NOTHING], {})) == 2
    rows = done(proxy.todo([CONV, TWIN], {}), bench)
    first, second = proxy.column([CONV, TWIN], rows)
    assert first == second
    assert proxy.seconds([CONV, TWIN], rows) == next(iter(rows.values()))["seconds"]


def test_a_row_is_the_record_and_the_same_wherever_it_is_made(bench: Workbench) -> None:
    (work,) = Measured("az_nas", bench, shrunk=True).todo([CONV], {})
    (first,) = done([work], bench).values()
    torch.rand(3)  # the global generator does not matter
    (second,) = done([pickle.loads(pickle.dumps(work))], bench).values()
    assert first["values"] == second["values"]
    assert set(first["values"]) == {"expressivity", "progressivity", "trainability"}
    assert (first["key"], first["error"], first["device"]) == (work.key, None, "CPU, 1 thread")


def test_keys_tell_measures_networks_sizes_and_seeds_apart(bench: Workbench) -> None:
    proxies = [Measured(name, bench, shrunk=shrunk) for name in MEASURES for shrunk in (False, True)]
    proxies += [Measured("az_nas", replace(bench, seed=1)), Measured("az_nas", replace(bench, device="cuda"))]
    keys = [proxy.todo([CONV], {})[0].key for proxy in proxies]
    assert len(set(keys)) == len(keys) - 1  # a device is no part of it


def test_only_real_images_are_needed(bench: Workbench) -> None:
    fingerprint = bench.material("train").label.fingerprint
    needs = {name: Measured(name, bench).todo([CONV], {})[0].needs for name in MEASURES}
    assert needs == {"synflow": (), "az_nas": (), "naswot": (fingerprint,), "jacob_cov": (fingerprint,)}


def test_a_refusal_is_an_error_and_the_others_keep_their_scores(bench: Workbench) -> None:
    candidates = [f"convnet:width=32,depth=2,activation={name}" for name in ("relu", "sigmoid", "leakyrelu")]
    proxy = Measured("naswot", bench)
    rows = done(proxy.todo(candidates, {}), bench)
    column, errors = proxy.column(candidates, rows), proxy.errors(candidates, rows)
    assert [value is None for value in column] == [False, True, False]
    assert errors[1] is not None
    assert "the network has Sigmoid" in errors[1]


def test_without_rows_there_are_neither_scores_nor_lies(bench: Workbench) -> None:
    proxy = Measured("az_nas", bench)
    assert proxy.column(CELLS, {}) == [None] * 3
    assert proxy.errors(CELLS, {}) == ["it was not measured"] * 3


def test_rank_product_by_hand() -> None:
    scores = rank_product([[1.0, 2.0, 3.0], [5.0, None, None]])
    assert scores == pytest.approx([math.log(1 / 3), math.log(2 / 3) + math.log(1.5 / 3), math.log(1.5 / 3)])


def test_a_figure_that_is_no_number_shares_the_last_place(bench: Workbench) -> None:
    proxy = Measured("synflow", bench, shrunk=True)
    rows = done(proxy.todo([CONV, NOTHING], {}), bench)
    column = proxy.column([CONV, NOTHING, NOTHING], rows)
    assert column[1] == column[2] == column[0] - 1


@pytest.mark.parametrize("name", COUNTS)
def test_counts_are_of_the_candidate_itself_and_free(name: str, bench: Workbench) -> None:
    proxy = Counted(name, bench)
    assert proxy.todo(CELLS, {}) == []
    conv, identity, nothing = proxy.column(CELLS, {})
    assert conv > identity == nothing
    assert proxy.seconds(CELLS, {}) == 0


def test_a_network_that_cannot_be_built_has_no_count(bench: Workbench) -> None:
    candidates = ["convnet:depth=4", "convnet:depth=2"]  # digits have 8 pixels
    proxy = Counted("params", bench)
    assert [value is None for value in proxy.column(candidates, {})] == [True, False]
    errors = proxy.errors(candidates, {})
    assert errors[0] is not None
    assert "2x2 pooling" in errors[0]
    assert errors[1] is None
