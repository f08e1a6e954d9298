"""What each stage cost, and from how many candidates on distilling pays."""

from __future__ import annotations

from dataclasses import dataclass

from ftdnas.ranking.advice import break_even

ONCE, EACH = "once", "per candidate"


@dataclass(frozen=True)
class Stage:
    """One row of the ledger. `seconds`: of computation of one process in all, over `count` pieces of work on `device`.

    `paid`: ONCE (experts, distillation: every later screening shares them) or EACH (with every candidate).
    """

    name: str
    seconds: float
    device: str
    paid: str
    count: int = 1
    note: str = ""

    @property
    def each_s(self) -> float | None:
        """Seconds of one piece of work; None where there was none."""
        return self.seconds / self.count if self.count else None


def shared_note(paid_s: float, whole_s: float) -> str:
    """What is said of a way to rank of whose `whole_s` seconds others, counted before it, had paid a part."""
    if paid_s >= whole_s * (1 - 1e-9):
        return ""
    return "the same trainings as above" if not paid_s else f"{whole_s - paid_s:,.3g} s more are counted above"


def told_break_even(once_s: float, candidate_s: float, alternative_s: float, alternative: str) -> str:
    """The break-even in one sentence; `alternative` names the other way."""
    number = break_even(once_s, candidate_s, alternative_s)
    each = f"{candidate_s:.3g} s against {alternative_s:.3g} s per candidate"
    if number is None:
        return f"Distilling never pays beside {alternative}: {each}."
    return f"Distilling pays beside {alternative} from {number:,} candidates on: {once_s:,.0f} s once, then {each}."
