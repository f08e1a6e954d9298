"""The files and the card of a network that a whole search chose, with the pretrained rival beside it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from distill.files import digest
from distill.images.datasets import ImageDataset
from distill.methods import versions
from distill.training.loop import probabilities
from ftdnas.candidates.latency import network_latency
from ftdnas.candidates.truth import PREPROCESS
from ftdnas.finishing.card import INPUT, Accuracy, Card, Finalist, Rival, facts, kept_card, write_card
from ftdnas.finishing.contest import Entry
from ftdnas.finishing.files import deliver
from ftdnas.finishing.finalist import FinalistTraining
from ftdnas.finishing.folds import Pool
from ftdnas.finishing.pretrained import Adapted, Pretrained, pixel_examples
from ftdnas.finishing.readings import read_once
from ftdnas.finishing.transfer import read_classes
from ftdnas.runtime.records import to_json
from ftdnas.runtime.rows import Row
from search_spaces.base import parameter_count, parse_architecture

PROBED = 8  # images that files are tried on


@dataclass(frozen=True, eq=False)
class PretrainedRival:
    """Pretrained weights with a fitted last layer, `accuracy`: of the folds; on images at the size that it likes."""

    weights: Pretrained
    network: Adapted
    data: ImageDataset
    accuracy: float
    images: int


@dataclass(frozen=True)
class Answer:
    """Which network, how sure, what next. `entries`: all that took part in the contest, the winner first.

    `defaults`: what anybody would have trained; `ranked`: how many had real epochs, `scored` a score without training.
    """

    study: str
    folder: Path
    card: Card
    entries: tuple[Entry, ...]
    defaults: tuple[str, ...]
    scored: int
    ranked: int
    spent_s: float

    def to_json(self) -> dict[str, Any]:
        return {"folder": str(self.folder), **{key: value for key, value in to_json(self).items() if key != "folder"}}


def delivered(
    pool: Pool,
    work: FinalistTraining,
    row: Row,
    entries: Sequence[Entry],
    standing: Mapping[str, Any],
    rival: PretrainedRival | None,
    base: Path,
    onnx: bool = True,
) -> tuple[Path, Card]:
    """The folder with weights, code, ONNX and card of the winner, and of the rival where that is more accurate.

    The test images are read once for the winner and once for the rival, whoever asks again.
    """
    data, best = pool.data, entries[0]
    place = base / f"{data.name}-{data.image_shape[1]}px-{digest([work.key], 6)}"
    kept = kept_card(place)
    if kept is not None:
        return place, kept
    size = data.image_shape, data.num_classes
    network = work.network(data.image_shape)
    shares = lambda: probabilities(network, pool.examples(data.test))  # noqa: E731
    mean, deviation = (pool.preprocess.tensors[name].tolist() for name in ("mean", "std"))
    probe = pool.preprocess.apply(torch.from_numpy(pool.split.images[:PROBED].copy()))
    files, not_done = deliver(network, work.architecture, probe, place, (mean, deviation), onnx)
    architecture = parse_architecture(work.architecture)
    trained = {entry.architecture: entry for entry in reversed(entries)}
    card = Card(
        **facts(architecture, network, data),
        validation=Accuracy.of(best.accuracy or 0.0, best.images),
        test=_read_test(network, work.architecture, shares, data, base),
        data={
            "name": data.name,
            "source": data.source,
            "fingerprint": data.fingerprint,
            "split_note": data.split_note,
            "train": len(pool.split),
            "validation": best.images,
            "test": len(data.test),
        },
        recipe={"name": "contest", **asdict(work.recipe)},
        seed=work.training.seed,
        device=row["device"],
        seconds=row["seconds"],
        finalists=tuple(
            Finalist(
                architecture=name,
                rank=standing["ranks"].get(name),
                validation_accuracy=entry.accuracy,
                error=entry.error,
                parameters=parameter_count(parse_architecture(name), *size),
                seconds=entry.seconds,
                device=row["device"],
            )
            for name, entry in trained.items()
        ),
        left_out=(),
        standing=standing,
        pretrained=None if rival is None else _rival(rival, best, place, base, onnx),
        preprocess={"kind": PREPROCESS, "input": INPUT, "mean": mean, "deviation": deviation},
        files=files,
        versions=versions(),
        test_note="The test images were read once for the network chosen"
        + (" and once for the pretrained one" if rival else "")
        + ", after everything was chosen.",
        not_done=(
            *not_done,
            f"the accuracy in validation is of a training of {best.seconds:.0f} s without the images it was read on; "
            "the network here was trained longer, on all images but the test images",
            "no second seed: how far another training of the same network would differ is not known",
            "no latency was measured on any device but this CPU",
            *([] if rival else ["no pretrained network was compared: none was on this machine"]),
        ),
    )
    return place, write_card(card, place)


def _rival(rival: PretrainedRival, best: Entry, place: Path, base: Path, onnx: bool) -> Rival:
    weights, network = rival.weights, rival.network
    shares = partial(read_classes, network, rival.data.test)
    chosen = rival.accuracy > (best.accuracy or 0.0)
    files: dict[str, str] = {}
    not_done: list[str] = []
    test = _read_test(network, weights.network, shares, rival.data, base)
    network.cpu().to(memory_format=torch.contiguous_format)
    if chosen:
        few = rival.data.train.take(np.arange(min(PROBED, len(rival.data.train))))
        probe = pixel_examples(few).take(torch.arange(len(few)))[0]
        name = f"{weights.network}, pretrained, with a fitted last layer; images in [0, 1]"
        files, not_done = deliver(network, name, probe, place / "pretrained", onnx=onnx)
    return Rival(
        network=weights.network,
        file=weights.file.name,
        digest=weights.digest,
        pixels=network.pixels,
        lr=0.0,
        chosen=chosen,
        validation=Accuracy.of(rival.accuracy, rival.images),
        parameters=sum(tensor.numel() for tensor in network.parameters()),
        latency_ms=network_latency(network, rival.data.image_shape),
        folder="pretrained" if chosen else "",
        test=test,
        files=files,
        not_done=tuple(not_done),
    )


def _read_test(
    network: nn.Module, architecture: str, shares: Callable[[], NDArray[np.float32]], data: ImageDataset, base: Path
) -> Accuracy:
    """Accuracy on the test images, read once for these weights."""
    state = network.state_dict().values()
    key = hashlib.sha256(b"".join(tensor.detach().cpu().numpy().tobytes() for tensor in state)).hexdigest()
    return read_once(key, architecture, shares, data, base)
