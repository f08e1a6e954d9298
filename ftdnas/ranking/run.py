"""A search, or the advice before it, from what was asked: the set and the images that its names stand for."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from distill.images.datasets import ImageDataset
from distill.run import Listener, Progress, ignore
from distill.synthetic import SyntheticSet
from ftdnas.proxies.names import DEFAULT, WITHOUT_IMAGES, read_proxy
from ftdnas.ranking.advice import Advice
from ftdnas.ranking.loop import advice, rankings
from ftdnas.ranking.request import AdviseRequest, Screened, SearchRequest
from ftdnas.ranking.table import Ranking
from ftdnas.runtime.options import shared
from ftdnas.sets.images import ALONE, KEY, Source, images_at_hand, images_of, no_images, source_of
from ftdnas.sets.library import Library


@dataclass(frozen=True, eq=False)
class Materials:
    """What candidates are trained and scored on. `source`: what finds the images again; `set_name` "": no set."""

    set_name: str
    synthetic: SyntheticSet | None
    data: ImageDataset
    source: Mapping[str, Any]


def materials_of(request: Screened, listener: Listener = ignore, *, alone: bool = True) -> Materials:
    """The set and images that are asked for; without a set where no proxy needs one and none is named.

    Images that are not here and not named are done without where no proxy that is asked for needs them; `no_images`
    then stand for them, unless not `alone`. Raises what `choose_set` and loading the images raise.
    """
    source = request.source
    if request.set is None and source.spec and not needs_set(request):
        return Materials("", None, source.load(listener), source.to_json())
    name, synthetic = choose_set(Library(), request.set, source.spec)
    needy = [text for text in asked_by_name(request) if needs_images(text, request)]
    if source.spec or needy or not alone:
        try:
            data = images_of(synthetic, source, listener)
        except (FileNotFoundError, LookupError, ValueError) as error:
            if source.spec or not needy:
                raise
            raise ValueError(f"{needy[0]} needs real images: {error}; {WITHOUT_IMAGES}") from error
        return Materials(name, synthetic, data, source_of(synthetic, source).to_json())
    found = images_at_hand(synthetic, source, listener)
    if found is not None:
        return Materials(name, synthetic, found, source_of(synthetic, source).to_json())
    message = f"the images behind the set {name} are not here: ranked by the set alone (--dataset names images)"
    listener(Progress("search", 0, 0, message=message))
    recorded = synthetic.provenance.get(KEY) or {}
    found_again = replace(Source.from_json(recorded), metric=source.metric).to_json() if recorded else {}
    return Materials(name, synthetic, no_images(synthetic), found_again)


def choose_set(library: Library, name: str | None, spec: str) -> tuple[str, SyntheticSet]:
    """The set of that name, or else the newest sound one of the library, of the data set `spec` where that is given.

    Raises LookupError where there is none, and what `Library.load` raises.
    """
    if name is None:
        place = Path(spec.partition(":")[2]).expanduser().resolve()
        wanted = {place.name, place.stem} if ":" in spec else {spec}
        entries = [entry for entry in library.list() if not entry.problem]
        fitting = [entry for entry in entries if not spec or entry.facts["dataset"] in wanted]
        if not fitting:
            what, where = (f"set of {spec}", f" --dataset {spec}") if spec else ("set", " --dataset digits")
            raise LookupError(
                f"the library has no {what} yet: make one (ftdnas distill{where}), or do without "
                f"(ftdnas search{where} --proxy race)"
            )
        name = max(fitting, key=lambda entry: entry.path.stat().st_mtime).name
    path = library.path(name)
    return path.stem, library.load(path)


def asked_by_name(request: Screened) -> tuple[str, ...]:
    """The proxies that were named one by one, which nothing may take away."""
    texts = (request.proxy, *getattr(request, "compare", ()))
    return tuple(text for text in texts if text not in (None, "all"))


def needs_images(text: str, request: Screened) -> bool:
    return read_proxy(text).needs_images(request.screened().score)


def needs_set(request: Screened) -> bool:
    """Whether any of its proxies trains on a set or on as many real images."""
    return any(read_proxy(text).needs_set for text in (request.proxy or DEFAULT, *request.compared))


def run_search(request: SearchRequest, listener: Listener = ignore) -> Ranking:
    """Rank architectures of a space: the last of `run_rankings`."""
    return deque(run_rankings(request, listener), maxlen=1).pop()


def run_rankings(request: SearchRequest, listener: Listener = ignore) -> Iterator[Ranking]:
    """The ranking when screening ends, and with baselines once more. Raises what `materials_of` and `rankings` do."""
    found = materials_of(request, listener)
    if found.data.fingerprint == ALONE:  # of "all" those that a set alone can do
        request = replace(request, compare=tuple(x for x in request.compared if not needs_images(x, request)))
    yield from rankings(request, found.synthetic, found.set_name, found.data, listener, found.source)


def run_advice(request: AdviseRequest, listener: Listener = ignore) -> Advice:
    """What each way to a choice would cost. Raises what `materials_of` and `advice` raise."""
    found = materials_of(request, listener)
    return advice(shared(request, SearchRequest), found.synthetic, found.set_name, found.data, listener)
