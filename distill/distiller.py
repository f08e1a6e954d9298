"""The outer loop: real images and a step size become a synthetic set by following expert trajectories.

FTD (arXiv 2211.11004) and MTT (arXiv 2203.11932) share it; they differ in how the experts were trained. Departures from
the papers: the step size moves by its logarithm, with the rate that gives the papers' update to first order, so it
stays positive; the moving average is corrected for its start; the checkpoint and whether raw or averaged images are
published are chosen on validation images, never on test images.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from distill.experts import ExpertBuffer
from distill.files import whole_file
from distill.images.augment import parse_augment
from distill.matching import draw_steps, match
from distill.recipe import MatchingRecipe, Recipe
from distill.restart import MatchingState, RestartPoints, read_tensors, write_tensors
from distill.run import Progress, Run
from distill.training.derivatives import Derivatives, about_s, derivatives_for
from distill.training.examples import Examples
from distill.training.flat import FlatNetwork, Network, initial_weights
from distill.training.loop import trained_accuracy

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
    derivatives: dict[
        str, Any
    ]  # whether they were compiled, and in chunks of how many images (None: whole minibatches)


def distil(
    images: Tensor,
    labels: Tensor,
    held_out: Examples | None,
    experts: ExpertBuffer,
    network: Network,
    recipe: Recipe,
    run: Run,
) -> Distilled:
    """Optimise `images` (N, C, H, W), preprocessed, under `labels` (N,) or (N, K), to make students follow the experts.

    `held_out` are the real images on which everything is chosen; with None the last averaged images are taken, as the
    papers do. Interrupted at any moment, the same call goes on from the last restart point in `run.folder`.
    Raises FloatingPointError where matching diverges however small the rates are made.
    """
    optimise = functools.partial(_optimise, images, labels, held_out, experts, network)
    matching = recipe.matching
    if not matching.lr_images_grid:
        return optimise(recipe, run)
    if held_out is None:
        raise ValueError("lr_images_grid needs validation images to choose by: set data.validation above 0")
    trials = [_trial(lr, optimise, recipe, run) for lr in matching.lr_images_grid]
    tried = ", ".join(trial.outcome for trial in trials)
    steady = [trial for trial in trials if trial.score is not None]
    if not steady:
        raise FloatingPointError(
            f"no lr_images of the grid was steady for {matching.grid_steps} outer steps ({tried}): "
            "give smaller ones in matching.lr_images_grid"
        )
    chosen = max(steady, key=lambda trial: (trial.score or 0.0, trial.lr)).lr
    note = f"lr_images {chosen:g} chosen on validation after {matching.grid_steps} outer steps each ({tried})"
    run.listener(Progress("matching", 0, matching.outer_steps, message=note))
    final = dataclasses.replace(recipe, matching=dataclasses.replace(matching, lr_images=chosen))
    result = optimise(final, run)
    spent = result.seconds + sum(trial.seconds for trial in trials)
    return dataclasses.replace(result, notes=[note, *result.notes], seconds=spent)


@dataclass(frozen=True)
class _Trial:
    """A learning rate of the images and the validation accuracy after a short run, None where that was not steady."""

    lr: float
    score: float | None
    seconds: float

    @property
    def outcome(self) -> str:
        return f"{self.lr:g}: {'unsteady' if self.score is None else f'{self.score:.3f}'}"


def _trial(lr: float, optimise: Callable[[Recipe, Run], Distilled], recipe: Recipe, run: Run) -> _Trial:
    steps = recipe.matching.grid_steps
    short = dataclasses.replace(recipe.matching, lr_images=lr, outer_steps=steps, validate_every=steps)

    def listener(progress: Progress) -> None:
        run.listener(dataclasses.replace(progress, stage=f"trying lr_images {lr:g}"))

    own = dataclasses.replace(run, folder=run.folder / f"lr-{lr:g}", listener=listener)
    try:
        result = optimise(dataclasses.replace(recipe, matching=short), own)
    except FloatingPointError:
        return _Trial(lr, None, 0.0)
    # A run that had to go back did not run at this rate.
    score = None if result.notes else max(result.validation[-1][1:])
    return _Trial(lr, score, result.seconds)


def estimate_seconds(images: Tensor, labels: Tensor, network: Network, recipe: Recipe, run: Run) -> float:
    """About how long matching will take, validation included, from two timed student steps."""
    matching = recipe.matching
    flat = FlatNetwork(network()).to(run.device)
    derivatives = Derivatives(flat, precision=matching.precision, chunk_size=matching.chunk_size)
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
    trainings = 1 + 2 * -(-matching.outer_steps // matching.validate_every) + 3 * len(matching.lr_images_grid)
    training = recipe.evaluation.validation.epochs * len(images) / size * min(forward[1:])
    matched = min(both[1:]) * matching.syn_steps * steps
    matched = matched if run.compiled is False else about_s(matched, second=True)
    return matched + (trainings * training if recipe.data.validation else 0.0)


def _optimise(
    images: Tensor,
    labels: Tensor,
    held_out: Examples | None,
    experts: ExpertBuffer,
    network: Network,
    recipe: Recipe,
    run: Run,
) -> Distilled:
    matching = recipe.matching
    labels = labels.to(run.device)
    points, best = RestartPoints(run.folder, run.device), run.folder / "best.safetensors"
    state = points.latest() or _initial(images.to(run.device), matching)
    if state.step == matching.outer_steps:
        return _result(state, best, matching)
    begun = time.perf_counter()
    derivatives = _derivatives(state, labels, network, matching, run)
    state = _taken_by(derivatives, state, time.perf_counter() - begun)
    initial = _taken_by(derivatives, _initial(images.to(run.device), matching), 0.0)

    def due(step: int) -> bool:
        return held_out is not None and (step % matching.validate_every == 0 or step == matching.outer_steps)

    while True:
        if held_out is not None and due(state.step) and not _is_validated(state):
            state = _validated(state, labels, held_out, network, recipe, run, best)
            points.keep(state)
        if state.step == matching.outer_steps:
            break
        begun = time.perf_counter()
        after = _step(state, labels, derivatives, experts, matching, run)
        if isinstance(after, str):
            point = points.latest() or initial
            if point.step == state.step:  # what was kept there was ruined already
                point = points.before() or initial
            state = _taken_by(derivatives, _rolled_back(point, state, after), 0.0)
            run.listener(Progress("matching", state.step, matching.outer_steps, message=state.notes[-1]))
            points.keep(state, latest_is_good=False)
            continue
        state = _taken_by(derivatives, after, time.perf_counter() - begun)
        values = {"matching_loss": state.losses[-1][1], "step_size": state.step_size}
        if state.validation:
            values["validation_accuracy"] = max(state.validation[-1][1:])
        run.listener(Progress("matching", state.step, matching.outer_steps, values))
        last = state.step == matching.outer_steps
        if (last or state.step % matching.checkpoint_every == 0) and not due(state.step):
            points.keep(state)
    return _result(state, best, matching)


def _derivatives(
    state: MatchingState, labels: Tensor, network: Network, matching: MatchingRecipe, run: Run
) -> Derivatives:
    """As the run was begun with; where it begins, what is done sooner."""
    size = min(matching.batch_size or len(labels), len(labels))

    def say(message: str) -> None:
        run.listener(Progress("matching", state.step, matching.outer_steps, message=message))

    flat = FlatNetwork(network()).to(run.device)
    found = derivatives_for(
        flat,
        initial_weights(network, 0).to(run.device),
        state.images[:size],
        labels[:size],
        calls=matching.syn_steps * (matching.outer_steps - state.step),
        second=True,
        precision=matching.precision,
        chunk_size=state.chunk_size or matching.chunk_size,
        budget_bytes=run.memory_bytes if state.compiled is None else None,
        beside_bytes=(matching.syn_steps + 4) * flat.size * 4,
        compiled=run.compiled if state.compiled is None else state.compiled,
        say=say,
    )
    if found.compiled:
        say("the student's steps are compiled")
    if state.compiled is not None and (run.memory_bytes is not None or run.compiled not in (None, state.compiled)):
        say("going on with derivatives taken as the run was begun, whatever is asked for now")
    if state.compiled and not found.compiled:
        say("the run was begun with compiled derivatives: the set may differ in its last bits")
    return found


def _taken_by(derivatives: Derivatives, state: MatchingState, seconds: float) -> MatchingState:
    """The state with how its derivatives are taken, and so many more seconds."""
    return dataclasses.replace(
        state,
        compiled=derivatives.compiled,
        chunk_size=derivatives.chunk_size,
        seconds=state.seconds + seconds,
    )


def _is_validated(state: MatchingState) -> bool:
    return bool(state.validation) and state.validation[-1][0] == state.step


def _initial(images: Tensor, matching: MatchingRecipe) -> MatchingState:
    zeros = torch.zeros_like(images)
    return MatchingState(images, zeros, zeros, matching.initial_step_size)


def _step(
    state: MatchingState,
    labels: Tensor,
    derivatives: Derivatives,
    experts: ExpertBuffer,
    matching: MatchingRecipe,
    run: Run,
) -> MatchingState | str:
    """The state after one outer step, or why it must not be taken."""
    draws = run.generator("matching", state.step)
    expert = int(torch.randint(experts.num_experts, (1,), generator=draws))
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
    start, target = experts.weights(expert, epoch), experts.weights(expert, epoch + matching.expert_epochs)
    if torch.equal(start, target):
        raise ValueError(
            f"expert {expert} did not move from epoch {epoch} to {epoch + matching.expert_epochs}: "
            "experts.lr is too small"
        )
    matched = match(
        derivatives,
        state.images,
        labels,
        torch.tensor(state.step_size, device=run.device),
        start.to(run.device),
        target.to(run.device),
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


def _rolled_back(point: MatchingState, state: MatchingState, why: str) -> MatchingState:
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
        notes=[*state.notes, note],
    )


def _averaged(state: MatchingState, decay: float) -> Tensor:
    """The moving average of the images, corrected for having started at zero."""
    return state.images if state.step == 0 else state.average / (1 - decay**state.step)


def _validated(
    state: MatchingState, labels: Tensor, held_out: Examples, network: Network, recipe: Recipe, run: Run, best: Path
) -> MatchingState:
    """Measure raw and averaged images on held-out real images; keep them in `best` where nothing was better."""
    begun = time.perf_counter()
    candidates = {"raw": state.images, "averaged": _averaged(state, recipe.matching.ema_decay)}
    training = recipe.evaluation.validation
    scores: dict[str, float] = {}
    for name, images in candidates.items():
        if state.step == 0 and name == "averaged":
            scores[name] = scores["raw"]
            continue
        # The same initialisation and draws at every checkpoint: they are compared with each other.
        reached = trained_accuracy(
            network,
            Examples(images, labels),
            held_out,
            training,
            lr=training.lr or state.step_size,
            seed=run.seed,
            purpose="validation",
            listener=lambda progress: run.listener(dataclasses.replace(progress, stage="validating")),
        )
        scores[name] = reached.accuracy
    published = "initial" if state.step == 0 else max(scores, key=lambda name: scores[name])
    score = max(scores.values())
    if not state.validation or score > max(max(row[1:]) for row in state.validation):
        chosen = candidates.get(published, state.images)
        facts = {"step": state.step, "step_size": state.step_size, "published": published, "accuracy": score}
        with whole_file(best) as beside:
            write_tensors(beside, {"images": chosen}, facts)
    run.listener(Progress("matching", state.step, recipe.matching.outer_steps, {"validation_accuracy": score}))
    return dataclasses.replace(
        state,
        validation=[*state.validation, [state.step, scores["raw"], scores["averaged"]]],
        seconds=state.seconds + time.perf_counter() - begun,
    )


def _result(state: MatchingState, best: Path, matching: MatchingRecipe) -> Distilled:
    images, step_size, published, score = _averaged(state, matching.ema_decay), state.step_size, "averaged", None
    if state.validation:
        tensors, facts = read_tensors(best)
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
        {"compiled": state.compiled, "chunk_size": state.chunk_size},
    )
