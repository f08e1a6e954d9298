"""Networks as plain PyTorch code: executed where nothing of ours can be imported."""

from __future__ import annotations

import math
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ftdnas.finishing.code import plain_code
from search_spaces.base import NETWORKS, SPACES, Architecture, random_architectures

SHAPE, CLASSES = (3, 17, 21), 4
STAND_ALONE = """
import importlib.abc, importlib.util, pathlib, sys

class None_of_ours(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name.partition(".")[0] in ("ftdnas", "distill", "search_spaces"):
            raise ImportError(name)

sys.meta_path.insert(0, None_of_ours())
import torch
from safetensors.torch import load_file, save_file
torch.set_num_threads(1)
for folder in map(pathlib.Path, sys.argv[1:]):
    spec = importlib.util.spec_from_file_location("network", folder / "network.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    network = module.load_network(folder / "weights.safetensors")
    assert not network.training
    scores = network(load_file(folder / "images.safetensors")["images"]).detach()
    save_file({"scores": scores}, folder / "scores.safetensors")
assert not [name for name in sys.modules if name.partition(".")[0] in ("ftdnas", "distill", "search_spaces")]
"""


def trained_a_little(architecture: Architecture) -> nn.Module:
    """A network whose weights and running statistics are not those it was made with."""
    torch.manual_seed(0)
    network = architecture.build(SHAPE, CLASSES)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01)
    F.cross_entropy(network(torch.randn(8, *SHAPE)), torch.arange(8) % CLASSES).backward()
    optimizer.step()
    return network.eval()


@torch.no_grad()
def test_networks_of_every_space_run_alone_and_compute_the_same(tmp_path: Path) -> None:
    drawn = [one for space in SPACES.values() for one in random_architectures(space, 2, 3)]
    drawn = [one for one in drawn if one.obstacle(SHAPE) is None]
    assert {one.space for one in drawn} == set(SPACES)
    expected, folders = [], []
    images = torch.randn(3, *SHAPE)
    for number, architecture in enumerate([*drawn, *NETWORKS.values()]):
        folder = tmp_path / str(number)
        folder.mkdir()
        with torch.enable_grad():
            network = trained_a_little(architecture)
        (folder / "network.py").write_text(plain_code(network, architecture.name, SHAPE, CLASSES), encoding="utf-8")
        save_file(network.state_dict(), folder / "weights.safetensors")
        save_file({"images": images}, folder / "images.safetensors")
        expected.append(network(images))
        folders.append(folder)
    program = tmp_path / "program.py"
    program.write_text(STAND_ALONE)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, program, *folders], check=True, env=environment, cwd=tmp_path)
    for folder, scores in zip(folders, expected, strict=True):
        assert torch.equal(load_file(folder / "scores.safetensors")["scores"], scores)


@pytest.mark.parametrize("name", SPACES)
def test_the_text_is_readable_and_the_same_each_time(name: str) -> None:
    (architecture,) = random_architectures(SPACES[name], 1, 0)
    code = plain_code(architecture.build(SHAPE, CLASSES), architecture.name, SHAPE, CLASSES)
    assert code == plain_code(architecture.build(SHAPE, CLASSES), architecture.name, SHAPE, CLASSES)
    assert max(map(len, code.splitlines()[1:])) <= 120  # the first line is the name
    assert architecture.name in code
    assert not re.search(r"\b(ftdnas|search_spaces|distill|getattr|fx)\b", code)
    assert not re.search(r"device=|dtype=|inplace=False|bias=True|0x[0-9a-f]", code)


def test_equal_blocks_are_written_once() -> None:
    cell = "|nor_conv_3x3~0|+|nor_conv_3x3~0|none~1|+|none~0|none~1|skip_connect~2|"
    architecture = SPACES["nasbench201"].parse(cell)
    code = plain_code(architecture.build((3, 32, 32), 10), architecture.name, (3, 32, 32), 10)
    assert code.count("for _ in range(5)") == 3
    assert code.count("class CellModule") == 1
    assert len(code.splitlines()) < 170


