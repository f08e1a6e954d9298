"""Synthetic sets that come over the network: streamed to disk, checked in every part, and only then listed."""

from __future__ import annotations

import os
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

from fastapi.concurrency import run_in_threadpool

from ftdnas.library import SUFFIX, Library, home
from ftdnas.service.problems import Problem


async def receive_set(name: str, body: AsyncIterator[bytes], most_bytes: int) -> tuple[str, bool]:
    """Take a .safetensors file in as the set `name`; (its identity, whether it is new).

    Raises Problem for a body that is too large or no synthetic set, or a name that another set has. Nothing of a
    refused upload is kept.
    """
    library = Library(home() / "sets")
    folder = home() / "uploads"
    folder.mkdir(parents=True, exist_ok=True)
    handle, path_text = tempfile.mkstemp(suffix=SUFFIX, dir=folder)
    path = Path(path_text)
    try:
        with os.fdopen(handle, "wb") as file:
            taken = 0
            async for chunk in body:
                taken += len(chunk)
                if taken > most_bytes:
                    raise Problem(413, f"the set is larger than {most_bytes:,} bytes")
                await run_in_threadpool(file.write, chunk)
        return await run_in_threadpool(_add, library, path, name)
    finally:
        path.unlink(missing_ok=True)


def _add(library: Library, path: Path, name: str) -> tuple[str, bool]:
    from distill.synthetic import SyntheticSet

    try:
        synthetic = SyntheticSet.load(path)
    except (ValueError, KeyError, TypeError, OSError) as error:
        raise Problem(422, f"this is no synthetic set: {str(error).replace(str(path), 'the file')}") from None
    known = name in library.names()
    if known and library.load(name).identity != synthetic.identity:
        raise Problem(409, f"the library has another set {name}: choose another name, or delete it")
    library.add(synthetic, name)
    return synthetic.identity, not known
