"""The network that `finish` delivered of a study, as its report tells it: classes, confusions, the worst photos."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ftdnas.runtime.home import read_json

SHOWN = 20  # rows of a table; the card has all


@dataclass(frozen=True)
class Finished:
    """`told`: the network and its test accuracy. `classes`: (name, test images, fraction of right ones); hardest first.
    `confused`: (class, what was said, how often), most first; `worst`: (photo, class, what was said, how surely).
    """

    told: str
    classes: Sequence[tuple[str, int, float]]
    confused: Sequence[tuple[str, str, int]]
    worst: Sequence[tuple[str, str, str, float]]


def finished(study: Path) -> Finished | None:
    """Of the newest card in a study's folder; None where none tells of classes."""
    for path in sorted(study.glob("finish/*/card.json"), key=lambda path: -path.stat().st_mtime):
        card = read_json(path, "finish the study again")
        if card["test"].get("by_class"):
            return _read(card, f"finish/{path.parent.name}/card.md")
    return None


def _read(card: Mapping[str, Any], place: str) -> Finished:
    found, names = card["test"]["by_class"], card["class_names"]
    counted = zip(names, found["images"], found["right"], strict=True)
    classes = [(name, images, right / images) for name, images, right in counted if images]
    choices = ", ".join(f"{key} {value}" for key, value in card["choices"].items()) or card["architecture"]
    reached = f"{100 * card['test']['accuracy']:.1f} % of {card['test']['images']:,} test images"
    return Finished(
        f"{choices}: {reached} of {card['data']['name']}. {place} in the study's folder has all.",
        sorted(classes, key=lambda one: one[2])[:SHOWN],
        [(names[own], names[said], count) for own, said, count in found["confused"][:SHOWN]],
        [(one["photo"], one["label"], one["said"], one["probability"]) for one in found["worst"]],
    )
