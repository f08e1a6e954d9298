"""The card of a finished network: what it is, how it was made, how good it is, and what was not done."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ftdnas.agreement.fractions import wilson

INPUT = (
    "float32 images (N, C, H, W): pixels divided by 255, then minus `mean` and divided by `deviation`, channel by "
    "channel; other sizes are cropped to the central square and resized"
)


@dataclass(frozen=True)
class Accuracy:
    """A fraction, of how many images, and its 95 % interval."""

    accuracy: float
    images: int
    interval: tuple[float, float]

    @staticmethod
    def of(accuracy: float, images: int) -> Accuracy:
        return Accuracy(accuracy, images, wilson(accuracy, images))

    def __str__(self) -> str:
        """ "91.3 % of 360 images (95 % interval 87.9 to 93.8)"."""
        low, high = self.interval
        reached = f"{100 * self.accuracy:.1f} % of {self.images:,} images"
        return f"{reached} (95 % interval {100 * low:.1f} to {100 * high:.1f})"


@dataclass(frozen=True)
class Finalist:
    """One of those that were trained. `rank`: by the proxy, None where none ranked it; no accuracy with an `error`."""

    architecture: str
    rank: int | None
    validation_accuracy: float | None
    error: str | None
    parameters: int
    seconds: float
    device: str

    @property
    def outcome(self) -> str:
        return self.error or f"{100 * (self.validation_accuracy or 0.0):.1f} %"


@dataclass(frozen=True)
class LeftOut:
    """A finalist that cannot carry the images."""

    architecture: str
    reason: str


@dataclass(frozen=True)
class Rival:
    """The pretrained network beside the chosen one. With an `error` nothing below it is known.

    `chosen`: it is better; then its files are in `folder`, and the test images were read for it.
    """

    network: str
    file: str
    digest: str
    pixels: int
    lr: float
    error: str | None = None
    chosen: bool = False
    validation: Accuracy | None = None
    parameters: int = 0
    latency_ms: float = 0.0
    seconds: float = 0.0
    device: str = ""
    folder: str = ""
    test: Accuracy | None = None
    files: Mapping[str, str] = field(default_factory=dict)
    not_done: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Card:
    """What card.json holds, field by field. `code`: digest of a user's own network, "" otherwise.

    `data`: name, source, fingerprint, split note and sizes of the images; `recipe`: its name and every
    hyper-parameter; `standing`: study, proxy, number and places of the ranked, None where the user named the finalists;
    `preprocess`: kind, input in words, and the constants.
    """

    architecture: str
    space: str
    code: str
    choices: Mapping[str, str | int | float]
    image_shape: tuple[int, int, int]
    num_classes: int
    class_names: tuple[str, ...]
    parameters: int
    flops: int
    latency_ms: float
    latency_how: str
    validation: Accuracy
    test: Accuracy
    data: Mapping[str, Any]
    recipe: Mapping[str, Any]
    seed: int
    device: str
    seconds: float
    finalists: tuple[Finalist, ...]
    left_out: tuple[LeftOut, ...]
    standing: Mapping[str, Any] | None
    pretrained: Rival | None
    preprocess: Mapping[str, Any]
    files: Mapping[str, str]
    versions: Mapping[str, str]
    test_note: str
    not_done: tuple[str, ...]


def told(card: Card) -> str:
    """The card as Markdown."""
    channels, height, width = card.image_shape
    data, recipe = card.data, card.recipe
    facts = {
        "test accuracy": str(card.test),
        "validation accuracy": str(card.validation),
        "parameters": f"{card.parameters:,}",
        "FLOPs": f"{card.flops:,} an image",
        "latency": f"{card.latency_ms:.3g} ms: {card.latency_how}",
        **{key: str(value) for key, value in card.choices.items()},
    }
    finalists = [
        (
            finalist.architecture + " (chosen)" * (finalist.architecture == card.architecture),
            "-" if finalist.rank is None else str(finalist.rank),
            finalist.outcome,
            f"{finalist.parameters:,}",
            f"{finalist.seconds:.0f} ({finalist.device})",
        )
        for finalist in card.finalists
    ]
    constants = [(name, ", ".join(f"{v:.6g}" for v in card.preprocess[name])) for name in ("mean", "deviation")]
    classes = ", ".join(card.class_names[:6]) + ", ..." * (len(card.class_names) > 6)
    return f"""# {card.architecture}

Classifies {channels} x {height} x {width} images into {card.num_classes} classes ({classes}).

{_table(("", ""), list(facts.items()))}

{card.test_note}

## Where it comes from

{_origin(card)}

{_table(("architecture", "rank by proxy", "validation accuracy", "parameters", "seconds"), finalists)}
{"".join(f"{chr(10)}Left out: {left.architecture}: {left.reason}.{chr(10)}" for left in card.left_out)}
{_beside_pretrained(card.pretrained)}## How it was trained

On {data["train"]:,} training images of {data["name"]} ({data["source"]}); {data["split_note"]}. \
Recipe {recipe["name"]}: {recipe["epochs"]} epochs, SGD at {recipe["lr"]:g} ({recipe["schedule"]}), momentum \
{recipe["momentum"]:g}, weight decay {recipe["weight_decay"]:g}, batches of {recipe["batch_size"]}, \
augmentation {recipe["augment"]}; seed {card.seed}; on {card.device}, {card.seconds:.0f} s.

## How to use it

{card.preprocess["input"]}.

{_table(("constant", "value"), constants)}

Classes in the order of the scores: {", ".join(card.class_names)}.

{_listed(f"`{name}`: {what}" for name, what in card.files.items())}

## What was not done

{_listed(card.not_done)}

Made with {", ".join(f"{name} {version}" for name, version in card.versions.items())}.
"""


def _origin(card: Card) -> str:
    standing = card.standing
    if standing is None:
        return "The finalists were named by the user; no proxy ranked them."
    return (
        f"Study {standing['study']} ranked {standing['ranked']} candidates by {standing['proxy']}; "
        f"there it stood in place {standing['ranks'].get(card.architecture)}."
    )


def _beside_pretrained(rival: Rival | None) -> str:
    if rival is None:
        return ""
    text = (
        f"{rival.network}, pretrained and fine-tuned at {rival.pixels} pixels, reaches {rival.validation} in "
        f"validation with {rival.parameters:,} parameters, {rival.latency_ms:.3g} ms. "
    )
    if rival.error:
        text = f"{rival.network} could not be fine-tuned: {rival.error}."
    elif rival.chosen:
        text += f"**It is better than the searched network**; in test {rival.test}. See {rival.folder}/."
    else:
        text += "The searched network is at least as good in validation, so the test images were not read for it."
    return f"## Beside a pretrained network\n\n{text}\n\n"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    escaped = [[cell.replace("|", "\\|") for cell in row] for row in rows]
    return "\n".join(f"| {' | '.join(row)} |" for row in [head, ["---"] * len(head), *escaped])


def _listed(lines: Iterable[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)
