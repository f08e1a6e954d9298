"""README.md and docs/: every block in them runs, every command is in one, and their tables are what the code says.

One test a page. The README goes the main path from an empty library; every other page begins with a copy of what that
left, so that it runs alone, in any order and in any process. Lines of `ftdnas` run in this process, as do blocks of
Python (one that begins with `# NAME.py` is written to that file); services and curl are processes of their own. What
would take minutes or hours is made small, in three ways and no other: `shortened` adds settings to the commands that
train, and says `--device cpu` for `--device cuda`; a few real digits, enlarged and in colour, stand in for CIFAR-10 in
the data root; conftest.py makes the files that a page supposes the reader to have.

After a change of options or recipes: FTDNAS_WRITE_DOCS=1 pytest tests/test_docs.py writes docs/options.md and the table
of recipes anew.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import runpy
import shlex
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import click
import pytest
import torch
from click.testing import CliRunner

from distill.files import locked
from distill.images.datasets import DATASETS
from distill.methods import METHODS
from distill.synthetic import SyntheticSet
from ftdnas.cli.main import cli, run
from ftdnas.sets.library import Library
from ftdnas.sets.recipes import load_recipe, recipe_keys, recipe_names

ROOT = Path(__file__).parents[1]
OPTIONS = ROOT / "docs" / "options.md"
PAGES = {
    path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8")
    for path in (
        *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")),
        *sorted((ROOT / "docs").glob("*.md")),
    )
}
WRITTEN = {name: text for name, text in PAGES.items() if name != "docs/options.md"}  # by hand
NOT_RUN = ("make ", "FTDNAS_WRITE_DOCS=1 ")  # they install, take minutes, or would run this test
SMALL = {
    "backbone": "convnet:width=32,depth=1",
    "experts.num_experts": 1,
    "matching.outer_steps": 1,
    "matching.syn_steps": 1,
    "matching.expert_epochs": 1,
    "matching.max_start_epoch": 1,
    "evaluation.train.epochs": 1,
    "evaluation.validation.epochs": 1,
    "evaluation.full.epochs": 1,
}
FEWER = {
    "search": "--candidates 4 --epochs 1 --jobs 1",
    "check": "--where width=32 --where depth=1 --candidates 24 --epochs 1 --real-epochs 1 --compare params --jobs 1",
    "advise": "--where width=32 --where depth=1 --epochs 1 --jobs 1",
    "trust": "--epochs 1 --jobs 1",
    "truth": "--epochs 1 --seeds 1 --jobs 1",
    "finish": "--epochs 1 --jobs 1",
}
CANDIDATES = 4  # of a search in them
EXAMPLES: dict[str, dict[str, Any]] = {  # as small
    "distil_and_look": {"settings": [f"{key}={value}" for key, value in SMALL.items()]},
    "rank_three_networks": {"epochs": 1},
    "optuna_loop": {"trials": 2},
}


class Block(NamedTuple):
    """A fenced block: its line in its page, its language and its text without the indentation of a list."""

    line: int
    language: str
    text: str


def blocks(page: str) -> list[Block]:
    text = PAGES[page]
    return [
        Block(
            text.count("\n", 0, match.start()) + 1,
            match.group(2),
            re.sub(f"^{match.group(1)}", "", match.group(3), flags=re.MULTILINE).strip(),
        )
        for match in re.finditer(r"^( *)```(.*)\n((?:.*\n)*?)\1```$", text, re.MULTILINE)
    ]


def bash_lines() -> Iterator[tuple[str, str]]:
    """(page, line) of every block of bash."""
    for page in WRITTEN:
        for block in blocks(page):
            if block.language == "bash":
                yield from ((page, line) for line in block.text.splitlines())


def commands(group: click.Group = cli, path: str = "ftdnas") -> Iterator[tuple[str, click.Command]]:
    """("ftdnas sets list", its click command) and so on, of every command that is not itself a group."""
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        if isinstance(command, click.Group):
            yield from commands(command, f"{path} {name}")
        else:
            yield f"{path} {name}", command


def shortened(script: str) -> str:
    """The same commands, with the smallest settings and without a GPU."""
    settings = "".join(f" --override {key}={value}" for key, value in SMALL.items())
    script = re.sub(r"^ftdnas (distill|experts) .*", rf"\g<0>{settings}", script, flags=re.MULTILINE)
    for name, fewer in FEWER.items():
        script = re.sub(rf"^ftdnas (--server \S+ )?{name} .*", rf"\g<0> {fewer}", script, flags=re.MULTILINE)
    script = re.sub(r"^ftdnas (--server \S+ )?search .*--space convnet.*", r"\g<0> --where depth=1", script, flags=re.M)
    # How many processes is a server's own affair, and nothing needs to be trained to see that it does the job.
    script = re.sub(r"^(ftdnas --server .*) --jobs 1", r"\1 --proxy params", script, flags=re.MULTILINE)
    script = re.sub(r"^(ftdnas evaluate .*--seeds) \d+", r"\1 1", script, flags=re.MULTILINE)
    return script.replace("--device cuda", "--device cpu")


@dataclass
class Reader:
    """Who reads a page in `reading`: what it has changed and begun, which ends with it."""

    environment: pytest.MonkeyPatch
    port: int  # of a service; another may have the usual one
    running: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def read(self, page: str) -> None:
        """Run the blocks of a page in reading order, in the working directory."""
        for block in blocks(page):
            if block.language == "text" or block.text.startswith(NOT_RUN):
                continue
            where = f"{page} line {block.line}"
            text = block.text.replace(":8765", f":{self.port}")
            name = re.match(r"# (\w+\.py)\n", text)
            if name:
                Path(name.group(1)).write_text(text)
            elif block.language == "python":
                exec(compile(text, where, "exec"), {"__name__": "__main__"})
            else:
                for line in shortened(text).splitlines():
                    self.run(where, line)

    def run(self, where: str, line: str) -> None:
        """One line of a shell. A command of ours, perhaps with `> FILE` at its end, runs in this process."""
        words = shlex.split(line)
        if words[0] == "export":
            name, _, value = words[1].partition("=")
            self.environment.setenv(name, value)
        elif words[-1] == "&":
            line = line[:-1].replace("ftdnas serve", f"ftdnas serve --port {self.port}")
            self.running.append(subprocess.Popen(["bash", "-c", f"exec {line}"], stdin=subprocess.DEVNULL))
        elif words[0] == "kill":
            assert all(process.poll() is None for process in self.running), f"{where}: a service ended by itself"
            self.end()
        elif words[0] == "curl":
            subprocess.run(["bash", "-euo", "pipefail", "-c", line], check=True, timeout=300)
        else:
            assert words[0] == "ftdnas", f"{where}: {line}: no such line is expected"
            words, file = (words[:-2], words[-1]) if ">" in words else (words, None)
            printed = io.StringIO()
            with contextlib.redirect_stdout(printed):
                code = run(words[1:])
            print(printed.getvalue())  # for whoever reads why a test failed
            assert code == 0, f"{where}: {line}"
            assert printed.getvalue(), f"{where}: {line} prints nothing"
            if file is not None:
                Path(file).write_text(printed.getvalue())

    def end(self) -> None:
        for process in self.running:
            process.terminate()
        for process in self.running:
            process.wait(60)
        self.running.clear()


@contextlib.contextmanager
def reading(folder: Path) -> Iterator[Reader]:
    """In `folder`, with its library and images; registries, threads and environment are afterwards what they were."""
    threads = torch.get_num_threads()
    known = [(registry, set(registry)) for registry in (DATASETS, METHODS)]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
    programs = Path(sys.executable).parent
    assert (programs / "ftdnas").exists()
    with pytest.MonkeyPatch.context() as environment:
        environment.chdir(folder)
        environment.setenv("FTDNAS_HOME", str(folder / "home"))
        environment.setenv("FTDNAS_DATA", str(folder / "data"))  # instead of a download
        environment.setenv("OMP_NUM_THREADS", "1")
        environment.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
        reader = Reader(environment, port)
        try:
            yield reader
        finally:
            reader.end()
            torch.set_num_threads(threads)
            for registry, names in known:
                for name in set(registry) - names:
                    del registry[name]


@pytest.fixture(scope="session")
def main_path(tmp_path_factory: pytest.TempPathFactory, lay_out_materials: Callable[[Path], None]) -> Path:
    """A folder in which the README was read, once for all processes of this run of pytest."""
    own = tmp_path_factory.getbasetemp()
    place = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "docs"
    place.mkdir(exist_ok=True)
    with locked(place / "lock"):
        if not (place / "read").exists():
            shutil.rmtree(place / "folder", ignore_errors=True)
            (place / "folder").mkdir()
            lay_out_materials(place / "folder")
            with reading(place / "folder") as reader:
                reader.read("README.md")
            (place / "read").touch()
    return place / "folder"


@pytest.fixture
def folder(main_path: Path, tmp_path: Path) -> Path:
    """A copy of it, for a page to work in."""
    return Path(shutil.copytree(main_path, tmp_path / "folder"))


def test_the_readme_goes_the_main_path(main_path: Path) -> None:
    assert SyntheticSet.load(main_path / "home" / "sets" / "digits.safetensors").ipc == 1
    assert (main_path / "home" / "sets" / "digits.png").is_file()
    study = main_path / "home" / "studies" / "first"
    assert len((study / "ranking.csv").read_text().splitlines()) == 1 + CANDIDATES
    assert (study / "report" / "report.html").is_file()
    (weights,) = study.glob("finish/*/weights.safetensors")
    assert {"network.py", "network.onnx", "card.md"} <= {file.name for file in weights.parent.iterdir()}


@pytest.mark.parametrize("page", [name for name in WRITTEN if name != "README.md" and "```" in PAGES[name]])
def test_every_block_of_a_page_runs(page: str, folder: Path) -> None:
    with reading(folder) as reader:
        reader.read(page)
        if page in OUTCOMES:
            OUTCOMES[page](folder)


def distilled(folder: Path) -> None:
    """What docs/distil.md says is there when all of it has been run."""
    library = Library(folder / "home" / "sets")
    made = {entry.name: entry.facts for entry in library.list() if entry.problem is None}
    assert len(made) == len(library.names())
    assert {facts["method"] for facts in made.values()} == {"ftd"}
    assert "theirs" not in made  # removed again
    assert (made["paper"]["recipe"], made["paper"]["preprocess"]) == ("paper-cifar10-ipc10", "zca")
    assert load_recipe(folder / "my.toml").data.image_size == 32
    assert SyntheticSet.load(folder / "digits.safetensors").equal(library.load("digits"))


def own_images(folder: Path) -> None:
    made = {entry.name: entry.facts for entry in Library(folder / "home" / "sets").list()}
    assert (made["cifar"]["recipe"], made["cifar"]["height"]) == ("cpu", 16)
    assert sum(facts["dataset"] == "photos" for facts in made.values()) == 2


def extended(folder: Path) -> None:
    facts = [entry.facts for entry in Library(folder / "home" / "sets").list()]
    assert ("two-digits", "means") in {(fact["dataset"], fact["method"]) for fact in facts}


OUTCOMES: dict[str, Callable[[Path], None]] = {
    "docs/distil.md": distilled,
    "docs/own-images.md": own_images,
    "docs/extending.md": extended,
}


@pytest.mark.parametrize("script", sorted((ROOT / "examples").glob("*.py")), ids=lambda path: path.stem)
def test_every_example_runs(script: Path, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with reading(folder):
        runpy.run_path(str(script))["main"](**EXAMPLES[script.stem])
    assert capsys.readouterr().out


@pytest.mark.parametrize("page", PAGES)
def test_every_fence_belongs_to_a_block(page: str) -> None:
    assert 2 * len(blocks(page)) == sum(line.strip().startswith("```") for line in PAGES[page].splitlines())
    assert {block.language for block in blocks(page)} <= {"bash", "python", "text"}


def test_the_readme_is_a_page() -> None:
    assert len(PAGES["README.md"].splitlines()) <= 150


@pytest.mark.parametrize("page", PAGES)
def test_every_link_leads_somewhere(page: str) -> None:
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", PAGES[page]):
        if not target.startswith("http"):
            assert (ROOT / page).parent.joinpath(target).exists(), f"{page} leads to {target}"


def test_every_page_is_named_in_the_readme() -> None:
    for page in PAGES:
        assert page == "README.md" or f"({page})" in PAGES["README.md"], f"README.md does not lead to {page}"


def test_no_command_is_long_without_being_shortened() -> None:
    ends = (f"{list(SMALL)[-1]}=1", *FEWER.values(), "--where depth=1")  # the last: of a search
    for page, line in bash_lines():
        assert not line.endswith("\\"), f"{page}: a command over two lines would get its settings in the wrong place"
        if re.match(rf"ftdnas (--server \S+ )?(distill|experts|{'|'.join(FEWER)}) ", line):
            assert shortened(line).endswith(ends), f"{page}: {line}"


def test_every_command_is_in_a_block() -> None:
    lines = [line for _, line in bash_lines()]
    for path, _ in commands():
        assert any(f"{line} ".startswith(f"{path} ") for line in lines), f"no page has a block with {path}"


@pytest.mark.parametrize("page", WRITTEN)
def test_every_option_exists(page: str) -> None:
    known = {name for _, command in commands() for option in (*cli.params, *command.params) for name in option.opts}
    known |= {name for _, command in commands() for option in command.params for name in option.secondary_opts}
    known |= {"--help"}
    ours = "\n".join(line for line in PAGES[page].splitlines() if not re.match(r"(make|curl|git|pytest|#SBATCH)", line))
    for option in re.findall(r"(?<![\w-])--[a-z][a-z-]*", ours):
        assert option in known or page == "CHANGELOG.md", f"{page} names {option}, and no command has it"
    for key in re.findall(r"--override '?([a-z_.]+)=", ours):
        assert key in recipe_keys(), f"{page} sets {key}, and no recipe has it"


def test_every_data_set_and_method_is_named() -> None:
    for name in DATASETS:
        assert f"`{name}`" in PAGES["docs/own-images.md"], f"docs/own-images.md does not name {name}"
    for name in METHODS:
        assert f"`{name}`" in PAGES["docs/distil.md"], f"docs/distil.md does not name {name}"


def test_the_table_of_recipes_is_what_they_say() -> None:
    shipped = [load_recipe(name) for name in recipe_names()]
    rows = [f"| `{recipe.name}` | {recipe.description} | {recipe.hardware} |" for recipe in shipped]
    table = "\n".join(["| recipe | for | needs |", "|---|---|---|", *rows, ""])
    page = "docs/distil.md"
    written = re.sub(r"\| recipe \|.*\n(?:\|.*\n)+", lambda _: table, PAGES[page])
    assert table in written
    keep(ROOT / page, written)


def test_the_lists_of_options_are_what_help_says() -> None:
    """Every command's --help, made to be the same on every machine."""
    parts = ["# Every option of every command\n\nWhat `--help` says, written down by tests/test_docs.py.\n"]
    for path in ("ftdnas", *(path for path, _ in commands())):
        asked = CliRunner().invoke(cli, [*path.split()[1:], "--help"], prog_name="ftdnas", terminal_width=100)
        assert asked.exit_code == 0, path
        parts.append(f"## {path}\n\n```text\n{asked.output.strip()}\n```\n")
    keep(OPTIONS, "\n".join(parts))


def keep(file: Path, text: str) -> None:
    """Fail where the file says something else, or write it where that is asked for."""
    if "FTDNAS_WRITE_DOCS" in os.environ:
        file.write_text(text, encoding="utf-8")
    assert file.read_text(encoding="utf-8") == text, f"{file.name}: FTDNAS_WRITE_DOCS=1 pytest tests/test_docs.py"
