"""The outer loop on real digits: it learns, survives interruption bit for bit, and guards itself."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from distill import distiller
from distill.distiller import Distilled, distil, estimate_seconds
from distill.experts import ExpertBuffer, train_experts
from distill.images.datasets import ImageDataset
from distill.matching import Match
from distill.methods import fitted_preprocess, initial_images
from distill.recipe import MatchingRecipe, Recipe
from distill.restart import MatchingState
from distill.run import Listener, Progress, Run, ignore
from distill.training.examples import Examples

BuildTiny = Callable[..., Callable[[], nn.Module]]
MakeRun = Callable[..., Run]


class Setting:
    """Digits, their experts and the real images to start from, made once per module."""

    def __init__(self, data: ImageDataset, network: Callable[[], nn.Module], recipe: Recipe, run: Run):
        self.network, self.recipe = network, recipe
        preprocess = fitted_preprocess(data, recipe, run)
        self.trajectories: ExpertBuffer = train_experts(data, preprocess, network, recipe, run)
        self.images, self.labels = initial_images(data, preprocess, recipe, run)
        self.held_out = Examples.from_split(data.choose(), preprocess)

    def with_matching(self, **changes: Any) -> Recipe:
        return dataclasses.replace(self.recipe, matching=dataclasses.replace(self.recipe.matching, **changes))

    def distil(self, run: Run, recipe: Recipe | None = None, held_out: bool = True) -> Distilled:
        return distil(
            self.images,
            self.labels,
            self.held_out if held_out else None,
            self.trajectories,
            self.network,
            recipe or self.recipe,
            run,
        )


@pytest.fixture(scope="module")
def setting(
    digits: ImageDataset, tiny_network: BuildTiny, small_recipe: Recipe, tmp_path_factory: pytest.TempPathFactory
) -> Setting:
    folder = tmp_path_factory.mktemp("setting")
    return Setting(digits, tiny_network(), small_recipe, Run(0, folder / "run", folder / "shared"))


@pytest.fixture(scope="module")
def undisturbed(setting: Setting, tmp_path_factory: pytest.TempPathFactory) -> Distilled:
    folder = tmp_path_factory.mktemp("undisturbed")
    return setting.distil(Run(0, folder / "run", folder / "shared"))


def test_matching_follows_the_experts_and_reports(setting: Setting, make_run: MakeRun) -> None:
    seen: list[Progress] = []
    result = setting.distil(make_run(listener=seen.append), setting.with_matching(outer_steps=40))
    still = setting.distil(
        make_run("still"), setting.with_matching(outer_steps=40, lr_images=0.0, lr_step_size=0.0), held_out=False
    )
    # Both draw the same segments: only what was learned tells their losses apart.
    assert len(result.losses) == len(still.losses) == 40
    learned, unlearned = (sum(loss for _, loss in run.losses[20:]) for run in (result, still))
    assert learned < 0.9 * unlearned
    assert not torch.equal(result.images, setting.images)
    assert [row[0] for row in result.validation] == [0, 6, 12, 18, 24, 30, 36, 40]
    assert result.validation_accuracy == max(max(row[1:]) for row in result.validation)
    assert result.seconds > 0
    assert {progress.stage for progress in seen} == {"matching", "validating"}
    assert seen[-1].done == seen[-1].total == 40
    steps = [progress for progress in seen if "matching_loss" in progress.values]
    assert {"matching_loss", "step_size", "validation_accuracy"} <= set(steps[-1].values)


class _StoppedError(Exception):
    pass


@pytest.mark.parametrize("stop_at", [1, 5, 6, 11])
def test_an_interrupted_run_ends_in_the_same_set(
    setting: Setting, undisturbed: Distilled, make_run: MakeRun, stop_at: int
) -> None:
    def stop(progress: Progress) -> None:
        if progress.stage == "matching" and progress.done == stop_at:
            raise _StoppedError

    with pytest.raises(_StoppedError):
        setting.distil(make_run("broken", listener=stop))
    resumed = setting.distil(make_run("broken"))
    assert torch.equal(resumed.images, undisturbed.images)
    for name in ("step_size", "published", "losses", "validation", "notes"):
        assert getattr(resumed, name) == getattr(undisturbed, name)


def test_a_memory_budget_is_kept_to_after_an_interruption_as_the_run_was_begun(
    setting: Setting, make_run: MakeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("distill.training.derivatives.taken_bytes", lambda device: 0)  # noqa: ARG005
    seen: list[Progress] = []

    def stop(progress: Progress) -> None:
        if progress.stage == "matching" and progress.done == 1 and progress.values:
            raise _StoppedError

    def cut(name: str, listener: Listener, memory_bytes: int | None) -> Run:
        return dataclasses.replace(make_run(name, listener=listener), memory_bytes=memory_bytes)

    with pytest.raises(_StoppedError):
        setting.distil(cut("broken", stop, 400_000))
    resumed = setting.distil(cut("broken", seen.append, 10_000_000))
    undisturbed = setting.distil(cut("whole", ignore, 400_000))
    assert torch.equal(resumed.images, undisturbed.images)
    assert resumed.derivatives == undisturbed.derivatives
    assert 1 <= resumed.derivatives["chunk_size"] < len(setting.images)
    assert any("as the run was begun" in progress.message for progress in seen)


def test_a_finished_run_is_not_repeated(setting: Setting, make_run: MakeRun) -> None:
    first = setting.distil(make_run())
    seen: list[Progress] = []
    again = setting.distil(make_run(listener=seen.append))
    assert seen == []
    assert torch.equal(first.images, again.images)


def test_without_validation_the_last_averaged_images_are_taken(setting: Setting, make_run: MakeRun) -> None:
    result = setting.distil(make_run(), held_out=False)
    assert (result.published, result.validation_accuracy, result.validation) == ("averaged", None, [])
    raw = setting.distil(make_run("raw"), setting.with_matching(ema_decay=0.0), held_out=False)
    assert result.losses == raw.losses
    assert not torch.equal(result.images, raw.images)


def test_the_average_is_corrected_for_its_start(setting: Setting, make_run: MakeRun) -> None:
    """One step: the average of one image is that image, whatever the decay."""
    one, raw = (
        setting.distil(
            make_run(f"decay {decay}"), setting.with_matching(outer_steps=1, ema_decay=decay), held_out=False
        )
        for decay in (0.999, 0.0)
    )
    assert torch.allclose(one.images, raw.images, atol=1e-4)


def test_real_images_are_published_where_distilling_made_them_worse(setting: Setting, make_run: MakeRun) -> None:
    good_start = setting.with_matching(outer_steps=2, lr_images=3000.0, validate_every=1)
    result = setting.distil(make_run(), good_start)
    scores = [max(row[1:]) for row in result.validation]
    if scores[0] >= max(scores[1:]):
        assert result.published == "initial"
        assert torch.equal(result.images, setting.images)
    else:
        assert result.published in ("raw", "averaged")


def moved(state: MatchingState, asked: float = 0.0, loss: float = 0.8) -> MatchingState | str:
    """A step whose gradient asks for e^`asked` times the step size."""
    recipe = MatchingRecipe(lr_step_size=1e-5, momentum=0.5)
    gradient = torch.tensor(-asked * state.step_size / (recipe.lr_step_size * state.scale))
    return distiller._moved(state, Match(torch.tensor(loss), torch.ones(2, 1, 4, 4), gradient), recipe)


def test_a_large_move_of_the_step_size_is_clipped_and_nothing_goes_back() -> None:
    """What the paper's own recipe asks for at its second outer step, for CIFAR-10 and ten images per class."""
    begin = MatchingState(torch.zeros(2, 1, 4, 4), torch.zeros(2, 1, 4, 4), torch.zeros(2, 1, 4, 4), 0.000585)
    for asked, factor in ((-0.81, 0.5), (-0.6, math.exp(-0.6)), (5.0, 2.0), (-math.inf, 0.5)):
        after = moved(begin, asked)
        assert isinstance(after, MatchingState)
        assert after.step_size == pytest.approx(factor * begin.step_size)
        assert (after.step, after.scale, after.notes) == (1, 1.0, [])
    assert moved(begin, math.nan) == "the gradient of the step size became NaN"


