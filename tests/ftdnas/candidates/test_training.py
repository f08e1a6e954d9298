"""One training is one row: equal wherever it runs, keyed by all it depends on, None with a reason where it fails."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from distill.images.datasets import ImageDataset
from distill.recipe import TrainingRecipe
from distill.synthetic import SyntheticSet
from distill.training.examples import Examples
from distill.training.loop import Targets
from ftdnas.agreement.fractions import chance_bound
from ftdnas.candidates.cost import CostModel, TimedStep, fit_cost
from ftdnas.candidates.handover import hand_over
from ftdnas.candidates.materials import Label, Shelf, Taught, held_out_material, set_material
from ftdnas.candidates.reading import guess_loss, is_dead, late_loss, score_value
from ftdnas.candidates.screening import SCORES, Screening
from ftdnas.candidates.training import Score, Training, score
from ftdnas.candidates.truth import truth_materials
from ftdnas.runtime.processes import Failure, LocalProcesses

SetOf = Callable[..., SyntheticSet]

RECIPE = TrainingRecipe(epochs=12, lr=0.02)
NAME = "convnet:width=32,depth=1,norm=instance,activation=relu,pooling=avg"


@pytest.fixture(scope="module")
def synthetic(digits: ImageDataset, set_of: SetOf) -> SyntheticSet:
    return set_of(digits, backbone=NAME)


@pytest.fixture(scope="module")
def shelf(digits: ImageDataset, synthetic: SyntheticSet) -> Shelf:
    materials = [set_material(synthetic, "tiny"), held_out_material(digits, synthetic.preprocess)]
    return {material.label.fingerprint: material for material in materials}


@pytest.fixture(scope="module")
def training(shelf: Shelf) -> Training:
    learned, held_out = shelf.values()
    return Training(NAME, learned.label, held_out.label, RECIPE, seed=0)


def test_a_training_learns_and_gives_the_same_row_again(training: Training, shelf: Shelf) -> None:
    first, second = Score.from_row(training(shelf)), Score.from_row(training(shelf))
    assert first.score is not None
    assert first.score > 0.3  # chance is 0.1
    assert replace(first, seconds=0.0) == replace(second, seconds=0.0)
    assert first.late_loss is not None
    assert len(first.losses) == 12  # one batch an epoch
    assert first.losses[0] is not None
    assert first.late_loss < first.losses[0]
    assert first.held_out == ((1.0, first.score, first.held_out_loss),)
    assert not first.dead


def test_a_row_survives_json(training: Training, shelf: Shelf) -> None:
    row = training(shelf)
    score = Score.from_row(row)
    assert json.loads(json.dumps(row, allow_nan=False)) == row == score.to_row()
    assert Score.from_row({**row, "of a later version": 1}) == score


def test_a_row_of_an_earlier_version_is_read_and_found_again() -> None:
    """As the first version wrote it: ten losses, no curve of held-out images, a recipe without batch norm's member."""
    recipe = {
        "epochs": 10,
        "lr": 0.01,
        "batch_size": 256,
        "momentum": 0.9,
        "weight_decay": 0.0005,
        "schedule": "step",
        "augment": "color_crop_cutout_flip_scale_rotate",
    }
    name = "convnet:width=32,depth=1,norm=batch,activation=relu,pooling=max"
    old = {
        "key": "3e5fc1e1f6d4c7d0ad0bb4b8ef1a94a2",
        "architecture": name,
        "trained_on": {"name": "real", "fingerprint": "train/a/standardize", "images": 45000, "classes": 10},
        "scored_on": {"name": "held", "fingerprint": "score/b", "images": 2500, "classes": 10},
        "recipe": recipe,
        "seed": 1,
        "score": 0.55,
        "error": None,
        "crashed": False,
        "late_loss": 1.25,
        "losses": [2.0, 1.8, 1.7, 1.6, 1.5, 1.4, 1.35, 1.3, 1.28, 1.25],
        "seconds": 60.0,
        "device": "CPU, 1 thread",
        "torch": "2.14.1",
    }
    score = Score.from_row(old)
    assert (score.value("late_loss"), score.value("accuracy"), score.value("loss")) == (-1.25, 0.55, None)
    work = Training(name, score.trained_on, score.scored_on, TrainingRecipe(**recipe), 1)  # type: ignore[arg-type]
    identity = [name, "train/a/standardize", "score/b", recipe, 1]
    assert work.key == hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:32]


