"""The works of finishing: trainings that leave their weights in a file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from torch import nn

from distill.recipe import TrainingRecipe
from distill.tensors import read_tensors, write_tensors
from distill.training.clock import Limit
from ftdnas.candidates.materials import Shelf
from ftdnas.candidates.training import Training
from ftdnas.runtime.device import use_processes
from ftdnas.runtime.processes import Executor, Failure
from ftdnas.runtime.rows import Row, RowFile
from ftdnas.runtime.shared import Work
from search_spaces.base import parse_architecture


@dataclass(frozen=True)
class FinalistTraining:
    """The training of one finalist; its weights are in `weights` before its row is known.

    `threads`: of a CPU. `seconds`: that it may take, all its runs together; a killed one goes on then.
    """

    training: Training
    weights: Path
    threads: int = 1
    seconds: float | None = None

    @property
    def key(self) -> str:
        return self.training.key

    @property
    def architecture(self) -> str:
        return self.training.architecture

    @property
    def recipe(self) -> TrainingRecipe:
        return self.training.recipe

    @property
    def needs(self) -> tuple[str, ...]:
        return self.training.needs

    def __call__(self, shelf: Shelf) -> Row:
        torch.set_num_threads(self.threads)
        begun = self.weights.with_suffix(".restart")
        limit = None if self.seconds is None else Limit(self.seconds, begun)
        row, network = self.training.trained(shelf, limit)
        if row["error"] is None:
            save_weights(network, self.weights)
        begun.unlink(missing_ok=True)
        return row

    def failed(self, failure: Failure) -> Row:
        return self.training.failed(failure)

    def network(self, image_shape: tuple[int, int, int]) -> nn.Module:
        """With its weights, in evaluation mode, on the CPU."""
        with torch.random.fork_rng(devices=[]):
            network = parse_architecture(self.architecture).build(image_shape, self.training.trained_on.classes)
        with torch.no_grad():  # lazy layers take their shapes
            network.eval()(torch.zeros(2, *image_shape))
        network.load_state_dict(read_tensors(self.weights)[0])
        return network


def save_weights(network: nn.Module, path: Path) -> None:
    """Its state_dict as a whole .safetensors file."""
    write_tensors(path, network.state_dict())


class KeptTraining(Work[Shelf], Protocol):
    """A work that leaves its weights in a file."""

    @property
    def weights(self) -> Path: ...


def trained_again(work: KeptTraining, processes: Executor[Shelf], record: RowFile) -> Row:
    """The new row of a work whose row is known and whose weights are gone. Raises ValueError where it fails now."""
    ((_, outcome),) = processes.map([work])
    row: Row = work.failed(outcome) if isinstance(outcome, Failure) else outcome
    if row["error"] is not None:
        raise ValueError(f"{work.architecture} could not be trained again: {row['error']}")
    record.append(row)
    return row


def shares(works: int, jobs: int | None, device: str) -> tuple[int, int]:
    """(processes, threads of each) for so many works: at most one a GPU, or one a core.

    PyTorch's own threads are shared out among them, so that OMP_NUM_THREADS and --threads hold.
    """
    if device == "cuda":  # as many full trainings on one would be in each other's way, whatever `jobs` says
        return max(1, min(works, use_processes(None, device))), 1
    processes = max(1, min(works, use_processes(jobs, device)))
    return processes, max(1, torch.get_num_threads() // processes)
