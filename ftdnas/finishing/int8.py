"""A finished network in int8: calibrated on the set that ranked it, and read beside float32."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from distill.training.loop import probabilities
from ftdnas.candidates.latency import network_latency
from ftdnas.candidates.onnx import OnnxNetwork, runtime_version, write_int8
from ftdnas.finishing.card import Accuracy, Int8
from ftdnas.finishing.classes import by_class
from ftdnas.finishing.finalist import FinalistTraining
from ftdnas.finishing.trainings import PreparedFinish
from ftdnas.ranking.table import Ranking
from ftdnas.sets.library import Library

FILE = "network.int8.onnx"
CALIBRATED = 256  # images at most, whatever their number: ranges need no more


def quantised(prepared: PreparedFinish, best: FinalistTraining, ranked: Ranking | None) -> Int8 | str:
    """Write it beside network.onnx and read its accuracy and latency; or say why there is none."""
    network, path = prepared.place / "network.onnx", prepared.place / FILE
    if not network.exists():
        return "there is no network.onnx"
    if runtime_version() is None:
        return "onnxruntime is not installed: pip install 'ftdnas[onnx]'"
    images, told = _calibration(prepared, best, ranked)
    try:
        write_int8(network, images, path)
        small, whole = OnnxNetwork(path), OnnxNetwork(network)
        shares = probabilities(small, prepared.examples(best, prepared.data.test, "cpu"))
    except ValueError as error:
        return str(error)
    data, shape = prepared.data, prepared.data.image_shape
    reached = by_class(shares, data.test.labels, data.class_names).accuracy(data.metric)
    return Int8(
        file=FILE,
        calibrated_on=told,
        test=Accuracy.counted(reached, data.test.labels, data.metric),
        latency_ms=network_latency(small, shape),
        float32_latency_ms=network_latency(whole, shape),
        file_bytes=path.stat().st_size,
        float32_file_bytes=network.stat().st_size,
    )


def _calibration(prepared: PreparedFinish, best: FinalistTraining, ranked: Ranking | None) -> tuple[Tensor, str]:
    """(images as the network takes them, what they are): those of the study's set, else training images."""
    name: str = (ranked.settings if ranked else {}).get("set name") or ""
    try:
        synthetic = Library().load(name) if name else None
    except (LookupError, ValueError, OSError):  # it was removed, or is damaged
        synthetic = None
    train = prepared.data.train
    if synthetic is None or synthetic.image_shape[0] != prepared.data.image_shape[0]:
        rows = torch.linspace(0, len(train) - 1, min(CALIBRATED, len(train))).long()
        return prepared.examples(best, train, "cpu").take(rows)[0], f"{len(rows)} training images"
    rows = torch.linspace(0, len(synthetic.images) - 1, min(CALIBRATED, len(synthetic.images))).long()
    pixels = synthetic.preprocess.invert(synthetic.images[rows]).clamp(0, 1)
    side = prepared.data.image_shape[1:]
    if pixels.shape[2:] != side:
        pixels = F.interpolate(pixels, size=side, mode="bilinear", align_corners=False)
    return prepared.preprocess.apply(pixels), f"the {len(rows)} images of the set {Path(name).stem}"
