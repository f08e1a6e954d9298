"""ftdnas show and ftdnas spaces."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from ftdnas.candidates.latency import read_latency_table
from ftdnas.cli.main import WRONG_INPUT, run
from search_spaces.base import SPACES, parse_architecture

CELL = "nasbench201:|skip_connect~0|+|none~0|none~1|+|none~0|nor_conv_3x3~1|none~2|"


def test_show_tells_choices_costs_and_layers(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["show", CELL]) == 0
    told = capsys.readouterr().out
    representative = parse_architecture(CELL).representative().name
    assert representative != CELL
    assert representative in told
    assert "nasbench201:cells=1:" in told
    assert "Conv2d(3, 16, 3, padding=1, bias=False)" in told
    assert run(["show", CELL, "--classes", "3", "--channels", "1", "--image-size", "20", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    network = parse_architecture(CELL).build((1, 20, 20), 3)
    assert facts["parameters"] == sum(weights.numel() for weights in network.parameters())
    assert facts["parameters"] == sum(layer["parameters"] for layer in facts["layers"])
    assert facts["layers"][0]["output"] == [16, 20, 20]
    assert facts["layers"][-1]["output"] == [3]


def test_the_code_alone_is_a_program(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["show", "mobilenet:", "--code", "--classes", "7"]) == 0
    space: dict[str, object] = {}
    exec(capsys.readouterr().out, space)
    assert space["build_network"]()(torch.zeros(2, 3, 32, 32)).shape == (2, 7)


def test_a_users_network_with_lazy_layers_is_shown_and_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine.py").write_text(
        "from torch import nn\n"
        "def build(trial):\n"
        "    width = trial.suggest_int('width', 4, 8, step=4)\n"
        "    return nn.Sequential(nn.Conv2d(3, width, 3), nn.Flatten(), nn.LazyLinear(10))\n"
    )
    name = f'{tmp_path / "mine.py"}:build:{{"width":4}}'
    assert run(["show", name, "--image-size", "8", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["parameters"] == 4 * 27 + 4 + 4 * 36 * 10 + 10 == sum(one["parameters"] for one in facts["layers"])
    assert run(["show", name, "--image-size", "8", "--code"]) == 0
    assert "nn.Linear(144, 10)" in capsys.readouterr().out


def test_spaces_are_listed_and_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["spaces", "list", "--json"]) == 0
    listed = {one["name"]: one for one in json.loads(capsys.readouterr().out)}
    assert listed.keys() >= SPACES.keys()
    assert listed["mobilenet"]["size"] == 69_984
    assert run(["spaces", "list"]) == 0
    assert "5,120" in capsys.readouterr().out
    assert run(["spaces", "show", "residual"]) == 0
    told = capsys.readouterr().out
    assert "conv3, conv5, half, quarter" in told
    assert parse_architecture(told.splitlines()[-1].partition(": ")[2]).space == "residual"


def test_candidates_are_exported_for_a_device(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("onnxscript", reason="needs the extra ftdnas[onnx]")
    words = ["--onnx", str(tmp_path / "out"), "--candidates", "1", "--image-size", "8", "--channels", "1"]
    assert run(["spaces", "export", "--space", "convnet", *words, "--json"]) == 0
    table = Path(json.loads(capsys.readouterr().out)["table"])
    table.write_text(table.read_text().replace(",,", ",3.5,"))
    assert list(read_latency_table(table, SPACES["convnet"]).values()) == [3.5]
    assert (tmp_path / "out" / "0001.onnx").stat().st_size > 1000


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["show", "convnet:width=3x"], "width=3x is not a whole number"),
        (["show", "convnet:width=32,depth=4", "--image-size", "8"], "cannot carry 3 x 8 x 8 images"),
        (["spaces", "show", "mobilnet"], "did you mean mobilenet"),
        (["spaces", "export", "--space", "convnet", "--onnx", "x", "--image-size", "0"], "0 is not in the range"),
    ],
)
def test_wrong_input_is_one_line(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(words) == WRONG_INPUT
    (said,) = capsys.readouterr().err.splitlines()
    assert message in said
