from __future__ import annotations

import errno
import subprocess
import sys
from pathlib import Path

import pytest

from ftdnas.cli.main import COMMANDS, describe, run

LOADED = """
import sys
from ftdnas.cli.main import run
code = run(["--help"])
heavy = {"torch", "torchvision", "optuna", "nni", "pandas", "scipy", "sklearn", "matplotlib", "numpy"}
heavy |= {"fastapi", "pydantic", "sqlalchemy", "safetensors", "pyarrow", "PIL", "httpx", "ray"}
print(code, ",".join(sorted(heavy & set(sys.modules))) or "light", file=sys.stderr)
"""


def test_help_loads_nothing_heavy() -> None:
    done = subprocess.run([sys.executable, "-c", LOADED], capture_output=True, text=True, check=True)
    for command in COMMANDS:
        assert f"\n  {command} " in done.stdout
    assert done.stderr.split() == ["0", "light"]


def test_module_runs_as_the_command_does() -> None:
    done = subprocess.run([sys.executable, "-m", "ftdnas", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("ftdnas ")


@pytest.mark.parametrize("arguments", [[], ["sets"], ["recipes"]])
def test_a_group_without_a_command_shows_its_help(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(arguments) == 0
    out = capsys.readouterr().out
    assert out.startswith(" ".join(["Usage: ftdnas", *arguments]))
    assert "\nCommands:\n" in out


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_its_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([name, "--help"]) == 0
    assert f"Usage: ftdnas {name}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["distil"], "ftdnas: no command 'distil': did you mean distill?\n"),
        (["recipes", "show", "quik"], "ftdnas: unknown recipe 'quik': did you mean quick?, or give a .toml file\n"),
        (["recipes", "show", "no/such.toml"], "ftdnas: no recipe file no/such.toml\n"),
        (["recipes", "show", "quick", "--override", "ipc=0"], "ftdnas: ipc is 0, not 1 or more\n"),
        (["recipes", "show"], "ftdnas: Missing argument 'NAME|FILE'.\n"),
        (["recipes", "list", "--jsn"], "ftdnas: No such option '--jsn'. Did you mean '--json'?\n"),
    ],
)
def test_a_users_error_is_one_line_and_exit_code_2(
    arguments: list[str], line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(arguments) == 2
    captured = capsys.readouterr()
    assert captured.err == line
    assert captured.out == ""


def test_traceback_on_demand_and_for_bugs(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(LookupError, match="unknown recipe"):
        run(["--traceback", "recipes", "show", "quik"])
    monkeypatch.setitem(COMMANDS, "broken", ("math:tau", "is no command"))
    with pytest.raises(AssertionError):
        run(["broken"])


def test_errors_say_what_they_mean(tmp_path: Path) -> None:
    assert describe(KeyError("no set 'x'")) == "no set 'x'"
    assert describe(OSError(errno.ENOSPC, "No space left on device", "/full")) == "No space left on device: /full"
    assert describe(ValueError()) == "ValueError"
    with pytest.raises(FileNotFoundError) as caught:
        (tmp_path / "absent").read_text()
    assert describe(caught.value) == f"No such file or directory: {tmp_path / 'absent'}"


def test_a_reader_who_has_enough_is_no_error() -> None:
    command = [sys.executable, "-m", "ftdnas", "recipes", "show", "quick"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == ""
    assert process.returncode == 1


@pytest.mark.parametrize(("closed", "told"), [("1>&-", ""), ("2>&-", "CIFAR-10 at 16 pixels"), ("0<&- 1>&- 2>&-", "")])
def test_without_streams_it_works_as_with_dev_null(closed: str, told: str, tmp_path: Path) -> None:
    command = f"{sys.executable} -m ftdnas recipes list {closed} && echo fine >{tmp_path / 'ended'}"
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=False)
    assert (tmp_path / "ended").exists(), done.stderr
    assert "Traceback" not in done.stderr
    assert told in done.stdout


def test_a_server_named_in_the_environment_does_not_stop_what_is_done_here(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FTDNAS_SERVER", "http://127.0.0.1:9")
    assert run(["sets", "list"]) == 0
    assert run(["--server", "http://127.0.0.1:9", "sets", "list"]) == 2
    assert "sets works on this machine" in capsys.readouterr().err
