"""ftdnas sets: the library of synthetic sets."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from distill.run import Listener
from ftdnas.cli.options import Group, command, json_option, named, tell
from ftdnas.cli.progress import progress
from ftdnas.cli.remote import connected
from ftdnas.sets.library import Entry, Library, curve_of, facts, sheet_of
from ftdnas.sets.request import ImportRequest

if TYPE_CHECKING:
    from distill.synthetic import SyntheticSet
    from ftdnas.sets.nearest import Nearest

data_root_option = click.option(
    "--data-root",
    type=click.Path(path_type=Path, file_okay=False),
    envvar="FTDNAS_DATA",
    help="Folder with NAME/train.parquet of known data sets; also FTDNAS_DATA.",
)
FORMATS = ("set", "tensors", "sheet", "folder")  # of ftdnas.sets.export, which needs torch
FAILED = 1


@click.group(cls=Group)
def sets() -> None:
    """The library of synthetic sets in FTDNAS_HOME.

    A set is named by its name, by the beginning of it, or by the path of its file.
    """


@sets.command("list")
@json_option
def list_sets(as_json: bool) -> None:
    """Every set with its size and validation accuracy."""
    entries = Library().list()
    if entries and not as_json:
        print_table(entries)
    else:
        tell(as_json, [entry.to_json() for entry in entries], ["the library is empty: ftdnas distill makes a set"])


@sets.command()
@named("set", "name")
@data_root_option
@json_option
def show(name: str, data_root: Path | None, as_json: bool) -> None:
    """What a set is, where it came from, what training it was made for, and how many of its images point to one photo.

    For sets of earlier versions that is counted where the real images are at hand.
    """
    from ftdnas.sets.nearest import describe_images

    path = Library().path(name)
    synthetic = Library().load(path)
    described, nearest = describe(path, synthetic), known_nearest(synthetic, data_root, as_json)
    described["nearest_photo"] = nearest and asdict(nearest)
    keys = ["split_note", "device", "seconds", "versions", "notes"]
    keys = ["found", *keys] if "found" in synthetic.provenance else keys
    told = {key: synthetic.provenance.get(key) for key in keys}
    facts = {key: value for key, value in described.items() if key not in ("real_photos", "nearest_photo")}
    all_told = {**facts, "privacy": describe_images(synthetic, nearest), **told}
    lines = [f"{key.replace('_', ' ') + ':':<21}{shown(key, value)}" for key, value in all_told.items()]
    tell(as_json, {**described, "provenance": synthetic.provenance}, lines)


@sets.command()
@named("set", "name")
@click.argument("url")
@click.option("--as", "called", metavar="NAME", help="What to call it there (default: as here).")
@click.option("--yes", is_flag=True, help="Do not ask.")
@data_root_option
@json_option
@click.pass_context
def push(
    ctx: click.Context, name: str, url: str, called: str | None, yes: bool, data_root: Path | None, as_json: bool
) -> None:
    """Send a set to the server at URL, which then searches by it without ever seeing the real images.

    Says first what the set still shows of them, and asks. The server's token: ftdnas --token-file FILE sets push ...
    """
    from ftdnas.sets.nearest import travels_along

    path = Library().path(name)
    synthetic = Library().load(path)
    warnings = travels_along(synthetic, known_nearest(synthetic, data_root, as_json))
    for warning in warnings:
        click.echo(shown("", f"warning: {warning}"), err=True)
    if warnings and not yes and not agreed(f"Send {path.stem} to {url}?"):
        raise click.ClickException("nothing was sent")
    with connected(url, ctx) as client:
        sent = client.upload(path, called or path.stem)
    there = f"ftdnas --server {url} search --set {sent['name']} --space convnet --study NAME"
    tell(as_json, {**sent, "warnings": warnings}, [f"sent      {sent['name']}", f"next      {there}"])


@sets.command()
@named("set", "names", "[SET...]", nargs=-1)
@json_option
@click.pass_context
def verify(ctx: click.Context, names: Sequence[str], as_json: bool) -> None:
    """Read sets (all of them, if none is named) and recompute every hash in them; exit code 1 if one is damaged."""
    entries = [Library().entry(name) for name in names] if names else Library().list()
    lines = [f"{entry.name}  {entry.problem or 'sound, identity ' + entry.facts['identity'][:12]}" for entry in entries]
    if entries or as_json:
        tell(as_json, [entry.to_json() for entry in entries], lines)
    if any(entry.problem for entry in entries):
        ctx.exit(FAILED)


@sets.command()
@named("set", "name")
@click.argument("place", type=click.Path(path_type=Path))
@click.option(
    "--as",
    "form",
    type=click.Choice(FORMATS),
    default="set",
    show_default=True,
    help="The set's own file; plain tensors (.safetensors); a contact sheet (PNG); a folder of PNGs per class.",
)
@json_option
def export(name: str, place: Path, form: str, as_json: bool) -> None:
    """Write a set to PLACE for other programs, or to look at."""
    from ftdnas.sets.export import export_set

    export_set(Library().load(name), form, place)
    tell(as_json, {"path": str(place), "form": form}, [f"written to {place}"])


@command(ImportRequest, "import")
def import_set(request: ImportRequest, listener: Listener) -> tuple[Any, list[str]]:
    """Take a set into the library: a .safetensors file, or the .pt tensors that the field publishes.

    PATH is the set's file, or images_best.pt and the like (or the folder that holds it) with the labels and the
    learning rate beside it.
    """
    from ftdnas.sets.published import import_set

    path = import_set(Library(), request, listener)
    imported = describe(path, Library().load(path))
    return imported, [imported["name"], f"contact sheet: {imported['contact_sheet']}"]


sets.add_command(import_set)


@sets.command()
@named("set", "names", "SET...", nargs=-1, required=True)
@click.option("--yes", is_flag=True, help="Do not ask.")
@json_option
def remove(names: Sequence[str], yes: bool, as_json: bool) -> None:
    """Delete sets and their figures."""
    found = [Library().own(name) for name in names]
    if not yes and not agreed(f"Delete {', '.join(map(str, found))}?"):
        raise click.ClickException("nothing was removed")
    removed = [str(path) for name in dict.fromkeys(found) for path in Library().remove(name)]
    tell(as_json, {"removed": removed}, [f"removed {path}" for path in removed])


def known_nearest(synthetic: SyntheticSet, data_root: Path | None, as_json: bool) -> Nearest | None:
    """How near its images are to single photos, counted where it does not say and the images are here."""
    from ftdnas.sets.images import Source
    from ftdnas.sets.nearest import nearest_of

    with progress(as_json) as listener:
        return nearest_of(synthetic, Source("", data_root), listener)


def agreed(question: str) -> bool:
    """Ask on stderr; no answer is a no."""
    try:
        return click.confirm(question, err=True)
    except click.Abort:
        click.echo(err=True)
        return False


def describe(path: Path, synthetic: SyntheticSet) -> dict[str, Any]:
    """The facts of a set and where its files are, as JSON."""
    figures = {"contact_sheet": sheet_of(path), "curve": curve_of(path)}
    there = {key: str(figure) if figure.exists() else None for key, figure in figures.items()}
    names = {"class_names": list(synthetic.class_names)}
    return {"name": path.stem, "path": str(path), **facts(synthetic), **names, **there}


def print_table(entries: Sequence[Entry]) -> None:
    """A table on stdout, as wide as the terminal or as it needs to be where there is none; problems on stderr."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("name", no_wrap=True)
    for heading in ("images", "classes", "size", "preprocess", "step size", "validation"):
        table.add_column(heading, justify="right")
    for entry in entries:
        if entry.problem:
            table.add_row(Text(entry.name), "damaged")
            click.echo(entry.problem, err=True)
            continue
        known = entry.facts
        table.add_row(
            Text(entry.name),
            f"{known['images']:,}",
            f"{known['classes']:,}",
            f"{known['width']} x {known['height']}",
            known["preprocess"],
            f"{known['step_size']:.4g}",
            shown("validation_accuracy", known["validation_accuracy"]),
        )
    Console(width=None if sys.stdout.isatty() else 200).print(table)


def shown(key: str, value: object) -> str:
    """A fact as text: accuracies in percent, what is not known as a dash, no control characters."""
    if value is None:
        return "-"
    if key.endswith("accuracy") and isinstance(value, float):
        return f"{100 * value:.1f} %"
    if isinstance(value, Mapping):
        value = [f"{name} {shown(key, one)}" for name, one in value.items()]
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list):
        value = ", ".join(map(str, value[:12])) + (f", ... ({len(value)})" if len(value) > 12 else "")
    return "".join(letter if letter.isprintable() else " " for letter in str(value))
