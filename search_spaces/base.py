"""The front door of the package: the registries, names, costs and samples of architectures."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from contextvars import ContextVar
from types import MappingProxyType

from search_spaces.architecture import Architecture, ImageShape, SearchSpace
from search_spaces.classic import BUILDERS, ClassicNetwork
from search_spaces.convnet import CONVNET
from search_spaces.cost import flops, parameter_count
from search_spaces.decisions import Choice
from search_spaces.macro import MACRO
from search_spaces.messages import hint
from search_spaces.mobilenet import MOBILENET
from search_spaces.nasbench201 import NASBENCH201
from search_spaces.residual import RESIDUAL
from search_spaces.sampling import (
    Restriction,
    feasible_architectures,
    known_choices,
    random_architectures,
    stratified_sample,
)

__all__ = [
    "NETWORKS",
    "SPACES",
    "Architecture",
    "Choice",
    "ImageShape",
    "Restriction",
    "SearchSpace",
    "feasible_architectures",
    "find_space",
    "flops",
    "known_choices",
    "parameter_count",
    "parse_architecture",
    "random_architectures",
    "stratified_sample",
]

SPACES: dict[str, SearchSpace] = {
    "convnet": CONVNET,
    "nasbench201": NASBENCH201,
    "macro": MACRO,
    "residual": RESIDUAL,
    "mobilenet": MOBILENET,
}
NETWORKS: dict[str, Architecture] = {name: ClassicNetwork(name) for name in BUILDERS}


# Spaces of files that say something else now, by name, while a study that was made with them is read.
RECORDED: ContextVar[Mapping[str, SearchSpace]] = ContextVar("recorded", default=MappingProxyType({}))


def find_space(spec: str) -> SearchSpace:
    """The space of a name: built in, of an installed package, or "file.py:attribute" or "space.json+file.py:builder".

    Raises LookupError for a name that nobody has, and what `search_spaces.outside.load.load_space` raises.
    """
    if spec in SPACES:
        return SPACES[spec]
    if spec in RECORDED.get():
        return RECORDED.get()[spec]
    from search_spaces.outside.load import installed_spaces, is_file_space, load_space

    if is_file_space(spec) or spec in installed_spaces():
        return load_space(spec)
    known = [*SPACES, *installed_spaces()]
    raise LookupError(f"unknown search space {spec!r}: {hint(spec, known)}, or give file.py:function")


def parse_architecture(text: str) -> Architecture:
    """The architecture of a string: "convnet:width=64,depth=3" (keys left out take the defaults) or "resnet18".

    One from outside is its space and a JSON object of its choices: 'nets.py:build:{"depth":2}'. Raises ValueError with
    the nearest known names for an unknown space, network, key or value.
    """
    head, colon, rest = text.strip().partition(":")
    if head in SPACES:
        return _parsed(SPACES[head], rest)
    if head in NETWORKS:
        if colon:
            raise ValueError(f"{head} has no settings: write {head}, not {text!r}")
        return NETWORKS[head]
    spec, brace, choices = text.strip().partition(":{")
    if brace:
        try:
            return _parsed(find_space(spec), "{" + choices)
        except LookupError as error:
            raise ValueError(str(error.args[0])) from None
    raise ValueError(f"unknown architecture {text!r}: {hint(head, [*SPACES, *NETWORKS])}")


@functools.lru_cache(maxsize=50_000)
def _parsed(space: SearchSpace, text: str) -> Architecture:
    # Sound, for spaces are equal where their names and the code that they were loaded from are. Without it a file's
    # function would run on the meta device for every text.
    return space.parse(text)
