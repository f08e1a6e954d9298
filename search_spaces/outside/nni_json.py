"""Search spaces in NNI's JSON format: read, checked, and asked for as decisions. Nothing of NNI itself is needed."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import NormalDist
from typing import Any

from torch import nn

from search_spaces.architecture import ImageShape
from search_spaces.decisions import Choice, Decisions, Walk
from search_spaces.messages import hint
from search_spaces.outside.definition import Definition, call_builder, labelled

EDGE = 1e-6  # normal numbers are drawn by their quantile, between this and one minus this
Z_DIGITS = 9  # of a deviation in units of sigma: few enough that quantile -> number -> quantile comes back exactly
LISTED = 10_000  # quantised numbers with more values than this are not listed one by one
NORMAL = NormalDist()


@dataclass(frozen=True)
class Options:
    """choice: one of several values, or one of several named sub-spaces."""

    values: Mapping[Choice, Any]  # by label; a sub-space is a mapping of parameters
    nested: bool = False

    def ask(self, name: str, decisions: Decisions) -> Choice:
        label: Choice = decisions.suggest_categorical(name, list(self.values))
        return label

    def value(self, choice: Choice) -> Any:
        return self.values[choice]

    def read(self, name: str, given: Any) -> Choice:
        for label, value in self.values.items():
            if value == given:
                return label
        raise ValueError(f"{name}={json.dumps(given)} is not one of {', '.join(map(str, self.values))}")


@dataclass(frozen=True)
class Whole:
    """randint: low <= n < high."""

    low: int
    high: int

    def ask(self, name: str, decisions: Decisions) -> Choice:
        return int(decisions.suggest_int(name, self.low, self.high - 1))

    def value(self, choice: Choice) -> Any:
        return choice

    def read(self, name: str, given: Any) -> Any:  # noqa: ARG002
        return given  # checked where it is asked for


@dataclass(frozen=True)
class Number:
    """uniform or normal, of the number or (`log`) of its logarithm, perhaps rounded to multiples of `q`.

    `first` and `second` are the ends, or mu and sigma; NNI clips the rounded uniform ones to their ends.
    """

    first: float
    second: float
    normal: bool = False
    log: bool = False
    q: float | None = None

    def ask(self, name: str, decisions: Decisions) -> float:
        """The decision, in the form that stands for all decisions with the same value; a walk gets a list of these."""
        if isinstance(decisions, Walk) and (values := self.all_values()) is not None:
            return float(decisions.suggest_categorical(name, [self.decision(value) for value in values]))
        if self.normal:
            raw = decisions.suggest_float(name, EDGE, 1 - EDGE)
        else:
            raw = decisions.suggest_float(name, self.first, self.second, log=self.log)
        return self.decision(self.value(raw))

    def value(self, decision: Choice) -> float:
        number = float(decision)
        if self.normal:
            number = self.first + self.second * round(NORMAL.inv_cdf(min(1 - EDGE, max(EDGE, number))), Z_DIGITS)
            number = math.exp(number) if self.log else number
        if self.q is None:
            return number
        number = round(number / self.q) * self.q
        return number if self.normal else min(self.second, max(self.first, number))

    def decision(self, value: float) -> float:
        if not self.normal:
            return value
        number = (math.log(value) if value > 0 else -math.inf) if self.log else value
        deviation = max(-10.0, min(10.0, (number - self.first) / self.second))
        return min(1 - EDGE, max(EDGE, NORMAL.cdf(round(deviation, Z_DIGITS))))

    def read(self, name: str, given: Any) -> float:
        """The decision of a value that somebody wrote or another tuner drew. Raises ValueError where it is no value."""
        if isinstance(given, int | float) and not isinstance(given, bool):
            low, high = self._ends()
            decision = self.decision(min(high, max(low, float(given))))
            scale = self.q or (self.second if self.normal else abs(given))
            if math.isclose(self.value(decision), given, rel_tol=1e-8, abs_tol=1e-8 * scale):
                return self.decision(self.value(decision))
        raise ValueError(f"{name}={json.dumps(given)} is not a value of {self}")

    def all_values(self) -> list[float] | None:
        """All values of a quantised number, in order; None where there are too many."""
        low, high = self._ends()
        if self.q is None or (high - low) / self.q > LISTED:
            return None
        multiples = [step * self.q for step in range(math.floor(low / self.q), math.ceil(high / self.q) + 1)]
        # Those that rounding within the ends gives: an end itself is one only where a number rounds beyond it.
        return sorted({self.value(self.decision(min(high, max(low, multiple)))) for multiple in multiples})

    def _ends(self) -> tuple[float, float]:
        return (self.value(EDGE), self.value(1 - EDGE)) if self.normal else (self.first, self.second)


Parameter = Options | Whole | Number
Space = Mapping[str, Parameter]


class JsonDefinition(Definition):
    """An NNI search space with `builder(params)` or `builder(params, image_shape, num_classes)`.

    `params` is the configuration as NNI's trials get it: {"lr": 0.1, "conv": {"_name": "wide", "kernel": 5}}. Below a
    nested choice a decision is named "conv/wide/kernel": branches may have parameters of one name.
    """

    def __init__(self, space: Mapping[str, Any], builder: Callable[..., Any]) -> None:
        if not callable(builder):
            raise ValueError(f"the builder is a {type(builder).__name__}, not a function of params")
        self._space = _parameters(space, "")
        self._builder = builder

    def decide(self, decisions: Decisions) -> dict[str, Choice]:
        return dict(_ask(self._space, "", decisions))

    def resolved(self, choices: Mapping[str, Choice]) -> Mapping[str, Any]:
        return _resolved(self._space, "", choices)

    def decided(self, resolved: Mapping[str, Any]) -> Mapping[str, Choice]:
        return dict(_decided(self._space, "", resolved))

    def build(self, choices: Mapping[str, Choice], image_shape: ImageShape, num_classes: int) -> nn.Module:
        return call_builder(self._builder, self.resolved(choices), image_shape, num_classes)


def read_search_space(path: Path) -> dict[str, Any]:
    """The search space of a JSON file. Raises FileNotFoundError, or ValueError with the line or key that is wrong."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise FileNotFoundError(f"no search-space file {path}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} cannot be read as text: {error}") from None
    try:
        space = json.loads(text, object_pairs_hook=_without_duplicates, parse_constant=_refused_constant)
        check_search_space(space)
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is not JSON: {error.msg} in line {error.lineno}, column {error.colno}") from None
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    return dict(space)


