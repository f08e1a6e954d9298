"""Every figure of a comparison as lines of text, and how figures are told."""

from __future__ import annotations

from ftdnas.agreement.comparison import Comparison, Line
from ftdnas.agreement.estimates import Estimate

CHOSEN = 10  # k of the figures that are told
FAILURES = 10  # of a table that are named


def everything(comparison: Comparison) -> list[str]:
    """The verdict first, then every way to rank with its figures, then what they are over."""
    k = chosen_k(comparison)
    told = [comparison.verdict.sentence, beside(comparison), "", f"agreement with {told_truth(comparison)}:"]
    heads = ("headline", "better half", f"regret@{k}", "proxy ahead by", "seconds", "failed")
    rows = [("", *heads), *((line.title, *_cells(line, k)) for line in comparison.lines)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(heads) + 1)]
    told += ["  " + "  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows]
    told.append(f"noise ceiling, one seed of the truth against another: {undefined_or(comparison.ceiling)}")
    lost = comparison.failures
    told += [f"{'dead' if f.dead else 'failed'} in {f.column}: {f.architecture}: {f.error}" for f in lost[:FAILURES]]
    if len(lost) > FAILURES:
        told.append(f"{len(lost) - FAILURES} more failures are in the report")
    return told


def told_truth(comparison: Comparison) -> str:
    """What the figures are over, in one clause."""
    left = comparison.candidates - comparison.with_truth
    parts = [f"{comparison.truth_name}: Spearman [{100 * comparison.level:.0f} % interval] over "]
    parts.append(f"{comparison.with_truth - comparison.at_chance} candidates")
    if comparison.at_chance:
        share = f"{100 * comparison.chance_bound:.1f} %"
        parts.append(f" above chance; {comparison.at_chance} more are at chance (at most {share}) and count below only")
    return "".join(parts) + (f"; {left} without a truth left out" if left else "")


def beside(comparison: Comparison) -> str:
    """What stands beside every overall figure, because that is where a user shops."""
    k = chosen_k(comparison)
    proxy = comparison.proxy
    top = next(top for top in proxy.tops if top.k == k)
    said = f"Over the better half by truth its Spearman is {undefined_or(proxy.better_half.spearman)}"
    if comparison.at_chance:
        said += f", over all with those at chance {undefined_or(proxy.everything.spearman)}"
    return f"{said}; really training its best {k} and keeping the best of them loses {points(top.regret)} points."


def chosen_k(comparison: Comparison) -> int:
    """10, or the largest k below it that is a choice at all; else the smallest."""
    ks = [top.k for top in comparison.proxy.tops]
    able = [k for k in ks if k <= CHOSEN and k < comparison.with_truth]
    return max(able, default=ks[0])


def undefined_or(estimate: Estimate) -> str:
    """The figure with its interval, or why there is none."""
    return estimate.method if estimate.value is None else str(estimate)


def points(estimate: Estimate) -> str:
    """A difference of accuracies in percent points with its interval."""
    if estimate.value is None:
        return "undefined"
    told = f"{_point(estimate.value)}"
    if estimate.low is None or estimate.high is None:
        return told
    return f"{told} [{_point(estimate.low)}, {_point(estimate.high)}]"


def seconds_told(value: float) -> str:
    """Three digits where there are few, whole seconds above: "0.013", "4.2", "1,234"."""
    return f"{value:,.0f}" if value >= 10 else f"{value:.2g}"


def _point(value: float) -> str:
    return f"{round(100 * value, 1) + 0.0:.1f}"  # no minus zero


def _cells(line: Line, k: int) -> tuple[str, ...]:
    top = next(top for top in line.tops if top.k == k)
    ahead = "" if line.ahead is None else str(line.ahead)
    cost = seconds_told(line.seconds) + (f" + {seconds_told(line.overhead_s)}" if line.overhead_s else "")
    dead = f"{line.failed}, {line.dead} dead" if line.dead else ""
    lost = dead or (str(line.failed) if line.failed else "")
    return str(line.headline.spearman), str(line.better_half.spearman), points(top.regret), ahead, cost, lost
