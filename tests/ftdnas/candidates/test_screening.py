"""The screening's choices: what they mean for a network, what is refused, and a default for every space."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from torch import nn

from distill.images.datasets import ImageDataset
from distill.recipe import TrainingRecipe
from distill.synthetic import SyntheticSet
from ftdnas.candidates.screening import (
    DEFAULTS,
    SCORES,
    Screening,
    default_screening,
    describe_score,
    family_of,
    norm_family,
)
from search_spaces.base import SPACES

SHAPE = (3, 32, 32)


@pytest.fixture(scope="module")
def synthetic(digits: ImageDataset, set_of: Callable[..., SyntheticSet]) -> SyntheticSet:
    return set_of(digits, augment="flip_crop")


def test_steps_are_rounded_up_to_epochs_and_the_set_gives_what_is_left_to_it(synthetic: SyntheticSet) -> None:
    recipe = Screening(steps=300).recipe(250, synthetic, "batch")
    assert recipe == TrainingRecipe(
        epochs=100,  # of 3 batches
        lr=0.1,
        batch_size=100,
        momentum=0.9,
        weight_decay=5e-4,
        schedule="cosine",
        augment="flip_crop",
        batch_norm="batch",
    )
    assert Screening(steps=301).recipe(250, synthetic, "none").epochs == 101
    assert Screening(steps=300, epochs=7).recipe(250, synthetic, "none").epochs == 7
    assert Screening().recipe(250, synthetic, "group").lr == synthetic.step_size
    assert Screening(lr=0.3, augment="none").recipe(10, None, "layer").lr == 0.3


@pytest.mark.parametrize("fields", [{}, {"lr": 0.1}, {"augment": "none"}])
def test_without_a_set_nothing_is_left_to_it(fields: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="from a synthetic set, and there is none"):
        Screening(**fields).recipe(10, None, "layer")


@pytest.mark.parametrize(
    ("network", "family"),
    [
        (nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2), nn.LayerNorm(3)), "batch"),
        (nn.SyncBatchNorm(2), "batch"),
        (nn.GroupNorm(1, 2), "group"),
        (nn.InstanceNorm2d(2), "group"),
        (nn.LayerNorm(3), "layer"),
        (nn.Sequential(nn.Linear(1, 1), nn.ReLU()), "none"),
    ],
)
def test_the_norm_family_of_a_network(network: nn.Module, family: str) -> None:
    assert norm_family(network) == family


def test_the_norm_family_of_an_architecture_is_found_without_weights() -> None:
    name = "convnet:width=256,depth=4,norm={},activation=relu,pooling=none"
    found = [family_of(name.format(norm), SHAPE, 10) for norm in ("none", "batch", "layer", "instance", "group")]
    assert found == ["none", "batch", "layer", "group", "group"]
    assert family_of(name.replace("none", "max").format("batch"), (1, 8, 8), 10) == "none"  # it cannot be built


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"steps": 0}, "steps 0 is not a whole number"),
        ({"epochs": 1.5}, "epochs 1.5 is not a whole number"),
        ({"pixels": 0}, "pixels 0"),
        ({"seeds": True}, "seeds True"),
        ({"schedule": "linear"}, "choose from step, constant, cosine"),
        ({"batch_norm": "none"}, "choose from running, batch, refresh"),
        ({"score": "speed"}, "choose from accuracy, loss, auc, late_loss"),
        ({"window": 0}, "window 0"),
        ({"momentum": 1.0}, "out of range"),
        ({"augment": "spin"}, "unknown augmentation 'spin'"),
        ({"precision": "half"}, "precision 'half': choose from float32, ieee, bfloat16"),
        ({"lr": "sets"}, "learning rate 'sets' is neither a positive number nor 'set'"),
        ({"lr": float("nan")}, "learning rate nan"),
        ({"lr": {"batch": 0.1}}, "no learning rate for the norm families group, layer, none"),
        ({"lr": {"batches": 0.1, "other": 0.1}}, "unknown norm family batches"),
        ({"lr": {"batch": -1, "other": 0.1}}, "learning rate -1"),
        ({"lr": {"batch": {"batch": 1}, "other": 0.1}}, "learning rate {'batch': 1}"),
    ],
)
def test_what_is_out_of_range_is_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        Screening(**fields)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "screening",
    [
        Screening(),
        Screening(lr={"batch": 0.1, "group": 0.05, "layer": "set", "none": 0.01}, epochs=3, pixels=16, shrink=True),
        DEFAULTS["convnet"].screening,
    ],
)
def test_a_screening_survives_json(screening: Screening) -> None:
    stored = json.loads(json.dumps(screening.to_json(), allow_nan=False))
    assert Screening.from_json(stored) == screening
    with pytest.raises(ValueError, match="unknown rate: it has"):
        Screening.from_json({**stored, "rate": 1})


def test_the_description_leaves_no_choice_out() -> None:
    said = Screening(
        steps=7,
        lr={"batch": 0.1, "other": "set"},
        batch_size=33,
        momentum=0.8,
        weight_decay=0.002,
        schedule="constant",
        augment="flip",
        batch_norm="refresh",
        shrink=True,
        pixels=12,
        seeds=3,
        window=0.2,
        reads=4,
        precision="bfloat16",
    ).describe()
    for word in (
        "7 steps",
        "batches of 33",
        "0.1 (batch norm) and the set's step size (other norm)",
        "constant",
        "momentum 0.8",
        "weight decay 0.002",
        "augmentation flip",
        "anew over the training images",
        "shrunk",
        "12 pixels",
        "3 seeds",
        "late training loss (the last 20%)",
        "computed in bfloat16",
    ):
        assert word in said
    assert "5 epochs" in Screening(epochs=5, score="accuracy").describe()
    assert "held-out accuracy" in Screening(score="accuracy").describe()
    assert {describe_score(score, 0.1) for score in SCORES} >= {"held-out loss", "area under the training-loss curve"}


def test_a_screening_in_32_bits_is_stored_as_before_there_was_a_choice() -> None:
    assert "precision" not in Screening().to_json()
    rounded = Screening(lr=0.1, augment="none", precision="bfloat16")
    assert Screening.from_json(rounded.to_json()) == rounded
    assert rounded.recipe(10, None, "none").precision == "bfloat16"
    assert Screening(lr=0.1, augment="none").recipe(10, None, "none").precision == "float32"


def test_every_space_has_a_default_with_its_reason() -> None:
    assert set(DEFAULTS) == set(SPACES)
    for space, default in DEFAULTS.items():
        assert default.why
        assert default_screening(space) == default
    assert default_screening("nets.py:build").screening == Screening()
