"""Finalists trained at the target size on all real images, and the best of them as files that stand alone."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from distill.files import digest, locked
from distill.images.datasets import ACCURACY, ImageDataset
from distill.methods import versions
from distill.recipe import TrainingRecipe
from distill.recipe import identity as recipe_identity
from distill.run import Listener, Progress, ignore
from ftdnas.candidates.ids import resolved
from ftdnas.candidates.latency import network_latency
from ftdnas.candidates.truth import PREPROCESS, truth_recipe
from ftdnas.finishing.card import INPUT, Accuracy, Card, Finalist, LeftOut, Rival, facts, kept_card, write_card
from ftdnas.finishing.choice import Known, chosen, finalists
from ftdnas.finishing.files import deliver
from ftdnas.finishing.finalist import FinalistTraining
from ftdnas.finishing.int8 import quantised
from ftdnas.finishing.pretrained import FineTuning, Pretrained, check_fits, recognise
from ftdnas.finishing.request import FinishRequest
from ftdnas.finishing.trainings import PreparedFinish
from ftdnas.ranking.changed import check_unchanged
from ftdnas.ranking.study import ranked_study
from ftdnas.ranking.table import Ranking
from ftdnas.runtime.device import pick_device, use_threads
from ftdnas.runtime.home import home
from ftdnas.runtime.records import to_json
from ftdnas.runtime.rows import Row
from ftdnas.sets.images import Source
from ftdnas.sets.making import choose_recipe
from ftdnas.sets.recipes import load_recipe
from search_spaces.base import parameter_count, parse_architecture


@dataclass(frozen=True)
class Finished:
    """`folder` holds weights.safetensors, card.json, card.md and, where they can be written, network.py and .onnx."""

    folder: Path
    card: Card

    def to_json(self) -> dict[str, Any]:
        return {"folder": str(self.folder), **to_json(self.card)}


def finish(request: FinishRequest, listener: Listener = ignore, data: ImageDataset | None = None) -> Finished:
    """Train the finalists on `data`, choose by validation accuracy, read the test images once, write the files.

    `data` None: the images that the request names, else those of the study. Trainings are rows of the pool of real
    trainings, and their weights lie beside: interrupted, the same request goes on with those that are missing. A
    finalist that these images cannot pass, or that fails, is named and left out. Raises ValueError where none is left,
    where no validation or test images are there, and where another process is at it; LookupError for an unknown study;
    FileNotFoundError and ValueError for pretrained weights that are not there or not known.
    """
    use_threads(request.threads)
    ranked = None
    if request.study is not None:
        ranked = ranked_study(request.study, to_finish=not request.architectures)[1]
        if request.architectures:
            check_unchanged(ranked.settings)
        request = replace(request, architectures=named_in(ranked, request.architectures))
    spec = request.dataset or ""
    if data is None:
        data, spec = _images(request, ranked, listener)
    known = None if request.architectures else Known.of(ranked, data.fingerprint, data.metric)
    recipe, recipe_name = _real_recipe(request, spec or data.name, known)
    _check(recipe, data)
    device = pick_device(request.device).type
    rival = None
    if request.pretrained_weights is not None:
        rival = recognise(request.pretrained_weights, request.pretrained_size, request.pretrained_lr)
        check_fits(rival, data)
    names, left_out = _feasible(
        request.architectures or (finalists(ranked, known, request.top) if ranked else ()), data
    )
    base = (home() if ranked is None else ranked.folder) / "finish"
    place = base / _place_name(request, recipe, data, names, rival)
    with locked(place / "lock", wait=False) as ours:
        if not ours:
            raise ValueError(f"another process is at {place}: let it finish")
        kept = kept_card(place)
        if kept is not None:
            listener(Progress("finish", 0, 0, message="finished before: nothing is left to do"))
            return Finished(place, kept)
        prepared = PreparedFinish(
            data, names, recipe, request.seed, rival, request.processes, device, base, place, listener
        )
        try:
            card = _write(prepared, request, ranked, known, recipe_name, left_out)
        finally:
            shutil.rmtree(place / "materials", ignore_errors=True)
    return Finished(place, card)


def named_in(ranked: Ranking, texts: Sequence[str]) -> tuple[str, ...]:
    """Architectures, of which some are named by their ids in a ranking."""
    return tuple(resolved(text, ranked.ids, ranked.study) for text in texts)


def _images(request: FinishRequest, ranked: Ranking | None, listener: Listener) -> tuple[ImageDataset, str]:
    """The images at the size to train for, and the data set's spec: the study's own where no other is named."""
    source = request.source
    if not source.spec:
        stored = {} if ranked is None else ranked.settings.get("source") or {}
        recorded = Source.from_json(stored, source.root, source.offline)
        if not recorded.spec:
            raise ValueError("which images? --dataset NAME" + (" (the study does not say)" if ranked else ""))
        assert ranked is not None
        recorded, _ = recorded.known_by(ranked.settings.get("data"), listener)
        source = replace(
            source,
            spec=recorded.spec,
            validation=recorded.validation if source.validation is None else source.validation,
            split_file=source.split_file or recorded.split_file,
            split_seed=recorded.split_seed,
            parted=recorded.parted,
            lone=recorded.lone,
            metric=request.metric or recorded.metric,
        )
    data = source.load(listener)
    if source.image_size is None and data.target_size:
        data = replace(source, image_size=data.target_size).load(listener)
    return data, source.spec


def _real_recipe(request: FinishRequest, spec: str, known: Known | None) -> tuple[TrainingRecipe, str]:
    """How finalists train, and the name of the recipe that it is from: unless told no shorter than the real trainings
    that chose them, and then as those.
    """
    if isinstance(request.recipe, TrainingRecipe):
        return truth_recipe(request.recipe, request.epochs, request.lr), "custom"
    if request.recipe is not None:
        chosen = load_recipe(request.recipe)
    else:
        chosen, _ = choose_recipe(spec, None, pick_device("auto").type == "cuda")
    recipe = truth_recipe(chosen.evaluation.full, request.epochs, request.lr)
    if known is not None and (request.recipe, request.lr) == (None, None):
        real = known.trainings.recipe
        as_long = real.epochs == recipe.epochs or (request.epochs is None and real.epochs > recipe.epochs)
        if as_long and real.batch_norm != "batch":
            return real, "as the candidates were really trained"
    return recipe, chosen.name


def _check(recipe: TrainingRecipe, data: ImageDataset) -> None:
    if recipe.batch_norm == "batch":
        raise ValueError('a network that stands alone needs statistics of its own: batch norm "running" or "refresh"')
    if not len(data.test):
        raise ValueError(f"{data.name} has no test images: what is finished could not be judged")


def _feasible(finalists: Sequence[str], data: ImageDataset) -> tuple[tuple[str, ...], tuple[LeftOut, ...]]:
    """The finalists that can carry the images, each once, and why the others cannot."""
    names: dict[str, None] = {}
    left_out = []
    for text in finalists:
        architecture = parse_architecture(text)
        obstacle = architecture.obstacle(data.image_shape)
        if obstacle is None:
            names[architecture.name] = None
        else:
            left_out.append(LeftOut(architecture.name, obstacle))
    if not names:
        channels, height, width = data.image_shape
        shape, first = f"{channels} x {height} x {width}", left_out[0]
        raise ValueError(f"no finalist can carry {shape} images: {first.architecture}: {first.reason}")
    return tuple(names), tuple(left_out)


def _place_name(
    request: FinishRequest, recipe: TrainingRecipe, data: ImageDataset, names: Sequence[str], rival: Pretrained | None
) -> str:
    identity = [
        sorted(names),
        data.fingerprint,
        recipe_identity(recipe),
        request.seed,
        not request.no_onnx,
        *([data.metric] if data.metric != ACCURACY else []),
        None if rival is None else [rival.digest, rival.pixels, rival.lr],
    ]
    codes = [parse_architecture(name).code for name in sorted(names)]
    if any(codes):  # a user's own networks: another code is another network of the same name
        identity.append(codes)
    return f"{data.name}-{data.image_shape[1]}px-{recipe.epochs}epochs-{digest(identity, 6)}"


def _write(
    prepared: PreparedFinish,
    request: FinishRequest,
    ranked: Ranking | None,
    known: Known | None,
    recipe_name: str,
    left_out: tuple[LeftOut, ...],
) -> Card:
    """Train, choose, read the test images, and write every file; the card, last, says that all are there."""
    data, place = prepared.data, prepared.place
    size, held_out = (data.image_shape, data.num_classes), len(data.score())
    works = prepared.works()
    rows = prepared.rows(works)
    standing = None if ranked is None else ranked.standing(len(ranked.candidates))
    if standing is not None:
        standing["ranks"] = {name: rank for name, rank in standing["ranks"].items() if name in prepared.names}
        standing |= {"truth": known.truth.title} if known else {}
    trained = {
        Finalist(
            architecture=work.architecture,
            rank=None if standing is None else standing["ranks"].get(work.architecture),
            validation_accuracy=rows[work.key]["score"],
            error=rows[work.key]["error"],
            parameters=parameter_count(parse_architecture(work.architecture), *size),
            seconds=rows[work.key]["seconds"],
            device=rows[work.key]["device"],
        ): work
        for work in works
        if isinstance(work, FinalistTraining)
    }
    readings = {} if known is None else known.readings(data.fingerprint, prepared.recipe)
    finalist, rule = chosen(list(trained), readings, held_out)
    best = trained[finalist]
    row = prepared.with_weights(best, rows[best.key])
    own = readings.get(best.architecture)
    worse = None if known is None or own is None else known.better(data.fingerprint, best.architecture, own)
    architecture = parse_architecture(best.architecture)
    mean, deviation = (prepared.preprocess.tensors[name].tolist() for name in ("mean", "std"))
    network, probe = best.network(data.image_shape), prepared.probe(best)
    files, not_done = deliver(network, best.architecture, probe, place, (mean, deviation), not request.no_onnx)
    test = prepared.read_test(best)
    tuning = next((work for work in works if isinstance(work, FineTuning)), None)
    rival = None if tuning is None else _rival(prepared, not request.no_onnx, tuning, rows[tuning.key], row["score"])
    times = prepared.readings()
    int8 = "it was not asked for" if request.no_onnx else quantised(prepared, best, ranked)
    if isinstance(int8, str):
        not_done.append(f"no network.int8.onnx: {int8}")
    else:
        files[int8.file] = "the same in int8, for devices that compute so"
    card = Card(
        **facts(architecture, network, data),
        validation=Accuracy.counted(row["score"], data.score().labels, data.metric),
        test=test,
        data={
            "name": data.name,
            "source": data.source,
            "fingerprint": data.fingerprint,
            "split_note": data.split_note,
            "train": len(data.train),
            "validation": held_out,
            "test": len(data.test),
        },
        recipe={"name": recipe_name, **asdict(prepared.recipe)},
        seed=request.seed,
        device=row["device"],
        seconds=row["seconds"],
        finalists=tuple(trained),
        chosen=rule,
        left_out=left_out,
        standing=standing,
        pretrained=rival,
        preprocess={"kind": PREPROCESS, "input": INPUT, "mean": mean, "deviation": deviation},
        files=files,
        versions=versions(),
        test_note=(
            "The test images were read once, after everything was chosen."
            if times == 1
            else f"The test images were read for {times} networks in this folder: an earlier finish chose another, "
            "or a pretrained network was better. The more are read, the less the best of them says."
        ),
        not_done=(
            *not_done,
            "no second seed: how far another training of the same network would differ is not known",
            f"the {len(data.validation):,} validation images were not trained on",
            "learning rate and epochs were not tuned for the chosen network",
            "no latency was measured on any device but this CPU",
            *([worse] if worse else []),
            *([] if rival else ["no pretrained network was compared: --pretrained-weights names one"]),
            *([] if ranked else ["no proxy's ranking stands behind the finalists"]),
        ),
        int8=None if isinstance(int8, str) else int8,
    )
    return write_card(card, place)


def _rival(prepared: PreparedFinish, onnx: bool, work: FineTuning, row: Row, best: float) -> Rival:
    """The pretrained network beside the chosen one; where it is better, its own files and its test accuracy."""
    data, pretrained = prepared.data, work.pretrained
    rival = Rival(
        pretrained.network, pretrained.file.name, pretrained.digest, pretrained.pixels, pretrained.lr, row["error"]
    )
    if row["score"] is None:
        return rival
    chosen = row["score"] > best
    row = prepared.with_weights(work, row)
    network = work.network(data.image_shape)
    rival = replace(
        rival,
        chosen=chosen,
        validation=Accuracy.counted(row["score"], data.score().labels, data.metric),
        parameters=sum(weights.numel() for weights in network.parameters()),
        latency_ms=network_latency(network, data.image_shape),
        seconds=row["seconds"],
        device=row["device"],
    )
    if not chosen:
        return rival
    name = f"{work.architecture}, fine-tuned; images in [0, 1]"
    files, not_done = deliver(network, name, prepared.probe(work), prepared.place / "pretrained", onnx=onnx)
    test = prepared.read_test(work)
    return replace(rival, folder="pretrained", test=test, files=files, not_done=tuple(not_done))
