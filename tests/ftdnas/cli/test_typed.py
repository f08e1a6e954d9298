"""What is printed to be pasted can be pasted."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path

import click
import pytest

from ftdnas.cli.main import load_command, run
from ftdnas.ranking.study import ranked_study
from ftdnas.report.answer import answer
from ftdnas.runtime.home import typed

NAMES = ["first", "a b", "-x", "--all", "50%", "ä", "it's", "$HOME", "a;b"]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("command", ["finish", "trust", "report"])
def test_a_name_comes_back_from_a_shell(name: str, command: str) -> None:
    words = shlex.split(f"ftdnas {command} {typed(name)}")
    made = load_command(words[1])
    context = made.make_context(command, words[2:], resilient_parsing=True)
    assert isinstance(context, click.Context)
    assert context.params["study"] == name


@pytest.mark.parametrize("name", ["a b", "-x"])
def test_the_next_commands_of_a_ranking_name_its_study(name: str, keep_ranking: Callable[..., Path]) -> None:
    keep_ranking(name, {"convnet:depth=1": 0.5, "convnet:depth=2": 0.4}, "late loss")
    lines = answer(ranked_study(name)[1], 80, None)
    (line,) = (line for line in lines if "ftdnas finish " in line)
    assert shlex.split(line.partition("  ")[2])[:3] == ["ftdnas", "finish", name if " " in name else f"--study={name}"]
    assert run(shlex.split(f"studies show {typed(name)}")) == 0
