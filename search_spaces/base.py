"""The front door of the package: the registries, names, costs and samples of architectures."""

from __future__ import annotations

from search_spaces.architecture import Architecture, Choice, ImageShape, SearchSpace, hint
from search_spaces.classic import BUILDERS, ClassicNetwork
from search_spaces.convnet import ConvNetSpace
from search_spaces.cost import flops, parameter_count
from search_spaces.sampling import Restriction, feasible_architectures, stratified_sample

__all__ = [
    "NETWORKS",
    "SPACES",
    "Architecture",
    "Choice",
    "ImageShape",
    "Restriction",
    "SearchSpace",
    "feasible_architectures",
    "flops",
    "parameter_count",
    "parse_architecture",
    "stratified_sample",
]

SPACES: dict[str, SearchSpace] = {
    "convnet": ConvNetSpace(),
}
NETWORKS: dict[str, Architecture] = {name: ClassicNetwork(name) for name in BUILDERS}


def parse_architecture(text: str) -> Architecture:
    """The architecture of a string: "convnet:width=64,depth=3" (keys left out take the defaults) or "resnet18".

    Raises ValueError with the nearest known names for an unknown space, network, key or value.
    """
    head, colon, rest = text.strip().partition(":")
    if head in SPACES:
        return SPACES[head].parse(rest)
    if head in NETWORKS:
        if colon:
            raise ValueError(f"{head} has no settings: write {head}, not {text!r}")
        return NETWORKS[head]
    raise ValueError(f"unknown architecture {text!r}: {hint(head, [*SPACES, *NETWORKS])}")