def test_the_key_depends_on_everything_that_the_score_depends_on(training: Training) -> None:
    other = Label("other", "other", 30, 10)
    changed = [
        replace(training, architecture=NAME.replace("relu", "sigmoid")),
        replace(training, trained_on=other),
        replace(training, scored_on=other),
        replace(training, recipe=replace(RECIPE, epochs=13)),
        replace(training, recipe=replace(RECIPE, lr=0.021)),
        replace(training, recipe=replace(RECIPE, batch_norm="batch")),
        replace(training, seed=1),
        replace(training, code="0123"),
        replace(training, part=20),
    ]
    keys = {training.key, *(one.key for one in changed)}
    assert len(keys) == 1 + len(changed)
    renamed = replace(training, trained_on=replace(training.trained_on, name="another name of the same images"))
    assert renamed.key == training.key
    assert replace(training, reads=5).key == training.key
    assert training.needs == (training.trained_on.fingerprint, training.scored_on.fingerprint)


def test_a_training_that_diverges_has_no_score_but_a_reason(training: Training, shelf: Shelf) -> None:
    name = NAME.replace("norm=instance", "norm=none")
    wild = replace(training, architecture=name, recipe=replace(RECIPE, lr=1e30))
    row = wild(shelf)
    json.dumps(row, allow_nan=False)
    assert (row["score"], row["late_loss"], row["held_out_loss"]) == (None, None, None)
    assert "not finite" in row["error"]
    assert [score_value(row, kind) for kind in SCORES] == [None] * len(SCORES)


def test_a_part_is_the_same_images_for_every_architecture(digits: ImageDataset) -> None:
    images, held_out = truth_materials(digits)
    shelf = {material.label.fingerprint: material for material in (images, held_out)}
    recipe = replace(RECIPE, epochs=1, batch_size=20)
    part = Training(NAME, images.label, held_out.label, recipe, seed=0, part=50)
    row = part(shelf)
    assert len(row["losses"]) == 3  # batches of 20, 20 and 10
    assert part.images_seen == 50
    assert row["part"] == 50
    again, other = part(shelf), replace(part, seed=1)(shelf)
    assert again["losses"] == row["losses"]
    assert other["losses"] != row["losses"]
    everything = Examples(images.examples.images, images.examples.labels)
    rows = torch.tensor([3, 1, 4])
    chosen = images.part(rows)
    for taken, expected in zip(chosen.take(torch.arange(3)), everything.take(rows), strict=True):
        assert torch.equal(taken, expected)


def test_the_curve_has_at_most_200_parts_and_holds_every_score(training: Training, shelf: Shelf) -> None:
    row = replace(training, recipe=replace(RECIPE, epochs=210), reads=3)(shelf)
    assert len(row["losses"]) == 200
    assert [round(done, 2) for done, _, _ in row["held_out"]] == [0.33, 0.67, 1]
    assert score_value(row, "accuracy") == row["held_out"][-1][1] == row["score"]
    assert score_value(row, "loss") == -row["held_out"][-1][2]
    assert score_value(row, "auc") == pytest.approx(-np.mean(row["losses"]))
    assert score_value(row, "late_loss") == pytest.approx(-np.mean(row["losses"][-21:]))  # single steps
    assert score_value(row, "late_loss", window=0.5) == pytest.approx(-np.mean(row["losses"][-100:]))
    with pytest.raises(LookupError, match="choose from accuracy"):
        score_value(row, "speed")


def test_chance_is_within_three_deviations_of_it(training: Training, shelf: Shelf) -> None:
    row = training(shelf)
    images = row["scored_on"]["images"]
    assert chance_bound(2500, 10) == pytest.approx(0.1 + 3 * 0.006)
    bound = chance_bound(images, 10)
    assert is_dead({**row, "score": bound})
    assert is_dead({**row, "score": 0.0})
    assert not is_dead({**row, "score": bound + 1 / images})
    assert not is_dead({**row, "score": None})  # by its loss, then


