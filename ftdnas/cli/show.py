"""ftdnas show: one architecture, in facts or as code."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from ftdnas.cli.options import json_option, tell

if TYPE_CHECKING:
    from ftdnas.candidates.architecture_facts import ArchitectureFacts


@click.command()
@click.argument("architecture")
@click.option("--code", is_flag=True, help="The network as plain PyTorch code alone.")
@click.option("--image-size", type=click.IntRange(1), default=32, show_default=True, metavar="PIXELS")
@click.option("--channels", type=click.IntRange(1), default=3, show_default=True)
@click.option("--classes", type=click.IntRange(2), default=10, show_default=True)
@json_option
def show(architecture: str, code: bool, image_size: int, channels: int, classes: int, as_json: bool) -> None:
    """What an ARCHITECTURE is made of: its choices, weights, FLOPs and layers; or its code.

    ARCHITECTURE is a canonical string as search prints it, such as convnet:width=64,depth=3.
    """
    import torch

    from ftdnas.candidates.architecture_facts import architecture_facts
    from ftdnas.finishing.code import plain_code
    from ftdnas.runtime.records import to_json
    from search_spaces.base import parse_architecture

    parsed, shape = parse_architecture(architecture), (channels, image_size, image_size)
    if code:
        network = parsed.build(shape, classes).eval()
        network(torch.zeros(1, *shape))  # lazy layers take their shapes
        text = plain_code(network, parsed.name, shape, classes)
        tell(as_json, {"architecture": parsed.name, "code": text}, text.splitlines())
        return
    facts = architecture_facts(parsed, shape, classes)
    tell(as_json, to_json(facts), describe(facts))


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