def test_rates_grow_again_after_enough_good_steps_beyond_the_one_that_failed() -> None:
    zeros = torch.zeros(2, 1, 4, 4)
    failed = MatchingState(zeros, zeros, zeros, 0.01, step=30)
    state = distiller._rolled_back(distiller._rolled_back(failed, failed, "once"), failed, "again")
    assert state.scale == 0.5
    state = distiller._rolled_back(dataclasses.replace(failed, step=10), state, "again")
    assert (state.step, state.scale) == (10, 0.25)
    scales = {}
    while state.step < 400:
        after = moved(state)
        assert isinstance(after, MatchingState)
        state = after
        scales[state.step] = state.scale
    assert [scales[step] for step in (11, 130, 131, 230, 231, 400)] == [0.25, 0.25, 0.5, 0.5, 1.0, 1.0]
    assert len(state.notes) == 2


def test_divergence_rolls_back_shrinks_the_rates_and_says_so(
    setting: Setting, make_run: MakeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(distiller, "SHRINK", 1e-29)
    seen: list[Progress] = []
    recipe = setting.with_matching(lr_images=1e30)
    result = setting.distil(make_run(listener=seen.append), recipe, held_out=False)
    assert result.notes
    assert "went back to step" in result.notes[0]
    assert "rates x 1e-29" in result.notes[0]
    assert result.notes[0] in [progress.message for progress in seen]
    assert torch.isfinite(result.images).all()
    assert result.step_size > 0
    assert len(result.losses) == 12


def test_a_restart_point_that_was_ruined_is_left_behind(
    setting: Setting, make_run: MakeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a point after every step the step that ruins the images is kept, and going on from it fails at once."""
    monkeypatch.setattr(distiller, "SHRINK", 1e-29)
    recipe = setting.with_matching(lr_images=1e30, checkpoint_every=1)
    result = setting.distil(make_run(), recipe, held_out=False)
    assert len(result.notes) == 1
    assert result.notes[0].startswith("outer step 2: ")
    assert "went back to step 0" in result.notes[0]
    assert len(result.losses) == 12
    assert result.images.abs().max() < 1e3


def test_divergence_without_end_is_an_error_that_names_the_way_out(setting: Setting, make_run: MakeRun) -> None:
    with pytest.raises(FloatingPointError, match=r"diverged 11 times.*matching\.lr_images"):
        setting.distil(make_run(), setting.with_matching(lr_images=1e38), held_out=False)


def test_the_rate_of_the_images_is_chosen_on_validation(setting: Setting, make_run: MakeRun) -> None:
    recipe = setting.with_matching(lr_images_grid=(0.1, 30.0), grid_steps=8, lr_images=7.0)
    seen: list[Progress] = []
    result = setting.distil(make_run(listener=seen.append), recipe)
    assert result.lr_images in (0.1, 30.0)
    assert result.notes[0].startswith(f"lr_images {result.lr_images:g} chosen on validation after 8 outer steps each")
    assert result.notes[0] in [progress.message for progress in seen]
    alone = setting.distil(make_run("alone"), setting.with_matching(lr_images=result.lr_images))
    assert torch.equal(alone.images, result.images)
    unsteady = setting.with_matching(lr_images_grid=(1e38, 30.0), grid_steps=8)
    result = setting.distil(make_run("unsteady"), unsteady)
    assert result.lr_images == 30.0
    assert "1e+38: unsteady" in result.notes[0]
    with pytest.raises(FloatingPointError, match="no lr_images of the grid was steady"):
        setting.distil(make_run("hopeless"), setting.with_matching(lr_images_grid=(1e38,), grid_steps=8))
    with pytest.raises(ValueError, match="needs validation images"):
        setting.distil(make_run("none"), recipe, held_out=False)


def test_soft_labels_go_through_the_whole_loop(setting: Setting, make_run: MakeRun) -> None:
    soft = torch.full((20, 10), 0.02)
    soft[torch.arange(20), setting.labels] = 0.82
    result = distil(
        setting.images, soft, setting.held_out, setting.trajectories, setting.network, setting.recipe, make_run()
    )
    assert result.validation_accuracy is not None
    hard = setting.distil(make_run("hard"))
    assert len(result.losses) == len(hard.losses)
    assert result.losses != hard.losses


def test_the_estimate_grows_with_the_work(setting: Setting, make_run: MakeRun) -> None:
    def seconds(**changes: Any) -> float:
        return estimate_seconds(
            setting.images, setting.labels, setting.network, setting.with_matching(**changes), make_run()
        )

    assert seconds(outer_steps=10_000, validate_every=10_000) > 20 * seconds(outer_steps=100, validate_every=100) > 0


def test_checkpoints_are_written_whole(setting: Setting, make_run: MakeRun, monkeypatch: pytest.MonkeyPatch) -> None:
    """A failure between writing and renaming leaves the last whole restart point."""
    run = make_run()
    setting.distil(run, setting.with_matching(outer_steps=3))
    before = (run.folder / "matching.safetensors").read_bytes()

    def fail(self: Path, target: Path) -> Path:
        raise OSError(f"cannot rename {self} to {target}")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", fail)
        with pytest.raises(OSError, match="cannot rename"):
            setting.distil(run)
    assert (run.folder / "matching.safetensors").read_bytes() == before


@pytest.mark.parametrize("damaged", [["matching"], ["matching", "matching.before"], ["best"]])
def test_a_damaged_restart_point_is_set_aside_and_the_steps_are_taken_again(
    setting: Setting, make_run: MakeRun, damaged: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    run = make_run()
    begun = setting.with_matching(outer_steps=4, checkpoint_every=2, validate_every=2)
    sound = setting.distil(run, begun)
    images = sound.images.clone()  # they are mapped from the file
    for name in damaged:
        file = run.folder / f"{name}.safetensors"
        content = bytearray(file.read_bytes())
        content[-5] ^= 0x80  # a sign
        file.write_bytes(content)
    again = setting.distil(run, begun)
    assert torch.equal(again.images, images)
    assert again.losses == sound.losses
    for name in damaged:
        assert f"{name}.safetensors is damaged: it is set aside" in caplog.text
        assert (run.folder / f"{name}.safetensors.damaged").exists()


def test_settings_of_the_papers_are_the_defaults() -> None:
    matching = MatchingRecipe()
    assert (matching.outer_steps, matching.syn_steps, matching.expert_epochs, matching.momentum) == (5000, 30, 2, 0.5)
