"""How far a set's ranking is from the truth, beside rankings that cost less or as much, and what follows from that."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ftdnas.agreement import Bootstrap, Estimate, Values, regret_at, spearman, spearman_difference

LEVEL = 0.95
CHOSEN = 5  # k of regret@k


@dataclass(frozen=True)
class Line:
    """One way to rank. `spearman` is over all candidates that every way could score, `better_half` over the better
    half of those by truth; `regret`, a fraction of accuracy, is that of really training its best five. `ahead`: the
    set's Spearman minus this one's, paired; None for the set itself.
    """

    name: str
    spearman: Estimate
    better_half: Estimate
    regret: Estimate
    ahead: Estimate | None


@dataclass(frozen=True)
class Comparison:
    """`lines`: the set's scores first, then its other column and the baselines. `verdict`: what to say first.

    `decision`: "use it", "do not use it" or "undecided".
    """

    lines: tuple[Line, ...]
    decision: str
    verdict: str
    candidates: int
    left_out: int

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def compare(
    score: Values, columns: Mapping[str, Values], baselines: Sequence[str], truth: Values, seed: int
) -> Comparison:
    """Compare the set's scores with other `columns`, of which those named in `baselines` have to be beaten.

    Larger is better in every column. Only candidates for which all columns and the truth have a value are compared, so
    that every way is judged on the same ones.
    """
    everything = [score, *columns.values(), truth]
    kept = [row for row in range(len(truth)) if all(column[row] is not None for column in everything)]
    own, true = _some(score, kept), _some(truth, kept)
    others = {name: _some(column, kept) for name, column in columns.items()}
    bootstrap = Bootstrap(seed, level=LEVEL)
    lines = [_line("the set", own, true, None, bootstrap)]
    lines += [_line(name, column, true, own, bootstrap) for name, column in others.items()]
    stricter = Bootstrap(seed, level=1 - (1 - LEVEL) / max(1, len(baselines)))
    beaten = [name for name in baselines if _below(spearman_difference(own, others[name], true, stricter))]
    decision, verdict = judge(lines[0], [line for line in lines if line.name in baselines], beaten)
    return Comparison(tuple(lines), decision, verdict, len(kept), len(truth) - len(kept))


def judge(own: Line, baselines: Sequence[Line], worse_than: Sequence[str]) -> tuple[str, str]:
    """(decision, one plain statement), what speaks against the set first.

    `worse_than`: the baselines to which the set is behind beyond doubt, adjusted for their number.
    """
    if own.spearman.value is None:
        return "undecided", f"The set cannot be judged on these candidates, Spearman is {own.spearman.method}."
    behind = [line for line in baselines if line.ahead and line.ahead.value is not None and line.ahead.value <= 0]
    unclear = [line for line in baselines if line not in behind and not (line.ahead and _above(line.ahead))]
    if behind:
        parts = " and ".join(_against(line) for line in behind)
        text = f"The set does not rank better than {parts}; its own Spearman is {own.spearman}."
        if worse_than:
            return "do not use it", f"{text} It is worse than {' and '.join(worse_than)} beyond doubt: do not use it."
        return "undecided", f"{text} So few candidates cannot say that it is worse."
    if unclear:
        parts = " and ".join(_against(line) for line in unclear)
        return "undecided", f"Undecided: the set is not clearly better than {parts}{_needed(unclear, own.spearman.n)}."
    parts = " and ".join(_against(line) for line in baselines)
    return "use it", f"The set ranks better than {parts}; its own Spearman is {own.spearman}."


def _line(name: str, column: Values, truth: Values, own: Values | None, bootstrap: Bootstrap) -> Line:
    better = sorted(range(len(truth)), key=lambda row: -(truth[row] or 0.0))[: math.ceil(len(truth) / 2)]
    return Line(
        name=name,
        spearman=spearman(column, truth, bootstrap),
        better_half=spearman(_some(column, better), _some(truth, better), bootstrap),
        regret=regret_at(CHOSEN, column, truth, bootstrap),
        ahead=None if own is None else spearman_difference(own, column, truth, bootstrap),
    )


def _against(line: Line) -> str:
    if line.ahead is None or line.ahead.value is None:
        return f"{line.name} (undefined there)"
    return f"{line.name} ({line.spearman.value:.2f}; difference {line.ahead})"


def _needed(unclear: Sequence[Line], n: int) -> str:
    """How many candidates would decide, if the differences stayed what they are: intervals shrink with sqrt(n)."""
    wanted = 0.0
    for line in unclear:
        ahead = line.ahead
        if ahead is None or not ahead.value or ahead.low is None:
            return ""
        wanted = max(wanted, n * ((ahead.value - ahead.low) / ahead.value) ** 2)
    return f"; about {math.ceil(wanted):,} candidates would decide if the difference stayed" if wanted else ""


def _above(estimate: Estimate) -> bool:
    return estimate.low is not None and estimate.low > 0


def _below(estimate: Estimate) -> bool:
    return estimate.high is not None and estimate.high < 0


def _some(column: Values, rows: Sequence[int]) -> list[float | None]:
    return [column[row] for row in rows]