def check_search_space(space: object) -> None:
    """Raise ValueError, one line with the key, where it is not a search space of NNI 3.0's types."""
    _parameters(space, "")


def _parameters(space: object, place: str) -> dict[str, Parameter]:
    if not isinstance(space, Mapping):
        raise ValueError(f"a search space is an object of parameters, not {space!r}")
    if not space and not place:
        raise ValueError("the search space is empty")
    named = {name: spec for name, spec in space.items() if not (place and name == "_name")}
    return {name: _parameter(f"{place}{name}", spec) for name, spec in named.items()}


def _parameter(key: str, spec: Any) -> Parameter:
    if not isinstance(spec, Mapping) or set(spec) != {"_type", "_value"}:
        raise ValueError(f'{key!r} is not an object with "_type" and "_value": {json.dumps(spec)}')
    kind, values = spec["_type"], spec["_value"]
    if kind not in ("choice", *WANTED):
        raise ValueError(f"{key!r}: unknown _type {kind!r}: {hint(str(kind), ('choice', *WANTED))}")
    if not isinstance(values, list) or not values:
        raise ValueError(f"{key!r}: the _value of {kind} is not a list with something in it: {json.dumps(values)}")
    if kind != "choice":
        wanted, fits = WANTED[kind]
        numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)
        if len(values) != len(wanted.split(", ")) or not numbers or not fits(*values):
            raise ValueError(f"{key!r}: the _value of {kind} is [{wanted}], not {json.dumps(values)}")
        if kind == "randint":
            return Whole(*values)
        first, second, *q = map(float, values)
        return Number(first, second, "normal" in kind, "log" in kind, q[0] if q else None)
    named = [isinstance(value, Mapping) and "_name" in value for value in values]
    if any(named) and not all(named):
        odd = values[named.index(False)]
        raise ValueError(f'{key!r}: either every choice has a "_name" or none, and {json.dumps(odd)} has none')
    try:
        options = Options(labelled([value["_name"] for value in values] if named[0] else values))
    except ValueError as error:
        raise ValueError(f"{key!r}: {error}") from None
    if not named[0]:
        return options
    for value in values:
        if not isinstance(value["_name"], str):
            raise ValueError(f'{key!r}: the "_name" {value["_name"]!r} is not text')
    return Options({value["_name"]: _parameters(value, f"{key}/{value['_name']}/") for value in values}, nested=True)


