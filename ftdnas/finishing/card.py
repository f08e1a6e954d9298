"""The card of a finished network: what it is, how it was made, how good it is, and what was not done."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, FileSystemLoader
from numpy.typing import NDArray
from torch import nn

from distill.files import Damaged, digest_of, set_aside, whole_file
from distill.images.datasets import ACCURACY, ImageDataset
from ftdnas.agreement.fractions import wilson
from ftdnas.candidates.latency import MEASURED, network_latency
from ftdnas.finishing.classes import ByClass
from ftdnas.report.finished import WAY_OUT, reached
from ftdnas.runtime.home import read_json, write_json
from ftdnas.runtime.records import from_json, to_json
from search_spaces.base import Architecture, flops, parameter_count

MATRIX = 12  # classes, up to which the confusion matrix fits onto a page
INPUT = (
    "float32 images (N, C, H, W): pixels divided by 255, then minus `mean` and divided by `deviation`, channel by "
    "channel; other sizes are cropped to the central square and resized"
)


@dataclass(frozen=True)
class Accuracy:
    """A fraction, of how many images, and its 95 % interval; of test images, what it is for each class."""

    accuracy: float
    images: int
    interval: tuple[float, float]
    by_class: ByClass | None = None
    metric: str = ACCURACY

    @staticmethod
    def of(accuracy: float, images: int) -> Accuracy:
        return Accuracy(accuracy, images, wilson(accuracy, images))

    @staticmethod
    def counted(accuracy: float, labels: NDArray[np.int64], metric: str) -> Accuracy:
        """Of images with these labels, counted so.

        A mean over classes is as sure as a fraction of fewer images: of their number in the smaller classes.
        """
        of_class = np.bincount(labels)
        of_class = of_class[of_class > 0]
        alike = len(labels) if metric == ACCURACY else int(len(of_class) ** 2 / (1 / of_class).sum())
        return Accuracy(accuracy, len(labels), wilson(accuracy, alike), metric=metric)

    def __str__(self) -> str:
        return reached(self.accuracy, f"{self.images:,} images", self.interval, self.metric)


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
class Int8:
    """The network in int8 beside float32, both in onnxruntime on one thread of this CPU, one image at a time.

    `calibrated_on`: the images that its ranges are from.
    """

    file: str
    calibrated_on: str
    test: Accuracy
    latency_ms: float
    float32_latency_ms: float
    file_bytes: int
    float32_file_bytes: int


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
    `preprocess`: kind, input in words, and the constants. `chosen`: by which rule, of the finalists. `digests`: SHA-256
    of each file.
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
    int8: Int8 | None = None
    chosen: str = "the best in validation"
    digests: Mapping[str, str] = field(default_factory=dict)


def facts(architecture: Architecture, network: nn.Module, data: ImageDataset) -> dict[str, Any]:
    """The fields of a card that say what the network is and what it is for; its latency is measured here."""
    size = data.image_shape, data.num_classes
    return {
        "architecture": architecture.name,
        "space": architecture.space,
        "code": architecture.code,
        "choices": architecture.choices,
        "image_shape": data.image_shape,
        "num_classes": data.num_classes,
        "class_names": tuple(data.class_names),
        "parameters": parameter_count(architecture, *size),
        "flops": flops(architecture, *size),
        "latency_ms": network_latency(network, data.image_shape),
        "latency_how": MEASURED,
    }


def write_card(card: Card, folder: Path) -> Card:
    """card.md, and card.json, which says that all is there and holds the digests of the files that it names."""
    rival = card.pretrained
    of_rival = [f"{rival.folder}/{name}" for name in rival.files] if rival is not None and rival.folder else []
    card = replace(card, digests={name: digest_of(folder / name) for name in (*card.files, *of_rival)})
    with whole_file(folder / "card.md") as beside:
        beside.write_text(told(card), encoding="utf-8")
    write_json(folder / "card.json", to_json(card))
    return card


def read_card(folder: Path) -> Card | None:
    """The card of a finish; None where there is none. Raises Damaged where it is not as it was written."""
    path = folder / "card.json"
    try:
        card: Card | None = from_json(Card, read_json(path, WAY_OUT) or None)
    except TypeError as error:
        raise Damaged(path, error, WAY_OUT) from None
    return card


def check_files(card: Card, folder: Path, *names: str) -> None:
    """Raise Damaged where one of these files, or of all, is there and not as it was written; code may be edited.

    `names`: relative to `folder`, that of the card.
    """
    for name in names or card.digests:
        path, written = folder / name, card.digests.get(name)
        if written and path.suffix != ".py" and path.is_file() and digest_of(path) != written:
            raise Damaged(path, "it is not as it was written", WAY_OUT)


def kept_card(folder: Path) -> Card | None:
    """The same where everything is sound; what is not is set aside, so that it is made again."""
    try:
        card = read_card(folder)
        if card is not None:
            check_files(card, folder)
        return card
    except Damaged as error:
        if error.path.name != "card.json":  # which would say that all is there
            (folder / "card.json").unlink()
        set_aside(error.path)
        return None


def told(card: Card) -> str:
    """The card as Markdown."""
    found = card.test.by_class
    whole = found is not None and card.num_classes <= MATRIX  # else the most frequent confusions tell more
    return text_of(
        "card.md", card=card, data=card.data, recipe=card.recipe, rival=card.pretrained, found=found, whole=whole
    )


def text_of(template: str, **values: Any) -> str:
    """What a template of this folder makes of the values, which are no HTML and so are not escaped."""
    folder = FileSystemLoader(Path(__file__).parent / "templates")
    environment = Environment(loader=folder, autoescape=False, keep_trailing_newline=True)
    return environment.get_template(template).render(values)
