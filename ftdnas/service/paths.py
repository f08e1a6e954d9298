"""What a client is told of this machine: nothing that names its folders or its database."""

from __future__ import annotations

import re
from pathlib import Path

from ftdnas.runtime.home import home

_DATABASE = re.compile(r"\b(?:sqlite|postgresql)[+\w]*://\S+")


def without_places(text: str) -> str:
    """The library is $FTDNAS_HOME, the operator's own folder ~, the database its kind."""
    for path, name in ((home().absolute(), "$FTDNAS_HOME"), (Path.home(), "~")):
        if len(path.parts) > 1:  # a home that is the root of all files would be everywhere
            text = re.sub(rf"(?<![\w.~/-]){re.escape(str(path))}(?=/|\W|$)", name, text)
    return _DATABASE.sub(lambda found: found.group().partition(":")[0].partition("+")[0], text)
