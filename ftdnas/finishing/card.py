"""The card of a finished network: what it is, how it was made, how good it is, and what was not done."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

Card = Mapping[str, Any]
INPUT = (
    "float32 images (N, C, H, W): pixels divided by 255, then minus `mean` and divided by `deviation`, channel by "
    "channel; other sizes are cropped to the central square and resized"
)


def wilson(accuracy: float, n: int, z: float = 1.96) -> tuple[float, float]:
    """The 95 % interval of a fraction of n images (Wilson 1927)."""
    centre = accuracy + z * z / (2 * n)
    half = z * math.sqrt(accuracy * (1 - accuracy) / n + z * z / (4 * n * n))
    scale = 1 + z * z / n
    return max(0.0, (centre - half) / scale), min(1.0, (centre + half) / scale)


def accuracy_facts(accuracy: float, n: int) -> dict[str, Any]:
    """A fraction, of how many images, and its 95 % interval."""
    low, high = wilson(accuracy, n)
    return {"accuracy": accuracy, "images": n, "interval": [low, high]}


def told_accuracy(facts: Mapping[str, Any]) -> str:
    """ "91.3 % of 360 images (95 % interval 87.9 to 93.8)"."""
    low, high = facts["interval"]
    reached = f"{100 * facts['accuracy']:.1f} % of {facts['images']:,} images"
    return f"{reached} (95 % interval {100 * low:.1f} to {100 * high:.1f})"


def told(card: Card) -> str:
    """The card as Markdown."""
    channels, height, width = card["image_shape"]
    data, recipe = card["data"], card["recipe"]
    lines = [
        f"# {card['architecture']}",
        "",
        f"Classifies {channels} x {height} x {width} images into {card['num_classes']} classes "
        f"({_few(card['class_names'])}).",
        "",
        *_table(
            ("", ""),
            [
                ("test accuracy", told_accuracy(card["test"])),
                ("validation accuracy", told_accuracy(card["validation"])),
                ("parameters", f"{card['parameters']:,}"),
                ("FLOPs", f"{card['flops']:,} an image"),
                ("latency", f"{card['latency_ms']:.3g} ms: {card['latency_how']}"),
                *[(key, str(value)) for key, value in card["choices"].items()],
            ],
        ),
        "",
        card["test_note"],
        "",
        "## Where it comes from",
        "",
        _origin(card),
        "",
        *_table(
            ("architecture", "rank by proxy", "validation accuracy", "parameters", "seconds"),
            [
                (
                    one["architecture"] + (" (chosen)" if one["architecture"] == card["architecture"] else ""),
                    "-" if one["rank"] is None else str(one["rank"]),
                    one["error"] or f"{100 * one['validation_accuracy']:.1f} %",
                    f"{one['parameters']:,}",
                    f"{one['seconds']:.0f} ({one['device']})",
                )
                for one in card["finalists"]
            ],
        ),
        *(f"\nLeft out: {one['architecture']}: {one['reason']}." for one in card["left_out"]),
        "",
        *_pretrained(card),
        "## How it was trained",
        "",
        f"On {data['train']:,} training images of {data['name']} ({data['source']}); {data['split_note']}. "
        f"Recipe {recipe['name']}: {recipe['epochs']} epochs, SGD at {recipe['lr']:g} ({recipe['schedule']}), momentum "
        f"{recipe['momentum']:g}, weight decay {recipe['weight_decay']:g}, batches of {recipe['batch_size']}, "
        f"augmentation {recipe['augment']}; seed {card['seed']}; on {card['device']}, {card['seconds']:.0f} s.",
        "",
        "## How to use it",
        "",
        f"{card['preprocess']['input']}.",
        "",
        *_table(
            ("constant", "value"),
            [(name, ", ".join(f"{value:.6g}" for value in card["preprocess"][name])) for name in ("mean", "deviation")],
        ),
        "",
        "Classes in the order of the scores: " + ", ".join(card["class_names"]) + ".",
        "",
        *(f"- `{name}`: {what}" for name, what in card["files"].items()),
        "",
        "## What was not done",
        "",
        *(f"- {what}" for what in card["not_done"]),
        "",
        "Made with " + ", ".join(f"{name} {version}" for name, version in card["versions"].items()) + ".",
    ]
    return "\n".join(lines) + "\n"


def _origin(card: Card) -> str:
    standing = card["standing"]
    if standing is None:
        return "The finalists were named by the user; no proxy ranked them."
    rank = standing["ranks"].get(card["architecture"])
    return (
        f"Study {standing['study']} ranked {standing['ranked']} candidates by {standing['proxy']}; "
        f"there it stood in place {rank}."
    )


def _pretrained(card: Card) -> Sequence[str]:
    rival = card["pretrained"]
    if rival is None:
        return ()
    if rival["error"]:
        return [
            "## Beside a pretrained network",
            "",
            f"{rival['network']} could not be fine-tuned: {rival['error']}.",
            "",
        ]
    text = (
        f"{rival['network']}, pretrained and fine-tuned at {rival['pixels']} pixels, reaches "
        f"{told_accuracy(rival['validation'])} in validation with {rival['parameters']:,} parameters, "
        f"{rival['latency_ms']:.3g} ms. "
    )
    if rival["chosen"]:
        text += f"**It is better than the searched network**; in test {told_accuracy(rival['test'])}. "
        text += f"See {rival['folder']}/."
    else:
        text += "The searched network is at least as good in validation, so the test images were not read for it."
    return ["## Beside a pretrained network", "", text, ""]


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    escaped = [[cell.replace("|", "\\|") for cell in row] for row in rows]
    return [f"| {' | '.join(row)} |" for row in [list(head), ["---"] * len(head), *escaped]]


def _few(names: Sequence[str], most: int = 6) -> str:
    return ", ".join(names[:most]) + (", ..." if len(names) > most else "")
