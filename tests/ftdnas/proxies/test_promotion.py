"""A race that promotes: all by the first ranking, a third by the second, a tenth by the last."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from ftdnas.candidates.training import Training
from ftdnas.proxies.bench import Workbench
from ftdnas.proxies.names import find_proxy
from ftdnas.proxies.promotion import Promotion, asked_of
from search_spaces.base import parse_architecture

CANDIDATES = [
    f"convnet:width={width},depth=1,norm={norm},activation=relu,pooling=avg"
    for width in (4, 8, 12, 16)
    for norm in ("batch", "instance", "none")
]


@pytest.fixture(scope="module")
def bench(make_bench: Callable[..., Workbench]) -> Workbench:
    return make_bench()


def promotion(bench: Workbench, text: str) -> Promotion:
    found = find_proxy(text, bench)
    assert isinstance(found, Promotion)
    return found


def test_each_stage_sees_the_best_of_the_one_before(bench: Workbench, carry: Callable[..., Any]) -> None:
    proxy = promotion(bench, "promote(params,set.late_loss,real:0.05.accuracy+params)")
    assert [round(share, 2) for share in proxy.shares] == [1, 0.33, 0.1]
    rows = carry(proxy, bench, CANDIDATES)
    few = find_proxy("set.late_loss", bench)
    assert {work.architecture for work in few.todo(CANDIDATES, {}) if work.key in rows} == set(largest(4))
    best = sorted(largest(4), key=lambda name: few.column([name], rows)[0] or 0.0)[-2:]
    real = find_proxy("real:0.05.accuracy", bench)
    assert {work.architecture for work in real.todo(CANDIDATES, {}) if work.key in rows} == set(best)
    scores = dict(zip(CANDIDATES, proxy.column(CANDIDATES, rows), strict=True))
    assert all(score is not None for score in scores.values())
    assert {name for name in CANDIDATES if scores[name] > 2} == set(best)
    assert {name for name in CANDIDATES if 1 < scores[name] < 2} == set(largest(4)) - set(best)
    assert proxy.todo(CANDIDATES, rows) == []
    assert proxy.seconds(CANDIDATES, rows) == pytest.approx(sum(row["seconds"] for row in rows.values()))


def largest(count: int) -> list[str]:
    sizes = {name: sum(weight.numel() for weight in network(name).parameters()) for name in CANDIDATES}
    return sorted(CANDIDATES, key=lambda name: (-sizes[name], name))[:count]


def network(name: str) -> Any:
    return parse_architecture(name).build((1, 8, 8), 10)


def test_what_fails_in_a_stage_has_no_score(bench: Workbench, carry: Callable[..., Any]) -> None:
    proxy = promotion(bench, "promote(set.late_loss,real:0.05.accuracy)")
    rows = carry(proxy.stages[0], bench, CANDIDATES)
    failing = proxy.stages[0].todo(CANDIDATES, {})[2]
    rows[failing.key] |= {"error": "diverged", "late_loss": None, "score": None}
    rows = carry(proxy, bench, CANDIDATES, rows)
    column = proxy.column(CANDIDATES, rows)
    assert column[2] is None
    assert proxy.errors(CANDIDATES, rows)[2] == "diverged"
    assert sum(score is not None and score > 1 for score in column) == 2  # a tenth of twelve, rounded up


def test_the_last_stage_is_of_full_size_whatever_the_screening_shrinks(
    bench: Workbench, changed: Callable[..., Workbench]
) -> None:
    small = changed(bench, pixels=4, shrink=True)
    (early,), (real,) = (
        find_proxy(f"{kind}:0.05.accuracy", small).todo(CANDIDATES[:1], {}) for kind in ("early", "real")
    )
    assert isinstance(early, Training)
    assert isinstance(real, Training)
    assert small.shelf[early.trained_on.fingerprint].image_shape == (1, 4, 4)
    assert small.shelf[real.trained_on.fingerprint].image_shape == (1, 8, 8)
    assert "full size" in find_proxy("real:0.05.accuracy", small).title


def test_what_a_candidate_may_cost_is_shared(bench: Workbench) -> None:
    proxy = promotion(bench, "promote(params,set.late_loss,real:0.05.accuracy)")
    assert [round(share, 2) for share, _ in asked_of(proxy, CANDIDATES[0])] == [0.33, 0.1]
    assert [share for share, _ in asked_of(find_proxy("set.late_loss", bench), CANDIDATES[0])] == [1.0]
