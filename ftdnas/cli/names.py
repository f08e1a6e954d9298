"""Names that the shell completes: those that lie in FTDNAS_HOME, and those that are built in.

The built-in ones are written down here because their registries import torch; a test holds both side by side.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import click
from click.shell_completion import CompletionItem

from ftdnas.runtime.home import studies_folder
from ftdnas.sets.library import Library

SPACES = ("convnet", "nasbench201", "macro", "residual", "mobilenet")
DATASETS = (
    *("digits", "cifar10", "cifar100", "svhn", "mnist", "fashionmnist"),
    *("tiny-imagenet", "imagenette", "imagewoof"),
)
SCORES = ("accuracy", "loss", "auc", "late_loss")
PROXIES = (
    *(f"{form}.{score}" for form in ("set", "random", "herding", "kmeans", "early", "early_total") for score in SCORES),
    *("race", "params", "flops"),
    *(name + ending for ending in ("", ".shrunk") for name in ("synflow", "naswot", "jacob_cov", "az_nas")),
)
KNOWN: Mapping[str, Callable[[], Iterable[str]]] = {
    # name of an option: what may be given
    "set": lambda: Library().names(),
    "study": lambda: (folder.name for folder in studies_folder().glob("[!.]*")),
    "space": lambda: SPACES,
    "dataset": lambda: DATASETS,
    "proxy": lambda: PROXIES,
    "compare": lambda: ("all", *PROXIES),
}


class Name(click.ParamType):  # type: ignore[type-arg]  # click 8.1 has no type of its own for it
    """A text in which the shell completes a name; whether there is such a one, the command itself says."""

    name = "name"

    def __init__(self, of: str):
        self._of = of

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:  # noqa: ARG002
        return [CompletionItem(name) for name in sorted(KNOWN[self._of]()) if name.startswith(incomplete)]
