"""What a finished network says of photos."""

from __future__ import annotations

import runpy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from distill.images.folders import images_below
from distill.images.photos import decode
from ftdnas.candidates.onnx import OnnxNetwork, runtime_version
from ftdnas.finishing.card import Card, check_files, read_card
from ftdnas.ranking.study import ranked_study
from ftdnas.runtime.home import typed

BATCH = 64  # photos that are held at once
GREY = np.array([0.299, 0.587, 0.114], dtype=np.float32)  # ITU-R 601, as grey photos were made for training


@dataclass(frozen=True)
class Prediction:
    """The likeliest class of a photo and the next one, with their probabilities, fractions; or why there is none."""

    photo: str
    class_name: str = ""
    probability: float | None = None
    second: str = ""
    second_probability: float | None = None
    error: str | None = None


def finished_folder(study: str) -> Path:
    """The newest finish of a study, or the folder of one itself. Raises LookupError where nothing is finished."""
    if (Path(study) / "card.json").is_file():
        return Path(study)
    folder, _ = ranked_study(study)
    cards = sorted(folder.path.glob("finish/*/card.json"), key=lambda card: card.stat().st_mtime)
    if not cards:
        raise LookupError(f"study {study} has no finished network yet: ftdnas finish {typed(study)}")
    return cards[-1].parent


def predict(folder: Path, photos: Sequence[Path]) -> list[Prediction]:
    """What the network in the folder of a finish says of photos, brought in as its training images were.

    Folders among `photos` stand for all images below them; what in one is no photo is told and passed over. Raises
    ValueError for a photo given itself that is none, FileNotFoundError for one that is not there.
    """
    card = read_card(folder)
    if card is None:
        raise LookupError(f"{folder} holds no finished network")
    network, mean, deviation = _network(folder, card)
    predictions: list[Prediction] = []
    waiting: list[tuple[int, NDArray[np.float32]]] = []

    def judge() -> None:
        pixels = torch.from_numpy(np.stack([image for _, image in waiting])) / 255
        with torch.no_grad():
            chances, classes = network((pixels - mean) / deviation).softmax(1).topk(min(2, card.num_classes))
        for (place, _), of_photo, said in zip(waiting, chances.tolist(), classes.tolist(), strict=True):
            names = [card.class_names[number] for number in said]
            predictions[place] = Prediction(predictions[place].photo, names[0], of_photo[0], names[-1], of_photo[-1])
        waiting.clear()

    for photo, alone in _files(photos):
        predictions.append(Prediction(str(photo)))
        try:
            waiting.append((len(predictions) - 1, _pixels(photo, card.image_shape)))
        except ValueError as error:
            if alone:
                raise
            predictions[-1] = Prediction(str(photo), error=str(error))
        if len(waiting) == BATCH:
            judge()
    if waiting:
        judge()
    return predictions


def _files(photos: Sequence[Path]) -> Iterator[tuple[Path, bool]]:
    """(file, whether it was given itself)."""
    for path in photos:
        if not path.exists():
            raise FileNotFoundError(f"{path} is not there: give photos, or a folder with photos")
        if path.is_dir():
            yield from ((path / file, False) for file in images_below(path))
        else:
            yield path, True


def _pixels(photo: Path, image_shape: tuple[int, int, int]) -> NDArray[np.float32]:
    """(C, H, W) in 0 .. 255."""
    channels, side, _ = image_shape
    pixels = decode(photo, side, 3, str(photo)).pixels.astype(np.float32)
    return pixels if channels == 3 else np.tensordot(GREY, pixels, 1)[None].round()


def _network(folder: Path, card: Card) -> tuple[nn.Module, Tensor, Tensor]:
    """The better one of the folder, with the mean and the deviation of what it takes.

    From its plain code and weights, which need nothing else; from its ONNX file where it could not be written as code.
    """
    mean, deviation = (torch.tensor(card.preprocess[name]).view(-1, 1, 1) for name in ("mean", "deviation"))
    inside = ""
    if card.pretrained is not None and card.pretrained.chosen:  # which does the same inside
        inside, mean, deviation = f"{card.pretrained.folder}/", torch.zeros(1), torch.ones(1)
    code, weights, onnx = (inside + name for name in ("network.py", "weights.safetensors", "network.onnx"))
    if (folder / code).exists():
        check_files(card, folder, weights)
        return runpy.run_path(str(folder / code))["load_network"](folder / weights), mean, deviation
    if (folder / onnx).exists() and runtime_version() is not None:
        check_files(card, folder, onnx)
        return OnnxNetwork(folder / onnx), mean, deviation
    raise ValueError(f"{folder} has neither a network.py nor a network.onnx that can be run here: finish it again")
