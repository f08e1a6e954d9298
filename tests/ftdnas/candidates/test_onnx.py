"""ONNX files: onnxruntime reads them and computes the same."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from ftdnas.candidates.onnx import write_onnx
from search_spaces.base import SPACES, random_architectures

SHAPE = (3, 16, 20)


@torch.no_grad()
@pytest.mark.parametrize("name", ["convnet", "nasbench201"])  # some seconds each
def test_onnxruntime_computes_the_same_for_any_number_of_images(name: str, tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime", reason="needs the extra ftdnas[onnx]")
    (architecture,) = [one for one in random_architectures(SPACES[name], 9, 2) if one.obstacle(SHAPE) is None][:1]
    torch.manual_seed(0)
    network = (architecture.shrunk() or architecture).build(SHAPE, 5)
    network(torch.randn(16, *SHAPE))  # running statistics that are not those of the start
    network.eval()
    write_onnx(network, SHAPE, tmp_path / "network.onnx")
    assert [path.name for path in tmp_path.iterdir()] == ["network.onnx"]
    session = onnxruntime.InferenceSession(tmp_path / "network.onnx", providers=["CPUExecutionProvider"])
    assert [one.name for one in session.get_inputs()] == ["images"]
    for count in (1, 3):
        images = torch.randn(count, *SHAPE)
        (scores,) = session.run(["scores"], {"images": images.numpy()})
        torch.testing.assert_close(torch.from_numpy(scores), network(images), atol=1e-4, rtol=1e-4)


class Looping(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        total = images
        while total.sum() < 3:
            total = total + 1
        return total.mean((2, 3))


def test_what_cannot_be_exported_is_said_in_one_line_and_leaves_nothing(tmp_path: Path) -> None:
    pytest.importorskip("onnxscript", reason="needs the extra ftdnas[onnx]")
    with pytest.raises(ValueError, match="cannot be written as ONNX") as caught:
        write_onnx(Looping(), SHAPE, tmp_path / "network.onnx")
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_without_the_packages_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ftdnas.candidates.onnx.NEEDED", ("onnx", "no_package_of_this_name"))
    with pytest.raises(ValueError, match=r"no_package_of_this_name not installed: pip install 'ftdnas\[onnx\]'"):
        write_onnx(nn.Identity(), SHAPE, tmp_path / "network.onnx")
