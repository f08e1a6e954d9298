"""Synthetic sets that come over the network: streamed to disk, checked in every part, and only then listed."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import AsyncIterator, Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastapi import HTTPException
from fastapi.concurrency import run_in_threadpool

from distill.files import locked
from ftdnas.runtime.home import home
from ftdnas.service.bounds import check_architecture
from ftdnas.sets.images import KEY
from ftdnas.sets.library import SUFFIX, Library, NameTaken
from ftdnas.sets.nearest import stored_nearest, travels_along

if TYPE_CHECKING:
    from distill.synthetic import SyntheticSet

ORIGINS = {"image_size": int, "validation": float, "split_seed": int}  # beside the spec, what finds images again


def clear() -> None:
    """Remove what a server that was killed left of uploads."""
    shutil.rmtree(home() / "uploads", ignore_errors=True)


async def receive_set(name: str, body: AsyncIterator[bytes], specs: Collection[str], spare: int) -> dict[str, Any]:
    """Take a .safetensors file in as the set `name`; its identity, whether it is new, what it still tells of photos.

    `specs`: of the data sets that this server can see; a set that names others, or files, loses what it says of its
    origin, so that no path comes over the network. `spare`: bytes of disk that must stay free. Raises HTTPException for
    a body that is no synthetic set, or a name that another set has. Nothing of a refused upload is kept.
    """
    folder = home() / "uploads"
    folder.mkdir(parents=True, exist_ok=True)
    if shutil.disk_usage(folder).free < spare:
        raise HTTPException(507, "there is too little disk left for a set: tell whoever runs this server")
    with tempfile.NamedTemporaryFile(suffix=SUFFIX, dir=folder) as file:
        async for chunk in body:
            await run_in_threadpool(file.write, chunk)
        file.flush()
        return await run_in_threadpool(_add, Path(file.name), name, specs)


def _add(path: Path, name: str, specs: Collection[str]) -> dict[str, Any]:
    from distill.synthetic import SyntheticSet

    try:
        synthetic = SyntheticSet.load(path)
        check_architecture(synthetic.backbone)
    except (LookupError, ValueError, TypeError, OSError) as error:
        raise HTTPException(422, f"this is no synthetic set: {str(error).replace(str(path), 'the file')}") from None
    library = Library()
    with locked(path.parent / ".lock"):
        known = name in library.names()
        try:
            library.add(_of_known_origin(synthetic, specs), name)
        except NameTaken as error:
            raise HTTPException(409, str(error)) from None
    warnings = travels_along(synthetic, stored_nearest(synthetic))
    return {"name": name, "identity": synthetic.identity, "new": not known, "warnings": warnings}


def _of_known_origin(synthetic: SyntheticSet, specs: Collection[str]) -> SyntheticSet:
    """Its provenance says no more of where its images are than the name of a data set of this server."""
    told = synthetic.provenance.get(KEY)
    kept: dict[str, object] = {}
    if isinstance(told, Mapping) and told.get("spec") in specs and told.get("split_file") is None:
        kept = {one: told[one] for one, kind in ORIGINS.items() if type(told.get(one)) is kind}
        kept["spec"] = told["spec"]
    same = told is None or (isinstance(told, Mapping) and {k: v for k, v in told.items() if v is not None} == kept)
    return synthetic if same else synthetic.with_provenance(**{KEY: kept})
