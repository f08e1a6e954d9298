"""README.md: every block in it runs, every command is in it, and its table is what the recipes say.

Blocks run in reading order, in one folder and with one library, as a newcomer pastes them. What would take minutes or
hours is made small, in three ways and no other: `shortened` adds settings to the commands that train, and says
`--device cpu` for `--device cuda`; a few real digits, enlarged and in colour, stand in for CIFAR-10 in the data root;
`materials` makes the files that a block supposes the reader to have.
"""

from __future__ import annotations

import io
import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import click
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits

from distill.images.datasets import DATASETS
from distill.methods import METHODS
from distill.synthetic import SyntheticSet
from ftdnas.cli.main import cli
from ftdnas.sets.library import Library
from ftdnas.sets.recipes import load_recipe, recipe_keys, recipe_names


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
    return port


README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
NOT_RUN = ("make demo", "make test")  # the one installs and takes minutes, the other would run this test
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
    "search": "--where depth=1 --candidates 4 --epochs 1 --jobs 1",
    "check": "--where width=32 --where depth=1 --candidates 24 --epochs 1 --real-epochs 1 --compare params --jobs 2",
    "advise": "--where width=32 --where depth=1 --epochs 1 --jobs 1",
    "truth": "--epochs 1 --seeds 1 --jobs 1",
    "finish": "--epochs 1 --jobs 1",
}
CANDIDATES = 4  # of the search in it
PORT = free_port()


class Block(NamedTuple):
    """A fenced block: its line in README.md, its language and its text without the indentation of a list."""

    line: int
    language: str
    text: str


def blocks() -> Iterator[Block]:
    for found in re.finditer(r"^( *)```(.*)\n((?:.*\n)*?)\1```$", README, re.MULTILINE):
        indentation, language, text = found.groups()
        line = README.count("\n", 0, found.start()) + 1
        yield Block(line, language, re.sub(f"^{indentation}", "", text, flags=re.MULTILINE).strip())


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
    settings = "".join(f" --set {key}={value}" for key, value in SMALL.items())
    script = re.sub(r"^ftdnas (distill|experts) .*", rf"\g<0>{settings}", script, flags=re.MULTILINE)
    for name, fewer in FEWER.items():
        script = re.sub(rf"^ftdnas {name} .*", rf"\g<0> {fewer}", script, flags=re.MULTILINE)
    if "ftdnas serve" in script:  # whatever happens, it ends with the block; another service may have the port
        script = f"trap 'kill $(jobs -p) 2>/dev/null || true' EXIT\n{script}"
        script = script.replace("ftdnas serve", f"ftdnas serve --port {PORT}").replace(":8765", f":{PORT}")
    return script.replace("--device cuda", "--device cpu")


@pytest.fixture
def materials(tmp_path: Path, photo_folder: Path) -> Path:
    """A folder with what the blocks suppose: data/cifar10, photos, photos.csv and published."""
    write_tables(tmp_path / "data" / "cifar10")
    write_split(photo_folder, tmp_path / "photos.csv")
    published = tmp_path / "published"
    published.mkdir()
    torch.save(torch.randn(20, 3, 16, 16, generator=torch.Generator().manual_seed(0)), published / "images_best.pt")
    torch.save(torch.arange(10).repeat_interleave(2), published / "labels_best.pt")
    torch.save(torch.tensor(0.02), published / "lr_best.pt")
    return tmp_path


def write_tables(folder: Path) -> None:
    """train.parquet with 15 digits of each class, enlarged to 16 pixels and coloured, and test.parquet with 3."""
    digits = load_digits()
    folder.mkdir(parents=True)
    kinds = pa.schema([("img", pa.struct([("bytes", pa.binary()), ("path", pa.string())])), ("label", pa.int64())])
    names = {"info": {"features": {"label": {"names": [f"kind {label}" for label in range(10)]}}}}
    kinds = kinds.with_metadata({"huggingface": json.dumps(names)})
    for split, first, last in (("test", 0, 3), ("train", 3, 18)):
        rows = [
            {"img": {"bytes": encoded(digits.images[row]), "path": None}, "label": label}
            for label in range(10)
            for row in np.flatnonzero(digits.target == label)[first:last]
        ]
        pq.write_table(pa.Table.from_pylist(rows, schema=kinds), folder / f"{split}.parquet")


