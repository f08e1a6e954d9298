"""What was measured of proxies on spaces before: the limits that `search`, `check` and `advise` know, and say."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from ftdnas.proxies.names import ProxyName, read_proxy
from ftdnas.runtime.records import from_json

PLACE = Path(__file__).with_name("evidence.json")
SAME = 0.05  # points of accuracy: as good as the best
Interval = tuple[float, float, float]  # value, low, high at 95 %


@dataclass(frozen=True)
class Evidence:
    """How a proxy ranked `candidates` of a space: Spearman over all and over the better half by truth, and regret@10.

    `labels`: "set" or "teachers", where few images were trained on. `regret`: in points of accuracy. `data`: the images
    and what the truth was. `result`: the folder of results/ from whose rows a test computes these figures again.
    """

    space: str
    proxy: str
    labels: str
    candidates: int
    all: Interval
    better_half: Interval
    regret: Interval
    data: str
    result: str

    @property
    def images(self) -> str:
        """The part of `data` that names the images."""
        named = next((part for part in self.data.split(", ") if "pixels" in part), self.data)
        return named.split(" against ")[0]

    def describe(self) -> str:
        """One line."""
        labels = ", teachers' labels" if self.labels == "teachers" else ""
        whole, half = (f"{value:.2f} [{low:.2f}, {high:.2f}]" for value, low, high in (self.all, self.better_half))
        return (
            f"{self.proxy}{labels}: Spearman {whole} over all, {half} over the better half, "
            f"regret of the best ten {self.regret[0]:.2f} points"
        )


@cache
def known() -> tuple[Evidence, ...]:
    """All that ships with the package."""
    evidence: tuple[Evidence, ...] = from_json(tuple[Evidence, ...], json.loads(PLACE.read_text(encoding="utf-8")))
    return evidence


def limits(space: str, proxy: ProxyName, labels: str, *, as_measured: bool = True) -> list[str]:
    """What is known of this proxy on this space, a line each; for comparison random images where it trains on a set,
    and the best without training.

    One line that says that nothing is, where nothing is: then only a check can tell. `as_measured`: whether candidates
    are screened by the space's own defaults, as they were then.
    """
    here = [record for record in known() if record.space == space]
    own = _of(here, proxy, labels)
    control = proxy.on_random_images() if proxy.on_set else None
    random = [record for record in here if control and _same(record, control) and record.labels == labels]
    free = [record for record in here if not record.labels and record not in own]
    if not own:
        return [f"how {proxy.text()} ranks {space} was not measured before: ftdnas check does, on a few real trainings"]
    best = max(free, key=lambda record: record.all[0], default=None)
    lines = [
        f"measured before on {record.candidates} of {space}, {record.data}, {record.describe()} "
        f"(results/{record.result})"
        for record in [*own, *random, *([best] if best else [])]
    ]
    if own[0].labels and not as_measured:
        lines.append("that was by another screening than this")
    return lines


def in_words(space: str, proxy: ProxyName, labels: str) -> str:
    """How far the first places can be relied on, for who knows no statistics."""
    own = _of([record for record in known() if record.space == space], proxy, labels)
    if not own:
        return "Not known: this way of ranking was not tried on such networks before. Do not take the first one unseen."
    lost, _, most = own[0].regret
    found = "held the best" if lost < SAME else f"lost {lost:.1f} points to the best"
    return (
        f"Not known for your images yet. On {own[0].images} its first ten of {own[0].candidates} {found} (95 %: at "
        f"most {most:.1f} points lost). Do not take the first one unseen."
    )


def _of(records: Sequence[Evidence], proxy: ProxyName, labels: str) -> list[Evidence]:
    return [record for record in records if _same(record, proxy) and record.labels in (labels, "")]


def _same(record: Evidence, proxy: ProxyName) -> bool:
    """Whether it is of that proxy."""
    return _parts(read_proxy(record.proxy)) == _parts(proxy)


def _parts(proxy: ProxyName) -> Counter[str]:
    """Of a sum of ranks, whose order says nothing."""
    return Counter(part.text() for part in (proxy.parts if proxy.form == "sum" else (proxy,)))
