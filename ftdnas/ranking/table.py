"""What a search found: the candidates in order, what failed, what it cost."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ftdnas.candidates.limits import Limits
from ftdnas.proxies.base import Proxy
from ftdnas.proxies.bench import Workbench
from ftdnas.proxies.promotion import Promotion
from ftdnas.proxies.rank_sum import guide_of
from ftdnas.ranking.plan import Plan
from ftdnas.runtime.rows import Row


@dataclass(frozen=True)
class Ranked:
    """One candidate. `score`: of the proxy, larger is better, perhaps relative to the others; None where it failed.

    `guide`: the score of the proxy's first part, which does not depend on the others. `accuracy`: a fraction, on the
    validation images that score; it and `late_loss` are of its first training, in the stage that it was promoted to. An
    `error` beside a score: the network is dead. `seconds`: of all that the proxy did for it.
    """

    architecture: str
    parameters: int
    flops: int
    latency_ms: float | None
    score: float | None
    guide: float | None
    accuracy: float | None
    late_loss: float | None
    error: str | None
    seconds: float


@dataclass(frozen=True)
class Ranking:
    """The outcome of a search; `candidates` best first, those that failed last.

    `seconds`: of computation, proxy by proxy, whenever it was and in however many processes. `compared`: the proxies
    that were scored beside it.
    """

    study: str
    folder: Path
    settings: Mapping[str, Any]
    plan: Plan
    candidates: tuple[Ranked, ...]
    proxy: str
    title: str
    compared: tuple[str, ...]
    seconds: Mapping[str, float]
    notes: tuple[str, ...]

    @property
    def failures(self) -> int:
        """Candidates that have no score."""
        return sum(candidate.score is None for candidate in self.candidates)

    @property
    def dead(self) -> int:
        """Candidates that were scored and ended at chance."""
        return sum(one.score is not None and one.error is not None for one in self.candidates)

    def best(self, count: int) -> list[str]:
        """The architectures of the first places; those that failed are never among them."""
        return [candidate.architecture for candidate in self.candidates if candidate.score is not None][:count]

    def standing(self, count: int) -> dict[str, Any]:
        """What the card of a finished network says of the first places, as JSON."""
        ranks = {architecture: place for place, architecture in enumerate(self.best(count), start=1)}
        scored = len(self.candidates) - self.failures
        return {"study": self.study, "proxy": self.title or self.proxy, "ranked": scored, "ranks": ranks}

    def to_csv(self) -> str:
        """A line a candidate, with its place."""
        table = io.StringIO()
        writer = csv.DictWriter(table, ["rank", *Ranked.__dataclass_fields__], lineterminator="\n")
        writer.writeheader()
        for place, candidate in enumerate(self.candidates, start=1):
            writer.writerow({"rank": place, **asdict(candidate)})
        return table.getvalue()

    def to_json(self) -> dict[str, Any]:
        return {
            "study": self.study,
            "folder": str(self.folder),
            "settings": dict(self.settings),
            "plan": self.plan.to_json(),
            "proxy": self.proxy,
            "title": self.title,
            "compared": list(self.compared),
            "candidates": [asdict(candidate) for candidate in self.candidates],
            "seconds": dict(self.seconds),
            "failures": self.failures,
            "dead": self.dead,
            "notes": list(self.notes),
        }

    @staticmethod
    def from_json(stored: Mapping[str, Any], folder: Path) -> Ranking:
        """What `to_json` gave, wherever its folder lies now. Raises KeyError or TypeError for what is no ranking."""
        return Ranking(
            study=folder.name,
            folder=folder,
            settings=dict(stored["settings"]),
            plan=Plan.from_json(stored["plan"]),
            candidates=tuple(Ranked(**candidate) for candidate in stored["candidates"]),
            proxy=stored["proxy"],
            title=stored["title"],
            compared=tuple(stored["compared"]),
            seconds=dict(stored["seconds"]),
            notes=tuple(stored["notes"]),
        )


def ranked(
    proxy: Proxy, names: Sequence[str], facts: Mapping[str, Mapping[str, Any]], rows: Mapping[str, Row]
) -> tuple[Ranked, ...]:
    """The candidates by the proxy's score; equals by fewer parameters. `facts`: of each, what it costs."""
    scores, errors = proxy.column(names, rows), proxy.errors(names, rows)
    guided = guide_of(proxy).column(names, rows)
    stages = proxy.stages if isinstance(proxy, Promotion) else (proxy,)
    guides = [guide_of(stage) for stage in reversed(stages)]
    candidates = []
    for row, name in enumerate(names):
        mine = [rows[work.key] for guide in guides for work in guide.todo([name], {}) if work.key in rows]
        first: Row = mine[0] if mine else {}
        candidates.append(
            Ranked(
                architecture=name,
                **facts[name],
                score=_finite(scores[row]),
                guide=_finite(guided[row]),
                accuracy=first.get("score"),
                late_loss=first.get("late_loss"),
                error=errors[row] or (None if _finite(scores[row]) is not None else "no score"),
                seconds=math.fsum(float(one["seconds"]) for one in mine),
            )
        )
    return tuple(sorted(candidates, key=_order))


def notes_on(bench: Workbench, limits: Limits) -> list[str]:
    """What a reader must know to read the numbers."""
    notes = []
    data, synthetic = bench.data, bench.synthetic
    images = len(data.score())
    if images:
        notes.append(
            f"accuracies are of {images:,} validation images that chose nothing before (one image is "
            f"{100 / images:.2g} points)"
        )
    if not len(data.train):
        notes.append("ranked by the set alone: no real image was looked at")
    elif synthetic is not None:
        fingerprint = synthetic.provenance.get("data_fingerprint")
        if fingerprint is None:
            notes.append("the set does not say what it was made from: the images that score may be among those")
        elif fingerprint != data.fingerprint:
            notes.append("the set was made from other images than these: check that none that score are among them")
    if synthetic is not None and synthetic.target_size and synthetic.target_size != synthetic.image_shape[1]:
        notes.append(
            f"screened at the set's {synthetic.image_shape[1]} pixels, not at the target's {synthetic.target_size}"
        )
    if limits.describe():
        notes.append(f"only candidates of {limits.describe()}")
    return notes


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _order(candidate: Ranked) -> tuple[float, float, float, str]:
    if candidate.score is None:
        return 1.0, 0.0, 0.0, candidate.architecture
    return 0.0, -candidate.score, candidate.parameters, candidate.architecture