# What the _value of a type holds, and whether it does.
WANTED: dict[str, tuple[str, Callable[..., bool]]] = {
    "randint": ("lower, upper", lambda low, high: isinstance(low, int) and isinstance(high, int) and low < high),
    "uniform": ("low, high", lambda low, high: low < high),
    "quniform": ("low, high, q", lambda low, high, q: low < high and q > 0),
    "loguniform": ("low, high", lambda low, high: 0 < low < high),
    "qloguniform": ("low, high, q", lambda low, high, q: 0 < low < high and q > 0),
    "normal": ("mu, sigma", lambda mu, sigma: sigma > 0),  # noqa: ARG005
    "qnormal": ("mu, sigma, q", lambda mu, sigma, q: sigma > 0 and q > 0),  # noqa: ARG005
    "lognormal": ("mu, sigma", lambda mu, sigma: sigma > 0),  # noqa: ARG005
    "qlognormal": ("mu, sigma, q", lambda mu, sigma, q: sigma > 0 and q > 0),  # noqa: ARG005
}


def _ask(space: Space, place: str, decisions: Decisions) -> Iterator[tuple[str, Choice]]:
    for name, parameter in space.items():
        key = place + name
        choice = parameter.ask(key, decisions)
        yield key, choice
        if isinstance(parameter, Options) and parameter.nested:
            yield from _ask(parameter.values[choice], f"{key}/{choice}/", decisions)


def _resolved(space: Space, place: str, choices: Mapping[str, Choice]) -> dict[str, Any]:
    config: dict[str, Any] = {}
    for name, parameter in space.items():
        key = place + name
        choice = choices[key]
        if isinstance(parameter, Options) and parameter.nested:
            config[name] = {"_name": choice, **_resolved(parameter.values[choice], f"{key}/{choice}/", choices)}
        else:
            config[name] = parameter.value(choice)
    return config


def _decided(space: Space, place: str, config: Any) -> Iterator[tuple[str, Choice]]:
    wanted = (*space, *(("_name",) if place else ()))
    if not isinstance(config, Mapping):
        raise ValueError(f"{place.rstrip('/')!r} is not an object with {', '.join(wanted)}: {json.dumps(config)}")
    for name in config:
        if name not in wanted:
            raise ValueError(f"unknown parameter {place + name!r}: {hint(name, wanted)}")
    for name, parameter in space.items():
        key = place + name
        if name not in config:
            raise ValueError(f"{key!r} is not given")
        value = config[name]
        if isinstance(parameter, Options) and parameter.nested:
            label = str(value.get("_name")) if isinstance(value, Mapping) else None
            if label is None or label not in parameter.values:
                raise ValueError(f'{key!r} is not an object with a "_name" of {", ".join(map(str, parameter.values))}')
            yield key, label
            yield from _decided(parameter.values[label], f"{key}/{label}/", value)
        else:
            yield key, parameter.read(key, value)


def _without_duplicates(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    twice = [name for name, count in Counter(name for name, _ in pairs).items() if count > 1]
    if twice:
        raise ValueError(f"the key {twice[0]!r} stands there twice")
    return dict(pairs)


def _refused_constant(text: str) -> float:
    raise ValueError(f"{text} is not a number that can be searched")