def test_where_nothing_was_read_a_network_is_dead_by_its_loss(training: Training, shelf: Shelf) -> None:
    row = training(shelf)
    guessing = row["guess_loss"]
    assert guessing == pytest.approx(np.log(10), abs=1e-6)
    unread = {**row, "score": None, "scored_on": {"images": 0, "classes": 10}}

    def ended(*losses: float) -> dict[str, Any]:
        return {**unread, "losses": [9.0] * 180 + list(losses), "late_loss": float(np.mean(losses))}

    steady = [guessing - 0.03] * 20
    assert not is_dead(ended(*steady))
    assert is_dead(ended(*[guessing] * 20))
    assert is_dead(ended(*[guessing + 1] * 20))
    assert is_dead(ended(*[guessing - 0.03 + 0.2 * (-1) ** step for step in range(20)]))  # within its noise
    assert not is_dead(ended(*[guessing - 0.3 + 0.2 * (-1) ** step for step in range(20)]))
    assert not is_dead({**ended(guessing), "error": "diverged", "late_loss": None})
    assert not is_dead({**ended(guessing), "guess_loss": None})  # as in rows of earlier versions


def test_the_loss_of_guessing() -> None:
    even = torch.eye(4)
    assert guess_loss(even, divergence=False) == pytest.approx(np.log(4))
    uneven = torch.tensor([[1.0, 0], [1, 0], [1, 0], [0, 1]])
    expected = -(0.75 * np.log(0.75) + 0.25 * np.log(0.25))
    assert guess_loss(uneven, divergence=False) == pytest.approx(expected)
    soft = torch.tensor([[0.8, 0.2], [0.2, 0.8]])
    assert guess_loss(soft, divergence=False) == pytest.approx(np.log(2))
    own = -(0.8 * np.log(0.8) + 0.2 * np.log(0.2))
    assert guess_loss(soft, divergence=True) == pytest.approx(np.log(2) - own)  # of what a student has left to learn
    assert guess_loss(torch.full((3, 5), 0.2), divergence=True) == pytest.approx(0, abs=1e-9)


def test_a_network_of_anybodys_is_scored_from_an_optuna_loop(digits: ImageDataset, synthetic: SyntheticSet) -> None:
    """The loop of the documentation."""
    import optuna

    def my_network(width: int) -> nn.Module:
        features = nn.Sequential(nn.Conv2d(1, width, 3), nn.BatchNorm2d(width), nn.ReLU(), nn.Flatten())
        return nn.Sequential(features, nn.Dropout(0.1), nn.LazyLinear(10))

    def objective(trial: optuna.Trial) -> float:
        width = trial.suggest_int("width", 2, 16)
        return score(lambda: my_network(width), synthetic, Screening(steps=20)).value("late_loss") or float("-inf")

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(direction="maximize")
    study.enqueue_trial({"width": 16})
    study.enqueue_trial({"width": 2})
    study.optimize(objective, n_trials=2)
    wide, narrow = (trial.value for trial in study.trials)
    assert wide is not None
    assert narrow is not None
    assert narrow < wide < 0
    with_images = score(lambda: my_network(16), synthetic, Screening(steps=20), held_out=digits.score())
    assert with_images.value("late_loss") == wide
    assert with_images.score is not None
    assert with_images.score > 0.3
    assert with_images.recipe.lr == 0.1  # by its batch norm
    assert with_images.seconds > 0
    assert score(lambda: my_network(16), synthetic, Screening(steps=20), seed=1).value() != wide


def test_a_recipe_without_a_rate_takes_the_step_size_and_failures_are_results(synthetic: SyntheticSet) -> None:
    def linear() -> nn.Module:
        return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))

    scored = score(linear, synthetic, TrainingRecipe(epochs=3))
    assert scored.recipe.lr == synthetic.step_size
    assert scored.error is None
    assert scored.value("accuracy") is None  # nothing to read
    assert scored.dead  # three steps
    assert not score(linear, synthetic, TrainingRecipe(epochs=60)).dead
    assert score(lambda: nn.Linear(3, 10), synthetic).error is not None
    broken = score(lambda: nn.Linear(1, -1), synthetic)
    assert broken.error is not None
    assert broken.error.startswith("RuntimeError: ")
    assert broken.value() is None


