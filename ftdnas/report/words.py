"""What a report says in plain words: which network to take, what the ranking and the set are worth, what to beware."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from distill.run import duration
from ftdnas.agreement.bias import biases
from ftdnas.agreement.comparison import Comparison, Line, Table
from ftdnas.agreement.estimates import chance_regret, regret
from ftdnas.agreement.verdict import needed_candidates
from ftdnas.agreement.winner import Take
from ftdnas.proxies.names import ProxyName, read_proxy

UNKNOWN = "How far to trust this ranking is not known: no candidate was trained for real to compare it with."
FIRST = 5  # so many of the ranking are supposed to be trained for real
COUNTED = {"params": "size", "flops": "operations", "early_total": "real training at equal cost"}


def plain(name: str, title: str) -> str:
    """A way to rank in a few words, of its name; the title where that names no proxy of ours."""
    try:
        return _plain(read_proxy(name))
    except (ValueError, LookupError):
        return title


def _plain(name: ProxyName) -> str:
    parts = [_plain(part) for part in name.parts]
    if parts:
        words = (" + " if name.form == "sum" else ", then " if name.form == "promote" else ", ").join(parts)
        return f"fit of {words}" if name.form == "hybrid" else words
    if name.epochs is not None:
        words = f"{name.epochs:g} real epoch{'s' * (name.epochs != 1)}"
    elif name.form == "early":
        words = "a few real steps"
    elif name.form == "set":
        words = "the set"
    elif name.form in ("random", "herding", "kmeans"):
        words = f"{name.form} images {name.number}".strip()
    else:
        words = COUNTED.get(name.form, name.form)
    return words if name.score in (None, "late_loss") else f"{words} by {name.score}"


def described(table: Table, row: int) -> str:
    """The choices of a candidate: "width 32, depth 3"; its name where it says none."""
    choices = table.choices[row] if table.choices else {}
    return ", ".join(f"{name} {value}" for name, value in choices.items()) or table.candidates[row]


def take_told(take: Take, table: Table) -> list[str]:
    """Sentences on the network to take, the most needed first; its choices are said before them."""
    sizes = dict(zip(table.candidates, table.parameters, strict=True))
    several = f", the mean of {take.seeds[0]} trainings" if take.seeds[0] > 1 else ""
    told = [f"{sizes[take.name]:,} weights, {_percent(take.accuracy)} really trained{several}."]
    if take.images is None:
        return [*told, f"The best of {take.readings}; how sure that is the table does not say."]
    of_best = f"the best of {take.readings}"
    if take.name == take.best:
        told.append(f"It is {of_best}, and no smaller one is as good.")
    else:
        apart = max(0, round(take.behind * take.images))
        images = f"{apart} image{'s' * (apart != 1)} of {take.images:,} more" if apart else "as many images"
        told.append(
            f"{_upper(of_best)}, {sizes[take.best]:,} weights, read {_percent(take.best_accuracy)}: {images}, at most "
            f"{points(take.at_most or 0.0)} points ahead."
        )
    if len(take.equal) > 1:
        told.append(f"{len(take.equal)} cannot be told apart.")
    if take.seeds[1] == 1 and take.readings > 1:
        told.append("The best of many readings flatters.")
    return told


def ranking_told(comparison: Comparison, table: Table) -> list[str]:
    """The verdict, and what it means to train the first few."""
    truth, scores = table.truth, table.columns[0].values
    known = [row for row, value in enumerate(truth) if value is not None]
    told = []
    scored = [row for row in known if scores[row] is not None]
    if scored:
        favourite = max(scored, key=lambda row: scores[row] or 0.0)
        values = [truth[row] or 0.0 for row in known]
        own = truth[favourite] or 0.0
        place = 1 + sum(value > own for value in values)
        if place == 1:
            told.append(f"Its favourite is the best of the {len(known)}.")
        else:
            told.append(f"Its favourite came {_th(place)} of {len(known)}, {points(max(values) - own)} points behind.")
    lost, blind = regret(FIRST, scores, truth), chance_regret(FIRST, truth)
    if lost is not None and blind is not None:
        told.append(f"Training its first five loses {points(lost)} points, picking five blindly {points(blind)}.")
    return [*told, comparison.verdict.sentence]


def set_told(comparison: Comparison) -> list[str]:
    """Whether the set was worth its cost, beside as many random real images; [] where nothing was ranked by it."""
    own = _read(comparison.proxy)
    if own is None or not own.on_set:
        return []
    lines = _random(comparison.lines)
    rivals = [rival for line in lines if (rival := line.rival) is not None]
    cost = f" ({duration(comparison.proxy.overhead_s)})" if comparison.proxy.overhead_s else ""
    if not rivals:
        return [f"Worth its cost{cost}? Not compared with as many real images: ftdnas search --compare all."]
    if any(rival.adjusted.high is not None and rival.adjusted.high < 0 for rival in rivals):
        return [f"Not worth its cost{cost}: as many random real images rank better."]
    if all(rival.ahead.low is not None and rival.ahead.low > 0 for rival in rivals):
        return [f"It ranks better than as many random real images, for its cost{cost}."]
    needed = needed_candidates(rivals)
    told = [f"Not shown to be worth its cost{cost}: as many random real images ranked as well."]
    return [*told, f"About {needed:,} networks would tell."] if needed is not None else told


def beware_told(table: Table) -> list[str]:
    """What the ranking over- and underrates most, of what is shown."""
    shown = [
        one
        for one in biases(table.choices, table.columns[0].values, table.truth)
        if one.low is not None and one.high is not None and one.low * one.high > 0
    ]
    worst = [
        min((one for one in shown if one.mean < 0), key=lambda one: one.mean, default=None),
        max((one for one in shown if one.mean > 0), key=lambda one: one.mean, default=None),
    ]
    said = [
        f"{verb} {one.choice} {one.value} by {abs(one.mean):.0f}"
        for verb, one in zip(("underrates", "overrates"), worst, strict=True)
        if one is not None
    ]
    return [f"It {', '.join(said)} places in 100."] if said else []


def worth_showing(comparison: Comparison) -> Iterator[Line]:
    """The ways to rank, the proxy first, then as many random images, then the rest, the most agreeing first."""
    first = [comparison.proxy, *_random(comparison.lines)[:1]]
    yield from first
    rest = [line for line in comparison.lines if line not in first]
    yield from sorted(rest, key=lambda line: -(line.headline.spearman.value or -2.0))


def lost_at(k: int, line: Line, table: Table) -> float | None:
    """Points of accuracy, as a fraction, that really training the first k loses."""
    column = next(column for column in table.columns if column.name == line.name)
    return regret(k, column.values, table.truth)


def _random(lines: Sequence[Line]) -> list[Line]:
    """The same way to rank on as many random images."""
    own = _read(lines[0])
    if own is None:
        return []
    same = own.on_random_images().text("late_loss")
    read = {line.name: _read(line) for line in lines[1:]}
    return [
        line for line in lines[1:] if (name := read[line.name]) is not None and _undrawn(name).text("late_loss") == same
    ]


def _undrawn(name: ProxyName) -> ProxyName:
    """Without the number of the draw."""
    return replace(name, number="" if name.form == "random" else name.number, parts=tuple(map(_undrawn, name.parts)))


def _read(line: Line) -> ProxyName | None:
    try:
        return read_proxy(line.name)
    except (ValueError, LookupError):
        return None


def _percent(accuracy: float) -> str:
    return f"{100 * accuracy:.1f} %"


def points(difference: float) -> str:
    """A difference of accuracies in percent points."""
    return f"{100 * difference + 0.0:.1f}"


def _th(place: int) -> str:
    ending = "th" if 10 <= place % 100 <= 20 else {1: "st", 2: "nd", 3: "rd"}.get(place % 10, "th")
    return f"{place}{ending}"


def _upper(text: str) -> str:
    return text[:1].upper() + text[1:]
