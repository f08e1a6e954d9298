"""The outer loop: real images and a step size become a synthetic set by following expert trajectories.

FTD (arXiv 2211.11004) and MTT (arXiv 2203.11932) share it; they differ in how the experts were trained. Departures from
the papers: the step size moves by its logarithm, with the rate that gives the papers' update to first order, so it
stays positive; the moving average is corrected for its start; the checkpoint and whether raw or averaged images are
published are chosen on validation images, never on test images.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from distill.augment import parse_augment
from distill.examples import Examples
from distill.experts import ExpertBuffer
from distill.flat import FlatNetwork, Network, initial_weights
from distill.matching import Derivatives, draw_steps, match
from distill.randomness import generator, seeded
from distill.recipe import MatchingRecipe, Recipe
from distill.run import Progress, Run
from distill.training import accuracy, fit

LOSS_LIMIT = 100.0  # a matching loss above it, 1 being a student that stands still, is a student that blew up
STEP_SIZE_LIMITS = (1e-6, 10.0)
STEP_SIZE_FACTOR = 2.0  # the largest change of the step size in one outer step
SHRINK = 0.5  # of both rates after a roll-back
MAX_ROLLBACKS = 10


@dataclass(frozen=True)
class Distilled:
    """The synthetic images (N, C, H, W) to publish, on the CPU, their step size, and how they came about."""

    images: Tensor
    step_size: float
    published: str  # "raw", "averaged" or "initial"
    validation_accuracy: float | None
    lr_images: float
    losses: list[list[float]]  # [outer step, matching loss]
    validation: list[list[float]]  # [outer step, accuracy of the raw images, of the averaged ones]
    notes: list[str]
    seconds: float


@dataclass(frozen=True, eq=False)
class _State:
    """Everything that the next outer step depends on, besides the seed and the recipe."""

    images: Tensor
    velocity: Tensor
    average: Tensor  # not yet corrected for starting at zero
    step_size: float
    step_size_velocity: float = 0.0
    step: int = 0
    scale: float = 1.0  # of both rates; shrinks with every roll-back
    losses: list[list[float]] = field(default_factory=list)
    validation: list[list[float]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    seconds: float = 0.0


def distil(
    images: Tensor,
    labels: Tensor,
    held_out: Examples | None,
    buffer: ExpertBuffer,
    network: Network,
    recipe: Recipe,
    run: Run,
) -> Distilled:
    """Optimise `images` (N, C, H, W), preprocessed, under `labels` (N,) or (N, K), to make students follow the experts.

    `held_out` are the real images on which everything is chosen; with None the last averaged images are taken, as the
    papers do. Interrupted at any moment, the same call goes on from the last restart point in `run.folder`.
    Raises FloatingPointError where matching diverges however small the rates are made.
    """
    matching = recipe.matching
    if not matching.lr_images_grid:
        return _optimise(images, labels, held_out, buffer, network, recipe, run)
    if held_out is None:
        raise ValueError("lr_images_grid needs validation images to choose by: set data.validation above 0")
    trials: list[tuple[float, float]] = []
    for lr in matching.lr_images_grid:
        short = dataclasses.replace(
            matching, lr_images=lr, outer_steps=matching.grid_steps, validate_every=matching.grid_steps
        )
        trial_run = dataclasses.replace(run, folder=run.folder / f"lr-{lr:g}")
        trial = _optimise(
            images, labels, held_out, buffer, network, dataclasses.replace(recipe, matching=short), trial_run
        )
        trials.append((max(trial.validation[-1][1:]), lr))
    chosen = max(trials)[1]
    tried = ", ".join(f"{lr:g}: {score:.3f}" for score, lr in trials)
    note = f"lr_images {chosen:g} chosen on validation after {matching.grid_steps} outer steps each ({tried})"
    run.report(Progress("matching", 0, matching.outer_steps, message=note))
    final = dataclasses.replace(recipe, matching=dataclasses.replace(matching, lr_images=chosen))
    result = _optimise(images, labels, held_out, buffer, network, final, run)
    return dataclasses.replace(result, notes=[note, *result.notes])


def estimate_seconds(images: Tensor, labels: Tensor, network: Network, recipe: Recipe, run: Run) -> float:
    """About how long matching will take, validation included, from two timed student steps."""
    matching = recipe.matching
    flat = FlatNetwork(network()).to(run.device)
    derivatives = Derivatives(flat, chunk_size=matching.chunk_size)
    weights = initial_weights(network, 0).to(run.device)
    size = min(matching.batch_size or len(images), len(images))
    batch, targets = images[:size].to(run.device), labels[:size].to(run.device)
    forward, both = [], []
    for _ in range(3):  # the first warms up
        begun = time.perf_counter()
        gradient = derivatives.gradient(weights, batch, targets)
        float(gradient[0])
        between = time.perf_counter()
        float(derivatives.product(weights, batch, targets, gradient)[0])
        forward.append(between - begun)
        both.append(time.perf_counter() - begun)
    steps = matching.outer_steps + len(matching.lr_images_grid) * matching.grid_steps
    trainings = 2 * (1 + matching.outer_steps // matching.validate_every) + 2 * len(matching.lr_images_grid)
    training = recipe.evaluation.validation.epochs * len(images) / size * min(forward[1:])
    return min(both[1:]) * matching.syn_steps * steps + (trainings * training if recipe.data.validation else 0.0)


def _optimise(
    images: Tensor,
    labels: Tensor,
    held_out: Examples | None,
    buffer: ExpertBuffer,
    network: Network,
    recipe: Recipe,
    run: Run,
) -> Distilled:
    matching = recipe.matching
    flat = FlatNetwork(network()).to(run.device)
    derivatives = Derivatives(flat, chunk_size=matching.chunk_size)
    labels = labels.to(run.device)
    run.folder.mkdir(parents=True, exist_ok=True)
    point, best = run.folder / "matching.safetensors", run.folder / "best.safetensors"
    state = _load(point, run.device) or _initial(images.to(run.device), matching)

    while True:
        due = state.step % matching.validate_every == 0 or state.step == matching.outer_steps
        if held_out is not None and due and not (state.validation and state.validation[-1][0] == state.step):
            state = _validated(state, labels, held_out, network, recipe, run, best)
            _save(point, state)
        if state.step == matching.outer_steps:
            break
        begun = time.perf_counter()
        after = _step(state, labels, derivatives, buffer, matching, run)
        if isinstance(after, str):
            state = _rolled_back(_load(point, run.device) or _initial(images.to(run.device), matching), state, after)
            run.report(Progress("matching", state.step, matching.outer_steps, message=state.notes[-1]))
            _save(point, state)
            continue
        state = dataclasses.replace(after, seconds=after.seconds + time.perf_counter() - begun)
        values = {"matching_loss": state.losses[-1][1], "step_size": state.step_size}
        if state.validation:
            values["validation_accuracy"] = max(state.validation[-1][1:])
        run.report(Progress("matching", state.step, matching.outer_steps, values))
        if state.step % matching.checkpoint_every == 0 or state.step == matching.outer_steps:
            _save(point, state)
    return _result(state, best, matching)


def _initial(images: Tensor, matching: MatchingRecipe) -> _State:
    zeros = torch.zeros_like(images)
    return _State(images, zeros, zeros, matching.initial_step_size)


def _step(
    state: _State, labels: Tensor, derivatives: Derivatives, buffer: ExpertBuffer, matching: MatchingRecipe, run: Run
) -> _State | str:
    """The state after one outer step, or why it must not be taken."""
    draws = run.generator("matching", state.step)
    expert = int(torch.randint(buffer.num_experts, (1,), generator=draws))
    epoch = int(torch.randint(matching.max_start_epoch, (1,), generator=draws))
    image_shape: tuple[int, int, int] = tuple(state.images.shape[1:])  # type: ignore[assignment]
    steps = draw_steps(
        len(state.images),
        image_shape,
        draws,
        syn_steps=matching.syn_steps,
        batch_size=matching.batch_size,
        operations=parse_augment(matching.augment),
        device=run.device,
    )
    matched = match(
        derivatives,
        state.images,
        labels,
        torch.tensor(state.step_size, device=run.device),
        buffer.weights(expert, epoch).to(run.device),
        buffer.weights(expert, epoch + matching.expert_epochs).to(run.device),
        steps,
    )
    loss = float(matched.loss)
    if not loss < LOSS_LIMIT:
        return f"the matching loss became {loss:.3g}"
    velocity = matching.momentum * state.velocity + matched.images_gradient
    images = state.images - matching.lr_images * state.scale * velocity
    if not torch.isfinite(images).all():
        return "an image became infinite or NaN"
    step_size_velocity = matching.momentum * state.step_size_velocity + float(matched.step_size_gradient)
    exponent = -matching.lr_step_size * state.scale * step_size_velocity / state.step_size
    if not abs(exponent) <= math.log(STEP_SIZE_FACTOR):
        return f"the step size {state.step_size:.3g} would have changed by a factor of e^{exponent:.3g}"
    step_size = state.step_size * math.exp(exponent)
    if not STEP_SIZE_LIMITS[0] <= step_size <= STEP_SIZE_LIMITS[1]:
        return f"the step size became {step_size:.3g}"
    return dataclasses.replace(
        state,
        images=images,
        velocity=velocity,
        average=matching.ema_decay * state.average + (1 - matching.ema_decay) * images,
        step_size=step_size,
        step_size_velocity=step_size_velocity,
        step=state.step + 1,
        losses=[*state.losses, [state.step + 1, loss]],
    )


def _rolled_back(point: _State, state: _State, why: str) -> _State:
    """The restart point with smaller rates and without momentum, and a note that says so."""
    scale = state.scale * SHRINK
    if scale < SHRINK**MAX_ROLLBACKS:
        raise FloatingPointError(
            f"matching diverged {MAX_ROLLBACKS + 1} times, the last time at outer step {state.step + 1}: {why}; "
            "start from a smaller matching.lr_images or matching.lr_step_size"
        )
    note = f"outer step {state.step + 1}: {why}; went back to step {point.step} with rates x {scale:g}"
    return dataclasses.replace(
        point,
        velocity=torch.zeros_like(point.velocity),
        step_size_velocity=0.0,
        scale=scale,
        notes=[*point.notes, note],
    )


def _averaged(state: _State, decay: float) -> Tensor:
    """The moving average of the images, corrected for having started at zero."""
    return state.images if state.step == 0 else state.average / (1 - decay**state.step)


def _validated(
    state: _State, labels: Tensor, held_out: Examples, network: Network, recipe: Recipe, run: Run, best: Path
) -> _State:
    """Measure raw and averaged images on held-out real images; keep them in `best` where nothing was better."""
    begun = time.perf_counter()
    candidates = {"raw": state.images, "averaged": _averaged(state, recipe.matching.ema_decay)}
    scores: dict[str, float] = {}
    for name, images in candidates.items():
        if state.step == 0 and name == "averaged":
            scores[name] = scores["raw"]
            continue
        # The same initialisation and draws at every checkpoint: they are compared with each other.
        with seeded(run.seed, "validation"):
            module = network().to(run.device)
        fit(
            module,
            Examples(images, labels),
            recipe.evaluation.validation,
            lr=recipe.evaluation.validation.lr or state.step_size,
            generator=generator(run.seed, "validation", "draws"),
        )
        scores[name] = accuracy(module, held_out)
    published = "initial" if state.step == 0 else max(scores, key=lambda name: scores[name])
    score = max(scores.values())
    if not state.validation or score > max(max(row[1:]) for row in state.validation):
        chosen = candidates.get(published, state.images)
        facts = {"step": state.step, "step_size": state.step_size, "published": published, "accuracy": score}
        _write(best, {"images": chosen}, facts)
    run.report(Progress("matching", state.step, recipe.matching.outer_steps, {"validation_accuracy": score}))
    return dataclasses.replace(
        state,
        validation=[*state.validation, [state.step, scores["raw"], scores["averaged"]]],
        seconds=state.seconds + time.perf_counter() - begun,
    )


def _result(state: _State, best: Path, matching: MatchingRecipe) -> Distilled:
    images, step_size, published, score = _averaged(state, matching.ema_decay), state.step_size, "averaged", None
    if state.validation:
        tensors, facts = _read(best)
        images, step_size = tensors["images"], facts["step_size"]
        published, score = facts["published"], facts["accuracy"]
    return Distilled(
        images.cpu(),
        step_size,
        published,
        score,
        matching.lr_images,
        state.losses,
        state.validation,
        state.notes,
        state.seconds,
    )


_TENSORS = ("images", "velocity", "average")


def _save(path: Path, state: _State) -> None:
    facts = {each.name: getattr(state, each.name) for each in dataclasses.fields(state) if each.name not in _TENSORS}
    _write(path, {name: getattr(state, name) for name in _TENSORS}, facts)


def _load(path: Path, device: torch.device) -> _State | None:
    if not path.exists():
        return None
    tensors, facts = _read(path)
    held: dict[str, Any] = {name: tensor.to(device) for name, tensor in tensors.items()}
    return _State(**held, **facts)


def _write(path: Path, tensors: dict[str, Tensor], facts: dict[str, Any]) -> None:
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    stored = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    save_file(stored, beside, metadata={"ftdnas": json.dumps(facts, sort_keys=True)})
    beside.replace(path)


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    with safe_open(path, framework="pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}, json.loads(file.metadata()["ftdnas"])  # noqa: SIM118
