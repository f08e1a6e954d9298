"""ftdnas spaces: what can be searched, and what to measure on one's own device."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from ftdnas.cli.names import Name
from ftdnas.cli.options import json_option, tell
from ftdnas.cli.progress import progress

SHOWN = 12  # values of a choice


@click.group()
def spaces() -> None:
    """The search spaces.

    Built in, of an installed package, or from a file: path/to/file.py:attribute, or space.json+path/to/file.py:builder.
    """


@spaces.command("list")
@json_option
def list_spaces(as_json: bool) -> None:
    """Every space that is known here, and how many architectures it has."""
    from search_spaces.base import SPACES
    from search_spaces.outside.load import installed_spaces

    found = [facts(name) for name in dict.fromkeys([*SPACES, *installed_spaces()])]
    installed = {True: "", False: "  (installed)"}
    lines = [
        f"{known['name']:<13}{size(known):>10}  {', '.join(known['choices'])}{installed[known['built_in']]}"
        for known in found
    ]
    tell(as_json, found, lines)


@spaces.command()
@click.argument("name", type=Name("space"))
@json_option
def show(name: str, as_json: bool) -> None:
    """What a space decides, and one architecture of it."""
    known = facts(name)
    lines = [f"{known['name']}: {size(known)} architectures"]
    for key, values in known["choices"].items():
        more = f", ... ({len(values)} seen)" if len(values) > SHOWN else ""
        lines.append(f"  {key + ':':<16}{', '.join(map(str, values[:SHOWN]))}{more}")
    tell(as_json, known, [*lines, f"one of them: {known['example']}"])


@spaces.command()
@click.option("--space", type=Name("space"), required=True, help="The search space.")
@click.option("--onnx", "folder", required=True, type=click.Path(path_type=Path, file_okay=False), help="Where to.")
@click.option("--candidates", type=click.IntRange(1), default=24, show_default=True, help="How many, stratified.")
@click.option("--image-size", type=click.IntRange(1), default=32, show_default=True, metavar="PIXELS")
@click.option("--channels", type=click.IntRange(1), default=3, show_default=True)
@click.option("--classes", type=click.IntRange(2), default=10, show_default=True)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of every draw.")
@json_option
def export(
    space: str, folder: Path, candidates: int, image_size: int, channels: int, classes: int, seed: int, as_json: bool
) -> None:
    """Write candidates as ONNX files, and a table of their latencies to fill on your device.

    ftdnas search --latency-table takes the table back. Interrupted, the same command goes on.
    """
    from ftdnas.candidates.latency import export_candidates
    from search_spaces.base import find_space

    shape = (channels, image_size, image_size)
    with progress(as_json) as listener:
        table = export_candidates(find_space(space), shape, classes, folder, candidates, seed, listener)
    said = f"fill the column latency_ms of {table}, then: ftdnas search --space {space} --latency-table {table}"
    tell(as_json, {"table": str(table), "folder": str(folder)}, [said])


def facts(name: str) -> dict[str, Any]:
    """What a space is, as JSON."""
    from search_spaces.base import SPACES, find_space, known_choices, random_architectures

    space = find_space(name)
    return {
        "name": space.name,
        "built_in": name in SPACES,
        "size": space.size,
        "code": space.code,
        "choices": {key: list(values) for key, values in known_choices(space).items()},
        "example": random_architectures(space, 1, 0)[0].name,
    }


def size(known: Mapping[str, Any]) -> str:
    return "uncounted" if known["size"] is None else f"{known['size']:,}"
