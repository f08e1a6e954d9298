"""Expert trajectories: networks trained on real images along flat paths, their weights kept after every epoch."""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from distill.files import UNSUMMED, Damaged, digest, locked, set_aside, whole_file
from distill.flatness import gsam_gradient
from distill.images.augment import augment, draw, parse_augment
from distill.images.datasets import ImageDataset
from distill.images.preprocess import Preprocess
from distill.randomness import generator
from distill.recipe import ExpertRecipe, Recipe
from distill.recipe import identity as recipe_identity
from distill.run import Progress, Run
from distill.tensors import facts_of, opened, read_tensors, write_tensors
from distill.training.derivatives import Derivatives, about_s, derivatives_for
from distill.training.examples import Examples
from distill.training.flat import FlatNetwork, Network, initial_weights
from distill.training.loop import batches

SAVE_EVERY_S = 20.0  # seconds between the writings of a trajectory that is being trained
STORAGES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def epochs_needed(recipe: Recipe) -> int:
    """The last epoch that matching can read: start epochs end at T+ - 1, targets lie M epochs further."""
    return recipe.matching.max_start_epoch - 1 + recipe.matching.expert_epochs


@dataclass(frozen=True)
class ExpertBuffer:
    """Stored trajectories of one backbone, one preprocessing and one recipe: a folder with one file per expert."""

    folder: Path
    num_experts: int
    epochs: int  # rows 0 .. epochs are there

    def weights(self, expert: int, epoch: int) -> Tensor:
        """(P,) float32 weights of an expert after an epoch; 0 is its initialisation. Only that row is read."""
        if not (0 <= expert < self.num_experts and 0 <= epoch <= self.epochs):
            raise LookupError(
                f"no expert {expert} at epoch {epoch}: {self.num_experts} experts of {self.epochs} epochs"
            )
        with opened(expert_file(self.folder, expert)) as file:
            row: Tensor = file.get_slice("weights")[epoch]
        return row.float()

    def seconds(self) -> float:
        """Seconds of computation that these experts cost, whenever it was."""
        return float(sum(facts["seconds"] for facts in self._facts()))

    def digest(self) -> str:
        """Hex SHA-256 of all weights, of every expert and epoch."""
        found = hashlib.sha256()
        for expert in range(self.num_experts):
            with opened(expert_file(self.folder, expert)) as file:
                rows: Tensor = file.get_slice("weights")[: self.epochs + 1]
            found.update(f"/{rows.dtype} {tuple(rows.shape)}/".encode())
            found.update(rows.view(torch.uint8).numpy().data)
        return found.hexdigest()

    def made_on(self) -> list[str]:
        """On what they were trained, each once: device, CPU threads, torch."""
        return sorted({facts.get("made_on", "not recorded") for facts in self._facts()})

    def _facts(self) -> list[dict[str, Any]]:
        return [_read_facts(expert_file(self.folder, expert)) for expert in range(self.num_experts)]


def expert_file(folder: Path, expert: int) -> Path:
    return folder / f"expert-{expert:03d}.safetensors"


def expert_folder(data: ImageDataset, preprocess: Preprocess, network: FlatNetwork, recipe: Recipe, run: Run) -> Path:
    """Where experts of this identity lie: data, preprocessing, backbone and whatever else their weights depend on.

    The number of experts and of epochs is not part of it: more of either are added to what is there.
    """
    identity = {
        "data": data.fingerprint,
        "preprocess": preprocess.fingerprint,
        "backbone": recipe.backbone,
        "weights": [[name, list(shape)] for name, shape in zip(network.names, network.shapes, strict=True)],
        "recipe": {key: value for key, value in recipe_identity(recipe.experts).items() if key != "num_experts"},
    }
    folder = run.shared / "experts" / digest(identity, 16)
    folder.mkdir(parents=True, exist_ok=True)
    described = folder / "experts.json"
    if not described.exists():
        with whole_file(described, sums=True) as beside:
            beside.write_text(json.dumps({**UNSUMMED, **identity}, indent=1, sort_keys=True) + "\n")
    return folder


