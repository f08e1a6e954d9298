from __future__ import annotations

import json
import re
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import distill.methods
from distill.synthetic import SyntheticSet
from ftdnas.cli.main import run
from ftdnas.sets.request import METHODS

SMALL = {
    "ipc": 1,
    "backbone": "convnet:width=32,depth=1",
    "experts.num_experts": 1,
    "experts.batch_size": 256,
    "matching.outer_steps": 2,
    "matching.syn_steps": 2,
    "matching.max_start_epoch": 1,
    "matching.expert_epochs": 1,
    "evaluation.validation.epochs": 2,
    "evaluation.train.epochs": 3,
    "evaluation.full.epochs": 1,
}


def small(**changes: object) -> list[str]:
    settings = {**SMALL, **{key.replace("__", "."): value for key, value in changes.items()}}
    return ["--threads", "1", *(word for key, value in settings.items() for word in ("--override", f"{key}={value}"))]


def answer(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> Any:
    code = run(arguments)
    captured = capsys.readouterr()
    assert code == 0, captured.err
    assert captured.err == ""  # with --json there is nothing but the answer
    return json.loads(captured.out)


def test_bare_command_says_what_it_chose_and_what_comes_next(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["distill", *small()]) == 0
    captured = capsys.readouterr()
    said = captured.err.splitlines()
    assert said[0].startswith("recipe quick, the recipe of the demo (two CPU cores")
    assert any("digits, bundled with scikit-learn: 1,143 training images of 8x8 pixels" in line for line in said)
    assert any(re.match(r"this takes \d+ to \d+ (s|min)", line) and "Ctrl-C is safe" in line for line in said)
    facts = {line.split()[0]: line.split(maxsplit=1)[1] for line in captured.out.splitlines() if line[0] != " "}
    name = facts["set"]
    assert name.startswith("digits-ipc1-ftd-quick-")
    assert Path(facts["file"]).is_file()
    assert Path(facts["look"].removeprefix("at").strip()).read_bytes().startswith(b"\x89PNG")
    assert facts["next"] == f"ftdnas evaluate {name} --against random,full"
    assert f"ftdnas search --space convnet --set {name}" in captured.out
    assert "% on the validation images that chose it" in facts["reaches"]


def test_json_is_all_there_is_on_stdout(capsys: pytest.CaptureFixture[str]) -> None:
    first = answer(["distill", "--json", "--method", "random", "--ipc", "2", "--name", "few", *small(ipc=2)], capsys)
    assert (first["name"], first["new"], first["images"]) == ("few", True, 20)
    made = SyntheticSet.load(first["path"])
    assert made.provenance["method"] == "random"
    assert first["step_size"] == made.step_size
    again = answer(["distill", "--json", "--method", "random", *small(ipc=2)], capsys)
    assert (again["name"], again["new"]) == ("few", False)


def test_help_names_every_method() -> None:
    assert tuple(distill.methods.METHODS) == METHODS


def test_a_memory_budget_cuts_minibatches_and_is_said(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("distill.training.derivatives.taken_bytes", lambda device: 0)  # noqa: ARG005
    told = answer(["distill", "--json", "--name", "cut", "--memory", "4M", *small(ipc=20)], capsys)
    provenance = SyntheticSet.load(told["path"]).provenance
    assert not provenance["derivatives"]["compiled"]
    assert 1 <= provenance["derivatives"]["chunk_size"] < 100


def test_experts_alone(capsys: pytest.CaptureFixture[str]) -> None:
    told = answer(["experts", "--json", *small()], capsys)
    assert (told["experts"], told["epochs"]) == (1, 1)
    assert len(list(Path(told["folder"]).glob("*.safetensors"))) == 1
    assert run(["experts", *small()]) == 0
    assert capsys.readouterr().out.startswith("1 experts of 1 epochs in ")


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--dataset", "digitz"], "ftdnas: unknown data set 'digitz': did you mean digits?"),
        (["--dataset", "folder:no/where"], "no/where"),
        (["--dataset", "cifar10", "--offline"], "cifar10"),
        (["--recipe", "quik"], "ftdnas: unknown recipe 'quik': did you mean quick?"),
        (
            ["--override", "matching.outer_step=3"],
            "ftdnas: --override matching.outer_step=3: unknown key matching.outer_step: did",
        ),
        (["--method", "ftdd"], "ftdnas: unknown method 'ftdd': choose from ftd, mtt"),
        (["--ipc", "0"], "ftdnas: Invalid value for '--ipc'"),
        (["--validation", "0.95"], "ftdnas: "),
        (["--validation", "-1"], "ftdnas: "),
        (["--image-size", "3"], "ftdnas: "),
        (["--image-size", "3", "--recipe", "cpu"], "ftdnas: "),
        (["--memory", "4"], "'4' is no size such as 500M or 4G"),
        (["--memory", "1M"], "ftdnas: the memory is too little: one image alone takes"),
    ],
)
def test_what_cannot_be_done_is_one_line(
    arguments: list[str], line: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("FTDNAS_DATA", raising=False)
    assert run(["distill", *arguments, "--override", "experts.num_experts=1", "--json"]) == 2
    captured = capsys.readouterr()
    assert line in captured.err
    assert captured.err.count("\n") == 1
    assert captured.out == ""


def test_ctrl_c_is_one_line_and_the_same_command_goes_on(begin: Callable[..., Any]) -> None:
    apart = begin("distill", *small(matching__outer_steps=3000, matching__syn_steps=9))
    while "Ctrl-C is safe" not in (apart.err.read_text() if apart.err.exists() else "") and apart.process.is_alive():
        time.sleep(0.01)
    assert apart.send(signal.SIGINT) == 130
    said = apart.err.read_text()
    assert said.splitlines()[-1] == "ftdnas: interrupted: the same command goes on from here"
    assert "Traceback" not in said
    assert apart.out.read_text() == ""
