"""The proxies by the names that users write: one of `PROXIES`, sums "a+b", "hybrid(a,b,c)", "promote(a,b,c)".

`read_proxy` reads a text once into a `ProxyName`, which says what the proxy needs before there is anything to rank;
nobody else looks into the text.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ftdnas.candidates.materials import check_held_out
from ftdnas.candidates.screening import SCORES
from ftdnas.proxies.base import Proxy
from ftdnas.proxies.bench import Workbench
from ftdnas.proxies.hybrid import Hybrid
from ftdnas.proxies.measures import MEASURES
from ftdnas.proxies.promotion import STAGES, Promotion
from ftdnas.proxies.race import Race
from ftdnas.proxies.rank_sum import RankSum
from ftdnas.proxies.trained import Early, OnFew, Trained, once_s
from ftdnas.proxies.untrained import COUNTS, SHRUNK, Counted, Measured

if TYPE_CHECKING:
    from distill.synthetic import SyntheticSet

DEFAULT = "set.late_loss+params"  # held-out accuracy, the paper's choice, ranks cells with batch norm near chance
TAUGHT = "random.late_loss+az_nas"  # where a set has teachers: results/2026-11-25_ranking_study
WITHOUT_IMAGES = "set.late_loss, set.auc, synflow, naswot, jacob_cov, az_nas, params, flops and their sums need none"
LOSSES = ("late_loss", "auc")  # scores of the training itself
MEASURED_ON = ("nasbench201",)  # spaces on which that was measured


@dataclass(frozen=True)
class Form:
    """A form of proxies: what makes one, and what all of them need.

    `scored`: a score of `SCORES` ends the name. `drawn`: a number of the draw may follow, as in random2. `timed`:
    epochs follow a colon; "may" or "must". `trains`: on images, so that some must be held out. `needs_set`: a synthetic
    set, to train on or to be as large as; epochs that are asked for do without. `needs_truth`: how networks are really
    trained. `ranks_together`: a score depends on the other candidates. `asks_together`: so does what is done next.
    """

    make: Callable[[ProxyName, Workbench], Proxy]
    scored: bool = False
    drawn: bool = False
    timed: str = ""
    trains: bool = False
    needs_set: bool = False
    needs_truth: bool = False
    ranks_together: bool = False
    asks_together: bool = False


@dataclass(frozen=True)
class ProxyName:
    """A proxy's text, read. `form`: of `FORMS`; `parts`: of a sum, hybrid or promotion.

    `number`: as written, of the draw or of epochs, which `epochs` has then. `score`: None where the screening's is
    taken.
    """

    form: str
    parts: tuple[ProxyName, ...] = ()
    number: str = ""
    epochs: float | None = None
    score: str | None = None

    def text(self, score: str | None = None) -> str:
        """As it is written in full. `score`: of parts that need one and name none."""
        parts = [part.text(score) for part in self.parts]
        if self.form == "sum":
            return "+".join(parts)
        if parts:
            return f"{self.form}({','.join(parts)})"
        number = f":{self.number}" if self.epochs is not None else self.number
        own = self.score or (score if FORMS[self.form].scored else None)
        return f"{self.form}{number}" + (f".{own}" if own else "")

    @property
    def leaves(self) -> tuple[ProxyName, ...]:
        """The proxies that it is made of, in the order in which they are written."""
        return tuple(leaf for part in self.parts for leaf in part.leaves) or (self,)

    @property
    def needs_set(self) -> bool:
        return any(FORMS[leaf.form].needs_set and leaf.epochs is None for leaf in self.leaves)

    def needs_images(self, score: str = "late_loss") -> bool:
        """Whether it reads real images, and is nothing by a set alone. `score`: of parts that name none."""
        form = FORMS[self.form]
        if form.trains and not (self.form == "set" and (self.score or score) in LOSSES):
            return True
        return form.needs_truth or any(part.needs_images(score) for part in self.parts)

    @property
    def needs_truth(self) -> bool:
        return FORMS[self.form].needs_truth or any(part.needs_truth for part in self.parts)

    @property
    def on_set(self) -> bool:
        """Whether it trains on the images of the set itself."""
        return any(leaf.form == "set" for leaf in self.leaves)

    @property
    def ranks_together(self) -> bool:
        """Whether a sampler that asks for one candidate after another cannot be told of it.

        It is told of a sum's first part; see `guide_of`.
        """
        return self._asks_together or FORMS[self.leaves[0].form].ranks_together

    @property
    def _asks_together(self) -> bool:
        return FORMS[self.form].asks_together or any(part._asks_together for part in self.parts)

    @property
    def real_epochs(self) -> tuple[float, ...]:
        """The epochs on all real images that it names."""
        return tuple(leaf.epochs for leaf in self.leaves if leaf.epochs is not None)

    def on_random_images(self) -> ProxyName:
        """The same on as many random real images in place of the set."""
        form = "random" if self.form == "set" else self.form
        return replace(self, form=form, parts=tuple(part.on_random_images() for part in self.parts))


def _on_few(name: ProxyName, bench: Workbench) -> Proxy:
    score = name.score or bench.screening.score
    trainings = OnFew(bench, name.form, int(name.number or 1) - 1)
    return Trained(name.text(score), trainings, score, bench)


def _early(name: ProxyName, bench: Workbench) -> Proxy:
    total = name.form == "early_total"
    if total:
        once_s(bench)
    score = name.score or bench.screening.score
    trainings = Early(bench, name.epochs, total=total, full_size=name.form == "real")
    return Trained(name.text(score), trainings, score, bench)


def _measured(name: ProxyName, bench: Workbench) -> Proxy:
    measure = name.form.removesuffix(SHRUNK)
    return Measured(measure, bench, shrunk=measure != name.form)


def _hybrid(name: ProxyName, bench: Workbench) -> Proxy:
    if bench.truth is None:
        raise ValueError(
            f"{name.text()} is fitted on real trainings, and no recipe for them was given: say their epochs"
        )
    return Hybrid(_parts(name, bench), bench, bench.real_trainings, bench.calibration)


def _parts(name: ProxyName, bench: Workbench) -> list[Proxy]:
    return [_made(part, bench) for part in name.parts]


FORMS: dict[str, Form] = {
    "set": Form(_on_few, scored=True, trains=True, needs_set=True),
    "random": Form(_on_few, scored=True, drawn=True, trains=True, needs_set=True),
    "herding": Form(_on_few, scored=True, trains=True, needs_set=True),
    "kmeans": Form(_on_few, scored=True, drawn=True, trains=True, needs_set=True),
    "early": Form(_early, scored=True, timed="may", trains=True, needs_set=True),
    "early_total": Form(_early, scored=True, trains=True, needs_set=True),
    "real": Form(_early, scored=True, timed="must", trains=True, needs_truth=True),
    "race": Form(lambda _, bench: Race(bench), trains=True, needs_truth=True, asks_together=True),
    **{name: Form(lambda name, bench: Counted(name.form, bench)) for name in COUNTS},
    **{name + ending: Form(_measured, ranks_together=name == "az_nas") for ending in ("", SHRUNK) for name in MEASURES},
    "sum": Form(lambda name, bench: RankSum(_parts(name, bench))),
    "hybrid": Form(_hybrid, needs_truth=True, asks_together=True),
    "promote": Form(lambda name, bench: Promotion(_parts(name, bench)), asks_together=True),
}
COMBINED = ("sum", "hybrid", "promote")
PROXIES: tuple[str, ...] = tuple(
    name
    for key, form in FORMS.items()
    if key not in COMBINED and form.timed != "must"
    for name in ([f"{key}.{score}" for score in SCORES] if form.scored else [key])
)  # those that need no number

_NUMBER = re.compile(r"\d+(?:\.\d+)?(?:e\d+)?", re.ASCII)


def read_proxy(text: str) -> ProxyName:
    """The name in a text such as "set.late_loss+params", "random2.accuracy", "early:0.5.late_loss".

    A name that is scored and says no score ("set", "early:2") takes the screening's. Raises ValueError or LookupError,
    with the choices, for a text that names no proxy.
    """
    parts = _split(text, "+")
    if len(parts) == 1:
        return _read_part(parts[0])
    read = ProxyName("sum", tuple(_read_part(part) for part in parts))
    _check_stands_alone(read, text)
    return read


def find_proxy(text: str, bench: Workbench) -> Proxy:
    """The proxy of a text. Raises what `read_proxy` raises, and ValueError where the bench lacks what it needs."""
    return _made(read_proxy(text), bench)


def default_proxy(space: str, synthetic: SyntheticSet | None, images: bool = True) -> tuple[str, str]:
    """What ranks the candidates of a space unless told, and why; "" where nothing better was measured on the space.

    `images`: whether real ones are here.
    """
    if space not in MEASURED_ON:
        return DEFAULT, ""
    if not images:
        return DEFAULT, "what ranks better here needs real images, and there are none"
    if synthetic is None or synthetic.teachers is None:
        return (
            DEFAULT,
            "the set has no teachers: a set distilled anew keeps some, and with them real images rank better",
        )
    return TAUGHT, "as many real images, labelled by the set's teachers, ranked better here than distilled ones"


def _made(name: ProxyName, bench: Workbench) -> Proxy:
    form = FORMS[name.form]
    if form.trains:
        if name.needs_images(bench.screening.score):
            check_held_out(bench.data)
        if name.needs_set:
            bench.the_set()
        if bench.truth is None:
            bench.screening.recipe(1, bench.synthetic, "none")
    return form.make(name, bench)


def _read_part(text: str) -> ProxyName:
    form, bracket, _ = text.partition("(")
    if not bracket or form not in COMBINED:
        return _read_leaf(text)
    if not text.endswith(")"):
        raise ValueError(f"proxy {text!r} has no closing bracket: write hybrid(a,b) or promote(a,b,c)")
    read = ProxyName(form, tuple(read_proxy(part) for part in _split(text[len(form) + 1 : -1], ",")))
    _check_stands_alone(read, text)
    if form == "promote" and len(read.parts) not in STAGES:
        raise ValueError(f"{text}: name two or three rankings, the cheapest first, as in promote(az_nas,race)")
    return read


def _check_stands_alone(read: ProxyName, text: str) -> None:
    if any(part.form == "promote" for part in read.parts):
        raise ValueError(f"{text}: promote(...) ranks by itself, and is no part of another ranking")


def _read_leaf(text: str) -> ProxyName:
    if text in FORMS and FORMS[text].timed != "must" and text not in COMBINED:
        return ProxyName(text)
    form, colon, rest = text.partition(":")
    if colon and form in FORMS and FORMS[form].timed:
        number, _, score = rest.partition(".")
        if re.match(r"[0-9]", score):  # 0.5 epochs
            decimals, _, score = score.partition(".")
            number = f"{number}.{decimals}"
        return ProxyName(form, number=number, epochs=_epochs(number, text), score=_score(score, text))
    head, dot, score = text.partition(".")
    draw = re.fullmatch(r"([a-z]+)([1-9][0-9]{0,3})", head)
    if draw and draw[1] in FORMS and FORMS[draw[1]].drawn:
        return ProxyName(draw[1], number=draw[2], score=_score(score, text))
    if dot and text in PROXIES:
        return ProxyName(head, score=score)
    near = difflib.get_close_matches(text, PROXIES, n=3)
    first = f"did you mean {' or '.join(near)}?" if near else f"choose from {', '.join(PROXIES)}"
    others = "random2.accuracy, early:3.accuracy, real:3.accuracy, a+b, hybrid(a,b), promote(a,b,c)"
    raise LookupError(f"unknown proxy {text!r}: {first} (also {others})")


def _score(score: str, text: str) -> str | None:
    if score and score not in SCORES:
        raise LookupError(f"unknown score {score!r} of proxy {text!r}: choose from {', '.join(SCORES)}")
    return score or None


def _epochs(number: str, text: str) -> float:
    epochs = float(number) if _NUMBER.fullmatch(number) else math.nan
    if not 0 < epochs < math.inf:
        raise ValueError(f"proxy {text!r}: {number!r} epochs is not a positive number, such as 2 or 0.5")
    return epochs


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
