"""Every registered proxy keeps the contract, on real digits; names are found, and wrong ones are told apart."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from ftdnas.candidates.screening import Screening
from ftdnas.proxies.bench import Workbench
from ftdnas.proxies.measures import MEASURES
from ftdnas.proxies.names import DEFAULT, PROXIES, default_proxy, find_proxy, read_proxy
from ftdnas.proxies.untrained import COUNTS
from ftdnas.sets.images import no_images

BASE = "convnet:width=32,depth={},norm={},activation=relu,pooling={}"
INFEASIBLE = BASE.format(4, "instance", "max")  # 8 pixels cannot be halved so often
CANDIDATES = [
    BASE.format(1, "instance", "avg"),
    INFEASIBLE,
    BASE.format(1, "batch", "max"),
    BASE.format(2, "none", "avg"),
    BASE.format(2, "layer", "max"),
    BASE.format(1, "none", "avg"),
    BASE.format(2, "batch", "avg"),
    BASE.format(1, "group", "max"),
    BASE.format(3, "instance", "avg"),
    BASE.format(3, "batch", "max"),
]
FREE = ("params", "flops")
NAMES = [
    *PROXIES,
    "random2.late_loss",
    "kmeans3.accuracy",
    "early:0.1.accuracy",
    DEFAULT,
    "az_nas+params",
    "hybrid(set.late_loss,params)",
    "hybrid(set.late_loss+flops,synflow)",
]

Rows = dict[str, Any]


@pytest.fixture(scope="module")
def bench(make_bench: Callable[..., Workbench]) -> Workbench:
    return make_bench()


@pytest.fixture(scope="module")
def shared() -> Rows:
    """Rows that all proxies of this file share, as the proxies of a study do."""
    return {}


@pytest.mark.parametrize("name", NAMES)
def test_every_proxy_keeps_the_contract(name: str, bench: Workbench, shared: Rows, carry: Callable[..., Rows]) -> None:
    proxy = find_proxy(name, bench)
    assert proxy.name == name
    assert proxy.title
    rows = carry(proxy, bench, CANDIDATES, shared)
    for row in rows.values():
        json.dumps(row, allow_nan=False)
        assert {"key", "architecture", "error", "crashed", "seconds", "device"} <= set(row)
    column, errors = proxy.column(CANDIDATES, rows), proxy.errors(CANDIDATES, rows)
    assert len(column) == len(errors) == len(CANDIDATES)
    for candidate, score, error in zip(CANDIDATES, column, errors, strict=True):
        if candidate == INFEASIBLE:
            assert score is None
            assert error is not None
            assert "pooling" in error
        else:
            assert score is not None, error
            assert math.isfinite(score)
            assert error is None or "dead" in error
    assert len(set(column)) > 3
    assert (proxy.seconds(CANDIDATES, rows) == 0) == (name in FREE)
    assert find_proxy(name, bench).column(CANDIDATES, rows) == column


@pytest.mark.parametrize("name", [name for name in NAMES if name not in FREE])
def test_without_rows_there_are_no_scores_but_reasons(name: str, bench: Workbench) -> None:
    proxy = find_proxy(name, bench)
    assert proxy.column(CANDIDATES, {}) == [None] * len(CANDIDATES)
    assert None not in proxy.errors(CANDIDATES, {})
    assert proxy.seconds(CANDIDATES, {}) == 0


@pytest.mark.parametrize("name", ["set.late_loss", "kmeans2.late_loss", "early.auc", "race", "jacob_cov"])
def test_the_seed_decides_and_nothing_else(
    name: str, bench: Workbench, shared: Rows, carry: Callable[..., Rows], make_bench: Callable[..., Workbench]
) -> None:
    few = CANDIDATES[:3]
    fresh, other = make_bench(), make_bench(seed=1)
    first = find_proxy(name, bench).column(few, carry(find_proxy(name, bench), bench, few, shared))
    again = find_proxy(name, fresh).column(few, carry(find_proxy(name, fresh), fresh, few))
    assert first == again
    assert find_proxy(name, other).column(few, carry(find_proxy(name, other), other, few)) != first


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("set", "set.late_loss"),
        ("random3", "random3.late_loss"),
        ("early:2", "early:2.late_loss"),
        ("early:0.5", "early:0.5.late_loss"),
        ("early:0.5.auc", "early:0.5.auc"),
        (" promote(params, set, real:1) ", "promote(params,set.late_loss,real:1.late_loss)"),
        (" set + params ", "set.late_loss+params"),
        ("hybrid( az_nas, set + params )", "hybrid(az_nas,set.late_loss+params)"),
    ],
)
def test_a_short_name_is_completed(text: str, name: str, bench: Workbench) -> None:
    assert find_proxy(text, bench).name == name
    read_proxy(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("az_naz", "did you mean az_nas"),
        ("zzz", "choose from set.accuracy, .*params"),
        ("random2.speed", "unknown score 'speed' .* choose from accuracy, loss, auc, late_loss"),
        ("set.acc", "did you mean .*set.accuracy"),
        ("early:-1.accuracy", "is not a positive number"),
        ("early:many", "is not a positive number"),
        ("real:1E9", "is not a positive number"),
        ("real:1_000", "is not a positive number"),
        ("real", "unknown proxy .real."),
        ("promote(params)", "two or three rankings"),
        ("promote(params,flops,params,flops)", "two or three rankings"),
        ("promote(params,flops)+params", "is no part of another"),
        ("hybrid(promote(params,flops),params)", "is no part of another"),
        ("promote(params,promote(params,flops))", "is no part of another"),
        ("early:2.speed", "unknown score 'speed'"),
        ("herding2.accuracy", "did you mean herding.accuracy"),
        ("random0.accuracy", "did you mean random.accuracy"),
        ("params+", "empty part"),
        ("", "empty part"),
        ("hybrid(params,flops", "brackets do not match"),
        ("params)", "brackets do not match"),
        ("hybrid(params,,flops)", "empty part"),
        ("hybrid(params,flopz)", "did you mean flops"),
    ],
)
def test_wrong_names_get_one_line_with_the_choices(text: str, message: str, bench: Workbench) -> None:
    for find in (lambda: find_proxy(text, bench), lambda: read_proxy(text)):
        with pytest.raises((ValueError, LookupError), match=message) as caught:
            find()
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["set.accuracy", "random.late_loss", "early.accuracy", "early_total.accuracy"])
def test_what_needs_a_set_says_so(name: str, make_bench: Callable[..., Workbench]) -> None:
    without = make_bench(synthetic=None)
    with pytest.raises(ValueError, match="needs a synthetic set"):
        find_proxy(name, without)
    find_proxy("early:2.accuracy+race+params+az_nas", without)


SPELLINGS = ("{}", " {} ", "params+{}", "{} + params", "az_nas +{}", "hybrid({},params)", "hybrid( params , {} )")


@pytest.mark.parametrize("name", [*PROXIES, "set", "early", "random3", "kmeans", "early:2", "real:0.5.auc"])
def test_a_name_says_what_it_needs_however_it_is_spelled(name: str, make_bench: Callable[..., Workbench]) -> None:
    without = make_bench(synthetic=None)
    needs_set = name.startswith(("set", "random", "herding", "kmeans", "early")) and not name.startswith("early:")
    if needs_set:
        with pytest.raises(ValueError, match="needs a synthetic set"):
            find_proxy(name, without)
    else:
        find_proxy(name, without)
    for spelling in (*SPELLINGS, "promote(params,{})", "promote( {}, params )"):
        read = read_proxy(spelling.format(name))
        assert read.needs_set == needs_set, spelling
        assert read.on_set == name.startswith("set"), spelling
        assert read_proxy(read.text("late_loss")).text() == read.text("late_loss")
        by_itself = "(" not in spelling
        assert read.needs_truth == (name.startswith(("race", "real")) or spelling.startswith("hybrid")), spelling
        first = (spelling.strip().startswith("{}") and name.startswith("az_nas")) or spelling.startswith("az_nas")
        assert read.ranks_together == (not by_itself or first or name == "race"), spelling


@pytest.mark.parametrize("name", [*PROXIES, "set", "random3", "early:2", "real:0.5.auc"])
def test_a_name_says_whether_a_set_alone_is_enough(name: str, make_bench: Callable[..., Workbench]) -> None:
    alone = name in ("set", "set.auc", "set.late_loss") or name.partition(".")[0] in (*COUNTS, *MEASURES)
    for spelling in ("{}", "params+{}", "promote({},params)", "promote(params, {})"):
        assert read_proxy(spelling.format(name)).needs_images() == (not alone), spelling
    assert read_proxy(f"hybrid({name},params)").needs_images()
    bench = make_bench()
    without = replace(bench, data=no_images(bench.the_set()))
    if alone:
        find_proxy(name, without)
    else:
        with pytest.raises(ValueError, match="without validation images"):
            find_proxy(name, without)
    assert read_proxy("set").needs_images("accuracy")  # where that is what is screened by


def test_random_images_in_place_of_the_set() -> None:
    read = read_proxy("promote(set.late_loss + params, real:2)").on_random_images()
    assert read.text("auc") == "promote(random.late_loss+params,real:2.auc)"
    assert read.real_epochs == (2.0,)


def test_what_else_may_be_missing(make_bench: Callable[..., Workbench], bench: Workbench) -> None:
    with pytest.raises(ValueError, match=r"fitted on real trainings, and no recipe"):
        find_proxy("hybrid(set,params)", make_bench(truth=None))
    with pytest.raises(ValueError, match="takes its learning rate from a synthetic set"):
        find_proxy("race", make_bench(truth=None, synthetic=None, screening=Screening(lr="set", augment="none")))
    assert bench.synthetic is not None
    with pytest.raises(ValueError, match="does not say what it cost"):
        find_proxy("early_total", make_bench(synthetic=replace(bench.synthetic, provenance={})))
    three = replace(bench.synthetic, images=bench.synthetic.images[:, :, :4, :4])
    with pytest.raises(ValueError, match=r"the set has images \(1, 4, 4\) in 10 classes, digits has \(1, 8, 8\)"):
        make_bench(synthetic=three)
    unseen = replace(bench.data, validation=bench.data.validation.take(bench.data.validation.labels[:0]))
    with pytest.raises(ValueError, match="not scored on test images"):
        find_proxy("race", make_bench(data=unseen))
    with pytest.raises(LookupError, match="unknown material 'all': choose from set, random"):
        bench.material("all")


def test_what_ranks_unless_told_goes_by_space_and_set(bench: Workbench) -> None:
    synthetic = bench.the_set()
    taught = replace(synthetic, teachers=torch.zeros(1, 5))
    assert default_proxy("convnet", taught) == (DEFAULT, "")
    assert default_proxy("nasbench201", None)[0] == DEFAULT
    assert default_proxy("nasbench201", taught, images=False)[0] == DEFAULT
    proxy, why = default_proxy("nasbench201", synthetic)
    assert proxy == DEFAULT
    assert "no teachers" in why
    assert default_proxy("nasbench201", taught)[0] == "random.late_loss+az_nas"
    read_proxy(default_proxy("nasbench201", taught)[0])