def train_experts(
    data: ImageDataset, preprocess: Preprocess, network: Network, recipe: Recipe, run: Run
) -> ExpertBuffer:
    """Train the experts that are missing, and those that end too early further; the rest are reused.

    A trajectory is on disk soon after every epoch: an interrupted expert goes on from there with the same result.
    Processes that share the folder share the work, one expert each at a time.
    Raises FloatingPointError where an expert's loss is not finite.
    """
    flat = FlatNetwork(network()).to(run.device)
    folder = expert_folder(data, preprocess, flat, recipe, run)
    count, epochs = recipe.experts.num_experts, epochs_needed(recipe)
    trajectories = ExpertBuffer(folder, count, epochs)
    missing = [expert for expert in range(count) if _epochs_there(expert_file(folder, expert)) < epochs]
    if not missing:
        return trajectories
    examples = Examples.from_split(data.train, preprocess, run.device)
    left = sum(epochs - max(0, _epochs_there(expert_file(folder, expert))) for expert in missing)
    training = _Training(examples, flat, network, recipe.experts, folder, epochs, left, run)
    # Experts that another process is training come last: by then they are done.
    for wait in (False, True):
        if wait and missing:
            message = f"waiting for {len(missing)} experts that other processes are training"
            run.listener(Progress("experts", (count - len(missing)) * epochs, count * epochs, message=message))
        for expert in list(missing):
            with locked(folder / f".expert-{expert:03d}.lock", wait=wait) as held:
                if held:
                    training.train(expert)
                    missing.remove(expert)
    return trajectories


def estimate_seconds(data: ImageDataset, preprocess: Preprocess, network: Network, recipe: Recipe, run: Run) -> float:
    """About how long `train_experts` will take, from two timed batches; 0 where all experts are there."""
    flat = FlatNetwork(network()).to(run.device)
    folder = expert_folder(data, preprocess, flat, recipe, run)
    epochs = epochs_needed(recipe)
    there = [_epochs_there(expert_file(folder, expert)) for expert in range(recipe.experts.num_experts)]
    left = sum(max(0, epochs - stored) for stored in there)
    if left == 0:
        return 0.0
    weights = initial_weights(network, 0).to(run.device)
    derivatives = Derivatives(flat, precision=recipe.experts.precision)
    size = min(recipe.experts.batch_size, len(data.train))
    batch = Examples.from_split(data.train.take(torch.arange(size).numpy()), preprocess, run.device)
    times = []
    for attempt in range(3):  # the first warms up
        begun = time.perf_counter()
        _train_epoch(batch, derivatives, weights, recipe.experts, generator(attempt, "estimate"))
        times.append(time.perf_counter() - begun)
    eager_s = min(times[1:]) * left * len(data.train) / size
    return eager_s if run.compiled is False else about_s(eager_s, second=False)


@dataclass(eq=False)
class _Training:
    """The training of the experts of one folder; a trajectory goes on with the derivatives that it was begun with."""

    examples: Examples
    flat: FlatNetwork
    network: Network
    recipe: ExpertRecipe
    folder: Path
    epochs: int  # of every expert
    left: int  # epochs of all experts that are to come
    run: Run
    _made: dict[tuple[bool | None, int | None], Derivatives] = field(default_factory=dict)

    def train(self, expert: int) -> None:
        """From where its file ends, or from the beginning, to its last epoch."""
        recipe, path = self.recipe, expert_file(self.folder, expert)
        saved = time.monotonic()
        if path.exists():
            trajectory = _Trajectory.load(path)
        else:
            initial = initial_weights(self.network, recipe.seed, "expert", expert)
            derivatives = self._derivatives(None, None)
            made_on = _made_on(self.run) + ", compiled" * derivatives.compiled
            taken = derivatives.compiled, derivatives.chunk_size
            trajectory = _Trajectory([initial.to(STORAGES[recipe.storage])], initial, [], 0.0, made_on, *taken)
        derivatives = self._derivatives(trajectory.compiled, trajectory.chunk_size)
        if trajectory.compiled and not derivatives.compiled:
            self._tell(
                expert * self.epochs,
                message=f"expert {expert} was begun with compiled derivatives: it may differ in its last bits",
            )
        weights = trajectory.last.to(self.run.device)
        for epoch in range(len(trajectory.rows), self.epochs + 1):
            begun = time.perf_counter()
            draws = generator(recipe.seed, "expert", expert, "epoch", epoch)
            weights, loss = _train_epoch(self.examples, derivatives, weights, recipe, draws)
            last = weights.to("cpu", copy=True)
            if not torch.isfinite(last).all():
                raise FloatingPointError(
                    f"expert {expert} diverged in epoch {epoch}: "
                    f"use a smaller experts.lr than {recipe.lr} or experts.rho than {recipe.rho}"
                )
            trajectory = replace(
                trajectory,
                rows=[*trajectory.rows, last.to(STORAGES[recipe.storage])],
                last=last,
                losses=[*trajectory.losses, loss],
                seconds=trajectory.seconds + time.perf_counter() - begun,
                compiled=derivatives.compiled,
                chunk_size=derivatives.chunk_size,
            )
            # A file holds all rows, so writing it after every short epoch would cost more than the epochs.
            if epoch == self.epochs or time.monotonic() - saved > SAVE_EVERY_S:
                trajectory.save(path)
                saved = time.monotonic()
            self._tell(expert * self.epochs + epoch, {"expert_loss": loss})

    def _tell(self, done: int, values: Mapping[str, float] | None = None, message: str = "") -> None:
        self.run.listener(Progress("experts", done, self.recipe.num_experts * self.epochs, values or {}, message))

    def _derivatives(self, compiled: bool | None, chunk_size: int | None) -> Derivatives:
        """As a trajectory was begun; (None, None) for a new one."""
        if (compiled, chunk_size) not in self._made:
            images, labels = self.examples.take(torch.arange(min(self.recipe.batch_size, len(self.examples))))
            passes = 1 if self.recipe.rho == 0 else 2
            made = derivatives_for(
                self.flat,
                initial_weights(self.network, 0).to(self.run.device),
                images,
                labels,
                calls=passes * self.left * math.ceil(len(self.examples) / len(images)),
                second=False,
                precision=self.recipe.precision,
                chunk_size=chunk_size,
                budget_bytes=self.run.memory_bytes if compiled is None else None,
                compiled=self.run.compiled if compiled is None else compiled,
                say=lambda message: self.run.listener(Progress("experts", 0, 0, message=message)),
            )
            self._made[compiled, chunk_size] = self._made[made.compiled, made.chunk_size] = made
        return self._made[compiled, chunk_size]


