"""How sets and studies are given, what the shell completes, and how help is laid out."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import pytest
from click.shell_completion import ShellComplete

from distill.images.datasets import DATASETS as REGISTERED_DATASETS
from distill.synthetic import SyntheticSet
from ftdnas.candidates.screening import SCORES as REGISTERED_SCORES
from ftdnas.cli.main import COMMANDS, cli, load_command, run
from ftdnas.cli.names import DATASETS, PROXIES, SCORES, SPACES
from ftdnas.cli.options import RequestCommand, request_values
from ftdnas.proxies.names import PROXIES as REGISTERED_PROXIES
from ftdnas.runtime.home import studies_folder
from ftdnas.runtime.options import GROUPS
from ftdnas.sets.library import Library
from search_spaces.base import SPACES as REGISTERED_SPACES

TRAIN = ("distill", "experts", "evaluate", "advise", "check", "search", "trust", "truth", "finish")


def parsed(*words: str) -> tuple[click.Command, dict[str, Any]]:
    """The command of a line and its values."""
    context = cli.make_context("ftdnas", list(words))
    while isinstance(context.command, click.Group):
        name, found, rest = context.command.resolve_command(context, [*context._protected_args, *context.args])
        assert found is not None
        context = found.make_context(name, rest, parent=context)
    return context.command, context.params


@pytest.mark.parametrize(
    ("line", "flag"),
    [
        ("evaluate X --seeds 3", "--set"),
        ("sets show X", "--set"),
        ("sets push X http://there", "--set"),
        ("sets verify X", "--set"),
        ("sets export X out --as sheet", "--set"),
        ("sets remove X --yes", "--set"),
        ("truth X --epochs 3", "--study"),
        ("trust X", "--study"),
        ("report X --all", "--study"),
        ("finish X -a 12ab", "--study"),
        ("predict X one.jpg two.jpg", "--study"),
        ("studies show X", "--study"),
        ("studies remove X", "--study"),
    ],
)
def test_a_set_and_a_study_are_given_bare_or_by_their_flag(line: str, flag: str) -> None:
    bare = parsed(*line.split())
    assert "X" in bare[1].values() or ("X",) in bare[1].values()
    words = line.replace(" X", "").split()
    assert parsed(*words, flag, "X") == bare
    assert parsed(*words, f"{flag}=X") == bare


def test_several_are_given_by_as_many_flags() -> None:
    assert parsed("studies", "remove", "--study", "a", "--study=b", "c")[1]["names"] == ("a", "b", "c")
    assert parsed("sets", "verify", "--", "--set", "x")[1]["names"] == ("--set", "x")
    with pytest.raises(click.UsageError, match="unexpected extra argument"):
        parsed("report", "one", "--study", "two")
    with pytest.raises(click.UsageError, match="requires an argument"):
        parsed("report", "--study")


@pytest.mark.parametrize("line", ["distill", "experts", "evaluate few", "recipes show quick"])
def test_settings_given_as_sets_are_answered_with_what_to_write(line: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([*line.split(), "--set", "experts.num_experts=1"]) == 2
    said = "ftdnas: --set names a synthetic set: write --override experts.num_experts=1\n"
    assert capsys.readouterr().err == said


def completed(line: str) -> list[str]:
    *words, incomplete = line.split(" ")
    return [one.value for one in ShellComplete(cli, {}, "ftdnas", "").get_completions(words, incomplete)]


def test_the_shell_completes_names(make_set: Callable[..., SyntheticSet]) -> None:
    for name in ("digits", "dogs"):
        Library().add(make_set(), name)
    for name in ("first", "second"):
        (studies_folder() / name).mkdir(parents=True)
    assert completed("search --set di") == completed("evaluate di") == completed("evaluate --set di") == ["digits"]
    assert completed("sets show ") == completed("advise --set ") == ["digits", "dogs"]
    studies = ["first", "second"]
    assert completed("trust ") == completed("search --study ") == completed("studies remove ") == studies
    assert completed("predict --study s") == completed("show --study s") == ["second"]
    assert completed("search --space n") == completed("spaces show n") == ["nasbench201"]
    assert completed("distill --dataset cifar") == ["cifar10", "cifar100"]
    assert completed("check --proxy az") == ["az_nas", "az_nas.shrunk"]
    assert "all" in completed("search --compare ")
    assert completed("tr") == ["trust", "truth"]
    assert "--override" in completed("distill --o")


def test_what_is_completed_is_what_there_is() -> None:
    assert tuple(REGISTERED_SPACES) == SPACES
    assert tuple(REGISTERED_DATASETS) == DATASETS
    assert tuple(REGISTERED_SCORES) == SCORES
    assert PROXIES == REGISTERED_PROXIES


COMPLETING = """
import sys
from click.shell_completion import ShellComplete
from ftdnas.cli.main import cli
for words in (["trust"], ["studies", "show"], ["evaluate", "--set"], ["search", "--proxy"], []):
    ShellComplete(cli, {}, "ftdnas", "").get_completions(words, "")
print(",".join({"torch", "numpy", "optuna", "pyarrow"} & set(sys.modules)) or "light")
"""


def test_completing_loads_nothing_heavy() -> None:
    done = subprocess.run([sys.executable, "-c", COMPLETING], capture_output=True, text=True, check=True)
    assert done.stdout == "light\n"


@pytest.mark.parametrize("name", COMMANDS)
def test_help_is_at_most_100_columns_and_in_groups(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    command = load_command(name)
    assert run([name, "--help"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 100
    if isinstance(command, RequestCommand):
        titles = [line[:-1] for line in lines if re.fullmatch(r"[A-Z][a-z ]+:", line)]
        order = ["Options", *GROUPS[1:]]
        assert titles == [title for title in order if title in titles]
        assert {"Options", "Data", "Output"} <= set(titles)
        assert sum(group == "" for group in command.groups.values()) in (3, 4)


@pytest.mark.parametrize("name", TRAIN)
def test_help_ends_in_two_examples_that_can_be_given(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([name, "--help"]) == 0
    *_, title, first, second = capsys.readouterr().out.rstrip().splitlines()
    assert title == "  Examples:"
    for line in (first, second):
        ours, *words = shlex.split(line)
        command, values = parsed(*words)
        assert (ours, command.name) == ("ftdnas", name)
        assert isinstance(command, RequestCommand)
        command.request(**request_values(command.request, values))


def test_names_are_looked_up_in_the_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FTDNAS_HOME", str(tmp_path / "nowhere"))
    assert completed("trust ") == completed("evaluate ") == []
