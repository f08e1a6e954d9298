"""Who stands where in a ranking, and what it cost."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from ftdnas.proxies.base import Outcome, Proxy
from ftdnas.proxies.rank_sum import RankSum
from ftdnas.ranking.plan import Plan
from ftdnas.ranking.table import Ranking, ranked, spent

NAMES = [f"convnet:depth={depth}" for depth in (1, 2, 3, 4)]


@dataclass(frozen=True, eq=False)
class Given(Proxy):
    """A proxy of these outcomes, by works of these keys."""

    called: str
    of: Mapping[str, Outcome] = field(default_factory=dict)
    keys: Sequence[str] = ()

    @property
    def name(self) -> str:
        return self.called

    title = name

    def works(self, candidates: Sequence[str], rows: Any) -> list[Any]:  # noqa: ARG002
        return [SimpleNamespace(key=key) for key in self.keys]

    def outcomes(self, candidates: Sequence[str], rows: Any) -> list[Outcome]:  # noqa: ARG002
        return [self.of[name] for name in candidates]


def test_the_dead_stand_after_the_living_whatever_else_is_said_for_them() -> None:
    losses: list[Outcome] = [(3.0, None), (2.0, "dead: chance"), (1.0, None), (None, "nan")]
    loss = Given("loss", dict(zip(NAMES, losses, strict=True)))
    size = Given("size", dict(zip(NAMES, [(1.0, None), (9.0, None), (2.0, None), (3.0, None)], strict=True)))
    facts = {name: {"parameters": 5, "flops": 7, "latency_ms": None} for name in NAMES}
    candidates = ranked(RankSum([loss, size]), NAMES, facts, {})
    assert candidates[2].score == max(one.score or 0.0 for one in candidates)
    assert [one.architecture[-1] for one in candidates] == ["1", "3", "2", "4"]
    plan = Plan(tuple(NAMES), None, "all", None, None)
    ranking = Ranking("demo", Path("demo"), {}, plan, candidates, "loss+size", "both", (), {}, ())
    assert ranking.best(4) == [NAMES[0], NAMES[2]]
    assert ranking.standing(1)["ranked"] == 2
    assert (ranking.dead, ranking.failures) == (1, 1)
    assert [row["place"] for row in ranking.rows()] == [1, 2, None, None]
    assert ranking.rows()[0]["choices"]["depth"] == 1
    table = list(csv.DictReader(io.StringIO(ranking.to_csv())))
    assert [(row["rank"], row["depth"]) for row in table] == [("1", "1"), ("2", "3"), ("", "2"), ("", "4")]
    assert [row["id"] for row in table] == [ranking.ids[row["architecture"]] for row in table]
    assert Ranking.from_json(ranking.to_json(), Path("demo")) == ranking
    earlier = ranking.to_json()
    for row in earlier["candidates"]:
        del row["place"], row["id"], row["choices"]
    assert Ranking.from_json(earlier, Path("demo")) == ranking


def test_what_several_ways_to_rank_share_is_paid_once() -> None:
    rows: dict[str, dict[str, Any]] = {key: {"seconds": seconds} for key, seconds in (("a", 28.0), ("b", 5.0))}
    proxies = [Given("loss+size", keys=["a"]), Given("loss", keys=["a"]), Given("more", keys=["a", "b", "missing"])]
    assert spent(proxies, NAMES, rows) == {"loss+size": 28.0, "loss": 0.0, "more": 5.0}
