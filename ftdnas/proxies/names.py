"""The proxies by the names that users write: one of `PROXIES`, sums "a+b", "hybrid(a,b,c)", "promote(a,b,c)"."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Callable
from typing import TYPE_CHECKING

from ftdnas.candidates.materials import check_held_out
from ftdnas.candidates.screening import SCORES
from ftdnas.proxies.base import Proxy, Workbench
from ftdnas.proxies.hybrid import Hybrid
from ftdnas.proxies.promotion import STAGES, Promotion
from ftdnas.proxies.race import Race
from ftdnas.proxies.rank_sum import RankSum
from ftdnas.proxies.trained import Early, OnFew, Trained, Trainings, once_s
from ftdnas.proxies.untrained import Counted, Measured

if TYPE_CHECKING:
    from distill.synthetic import SyntheticSet

DEFAULT = "set.late_loss+params"  # held-out accuracy, the paper's choice, ranks cells with batch norm near chance
TAUGHT = "random.late_loss+az_nas"  # where a set has teachers: results/2026-11-25_ranking_study
MEASURED = ("nasbench201",)  # spaces on which that was measured
Make = Callable[[str, Workbench], Proxy]


def _on_few(kind: str, score: str) -> Make:
    return lambda name, bench: _trained(name, OnFew(bench, kind), score, bench)


def _early(score: str, *, total: bool = False) -> Make:
    return lambda name, bench: _trained(name, Early(bench, total=total), score, bench)


def _trained(name: str, trainings: Trainings, score: str, bench: Workbench) -> Proxy:
    return Trained(name, trainings, score, bench)


PROXIES: dict[str, Make] = {
    "set.accuracy": _on_few("set", "accuracy"),
    "set.loss": _on_few("set", "loss"),
    "set.auc": _on_few("set", "auc"),
    "set.late_loss": _on_few("set", "late_loss"),
    "random.accuracy": _on_few("random", "accuracy"),
    "random.loss": _on_few("random", "loss"),
    "random.auc": _on_few("random", "auc"),
    "random.late_loss": _on_few("random", "late_loss"),
    "herding.accuracy": _on_few("herding", "accuracy"),
    "herding.loss": _on_few("herding", "loss"),
    "herding.auc": _on_few("herding", "auc"),
    "herding.late_loss": _on_few("herding", "late_loss"),
    "kmeans.accuracy": _on_few("kmeans", "accuracy"),
    "kmeans.loss": _on_few("kmeans", "loss"),
    "kmeans.auc": _on_few("kmeans", "auc"),
    "kmeans.late_loss": _on_few("kmeans", "late_loss"),
    "early.accuracy": _early("accuracy"),
    "early.loss": _early("loss"),
    "early.auc": _early("auc"),
    "early.late_loss": _early("late_loss"),
    "early_total.accuracy": _early("accuracy", total=True),
    "early_total.loss": _early("loss", total=True),
    "early_total.auc": _early("auc", total=True),
    "early_total.late_loss": _early("late_loss", total=True),
    "race": lambda name, bench: Race(bench, name),
    "params": Counted,
    "flops": Counted,
    "synflow": Measured,
    "naswot": Measured,
    "jacob_cov": Measured,
    "az_nas": Measured,
    "synflow.shrunk": lambda name, bench: Measured("synflow", bench, shrunk=True),  # noqa: ARG005
    "naswot.shrunk": lambda name, bench: Measured("naswot", bench, shrunk=True),  # noqa: ARG005
    "jacob_cov.shrunk": lambda name, bench: Measured("jacob_cov", bench, shrunk=True),  # noqa: ARG005
    "az_nas.shrunk": lambda name, bench: Measured("az_nas", bench, shrunk=True),  # noqa: ARG005
}

_DRAW = re.compile(r"(random|kmeans)([1-9][0-9]{0,3})\.(\w+)")
_EPOCHS = re.compile(r"(early|real):([^.]+(?:\.[0-9]+)?)\.(\w+)")
_NUMBER = re.compile(r"\d+(?:\.\d+)?(?:e\d+)?", re.ASCII)
_TRAINED = ("set", "random", "herding", "kmeans", "early", "early_total", "real")
_HYBRID, _PROMOTE = "hybrid(", "promote("


def find_proxy(text: str, bench: Workbench) -> Proxy:
    """The proxy of a text such as "set.late_loss+params", "random2.accuracy", "early:0.5.late_loss".

    A name that is trained and says no score ("set", "early:2") takes the screening's. Raises ValueError or LookupError,
    with the choices, for one that is none, and ValueError where the bench lacks what it needs.
    """
    known_proxy(text)
    parts = _split(text, "+")
    if len(parts) == 1:
        return _single(parts[0], bench)
    return RankSum([find_proxy(part, bench) for part in parts])


def default_proxy(space: str, synthetic: SyntheticSet | None) -> tuple[str, str]:
    """What ranks the candidates of a space unless told, and why; "" where nothing better was measured on the space."""
    if space not in MEASURED:
        return DEFAULT, ""
    if synthetic is None or synthetic.teachers is None:
        return (
            DEFAULT,
            "the set has no teachers: a set distilled anew keeps some, and with them real images rank better",
        )
    return TAUGHT, "as many real images, labelled by the set's teachers, ranked better here than distilled ones"


def real_epochs(text: str) -> list[float]:
    """The epochs on all real images that a proxy's text names. Raises what `known_proxy` raises."""
    known_proxy(text)
    return [float(_number(found, text)) for found in re.findall(r"(?:early|real):([^.,+()]+(?:\.[0-9]+)?)", text)]


