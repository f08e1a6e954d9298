"""Which candidates are taken: as many as asked for, or as fit the time, and it is said which and why."""

from __future__ import annotations

import pytest

from ftdnas.candidates.cost import CostModel
from ftdnas.ranking.plan import FEWEST, Plan, make_plan, parse_restriction
from ftdnas.ranking.request import BASELINES, SearchRequest
from search_spaces.base import SPACES, flops, parse_architecture, stratified_sample

SPACE = SPACES["convnet"]
SHAPE = (1, 8, 8)
COST = CostModel(0.1, 1e-5, 1e-12)


def _seconds_of(name: str) -> list[float]:
    count = flops(parse_architecture(name), SHAPE, 10)
    return [COST.seconds(count, load) for load in (20_000.0, 5_000.0)]


def _plan(wanted: int | None = None, minutes: float | None = None, jobs: int = 2, most: int = 600) -> Plan:
    order = stratified_sample(SPACE, most, SHAPE, 0)
    return make_plan(SPACE, order, _seconds_of, jobs=jobs, wanted=wanted, minutes=minutes)


def _seconds(plan: Plan) -> float:
    return sum(seconds for name in plan.candidates for seconds in _seconds_of(name))


def test_as_many_as_were_asked_for() -> None:
    plan = _plan(wanted=9)
    assert plan.candidates == tuple(a.name for a in stratified_sample(SPACE, 9, SHAPE, 0))
    assert plan.size == 720
    assert plan.why == "as many as were asked for"
    assert plan.describe() == "9 of the space's 720 architectures: as many as were asked for"


def test_as_many_as_fit_the_time() -> None:
    half, whole, four = _plan(minutes=0.1), _plan(minutes=0.2), _plan(minutes=0.2, jobs=4)
    assert FEWEST < len(half.candidates) < len(whole.candidates) < len(four.candidates) < 600
    assert _seconds(whole) / 2 <= 12
    longer = _plan(wanted=len(whole.candidates) + 1)
    assert _seconds(longer) / 2 > 12
    assert longer.candidates[:-1] == whole.candidates  # a longer time adds candidates and drops none
    assert "as many as fit 0.2 minutes" in whole.why


def test_where_too_few_fit_the_fewest_are_taken_and_it_is_said() -> None:
    plan = _plan(minutes=0.001)
    assert len(plan.candidates) == FEWEST
    assert "do not fit" in plan.why


def test_all_where_nothing_limits() -> None:
    assert _plan(wanted=50, most=40).why == "all that are left; 50 were asked for"
    plan = _plan(most=45)
    assert len(plan.candidates) == 45
    assert plan.why == "all that there are and that can carry the images"
    assert Plan.from_json(plan.to_json()) == plan


def test_restrictions_are_read_with_their_types_and_wrong_ones_named() -> None:
    assert parse_restriction(SPACE, ["width=32, 64", "norm=batch"]) == {"width": (32, 64), "norm": ("batch",)}
    assert parse_restriction(SPACE, []) == {}
    with pytest.raises(ValueError, match="no width '33': choose from 32, 64, 128, 256"):
        parse_restriction(SPACE, ["width=33"])
    for text, said in (
        ("colour=red", "has no 'colour': its keys are width"),
        ("width", "is not KEY=VALUE"),
        ("=3", "keys are"),
    ):
        with pytest.raises(ValueError, match=said):
            parse_restriction(SPACE, [text])


def test_a_proxy_is_not_its_own_rival_however_it_is_spelled() -> None:
    request = SearchRequest(proxy="set.late_loss + params", compare=("all", "set.late_loss+params", " flops "))
    assert "set.late_loss+params" not in request.compared
    assert len(request.compared) == len(BASELINES)  # flops is one of them
