"""A real local Ray cluster: the same outcomes as local processes, whatever happens to some."""

from __future__ import annotations

import logging
import operator
import signal
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from distill.images.datasets import ImageDataset
from distill.recipe import TrainingRecipe
from distill.synthetic import SyntheticSet
from ftdnas.candidates.handover import hand_over
from ftdnas.candidates.materials import Material, Shelf, held_out_material, set_material
from ftdnas.candidates.training import Training
from ftdnas.runtime.processes import Failure, LocalProcesses
from ftdnas.runtime.ray import RayCluster

pytest.importorskip("ray", reason="needs the extra ftdnas[ray]")
pytestmark = [
    # Ray leaves files and pipes of the processes that it starts to the garbage collector.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore:Tip. In future versions of Ray:FutureWarning"),
]


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    """One for all tests; each RayCluster joins it."""
    import ray

    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    yield
    ray.shutdown()


def nine() -> Any:
    return 9


@pytest.mark.usefixtures("cluster")
def test_scores_are_those_of_local_processes(
    digits: ImageDataset, set_of: Callable[..., SyntheticSet], tmp_path: Path
) -> None:
    synthetic = set_of(digits, ipc=2)
    trained, scored = set_material(synthetic, "tiny"), held_out_material(digits, synthetic.preprocess)
    recipe = TrainingRecipe(epochs=2, lr=0.02)
    names = [f"convnet:width=32,depth=1,norm={norm}" for norm in ("none", "batch", "group")]
    trainings = [Training(name, trained.label, scored.label, recipe, 0) for name in names]

    def shelf() -> Shelf:
        materials: list[Material] = [trained, scored]
        return {material.label.fingerprint: material for material in materials}

    with LocalProcesses(lambda: hand_over([trained, scored], tmp_path / "materials", "cpu"), 1) as processes:
        local = dict(processes.map(trainings))
    with RayCluster(shelf, 2) as actors:
        remote = dict(actors.map(trainings))
    assert {index: facts(row) for index, row in remote.items()} == {index: facts(row) for index, row in local.items()}
    assert all(facts(row)[0] is not None for row in local.values())


def facts(row: Any) -> tuple[Any, ...]:
    row = row if isinstance(row, dict) else row.to_row()
    return row["score"], row["late_loss"], row["losses"], row["error"]


@pytest.mark.usefixtures("cluster")
def test_every_piece_of_work_has_its_outcome_whatever_happens_to_the_others() -> None:
    works: list[Callable[[int], Any] | None] = [
        partial(operator.mul, 3),
        None,
        partial(operator.getitem, [1, 2]),  # an IndexError
        signal.raise_signal,  # takes its process down, twice
        time.sleep,  # 9 s
        partial(operator.add, 1),
    ]
    with RayCluster(nine, gpus=0.5) as actors:  # there is no GPU, and nobody waits for one
        assert actors.jobs == 2
        outcomes = dict(actors.map(works, limit_s=2.0))
        assert list(actors.map([operator.neg])) == [(0, -9)]
    crash = outcomes.pop(2)
    assert isinstance(crash, Failure)
    assert crash.crashed
    assert outcomes == {
        0: 27,
        1: Failure("IndexError: list index out of range"),
        3: Failure("took longer than 2 s"),
        4: 10,
    }


@pytest.mark.usefixtures("cluster")
def test_a_context_that_cannot_be_made_there_is_an_error() -> None:
    with (
        RayCluster(nine, 1, arrive=partial(operator.getitem, [])) as actors,
        pytest.raises(RuntimeError, match="could not be prepared: IndexError: list index out of range"),
    ):
        list(actors.map([operator.neg]))


def test_no_cluster_is_one_line() -> None:
    import ray

    assert not ray.is_initialized() or ray.shutdown() is None
    with (
        pytest.raises(ValueError, match=r"no Ray cluster at 127\.0\.0\.1:1: ") as caught,
        RayCluster(nine, address="127.0.0.1:1"),
    ):
        pass
    assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match="0 jobs"):
        RayCluster(nine, 0)