def known_proxy(text: str) -> None:
    """Raises what `find_proxy` raises for a text that names no proxy, before there is a bench."""
    for part in _split(text, "+"):
        if _PROMOTE in part:
            _check_promotion(text, part)
        if part.startswith((_HYBRID, _PROMOTE)):
            for one in _inside(part):
                known_proxy(one)
        else:
            _maker(_full(part, "late_loss"))


def _single(text: str, bench: Workbench) -> Proxy:
    if text.startswith(_PROMOTE):
        return Promotion([find_proxy(part, bench) for part in _inside(text)])
    if text.startswith(_HYBRID):
        found = [find_proxy(part, bench) for part in _inside(text)]
        if bench.truth is None:
            raise ValueError(f"{text} is fitted on real trainings, and no recipe for them was given: say their epochs")
        return Hybrid(found, bench, bench.real_trainings, bench.calibration)
    name = _full(text, bench.screening.score)
    make = _maker(name)
    _check(re.split(r"[.:]", name)[0].rstrip("0123456789"), bench, sized=":" not in name)
    return make(name, bench)


def _check_promotion(text: str, part: str) -> None:
    """Raises ValueError for a promotion that is part of another proxy, or has too few or too many stages."""
    stages = _inside(part)
    if part != text.strip() or not part.startswith(_PROMOTE) or any(_PROMOTE in stage for stage in stages):
        raise ValueError(f"{text}: promote(...) ranks by itself, and is no part of another ranking")
    if len(stages) not in STAGES:
        raise ValueError(f"{text}: name two or three rankings, the cheapest first, as in promote(az_nas,race)")


def _check(kind: str, bench: Workbench, *, sized: bool) -> None:
    """Raise ValueError where the bench lacks what such trainings need; `sized`: as large as those on the set."""
    if kind not in (*_TRAINED, "race"):
        return
    check_held_out(bench.data)
    if kind != "race" and sized:
        bench.the_set()
    if kind == "early_total":
        once_s(bench)
    if bench.truth is None:
        bench.screening.recipe(1, bench.synthetic, "none")


def _maker(name: str) -> Make:
    if name in PROXIES:
        return PROXIES[name]
    drawn, epochs = _DRAW.fullmatch(name), _EPOCHS.fullmatch(name)
    score = drawn.group(3) if drawn else epochs.group(3) if epochs else None
    if score is not None and score not in SCORES:
        raise LookupError(f"unknown score {score!r} of proxy {name!r}: choose from {', '.join(SCORES)}")
    if drawn:
        kind, draw = drawn.group(1), int(drawn.group(2)) - 1
        return lambda name, bench: _trained(name, OnFew(bench, kind, draw), drawn.group(3), bench)
    if epochs:
        number, full_size = _number(epochs.group(2), name), epochs.group(1) == "real"
        return lambda name, bench: _trained(name, Early(bench, number, full_size=full_size), epochs.group(3), bench)
    near = difflib.get_close_matches(name, PROXIES, n=3)
    first = f"did you mean {' or '.join(near)}?" if near else f"choose from {', '.join(PROXIES)}"
    others = "random2.accuracy, early:3.accuracy, real:3.accuracy, a+b, hybrid(a,b), promote(a,b,c)"
    raise LookupError(f"unknown proxy {name!r}: {first} (also {others})")


def _full(text: str, score: str) -> str:
    """With the score, where a name that needs one has none."""
    bare = (text in _TRAINED and text != "real") or re.fullmatch(r"(random|kmeans)[1-9][0-9]{0,3}", text)
    timed = re.fullmatch(r"(early|real):[^.]+(\.[0-9]+)?", text)
    return f"{text}.{score}" if bare or timed else text


def _number(text: str, name: str) -> float:
    number = float(text) if _NUMBER.fullmatch(text) else math.nan
    if not 0 < number < math.inf:
        raise ValueError(f"proxy {name!r}: {text!r} epochs is not a positive number, such as 2 or 0.5")
    return number


def _inside(text: str) -> list[str]:
    if not text.endswith(")"):
        raise ValueError(f"proxy {text!r} has no closing bracket: write hybrid(a,b) or promote(a,b,c)")
    return _split(text[text.index("(") + 1 : -1], ",")


def _split(text: str, sign: str) -> list[str]:
    """The parts between signs that stand in no brackets. Raises ValueError for an empty one and odd brackets."""
    parts, depth = [""], 0
    for letter in text:
        depth += (letter == "(") - (letter == ")")
        if depth < 0:
            break
        if letter == sign and depth == 0:
            parts.append("")
        else:
            parts[-1] += letter
    if depth != 0:
        raise ValueError(f"proxy {text!r}: its brackets do not match")
    parts = [part.strip() for part in parts]
    if "" in parts:
        raise ValueError(f"proxy {text!r} has an empty part: write names joined by {sign!r}, as in az_nas{sign}params")
    return parts
