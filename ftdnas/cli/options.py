"""Options that several commands share, and the values they become."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

Command = TypeVar("Command", bound=Callable[..., Any])


def data_options(default: str | None = None) -> Callable[[Command], Any]:
    """Which real images: one argument `source`, a `Source`, whose spec is `default` or "" where none is given."""

    def decorate(command: Command) -> Any:
        @functools.wraps(command)
        def wrapper(
            dataset: str | None,
            data_root: Path | None,
            image_size: int | None,
            validation: float | None,
            split: Path | None,
            split_seed: int,
            offline: bool,
            **others: Any,
        ) -> Any:
            from ftdnas.sets.images import Source  # it imports torch

            source = Source(dataset or "", data_root, image_size, validation, split, split_seed, offline)
            return command(source=source, **others)

        given = "the set's own" if default is None else default
        return with_options(
            wrapper,
            click.option(
                "--dataset",
                metavar="NAME",
                default=default,
                help=f"A known data set, folder:PATH or parquet:PATH (default: {given}).",
            ),
            click.option(
                "--data-root",
                type=click.Path(path_type=Path, file_okay=False),
                envvar="FTDNAS_DATA",
                help="Folder with NAME/train.parquet of known data sets; also FTDNAS_DATA.",
            ),
            click.option("--image-size", type=int, metavar="PIXELS", help="Bring the images to this side."),
            click.option(
                "--validation",
                type=float,
                metavar="FRACTION",
                help="Training images held back for every choice; 0 is the papers' protocol.",
            ),
            click.option(
                "--split",
                type=click.Path(path_type=Path, dir_okay=False),
                help="CSV of file,split: which photo is for train, validation, test.",
            ),
            click.option(
                "--split-seed", type=click.IntRange(0), default=0, show_default=True, help="Of the split, if drawn."
            ),
            click.option("--offline", is_flag=True, help="Never download."),
        )

    return decorate


def recipe_options(command: Command) -> Any:
    """--recipe and --set, as `recipe` (None where not given) and `settings`."""
    return with_options(
        command,
        click.option("--recipe", metavar="NAME|FILE", help="A shipped recipe or a TOML file; see ftdnas recipes."),
        click.option(
            "--set",
            "settings",
            multiple=True,
            metavar="SECTION.KEY=VALUE",
            help="Change one setting of the recipe; may be repeated.",
        ),
    )


def machine_options(command: Command) -> Any:
    """--device and --threads."""
    return with_options(
        command,
        click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True),
        click.option("--threads", type=click.IntRange(1), help="CPU threads (default: one per core)."),
    )


class Size(click.ParamType):  # type: ignore[type-arg]  # click 8.1 has no type of its own for it
    """Bytes, from 500M, 4G or 1.5G."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        found = re.fullmatch(r"(\d+(?:\.\d+)?)([MG])B?", str(value).strip(), re.IGNORECASE)
        if not found or float(found.group(1)) == 0:
            self.fail(f"{value!r} is no size such as 500M or 4G", param, ctx)
        return int(float(found.group(1)) * 2 ** {"M": 20, "G": 30}[found.group(2).upper()])


def derivative_options(command: Command) -> Any:
    """--memory and --compile, of what trains experts and matches them."""
    return with_options(
        command,
        click.option("--memory", type=Size(), metavar="SIZE", help="To keep to, such as 4G: minibatches are cut."),
        click.option("--compile/--eager", "compiled", default=None, help="By torch.compile (default: where it pays)."),
    )


seed_option = click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of every draw.")
json_option = click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout and nothing else.")


def with_options(command: Any, *options: Callable[[Any], Any]) -> Any:
    """The command with these options, shown in this order."""
    for option in reversed(options):
        command = option(command)
    return command
