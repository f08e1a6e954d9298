"""The outer loop: real images and a step size become a synthetic set by following expert trajectories.

FTD (arXiv 2211.11004) and MTT (arXiv 2203.11932) share it; they differ in how the experts were trained. Departures from
the papers: the step size moves by its logarithm, with the rate that gives the papers' update to first order, so it
stays positive, and by a factor of 2 at most; the moving average is corrected for its start; the checkpoint and whether
raw or averaged images are published are chosen on validation images, never on test images.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from distill.experts import ExpertBuffer
from distill.images.augment import parse_augment
from distill.matching import Match, draw_steps, match
from distill.randomness import generator, moved
from distill.recipe import MatchingRecipe, Recipe
from distill.restart import MatchingState, RestartPoints
from distill.run import Progress, Run
from distill.tensors import read_tensors, sound, write_tensors
from distill.training.derivatives import Derivatives, about_s, derivatives_for
from distill.training.examples import Examples
from distill.training.flat import FlatNetwork, Network, initial_weights
from distill.training.loop import trained_accuracy

LOSS_LIMIT = 100.0  # a matching loss above it, 1 being a student that stands still, is a student that blew up
STEP_SIZE_LIMITS = (1e-6, 10.0)
STEP_SIZE_FACTOR = 2.0  # the largest change of the step size in one outer step; what asks for more gets this
SHRINK = 0.5  # of both rates after a roll-back
RECOVERY = 100  # outer steps beyond the one that failed after which the rates are doubled again
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
    derivatives: dict[str, Any]  # whether compiled, and in chunks of how many images (None: whole minibatches)


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

    def optimise(recipe: Recipe, run: Run) -> Distilled:
        return _Matching(labels.to(run.device), held_out, experts, network, recipe, run).distilled(images)

    matching = recipe.matching
    if not matching.lr_images_grid:
        return optimise(recipe, run)
    if held_out is None:
        raise ValueError("lr_images_grid needs validation images to choose by: set data.validation above 0")
    scores: dict[float, float | None] = {}
    seconds = 0.0
    for lr in matching.lr_images_grid:
        scores[lr], spent = _trial(lr, optimise, recipe, run)
        seconds += spent
    tried = ", ".join(f"{lr:g}: {'unsteady' if score is None else f'{score:.3f}'}" for lr, score in scores.items())
    steady = {lr: score for lr, score in scores.items() if score is not None}
    if not steady:
        raise FloatingPointError(
            f"no lr_images of the grid was steady for {matching.grid_steps} outer steps ({tried}): "
            "give smaller ones in matching.lr_images_grid"
        )
    chosen = max(steady, key=lambda lr: (steady[lr], lr))
    note = f"lr_images {chosen:g} chosen on validation after {matching.grid_steps} outer steps each ({tried})"
    run.listener(Progress("matching", 0, matching.outer_steps, message=note))
    final = dataclasses.replace(recipe, matching=dataclasses.replace(matching, lr_images=chosen))
    result = optimise(final, run)
    return dataclasses.replace(result, notes=[note, *result.notes], seconds=seconds + result.seconds)


def _trial(
    lr: float, optimise: Callable[[Recipe, Run], Distilled], recipe: Recipe, run: Run
) -> tuple[float | None, float]:
    """The validation accuracy after a short run at a rate, None where that was not steady; and its seconds."""
    steps = recipe.matching.grid_steps
    short = dataclasses.replace(recipe.matching, lr_images=lr, outer_steps=steps, validate_every=steps)

    def listener(progress: Progress) -> None:
        run.listener(dataclasses.replace(progress, stage=f"trying lr_images {lr:g}"))

    own = dataclasses.replace(run, folder=run.folder / f"lr-{lr:g}", listener=listener)
    try:
        result = optimise(dataclasses.replace(recipe, matching=short), own)
    except FloatingPointError:
        return None, 0.0
    # A run that had to go back did not run at this rate.
    return None if result.notes else max(result.validation[-1][1:]), result.seconds


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


@dataclass(frozen=True, eq=False)
class _Matching:
    """One run of the outer loop: what all its steps read."""

    labels: Tensor
    held_out: Examples | None
    experts: ExpertBuffer
    network: Network
    recipe: Recipe
    run: Run

    @property
    def best(self) -> Path:
        """The file of the images that did best on validation."""
        return self.run.folder / "best.safetensors"

    def distilled(self, images: Tensor) -> Distilled:
        """Go on from the last restart point, or begin with `images`."""
        matching, run = self.recipe.matching, self.run
        points = RestartPoints(run.folder, run.device)
        images = images.to(run.device)
        zeros = torch.zeros_like(images)
        first = MatchingState(images, zeros, zeros, matching.initial_step_size)
        state = points.latest() or first
        if state.validation and not sound(self.best):  # only the same steps lead to it
            state = first
        if state.step == matching.outer_steps:
            return self._result(state)
        begun = time.perf_counter()
        derivatives = self._derivatives(state)
        state = _taken_by(derivatives, state, time.perf_counter() - begun)
        first = _taken_by(derivatives, first, 0.0)
        while True:
            if self._is_due(state):
                state = self._validated(state)
                points.keep(state)
            if state.step == matching.outer_steps:
                return self._result(state)
            begun = time.perf_counter()
            after = self._step(state, derivatives)
            if isinstance(after, str):
                point = points.latest() or first
                if point.step == state.step:  # what was kept there was ruined already
                    point = points.before() or first
                state = _taken_by(derivatives, _rolled_back(point, state, after), 0.0)
                self._tell(state, message=state.notes[-1])
                points.keep(state, latest_is_good=False)
                continue
            state = _taken_by(derivatives, after, time.perf_counter() - begun)
            values = {"matching_loss": state.losses[-1][1], "step_size": state.step_size}
            if state.validation:
                values["validation_accuracy"] = max(state.validation[-1][1:])
            self._tell(state, values)
            last = state.step == matching.outer_steps
            if (last or state.step % matching.checkpoint_every == 0) and not self._is_due(state):
                points.keep(state)

    def _tell(self, state: MatchingState, values: Mapping[str, float] | None = None, message: str = "") -> None:
        self.run.listener(Progress("matching", state.step, self.recipe.matching.outer_steps, values or {}, message))

    def _is_due(self, state: MatchingState) -> bool:
        """Whether the images are to be validated after this step, and were not yet."""
        matching = self.recipe.matching
        if self.held_out is None or (state.validation and state.validation[-1][0] == state.step):
            return False
        return state.step % matching.validate_every == 0 or state.step == matching.outer_steps

    def _derivatives(self, state: MatchingState) -> Derivatives:
        """As the run was begun with; where it begins, what is done sooner."""
        matching, run = self.recipe.matching, self.run
        size = min(matching.batch_size or len(self.labels), len(self.labels))
        say = functools.partial(self._tell, state, None)
        flat = FlatNetwork(self.network()).to(run.device)
        made = derivatives_for(
            flat,
            initial_weights(self.network, 0).to(run.device),
            state.images[:size],
            self.labels[:size],
            calls=matching.syn_steps * (matching.outer_steps - state.step),
            second=True,
            precision=matching.precision,
            chunk_size=state.chunk_size or matching.chunk_size,
            budget_bytes=run.memory_bytes if state.compiled is None else None,
            beside_bytes=(matching.syn_steps + 4) * flat.size * 4,
            compiled=run.compiled if state.compiled is None else state.compiled,
            say=say,
        )
        if made.compiled:
            say("the student's steps are compiled")
        if state.compiled is not None and (run.memory_bytes is not None or run.compiled not in (None, state.compiled)):
            say("going on with derivatives taken as the run was begun, whatever is asked for now")
        if state.compiled and not made.compiled:
            say("the run was begun with compiled derivatives: the set may differ in its last bits")
        return made

    def _step(self, state: MatchingState, derivatives: Derivatives) -> MatchingState | str:
        """The state after one outer step, or why it must not be taken."""
        matching, experts, device = self.recipe.matching, self.experts, self.run.device
        draws = generator(self.run.seed, "matching", state.step)
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
            device=device,
        )
        start, target = experts.weights(expert, epoch), experts.weights(expert, epoch + matching.expert_epochs)
        if torch.equal(start, target):
            raise ValueError(
                f"expert {expert} did not move from epoch {epoch} to {epoch + matching.expert_epochs}: "
                "experts.lr is too small"
            )
        step_size = torch.tensor(state.step_size, device=device)
        start, target = moved(start, device), moved(target, device)
        matched = match(derivatives, state.images, self.labels, step_size, start, target, steps)
        return _moved(state, matched, matching)

    def _validated(self, state: MatchingState) -> MatchingState:
        """Measure raw and averaged images on held-out real images; keep them in `best` where nothing was better."""
        assert self.held_out is not None
        begun = time.perf_counter()
        candidates = {"raw": state.images, "averaged": _averaged(state, self.recipe.matching.ema_decay)}
        training = self.recipe.evaluation.validation
        scores: dict[str, float] = {}
        for name, images in candidates.items():
            if state.step == 0 and name == "averaged":
                scores[name] = scores["raw"]
                continue
            # The same initialisation and draws at every checkpoint: they are compared with each other.
            reached = trained_accuracy(
                self.network,
                Examples(images, self.labels),
                self.held_out,
                training,
                lr=training.lr or state.step_size,
                seed=self.run.seed,
                purpose="validation",
                listener=lambda progress: self.run.listener(dataclasses.replace(progress, stage="validating")),
            )
            scores[name] = reached.accuracy
        published = "initial" if state.step == 0 else max(scores, key=lambda name: scores[name])
        score = max(scores.values())
        if not state.validation or score > max(max(row[1:]) for row in state.validation):
            chosen = candidates.get(published, state.images)
            facts = {"step": state.step, "step_size": state.step_size, "published": published, "accuracy": score}
            write_tensors(self.best, {"images": chosen}, facts)
        self._tell(state, {"validation_accuracy": score})
        return dataclasses.replace(
            state,
            validation=[*state.validation, [state.step, scores["raw"], scores["averaged"]]],
            seconds=state.seconds + time.perf_counter() - begun,
        )

    def _result(self, state: MatchingState) -> Distilled:
        matching = self.recipe.matching
        images, step_size, published, score = _averaged(state, matching.ema_decay), state.step_size, "averaged", None
        if state.validation:
            tensors, facts = read_tensors(self.best)
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


def _taken_by(derivatives: Derivatives, state: MatchingState, seconds: float) -> MatchingState:
    """The state with how its derivatives are taken, and so many more seconds."""
    return dataclasses.replace(
        state, compiled=derivatives.compiled, chunk_size=derivatives.chunk_size, seconds=state.seconds + seconds
    )


def _moved(state: MatchingState, matched: Match, matching: MatchingRecipe) -> MatchingState | str:
    """The state after a descent along the gradients, or why it must not be taken."""
    loss = float(matched.loss)
    if not loss < LOSS_LIMIT:
        return f"the matching loss became {loss:.3g}"
    velocity = matching.momentum * state.velocity + matched.images_gradient
    images = state.images - matching.lr_images * state.scale * velocity
    if not torch.isfinite(images).all():
        return "an image became infinite or NaN"
    step_size_velocity = matching.momentum * state.step_size_velocity + float(matched.step_size_gradient)
    exponent = -matching.lr_step_size * state.scale * step_size_velocity / state.step_size
    if math.isnan(exponent):
        return "the gradient of the step size became NaN"
    most = math.log(STEP_SIZE_FACTOR)
    step_size = state.step_size * math.exp(min(max(exponent, -most), most))
    if not STEP_SIZE_LIMITS[0] <= step_size <= STEP_SIZE_LIMITS[1]:
        return f"the step size became {step_size:.3g}"
    step = state.step + 1
    recovered = state.scale < 1 and step >= state.recovers_at
    return dataclasses.replace(
        state,
        images=images,
        velocity=velocity,
        average=matching.ema_decay * state.average + (1 - matching.ema_decay) * images,
        step_size=step_size,
        step_size_velocity=step_size_velocity,
        step=step,
        scale=state.scale / SHRINK if recovered else state.scale,
        recovers_at=step + RECOVERY if recovered else state.recovers_at,
        losses=[*state.losses, [step, loss]],
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
        recovers_at=state.step + 1 + RECOVERY,
        notes=[*state.notes, note],
    )


def _averaged(state: MatchingState, decay: float) -> Tensor:
    """The moving average of the images, corrected for having started at zero."""
    return state.images if state.step == 0 else state.average / (1 - decay**state.step)
