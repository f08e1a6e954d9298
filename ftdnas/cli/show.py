"""ftdnas show: one architecture, in facts or as code."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from ftdnas.cli.names import Name
from ftdnas.cli.options import json_option, tell
from ftdnas.runtime.home import typed

if TYPE_CHECKING:
    from ftdnas.candidates.architecture_facts import ArchitectureFacts


@click.command()
@click.argument("architecture")
@click.option("--study", type=Name("study"), metavar="STUDY", help="ARCHITECTURE is the id of one of its candidates.")
@click.option("--code", is_flag=True, help="The network as plain PyTorch code alone.")
@click.option("--image-size", type=click.IntRange(1), metavar="PIXELS", help="[default: 32, or the study's]")
@click.option("--channels", type=click.IntRange(1), help="[default: 3, or the study's]")
@click.option("--classes", type=click.IntRange(2), help="[default: 10, or the study's]")
@json_option
def show(
    architecture: str,
    study: str | None,
    code: bool,
    image_size: int | None,
    channels: int | None,
    classes: int | None,
    as_json: bool,
) -> None:
    """What an ARCHITECTURE is made of: its choices, weights, FLOPs and layers; or its code.

    ARCHITECTURE is a canonical string as search prints it, such as convnet:width=64,depth=3.
    """
    import torch

    from ftdnas.candidates.architecture_facts import architecture_facts
    from ftdnas.finishing.code import plain_code
    from ftdnas.runtime.records import to_json
    from search_spaces.base import parse_architecture

    usual, place = ((3, 32, 32), 10), ""
    if study is not None:
        architecture, usual, place = candidate_of(study, architecture)
    side = image_size or usual[0][1]
    parsed, shape = parse_architecture(architecture), (channels or usual[0][0], side, side)
    classes = classes or usual[1]
    if code:
        network = parsed.build(shape, classes).eval()
        network(torch.zeros(1, *shape))  # lazy layers take their shapes
        text = plain_code(network, parsed.name, shape, classes)
        tell(as_json, {"architecture": parsed.name, "code": text}, text.splitlines())
        return
    facts = architecture_facts(parsed, shape, classes)
    tell(as_json, to_json(facts), [*describe(facts), *([place] if place else [])])


def candidate_of(study: str, text: str) -> tuple[str, tuple[tuple[int, int, int], int], str]:
    """(architecture, shape and classes of the study's images, a line on its place) of a candidate, by its id.

    Raises LookupError where it is none of the study's.
    """
    from ftdnas.candidates.ids import resolved
    from ftdnas.ranking.study import ranked_study
    from ftdnas.report.study import open_ranked_study

    _, ranking = ranked_study(study)
    name = resolved(text, ranking.ids, study)
    if name not in ranking.ids:
        raise LookupError(f"{text} is no candidate of {study}: ftdnas studies show {typed(study)} --all lists them")
    row = next(row for row in ranking.rows() if row["architecture"] == name)
    standing = f"place {row['place']} of {len(ranking.placed)}" if row["place"] else f"no place: {row['error']}"
    data = open_ranked_study(study).bench.data
    return name, (data.image_shape, data.num_classes), f"in {study} {row['id']}, {standing}"


def describe(facts: ArchitectureFacts) -> list[str]:
    """The facts as lines of text."""
    channels, height, width = facts.image_shape
    lines = [
        facts.architecture,
        f"for {channels} x {height} x {width} images and {facts.num_classes} classes: {facts.parameters:,} weights, "
        f"{facts.flops:,} FLOPs an image",
        *(f"  {key + ':':<16}{value}" for key, value in facts.choices.items()),
    ]
    if facts.representative != facts.architecture:
        lines.append(f"computes the same as {facts.representative}, which stands for it")
    lines.append(f"shrunk, where that is asked for: {facts.shrunk or 'there is no smaller one of its kind'}")
    wide = max(len(layer.name) for layer in facts.layers)
    for layer in facts.layers:
        shape = " x ".join(map(str, layer.output))
        lines.append(f"  {layer.name:<{wide}}  {shape:>15}  {layer.parameters:>10,}  {layer.kind}")
    return lines
