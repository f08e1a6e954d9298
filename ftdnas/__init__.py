"""Which network suits my images, without training every candidate on all of them, and how far to trust the answer.

    import ftdnas

    made = ftdnas.distill("digits", name="digits")
    ranking = ftdnas.search("convnet", made, candidates=16)
    print(ranking.best(3))

What stands here is loaded when it is first used, so that importing this costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ftdnas.candidates.training import score
    from ftdnas.interface.data import data, distill, load_set
    from ftdnas.interface.study import answer, open, search

__all__ = ["answer", "data", "distill", "load_set", "open", "score", "search"]

_MODULES = {
    "answer": "ftdnas.interface.study",
    "data": "ftdnas.interface.data",
    "distill": "ftdnas.interface.data",
    "load_set": "ftdnas.interface.data",
    "open": "ftdnas.interface.study",
    "score": "ftdnas.candidates.training",
    "search": "ftdnas.interface.study",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'ftdnas' has no {name!r}: it has {', '.join(__all__)}")
    return globals().setdefault(name, getattr(import_module(_MODULES[name]), name))