def test_pixels_are_prepared_as_they_were_for_training() -> None:
    network = SPACES["residual"].parse("width=16").build((3, 8, 8), 2)
    space: dict[str, object] = {}
    exec(plain_code(network, "one", (3, 8, 8), 2, ([0.5, 0.25, 0.0], [0.5, 0.25, 2.0])), space)
    pixels = torch.rand(2, 3, 8, 8)
    prepared = space["prepare"](pixels)
    torch.testing.assert_close(prepared[:, 1], (pixels[:, 1] - 0.25) / 0.25)
    torch.testing.assert_close(prepared[:, 2], pixels[:, 2] / 2)


class Odd(nn.Module):
    """Nearly everything that a forward may hold."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.rand(4, 1, 1))
        self.register_buffer("shift", torch.rand(4))
        self.layers = nn.ModuleDict({"a": nn.Conv2d(3, 4, (3, 1), padding="same"), "b": nn.Conv2d(3, 4, 1, stride=1)})
        self.none = None
        self.pool = nn.MaxPool2d(3, 2, 1, ceil_mode=True)
        self.drop = nn.Dropout(0.25)
        self.gain = 0.5
        self.linear = nn.Linear(4, 2, bias=False)

    def forward(self, images: Tensor) -> Tensor:
        first, second = (layer(images) for layer in self.layers.values())
        mixed = first - (second - first) * self.gain / (1 + second.abs())
        mixed = self.pool(mixed) * self.scale + self.shift.view(1, -1, 1, 1)
        both = torch.cat([mixed, -mixed.flip(3)], dim=2)[..., ::2].clamp(min=-1.5)
        both = F.dropout(both, 0.1, training=self.training)
        kept = both.mean((2, 3)) - both.amax(dim=(2, 3)).clamp(max=math.inf)
        kept += F.gelu(kept)
        return self.linear(self.drop(kept) ** 2)


def test_what_a_forward_may_hold() -> None:
    torch.manual_seed(0)
    network = Odd()
    code = plain_code(network, 'odd "a\\b"', SHAPE, 2)
    assert "What only happens in training (dropout) is left out." in code
    space: dict[str, object] = {}
    exec(code, space)
    written = space["build_network"]().eval()
    assert list(written.state_dict()) == list(network.state_dict())
    written.load_state_dict(network.state_dict())
    images = torch.randn(5, *SHAPE)
    assert torch.equal(written(images), network.eval()(images))
    assert 'self.layers["a"](images)' in code
    assert network.drop.training is False  # as this test left it, not as writing did


class Branching(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        return images.mean((2, 3)) if images.sum() > 0 else -images.mean((2, 3))


class Hidden(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("secret", torch.ones(3), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        return images.mean((2, 3)) * self.secret


class Twice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Linear(3, 3)
        self.other = self.one

    def forward(self, images: Tensor) -> Tensor:
        return self.other(self.one(images.mean((2, 3))))


def foreign(images: Tensor) -> Tensor:
    return images


torch.fx.wrap("foreign")


class Calling(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        return foreign(images).mean((2, 3))


class Recurrent(nn.Module):
    """Reads the rows of a picture, one after another."""

    def __init__(self, rows: nn.RNNBase) -> None:
        super().__init__()
        self.rows = rows
        self.classes = nn.Linear(5 * (1 + rows.bidirectional), 3)

    def forward(self, images: Tensor) -> Tensor:
        said, _ = self.rows(images.mean(1))
        last: Tensor = self.classes(said[:, -1])
        return last


@pytest.mark.parametrize(
    "rows",
    [
        nn.LSTM(21, 5, batch_first=True, bidirectional=True),
        nn.GRU(21, 5, num_layers=2, bias=False, batch_first=True),
        nn.RNN(21, 5, nonlinearity="relu", batch_first=True),
    ],
    ids=lambda rows: type(rows).__name__,
)
def test_recurrent_layers_are_written(rows: nn.RNNBase) -> None:
    code = plain_code(Recurrent(rows).eval(), "it", SHAPE, 3)
    assert f"nn.{type(rows).__name__}(21, 5," in code


@pytest.mark.parametrize(
    ("network", "reason"),
    [
        (Branching(), "control flow"),
        (Hidden(), "'secret' is in no state_dict"),
        (Twice(), "one and other are one layer"),
        (Calling(), "foreign, which is not of PyTorch"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_cannot_be_written_is_said_in_one_line(network: nn.Module, reason: str) -> None:
    with pytest.raises(ValueError, match=reason) as caught:
        plain_code(network, "it", SHAPE, 3)
    assert "\n" not in str(caught.value)
