"""Model spaces of nni.nas: LayerChoice, InputChoice, Repeat, Cell, mutable layers and nni.choice, as decisions."""

from __future__ import annotations

import contextlib
import fcntl
import functools
import importlib
import importlib.util
import itertools
import math
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from search_spaces.architecture import ImageShape
from search_spaces.decisions import Choice, Decisions
from search_spaces.outside.definition import NOMINAL_CLASSES, NOMINAL_SHAPE, Definition, labelled, positional
from search_spaces.outside.nni_json import Number, Options

SUBSETS = 1_024  # of an InputChoice or another choice of several: more are not asked for as one decision


class ModelSpaceDefinition(Definition):
    """A ModelSpace class, or a function that returns one: of no argument or of (image_shape, num_classes).

    Its labels are the decisions. Only those are asked for that the choices so far leave a part to play in (not the
    layers beyond a Repeat's depth, not the inside of an operation that was not chosen), so that no network comes twice.
    They may depend on each other, not on the image shape. Raises ValueError, one line, for what is not such a space.
    """

    def __init__(self, factory: Callable[..., Any]) -> None:
        import_nni_nas()
        self._factory = factory
        # A ModelSpace class hides the arguments of its constructor behind a wrapper.
        written = getattr(factory, "_init_wrapped", None) if isinstance(factory, type) else None
        self._sized = (positional(written) - 1 if written else positional(factory)) >= 2
        self._plan = _on_meta(functools.partial(self._space, NOMINAL_SHAPE, NOMINAL_CLASSES))
        from nni.mutable import MutableSymbol

        everything = self._plan.simplify()
        self._mutables = {
            label: _parameter(mutable) for label, mutable in everything.items() if isinstance(mutable, MutableSymbol)
        }
        self._numbers = {label: number for label, number in self._mutables.items() if isinstance(number, Number)}
        if not self._mutables:
            raise ValueError("it has no labelled choice, so there is nothing to search")

    def decide(self, decisions: Decisions) -> dict[str, Choice]:
        choices: dict[str, Choice] = {}
        sample: dict[str, Any] = {}
        for label in _labels(self._plan, sample):
            if label in self._mutables and label not in choices:
                choices[label] = self._mutables[label].ask(label, decisions)
                sample[label] = self._mutables[label].value(choices[label])
        return choices

    def resolved(self, choices: Mapping[str, Choice]) -> Mapping[str, Any]:
        numbers = self._numbers
        return {label: numbers[label].value(c) if label in numbers else c for label, c in choices.items()}

    def decided(self, resolved: Mapping[str, Any]) -> Mapping[str, Choice]:
        numbers = self._numbers  # options are checked where they are asked for
        return {label: numbers[label].read(label, g) if label in numbers else g for label, g in resolved.items()}

    def build(self, choices: Mapping[str, Choice], image_shape: ImageShape, num_classes: int) -> nn.Module:
        from nni.nas.space import model_context

        # Labels without a part to play are asked for by nni.nas all the same: they take their first value.
        sample = {label: _first(parameter) for label, parameter in self._mutables.items()}
        sample |= {label: self._mutables[label].value(choice) for label, choice in choices.items()}
        space = self._space(image_shape, num_classes)  # a new one each time: freezing copies its weights
        space.validate(sample)
        try:
            return space.freeze(sample)  # type: ignore[no-any-return]
        except NotImplementedError:
            # A choice added by add_mutable: nni.nas says to make it again in the sample's context.
            with model_context(sample):
                return type(space)(*space.trace_args, **space.trace_kwargs)  # type: ignore[no-any-return]

    def _space(self, image_shape: ImageShape, num_classes: int) -> Any:
        from nni.nas.nn.pytorch import ModelSpace

        space = self._factory(image_shape, num_classes) if self._sized else self._factory()
        if not isinstance(space, ModelSpace):
            raise ValueError(f"it makes a {type(space).__name__}, not an nni.nas ModelSpace")
        return space


def is_model_space(defined: object) -> bool:
    """Whether it is a class of nni.nas model spaces; nothing is imported to find out."""
    return isinstance(defined, type) and any(
        base.__name__ == "ModelSpace" and base.__module__.startswith("nni.nas") for base in defined.__mro__
    )