def _train_epoch(
    examples: Examples,
    derivatives: Derivatives,
    weights: Tensor,
    recipe: ExpertRecipe,
    epoch_generator: torch.Generator,
) -> tuple[Tensor, float]:
    """One pass over the images with SGD at a constant rate: new weights (P,), and the mean loss before each step."""
    operations = parse_augment(recipe.augment)
    total = torch.zeros((), device=examples.device)
    for rows in batches(len(examples), recipe.batch_size, epoch_generator):
        images, labels = examples.take(rows)
        # One draw serves both passes of GSAM: they are two gradients of the same loss.
        images = augment(images, draw(operations, len(rows), examples.image_shape, epoch_generator, examples.device))
        losses: list[Tensor] = []

        def gradient(at: Tensor, images: Tensor = images, labels: Tensor = labels) -> Tensor:
            loss, by_weights = derivatives.loss_and_gradient(at, images, labels)
            losses.append(loss)  # noqa: B023
            return by_weights

        direction = gsam_gradient(gradient, weights, rho=recipe.rho, alpha=recipe.alpha, adaptive=recipe.adaptive)
        weights = weights - recipe.lr * direction
        total += losses[0] * len(rows)
    return weights, float(total) / len(examples)


@dataclass(frozen=True)
class _Trajectory:
    """What one file holds: rows (P,) in the storage type, and the last one exactly, from which training goes on."""

    rows: list[Tensor]
    last: Tensor
    losses: list[float]  # mean training loss of each epoch
    seconds: float
    made_on: str  # where it was begun
    compiled: bool  # how its derivatives were taken
    chunk_size: int | None

    @classmethod
    def load(cls, path: Path) -> _Trajectory:
        """Raises ValueError where the file is damaged."""
        tensors, facts = read_tensors(path)
        return cls(
            list(tensors["weights"]),
            tensors["last"],
            **{"made_on": "not recorded", "compiled": False, "chunk_size": None, **facts},
        )

    def save(self, path: Path) -> None:
        facts = {each.name: getattr(self, each.name) for each in fields(self)}
        tensors = {"weights": torch.stack(facts.pop("rows")), "last": facts.pop("last")}
        write_tensors(path, tensors, facts)


def _read_facts(path: Path) -> dict[str, Any]:
    """Losses, seconds and where it was made, without the weights."""
    with opened(path) as file:
        facts = facts_of(file)
        return {**facts, "losses": list(facts["losses"]), "seconds": float(facts["seconds"])}


def _made_on(run: Run) -> str:
    if run.device.type == "cuda":
        return f"{torch.cuda.get_device_name(run.device)}, torch {torch.__version__}"
    return f"CPU, {torch.get_num_threads()} threads, torch {torch.__version__}"


def _epochs_there(path: Path) -> int:
    """Epochs stored in the file; -1 where there is none, and where it is damaged, as it is set aside then."""
    if not path.exists():
        return -1
    try:
        _read_facts(path)
        with opened(path) as file:
            return int(file.get_slice("weights").get_shape()[0]) - 1
    except Damaged:
        set_aside(path)
        return -1
