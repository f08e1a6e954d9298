"""What a search found: the candidates in order, what failed, what it cost."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from ftdnas.candidates.ids import short_ids
from ftdnas.candidates.limits import Limits
from ftdnas.candidates.truth import Truth, known_truth, named_truths
from ftdnas.proxies.base import Proxy
from ftdnas.proxies.bench import Workbench
from ftdnas.proxies.promotion import Promotion
from ftdnas.proxies.rank_sum import guide_of
from ftdnas.ranking.changed import as_recorded
from ftdnas.ranking.plan import Plan
from ftdnas.runtime.rows import Row
from ftdnas.sets.images import Source
from search_spaces.base import SPACES, parse_architecture


@dataclass(frozen=True)
class Ranked:
    """One candidate. `score`: of the proxy, larger is better, perhaps relative to the others; None where it failed.

    `guide`: the score of the proxy's first part, which does not depend on the others. `accuracy`: a fraction, on the
    validation images that score; it and `late_loss` are of its first training, in the stage that it was promoted to. An
    `error` beside a score: the network is dead. `seconds`: of all that the proxy did for it. `choices`: what it is made
    of, {} where that is not known.
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
    choices: Mapping[str, Any] = field(default_factory=dict)

    @property
    def dead(self) -> bool:
        """Whether it learned nothing: it was scored, and ended at chance."""
        return self.score is not None and self.error is not None

    @property
    def placed(self) -> bool:
        """Whether it has a place: it lives and has a score."""
        return self.score is not None and self.error is None


@dataclass(frozen=True)
class Ranking:
    """The outcome of a search; `candidates` best first, then the dead (earlier versions mixed them), last who failed.

    `seconds`: of computation, proxy by proxy, whenever it was and in however many processes; what several share is
    counted with the first of them. `compared`: the proxies that were scored beside it. `sure`: what is known of how
    such rankings turned out, in words. `ahead_s`: what each next step is likely to take.
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
    sure: str = ""
    ahead_s: Mapping[str, float] = field(default_factory=dict)

    @cached_property
    def ids(self) -> dict[str, str]:
        """Architecture -> its short id."""
        return short_ids(candidate.architecture for candidate in self.candidates)

    @property
    def placed(self) -> tuple[Ranked, ...]:
        """Those that have a place, the first first."""
        return tuple(candidate for candidate in self.candidates if candidate.placed)

    @property
    def failures(self) -> int:
        """Candidates that have no score."""
        return sum(candidate.score is None for candidate in self.candidates)

    @property
    def dead(self) -> int:
        """Candidates that were scored and ended at chance."""
        return sum(candidate.dead for candidate in self.candidates)

    def best(self, count: int) -> list[str]:
        """The architectures of the first places; those that failed or are dead are never among them."""
        return [candidate.architecture for candidate in self.placed][:count]

    def truth(self) -> tuple[str, Truth] | None:
        """(name, what it knows) of the truth on the study's images that counts, where there is one."""
        names = [candidate.architecture for candidate in self.candidates]
        source = Source.from_json(self.settings.get("source") or {})
        if next(named_truths(str(self.settings.get("data")), source.metric), None) is None:
            return None  # a list of studies runs nobody's files for nothing
        with as_recorded(self.study, self.settings, self.candidates):
            return known_truth(str(self.settings.get("data")), names, source.metric)

    def standing(self, count: int) -> dict[str, Any]:
        """What the card of a finished network says of the first places, as JSON."""
        ranks = {architecture: place for place, architecture in enumerate(self.best(count), start=1)}
        return {"study": self.study, "proxy": self.title or self.proxy, "ranked": len(self.placed), "ranks": ranks}

    def rows(self) -> list[dict[str, Any]]:
        """The candidates as JSON: what `Ranked` holds, with place and id."""
        places = {one.architecture: place for place, one in enumerate(self.placed, start=1)}
        return [
            {"place": places.get(one.architecture), "id": self.ids[one.architecture], **asdict(one)}
            for one in self.candidates
        ]

    def to_csv(self) -> str:
        """A line a candidate, its choices in columns."""
        rows = [{"rank": row.pop("place"), **row.pop("choices"), **row} for row in self.rows()]
        own = ["rank", "id", *(name for name in Ranked.__dataclass_fields__ if name != "choices")]
        table = io.StringIO()
        columns = dict.fromkeys([*own, *(name for row in rows for name in row)])
        writer = csv.DictWriter(table, list(columns), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
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
            "candidates": self.rows(),
            "seconds": dict(self.seconds),
            "failures": self.failures,
            "dead": self.dead,
            "notes": list(self.notes),
            "sure": self.sure,
            "ahead_s": dict(self.ahead_s),
        }

    @staticmethod
    def from_json(stored: Mapping[str, Any], folder: Path) -> Ranking:
        """What `to_json` gave, wherever its folder lies now. Raises KeyError or TypeError for what is no ranking."""
        return Ranking(
            study=folder.name,
            folder=folder,
            settings=dict(stored["settings"]),
            plan=Plan.from_json(stored["plan"]),
            candidates=tuple(map(_candidate, stored["candidates"])),
            proxy=stored["proxy"],
            title=stored["title"],
            compared=tuple(stored["compared"]),
            seconds=dict(stored["seconds"]),
            notes=tuple(stored["notes"]),
            sure=stored.get("sure", ""),
            ahead_s=stored.get("ahead_s", {}),
        )


def spent(proxies: Sequence[Proxy], names: Sequence[str], rows: Mapping[str, Row]) -> dict[str, float]:
    """Proxy -> seconds of one process that it cost beside those before it, with whom it shares trainings."""
    paid: set[str] = set()
    seconds = {}
    for proxy in proxies:
        new = {work.key for work in proxy.works(names, rows) if work.key in rows} - paid
        seconds[proxy.name] = math.fsum(float(rows[key]["seconds"]) for key in new)
        paid |= new
    return seconds


def ranked(
    proxy: Proxy, names: Sequence[str], facts: Mapping[str, Mapping[str, Any]], rows: Mapping[str, Row]
) -> tuple[Ranked, ...]:
    """The candidates by the proxy's score, the dead after the living; equals by fewer parameters.

    `facts`: of each, what it costs.
    """
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
                choices=dict(parse_architecture(name).choices),
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
    notes += data.unsure
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


def _candidate(stored: Mapping[str, Any]) -> Ranked:
    """Of a ranking's rows; those of earlier versions name no choices."""
    own = {name: value for name, value in stored.items() if name in Ranked.__dataclass_fields__}
    if "choices" not in own and own["architecture"].partition(":")[0] in SPACES:
        own["choices"] = dict(parse_architecture(own["architecture"]).choices)
    return Ranked(**own)


def _order(candidate: Ranked) -> tuple[int, float, float, str]:
    """The living by score, after them the dead, whatever their other parts say, last those that failed."""
    if candidate.score is None:
        return 2, 0.0, 0.0, candidate.architecture
    return int(candidate.dead), -candidate.score, candidate.parameters, candidate.architecture