@functools.cache
def import_nni_nas() -> None:
    """Import nni.nas, one process after another: its first import writes a file of its own that all then read.

    Raises ValueError where it, or the PyTorch Lightning that it imports, is not installed.
    """
    with _one_at_a_time(), quiet():
        try:
            importlib.import_module("nni.nas.nn.pytorch")
        except ImportError as error:
            raise ValueError(
                f"nni.nas cannot be imported ({error}): it needs PyTorch Lightning, pip install 'ftdnas[nas]'"
            ) from None


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without the warnings that nni.nas gives on every import whatever the user does."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*is found to be not a nn.Module", category=RuntimeWarning)
        warnings.filterwarnings("ignore", message="Cannot write to .*_layers.py", category=UserWarning)
        yield


@contextlib.contextmanager
def _one_at_a_time() -> Iterator[None]:
    spec = importlib.util.find_spec("nni")
    folders = list(spec.submodule_search_locations or ()) if spec else []
    file = Path(folders[0], "nas", "nn", "pytorch", "layers.py") if folders else None
    if file is None or not file.is_file():
        yield
        return
    # The file that writes is there for all, and can be locked where nothing can be written.
    with file.open("rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        yield


def _parameter(mutable: Any) -> Options | Number:
    """How a label is asked for, and by `value` what nni.nas calls the answer."""
    from nni.mutable import Categorical, CategoricalMultiple, Numerical

    if isinstance(mutable, Categorical):
        return Options(labelled(mutable.values))
    if isinstance(mutable, CategoricalMultiple):
        return Options(_subsets(mutable))
    if isinstance(mutable, Numerical):
        return _number(mutable)
    raise ValueError(f"{mutable.label}: a {type(mutable).__name__} cannot be searched")


def _first(parameter: Options | Number) -> Any:
    if isinstance(parameter, Options):
        return next(iter(parameter.values.values()))
    return parameter.value(0.5 if parameter.normal else parameter.first)


def _labels(module: nn.Module, sample: Mapping[str, Any]) -> Iterator[str]:
    """The labels that play a part under `sample`, outer ones first; the caller fills it before it takes the next."""
    from nni.mutable import Mutable
    from nni.nas.nn.pytorch import LayerChoice, MutableModule, Repeat

    if isinstance(module, MutableModule):
        for mutable in module.mutables:
            yield from mutable.simplify()
    inner: list[nn.Module] = list(module.children())
    if isinstance(module, LayerChoice):
        inner = [module[module.choice.freeze(sample)]]
    elif isinstance(module, Repeat):
        depth = module.depth_choice
        inner = list(module.blocks)[: depth.freeze(sample) if isinstance(depth, Mutable) else depth]
    for child in inner:
        yield from _labels(child, sample)


def _subsets(mutable: Any) -> dict[Choice, Any]:
    """The sets that can be chosen: by their value where it is always one, else as "0+2"; "none" is the empty one."""
    values = mutable.values
    if mutable.n_chosen == 1:
        return {label: [value] for label, value in labelled(values).items()}
    sizes = [mutable.n_chosen] if mutable.n_chosen is not None else range(len(values) + 1)
    count = sum(math.comb(len(values), size) for size in sizes)
    if count > SUBSETS:
        raise ValueError(
            f"{mutable.label}: {count:,} ways to choose of {len(values)}: at most {SUBSETS:,} can be searched"
        )
    chosen = [list(subset) for size in sizes for subset in itertools.combinations(values, size)]
    return {"+".join(map(str, subset)) or "none": subset for subset in chosen}


def _number(mutable: Any) -> Number:
    normal = mutable.mu is not None and mutable.sigma is not None
    bounded = math.isfinite(mutable.low) or math.isfinite(mutable.high)
    kind = mutable.distribution.dist.name
    if kind not in ("uniform", "loguniform", "reciprocal", "norm", "lognorm") or (normal and bounded):
        raise ValueError(f"{mutable.label}: only uniform and unbounded normal numbers can be searched, not {mutable!r}")
    first, second = (mutable.mu, mutable.sigma) if normal else (mutable.low, mutable.high)
    if not (math.isfinite(first) and math.isfinite(second)):
        raise ValueError(f"{mutable.label}: {mutable!r} has no ends")
    q = None if mutable.quantize is None else float(mutable.quantize)
    return Number(float(first), float(second), normal, bool(mutable.log_distributed), q)


def _on_meta(make: Callable[[], Any]) -> Any:
    """Made on the meta device, or with numbers where it needs them."""
    with torch.random.fork_rng(devices=[]):
        try:
            with torch.device("meta"):
                return make()
        except (NotImplementedError, RuntimeError, TypeError):
            return make()