def encoded(digit: np.ndarray) -> bytes:
    grey = Image.fromarray((digit * 255 / 16).astype(np.uint8)).resize((16, 16))
    stream = io.BytesIO()
    Image.merge("RGB", [grey.point(lambda value, part=part: value * part // 3) for part in (3, 2, 1)]).save(
        stream, "PNG"
    )
    return stream.getvalue()


def write_split(photos: Path, file: Path) -> None:
    lines = ["file,split"]
    for folder in sorted(photos.iterdir()):
        for number, photo in enumerate(sorted(folder.iterdir())):
            split = {0: "test", 1: "validation"}.get(number % 6, "train")
            lines.append(f"{folder.name}/{photo.name},{split}")
    file.write_text("\n".join(lines) + "\n")


def test_every_block_runs(materials: Path) -> None:
    programs = Path(sys.executable).parent
    assert (programs / "ftdnas").exists()
    environment = {
        **os.environ,
        "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
        "FTDNAS_HOME": str(materials / "home"),
        "FTDNAS_DATA": str(materials / "data"),  # instead of a download
        "OMP_NUM_THREADS": "1",
    }
    run = {"bash": ["bash", "-euo", "pipefail", "-c"], "python": [sys.executable, "-W", "error", "-c"]}
    for block in blocks():
        if block.language == "text" or block.text in NOT_RUN:
            continue
        assert block.language in run, f"README.md line {block.line}: a block of {block.language!r} cannot be run"
        text = shortened(block.text) if block.language == "bash" else block.text
        done = subprocess.run(
            [*run[block.language], text],
            cwd=materials,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=900,
        )
        assert done.returncode == 0, f"README.md line {block.line}:\n{text}\n{done.stdout}\n{done.stderr}"
        if block.language == "bash":
            assert done.stdout or ">" in text, f"README.md line {block.line} prints nothing"
    check_outcome(materials)


def check_outcome(folder: Path) -> None:
    """What the README says is there when all of it has been run."""
    library = Library(folder / "home" / "sets")
    made = {entry.name: entry.facts for entry in library.list() if entry.problem is None}
    assert len(made) == len(library.names())
    assert {"digits", "cifar", "paper"} <= set(made)
    assert "theirs" not in made  # removed again
    assert (made["paper"]["recipe"], made["paper"]["preprocess"]) == ("paper-cifar10-ipc10", "zca")
    assert (made["cifar"]["recipe"], made["cifar"]["height"]) == ("cpu", 16)
    assert {"photos", "two-digits"} <= {facts["dataset"] for facts in made.values()}
    assert {facts["method"] for facts in made.values()} == {"ftd", "means"}
    assert load_recipe(folder / "my.toml").data.image_size == 32
    assert SyntheticSet.load(folder / "digits.safetensors").equal(library.load("digits"))
    assert (folder / "home" / "sets" / "digits.png").is_file()
    study = folder / "home" / "studies" / "first"
    assert len((study / "ranking.csv").read_text().splitlines()) == 1 + CANDIDATES
    assert (study / "report" / "report.html").is_file()
    (weights,) = study.glob("finish/*/weights.safetensors")
    assert {"network.py", "network.onnx", "card.md"} <= {file.name for file in weights.parent.iterdir()}


def test_every_fence_belongs_to_a_block_and_both_commands_are_there() -> None:
    found = list(blocks())
    assert 2 * len(found) == sum(line.strip().startswith("```") for line in README.splitlines())
    assert {block.language for block in found} == {"bash", "python", "text"}
    assert [block.text for block in found if block.text in NOT_RUN] == list(NOT_RUN)


def test_no_command_is_long_without_being_shortened() -> None:
    for block in blocks():
        if block.language == "bash" and block.text not in NOT_RUN:
            assert "\\" not in block.text, "a command over two lines would get its settings in the wrong place"
            for line in shortened(block.text).splitlines():
                if re.match(rf"ftdnas (distill|experts|{'|'.join(FEWER)}) ", line):
                    assert line.endswith((f"{list(SMALL)[-1]}=1", *FEWER.values())), line


def test_every_command_is_in_a_block() -> None:
    lines = [line for block in blocks() if block.language == "bash" for line in block.text.splitlines()]
    for path, _ in commands():
        assert any(f"{line} ".startswith(f"{path} ") for line in lines), f"README.md has no block with {path}"


def test_every_option_exists() -> None:
    known = {name for _, command in commands() for option in (*cli.params, *command.params) for name in option.opts}
    ours = "\n".join(line for line in README.splitlines() if not line.startswith(("make", "curl")))
    known |= {"--help"}
    for option in re.findall(r"(?<![\w-])--[a-z][a-z-]*", ours):
        assert option in known, f"README.md names {option}, and no command has it"
    for key in re.findall(r"--set '?([a-z_.]+)=", ours):
        assert key in recipe_keys(), f"README.md sets {key}, and no recipe has it"


def test_the_table_of_hardware_is_what_the_recipes_say() -> None:
    shipped = [load_recipe(name) for name in recipe_names()]
    rows = [f"| `{recipe.name}` | {recipe.description} | {recipe.hardware} |" for recipe in shipped]
    table = "\n".join(["| recipe | for | needs |", "|---|---|---|", *rows, ""])
    assert f"\n{table}\n" in README, f"the table of README.md should be\n{table}"


def test_every_data_set_and_method_is_named() -> None:
    for name in (*DATASETS, *METHODS):
        assert f"`{name}`" in README, f"README.md does not name {name}"
