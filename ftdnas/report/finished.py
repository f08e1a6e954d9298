"""The network that `finish` delivered of a study, as its report tells it: classes, confusions, the worst photos."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distill.images.datasets import ACCURACY
from ftdnas.runtime.home import read_json

WAY_OUT = "repeat the command that made it (search or finish), the trainings are kept"
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
        card = read_json(path, WAY_OUT)
        if card["test"].get("by_class"):
            return _read(card, f"finish/{path.parent.name}/card.md")
    return None


def reached(accuracy: float, images: str, interval: Sequence[float], metric: str) -> str:
    """ "91.3 % of 360 images (95 % interval 87.9 to 93.8)", `images` being "360 images"."""
    low, high = interval
    every = "" if metric == ACCURACY else ", every class counted the same"
    return f"{100 * accuracy:.1f} % of {images}{every} (95 % interval {100 * low:.1f} to {100 * high:.1f})"


def _read(card: Mapping[str, Any], place: str) -> Finished:
    test, names = card["test"], card["class_names"]
    found = test["by_class"]
    counted = zip(names, found["images"], found["right"], strict=True)
    classes = [(name, images, right / images) for name, images, right in counted if images]
    choices = ", ".join(f"{key} {value}" for key, value in card["choices"].items()) or card["architecture"]
    images = f"{test['images']:,} test images of {card['data']['name']}"
    figure = reached(test["accuracy"], images, test["interval"], test.get("metric", ACCURACY))
    return Finished(
        f"{choices}: {figure}. {place} in the study's folder has all.",
        sorted(classes, key=lambda one: one[2])[:SHOWN],
        [(names[own], names[said], count) for own, said, count in found["confused"][:SHOWN]],
        [(one["photo"], one["label"], one["said"], one["probability"]) for one in found["worst"]],
    )
