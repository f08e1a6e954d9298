"""How many processes work side by side, and on which GPUs."""

from __future__ import annotations

import pytest
import torch

from ftdnas.finishing.finalist import shares
from ftdnas.runtime.device import use_processes, visible_gpus


@pytest.fixture
def gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two of them, as PyTorch counts."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


@pytest.mark.usefixtures("gpus")
def test_a_process_for_each_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    assert visible_gpus() == ("0", "1")
    assert use_processes(None, "cuda") == 2
    assert use_processes(5, "cuda") == 5
    assert visible_gpus("cpu") == ()
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,GPU-1,9")  # the last is not there
    assert visible_gpus() == ("4", "GPU-1")


@pytest.mark.usefixtures("gpus")
def test_finalists_have_a_gpu_each_whatever_is_asked_for() -> None:
    assert shares(5, 8, "cuda") == (2, 1)
    assert shares(1, None, "cuda") == (1, 1)
    assert shares(5, 3, "cpu") == (3, max(1, torch.get_num_threads() // 3))


def test_without_a_gpu() -> None:
    assert visible_gpus() == ()
    assert use_processes(None, "cuda") == 1
    assert use_processes(None, "cpu") >= 1