def test_a_row_is_the_same_however_many_threads_the_process_has(training: Training, shelf: Shelf) -> None:
    """With two, oneDNN and MKL take sums in another order: which networks show it depends on the processor."""
    names = [NAME, NAME.replace("depth=1", "depth=2"), NAME.replace("instance", "batch"), NAME.replace("32", "64")]
    works = [replace(training, architecture=name) for name in names]
    expected = [{**work(shelf), "seconds": 0.0} for work in works]
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        assert [{**work(shelf), "seconds": 0.0} for work in works] == expected
        assert torch.get_num_threads() == 2
        assert training.trained(shelf)[0]["device"] == "CPU, 2 threads"
    finally:
        torch.set_num_threads(before)


def test_processes_give_the_rows_that_this_process_gives(training: Training, shelf: Shelf, tmp_path: Path) -> None:
    infeasible = replace(
        training, architecture=NAME.replace("depth=1", "depth=4")
    )  # 8 pixels cannot be halved so often

    def lay_out() -> partial[Shelf]:
        return hand_over(list(shelf.values()), tmp_path / "materials", "cpu")  # type: ignore[return-value]

    with LocalProcesses(lay_out, 2) as processes:
        outcomes = dict(processes.map([training, infeasible]))
    assert {**outcomes[0], "seconds": 0.0} == {**training(shelf), "seconds": 0.0}  # type: ignore[dict-item]
    assert isinstance(outcomes[1], Failure)
    row = infeasible.failed(outcomes[1])
    assert (row["key"], row["score"], row["late_loss"]) == (infeasible.key, None, None)
    assert row["error"].startswith("ValueError: convnet:")
    assert Score.from_row(row).to_row() == row


def test_late_loss_is_the_mean_of_the_last_tenth() -> None:
    assert late_loss([5.0] * 18 + [1.0, 2.0]) == 1.5
    assert late_loss([3.0, 2.0, 1.0]) == 1.0


def test_the_cost_model_finds_the_cost_it_was_made_with(shelf: Shelf, training: Training) -> None:
    true = CostModel(0.1, 2e-5, 3e-11)
    counts = [10**4, 10**6, 10**7, 10**9]
    model = fit_cost([(count, true.seconds(count, 1) - true.fixed) for count in counts], 0.1)
    for count in counts:
        assert model.seconds(count, 100) == pytest.approx(true.seconds(count, 100), rel=1e-6)
    # A cost that falls with the FLOPs is noise: nothing may become negative.
    noisy = fit_cost([(10**4, 2e-5), (10**9, 1e-5)], 0.1)
    assert noisy.flop >= 0
    assert noisy.image > 0
    assert training.images_seen == 30 * 12
    image_s, first_s = TimedStep(NAME, training.trained_on.fingerprint, 10**5, RECIPE)(shelf)
    assert 0 < image_s < first_s < 10


def test_shared_batches_are_the_same_for_every_architecture(training: Training, shelf: Shelf) -> None:
    seen: dict[bool, list[torch.Tensor]] = {}
    for shared in (True, False):
        asked = [replace(training, shared=shared, architecture=name) for name in (NAME, NAME.replace("avg", "max"))]
        assert asked[0].key != replace(asked[0], shared=not shared).key
        seen[shared] = []
        for one in asked:
            batches: list[torch.Tensor] = []
            learned = shelf[one.trained_on.fingerprint]
            spied = replace(learned, teachers=Spy(batches))
            one({**shelf, one.trained_on.fingerprint: spied})
            seen[shared].append(torch.stack(batches))
    assert torch.equal(*seen[True])
    assert not torch.equal(*seen[False])


class Spy(Taught):
    """Teachers that know nothing, and keep what they are shown."""

    def __init__(self, kept: list[torch.Tensor]) -> None:
        self.kept = kept

    def targets(self, batches: str | None) -> Targets:  # noqa: ARG002
        def labels(step: int, images: torch.Tensor) -> torch.Tensor:  # noqa: ARG001
            self.kept.append(images)
            return torch.full((len(images), 10), 0.1)

        return labels
