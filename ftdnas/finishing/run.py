"""Finalists trained at the target size on all real images, and the best of them as files that stand alone."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from distill.files import whole_file
from distill.images.datasets import ImageDataset
from distill.locks import locked
from distill.methods import versions
from distill.recipe import TrainingRecipe
from distill.recipe import identity as recipe_identity
from distill.run import Listener, Progress, ignore
from ftdnas.candidates.latency import MEASURED, network_latency
from ftdnas.candidates.truth import PREPROCESS
from ftdnas.finishing.card import INPUT, accuracy_facts, told
from ftdnas.finishing.files import deliver
from ftdnas.finishing.finalist import Finishing
from ftdnas.finishing.pretrained import PIXELS, RATE, FineTuning, Pretrained, check_fits, recognise
from ftdnas.finishing.trainings import FinalTraining, PreparedFinish
from ftdnas.ranking.standing import Standing
from ftdnas.runtime.device import pick_device
from ftdnas.runtime.home import home, read_json, write_json
from ftdnas.runtime.rows import Row
from search_spaces.base import flops, parameter_count, parse_architecture


@dataclass(frozen=True)
class FinishRequest:
    """What to finish. `recipe.lr` is a number; `recipe_name` is said in the card.

    `standing`: the study that the finalists are from, None where the user named them. `pretrained`: a state_dict of a
    torchvision network, fine-tuned beside them at `pretrained_lr`, on images resized to `pretrained_pixels`.
    """

    finalists: tuple[str, ...]
    recipe: TrainingRecipe
    recipe_name: str = "custom"
    standing: Standing | None = None
    pretrained: Path | None = None
    pretrained_pixels: int = PIXELS
    pretrained_lr: float = RATE
    onnx: bool = True
    seed: int = 0
    jobs: int | None = None
    device: str = "auto"


@dataclass(frozen=True)
class Finished:
    """`folder` holds weights.safetensors, card.json, card.md and, where they can be written, network.py and .onnx."""

    folder: Path
    card: Mapping[str, Any]

    @property
    def architecture(self) -> str:
        return str(self.card["architecture"])

    def to_json(self) -> dict[str, Any]:
        return {"folder": str(self.folder), **self.card}


def finish(request: FinishRequest, data: ImageDataset, listener: Listener = ignore) -> Finished:
    """Train the finalists on `data`, choose by validation accuracy, read the test images once, write the files.

    Trainings are rows of the pool of real trainings, and their weights lie beside: interrupted, the same request goes
    on with those that are missing. A finalist that these images cannot pass, or that fails, is named and left out.
    Raises ValueError where none is left, where no validation or test images are there, and where another process is at
    it; FileNotFoundError and ValueError for pretrained weights that are not there or not known.
    """
    _check(request, data)
    device = pick_device(request.device).type
    rival = None if request.pretrained is None else recognise(request.pretrained)
    if rival is not None:
        check_fits(rival, data)
    names, left_out = _feasible(request, data)
    base = (home() if request.standing is None else request.standing.folder) / "finish"
    place = base / _place_name(request, data, names, rival)
    with locked(place / "lock", wait=False) as ours:
        if not ours:
            raise ValueError(f"another process is at {place}: let it finish")
        card = read_json(place / "card.json", "remove it, the trainings are kept")
        if card:
            listener(Progress("finish", 0, 0, message="finished before: nothing is left to do"))
            return Finished(place, card)
        job = PreparedFinish(request, data, device, base, place, names, rival, listener)
        try:
            works = job.works()
            rows = job.rows(works)
            card = _write(job, works, rows, left_out)
        finally:
            shutil.rmtree(place / "materials", ignore_errors=True)
    return Finished(place, card)


def _check(request: FinishRequest, data: ImageDataset) -> None:
    if not request.finalists:
        raise ValueError("no finalists: name a study or architectures")
    if request.recipe.lr is None or request.recipe.epochs < 1:
        raise ValueError("finalists need a recipe with a learning rate and at least one epoch")
    if request.recipe.batch_norm == "batch":
        raise ValueError('a network that stands alone needs statistics of its own: batch norm "running" or "refresh"')
    if not len(data.test):
        raise ValueError(f"{data.name} has no test images: what is finished could not be judged")


def _feasible(request: FinishRequest, data: ImageDataset) -> tuple[tuple[str, ...], list[dict[str, str]]]:
    """The finalists that can carry the images, each once, and why the others cannot."""
    names: dict[str, None] = {}
    left_out = []
    for text in request.finalists:
        architecture = parse_architecture(text)
        obstacle = architecture.obstacle(data.image_shape)
        if obstacle is None:
            names[architecture.name] = None
        else:
            left_out.append({"architecture": architecture.name, "reason": obstacle})
    if not names:
        channels, height, width = data.image_shape
        first = left_out[0]
        raise ValueError(
            f"no finalist can carry {channels} x {height} x {width} images: {first['architecture']}: {first['reason']}"
        )
    return tuple(names), left_out


def _place_name(request: FinishRequest, data: ImageDataset, names: Sequence[str], rival: Pretrained | None) -> str:
    identity = [
        sorted(names),
        data.fingerprint,
        recipe_identity(request.recipe),
        request.seed,
        request.onnx,
        None if rival is None else [rival.digest, request.pretrained_pixels, request.pretrained_lr],
    ]
    codes = [parse_architecture(name).code for name in sorted(names)]
    if any(codes):  # a user's own networks: another code is another network of the same name
        identity.append(codes)
    digest = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()
    return f"{data.name}-{data.image_shape[1]}px-{request.recipe.epochs}epochs-{digest[:6]}"


def _chosen(
    works: Sequence[FinalTraining], rows: Mapping[str, Row], parameters: Callable[[FinalTraining], int]
) -> FinalTraining:
    """The best by validation accuracy; of equals the one with fewest parameters. Raises ValueError for none."""
    scored = [work for work in works if rows[work.key]["score"] is not None]
    if not scored:
        reasons = "; ".join(f"{work.architecture}: {rows[work.key]['error']}" for work in works)
        raise ValueError(f"no finalist could be trained: {reasons}")
    return max(scored, key=lambda work: (rows[work.key]["score"], -parameters(work)))


def _write(
    job: PreparedFinish, works: Sequence[FinalTraining], rows: dict[str, Row], left_out: Sequence[Mapping[str, str]]
) -> dict[str, Any]:
    """Choose, read the test images, and write every file; the card, last, says that all are there."""
    data, request = job.data, job.request
    size = (data.image_shape, data.num_classes)
    finalists = [work for work in works if isinstance(work, Finishing)]
    best = _chosen(finalists, rows, lambda work: parameter_count(parse_architecture(work.architecture), *size))
    row = rows[best.key] = job.with_weights(best, rows[best.key])
    architecture = parse_architecture(best.architecture)
    constants = {name: job.preprocess.tensors[key].tolist() for name, key in (("mean", "mean"), ("deviation", "std"))}
    network = best.network(data.image_shape)
    standardized = (constants["mean"], constants["deviation"])
    files, not_done = deliver(network, best.architecture, job.probe(best), job.place, standardized, request.onnx)
    held_out = len(data.score())
    card: dict[str, Any] = {
        "architecture": best.architecture,
        "space": architecture.space,
        "code": architecture.code,
        "choices": dict(architecture.choices),
        "image_shape": list(data.image_shape),
        "num_classes": data.num_classes,
        "class_names": list(data.class_names),
        "parameters": parameter_count(architecture, *size),
        "flops": flops(architecture, *size),
        "latency_ms": network_latency(network, data.image_shape),
        "latency_how": MEASURED,
        "validation": accuracy_facts(row["score"], held_out),
        "test": job.read_test(best),
        "data": {
            "name": data.name,
            "source": data.source,
            "fingerprint": data.fingerprint,
            "split_note": data.split_note,
            "train": len(data.train),
            "validation": held_out,
            "test": len(data.test),
        },
        "recipe": {"name": request.recipe_name, **asdict(request.recipe)},
        "seed": request.seed,
        "device": row["device"],
        "seconds": row["seconds"],
        "finalists": [
            {
                "architecture": work.architecture,
                "rank": request.standing.ranks.get(work.architecture) if request.standing else None,
                "validation_accuracy": rows[work.key]["score"],
                "error": rows[work.key]["error"],
                "parameters": parameter_count(parse_architecture(work.architecture), *size),
                "seconds": rows[work.key]["seconds"],
                "device": rows[work.key]["device"],
            }
            for work in finalists
        ],
        "left_out": list(left_out),
        "standing": None if request.standing is None else request.standing.to_json(),
        "pretrained": _rival(job, works, rows, row["score"]),
        "preprocess": {"kind": PREPROCESS, "input": INPUT, **constants},
        "files": files,
        "versions": versions(),
    }
    times = job.readings()
    card["test_note"] = (
        "The test images were read once, after everything was chosen."
        if times == 1
        else f"The test images were read for {times} networks in this folder: an earlier finish chose another, "
        "or a pretrained network was better. The more are read, the less the best of them says."
    )
    card["not_done"] = [
        *not_done,
        "no second seed: how far another training of the same network would differ is not known",
        f"the {len(data.validation):,} validation images were not trained on",
        "learning rate and epochs were not tuned for the chosen network",
        "no latency was measured on any device but this CPU",
        *([] if job.rival else ["no pretrained network was compared: --pretrained-weights names one"]),
        *([] if request.standing else ["no proxy's ranking stands behind the finalists"]),
    ]
    _write_text(job.place / "card.md", told(card))
    write_json(job.place / "card.json", card)
    return card


def _rival(
    job: PreparedFinish, works: Sequence[FinalTraining], rows: dict[str, Row], best: float
) -> dict[str, Any] | None:
    """The pretrained network beside the chosen one; where it is better, its own files and its test accuracy."""
    tunings = [work for work in works if isinstance(work, FineTuning)]
    if not tunings:
        return None
    work = tunings[0]
    row = rows[work.key]
    facts: dict[str, Any] = {
        "network": work.pretrained.network,
        "file": work.pretrained.file.name,
        "digest": work.pretrained.digest,
    }
    facts |= {"pixels": work.pixels, "lr": work.recipe.lr, "error": row["error"], "chosen": False}
    if row["score"] is None:
        return facts
    chosen = row["score"] > best
    row = rows[work.key] = job.with_weights(work, row)
    network = work.network(job.data.image_shape)
    facts |= {
        "validation": accuracy_facts(row["score"], len(job.data.score())),
        "parameters": sum(weights.numel() for weights in network.parameters()),
        "latency_ms": network_latency(network, job.data.image_shape),
        "seconds": row["seconds"],
        "device": row["device"],
    }
    if chosen:
        name = f"{work.architecture}, fine-tuned; images in [0, 1]"
        files, not_done = deliver(network, name, job.probe(work), job.place / "pretrained", onnx=job.request.onnx)
        facts |= {"chosen": True, "folder": "pretrained", "test": job.read_test(work)}
        facts |= {"files": files, "not_done": not_done}
    return facts


def _write_text(path: Path, text: str) -> None:
    with whole_file(path) as beside:
        beside.write_text(text, encoding="utf-8")
