"""Recipes as TOML: one file is one `distill.recipe.Recipe`.

Unknown keys, wrong types and values out of range are refused. A key that is left out keeps the default of its
dataclass. Where a value may be None, TOML writes it "none".
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import math
import re
import tomllib
import types
import typing
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from distill.recipe import BATCH_NORM, INITS, PRECISIONS, PREPROCESSES, SCHEDULES, STORAGES, Recipe
from search_spaces.messages import hint

_MOST = 10**9
_COUNTS = (
    "ipc num_experts epochs batch_size chunk_size outer_steps syn_steps expert_epochs max_start_epoch validate_every "
    "checkpoint_every"
)
_RANGES: dict[str, tuple[float, float, str]] = {
    # By the last part of the key: what has one name has one range, in whatever section it stands.
    **dict.fromkeys(_COUNTS.split(), (1, _MOST, "1 or more")),
    **dict.fromkeys(
        ("lr", "lr_images", "lr_images_grid", "initial_step_size", "subset_lrs"), (math.ulp(0.0), math.inf, "above 0")
    ),
    **dict.fromkeys(("rho", "alpha", "lr_step_size", "weight_decay"), (0.0, math.inf, "0 or more")),
    **dict.fromkeys(("momentum", "ema_decay", "label_smoothing"), (0.0, 1.0 - 1e-12, "from 0 up to, not including, 1")),
    "warmup": (0.0, 1.0, "between 0 and 1, a fraction of the training"),
    "grid_steps": (0, _MOST, "0 or more"),
    "teachers": (0, 1000, "from 0 to 1,000"),
    "image_size": (4, 1024, "between 4 and 1024 pixels"),
    "validation": (0.0, 0.9, "between 0 and 0.9, a fraction of the training images"),
    "seed": (0, 2**63 - 1, "from 0 to 2^63 - 1"),
}
_CHOICES: dict[str, Iterable[str]] = {
    "preprocess": PREPROCESSES,
    "init": tuple(INITS),
    "storage": STORAGES,
    "precision": PRECISIONS,
    "schedule": SCHEDULES,
    "batch_norm": BATCH_NORM,
}


def recipe_names() -> list[str]:
    """Names of the shipped recipes, sorted so that ipc 10 follows ipc 1."""
    names = [file.name.removesuffix(".toml") for file in _shipped().iterdir() if file.name.endswith(".toml")]
    return sorted(names, key=lambda name: [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", name)])


def load_recipe(name_or_path: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """A shipped recipe by name, or one's own by the path of its TOML file; `overrides` are "section.key=value" texts.

    Raises LookupError for an unknown name, FileNotFoundError for a missing file, ValueError for what is in it.
    """
    text = str(name_or_path)
    if text in recipe_names():
        content, source, name = (_shipped() / f"{text}.toml").read_text(encoding="utf-8"), f"recipe {text}", text
    else:
        path = Path(name_or_path).expanduser()
        if path.suffix != ".toml" and not path.is_file():
            raise LookupError(f"unknown recipe {text!r}: {hint(text, recipe_names())}, or give a .toml file")
        if not path.is_file():
            raise FileNotFoundError(f"no recipe file {path}")
        try:
            content, source, name = path.read_text(encoding="utf-8-sig"), str(path), path.stem
        except UnicodeDecodeError as error:
            raise ValueError(f"{path} is not UTF-8 text: {error.reason} at byte {error.start}") from None
    try:
        table = tomllib.loads(content)
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"{source} is not TOML: {error}") from None
    recipe = recipe_from_dict({"name": name, **table}, source)
    return override(recipe, overrides)


def override(recipe: Recipe, overrides: Sequence[str]) -> Recipe:
    """`recipe` with "section.key=value" settings, values in TOML's syntax; a bare word is a string, none is None."""
    for setting in overrides:
        key, equals, text = setting.partition("=")
        key = key.strip()
        if not equals or not key:
            raise ValueError(f"--override {setting}: write section.key=value, for example matching.outer_steps=400")
        nested: Any = _value(text.strip())
        for part in reversed(key.split(".")):
            nested = {part: nested}
        recipe = _merged(recipe, nested, "", f"--override {setting}")
    return check(recipe)


def recipe_from_dict(table: Mapping[str, Any], source: str = "recipe") -> Recipe:
    """The recipe of a parsed TOML file or of `dataclasses.asdict`; `source` names it in errors."""
    try:
        return check(_merged(Recipe(), table, "", source))
    except ValueError as error:
        message = str(error)
        raise ValueError(message if message.startswith(source) else f"{source}: {message}") from None


def recipe_to_toml(recipe: Recipe) -> str:
    """Every setting as TOML text that `load_recipe` reads back to an equal recipe."""
    import tomli_w

    return tomli_w.dumps(_plain(dataclasses.asdict(recipe)))


def recipe_keys() -> list[str]:
    """Every dotted key that a recipe may set."""
    return [key for key, _ in _values(Recipe(), "")]


def check(recipe: Recipe) -> Recipe:
    """`recipe` itself, its values in range. Raises ValueError that names the key, the value and the range.

    Names of architectures and augmentations are checked where they are known: see `ftdnas.sets.making`.
    """
    if not recipe.name or any(not (letter.isalnum() or letter in "-_.") for letter in recipe.name):
        raise ValueError(f"name is {recipe.name!r}: use letters, digits and - _ . (it becomes part of a file's name)")
    for key, value in _values(recipe, ""):
        name = key.rpartition(".")[2]
        if name in _CHOICES and value not in _CHOICES[name]:
            raise ValueError(f"{key} is {value!r}: {hint(value, _CHOICES[name])}")
        if name in _RANGES and value is not None:
            low, high, meaning = _RANGES[name]
            for number in value if isinstance(value, tuple) else (value,):
                if not low <= number <= high:
                    raise ValueError(f"{key} is {number:g}, not {meaning}")
    if recipe.matching.lr_images_grid and not recipe.matching.grid_steps:
        raise ValueError("matching.lr_images_grid needs matching.grid_steps, the outer steps tried with each")
    if recipe.matching.lr_images_grid and not recipe.data.validation:
        raise ValueError(
            "matching.lr_images_grid is chosen on validation images, and data.validation = 0 keeps none: "
            "hold some back, or --override 'matching.lr_images_grid=[]'"
        )
    if recipe.evaluation.full.lr is None:
        raise ValueError("evaluation.full.lr is none, but real images come with no learned step size: give a number")
    return recipe


def _shipped() -> resources.abc.Traversable:
    return resources.files("ftdnas.sets") / "recipes"


def _value(text: str) -> Any:
    """A value in TOML's syntax, or the text itself where it is none."""
    try:
        parsed = tomllib.loads(f"value = {text}")
    except tomllib.TOMLDecodeError:
        return text
    return parsed["value"] if len(parsed) == 1 else text


def _merged(base: Any, table: Mapping[str, Any], prefix: str, source: str) -> Any:
    """The dataclass instance `base` with the values of `table`, section by section."""
    hints = typing.get_type_hints(type(base))
    changes: dict[str, Any] = {}
    for name, value in table.items():
        key = f"{prefix}{name}"
        if name not in hints:
            raise ValueError(f"{source}: unknown key {key}{_nearest_key(key)}")
        current = getattr(base, name)
        if not dataclasses.is_dataclass(current):
            changes[name] = _typed(value, hints[name], key, source)
        elif isinstance(value, Mapping):
            changes[name] = _merged(current, value, f"{key}.", source)
        else:
            inside = ", ".join(f"{key}.{field.name}" for field in dataclasses.fields(current)[:2])
            raise ValueError(f"{source}: {key} is a section, set its keys: {inside}, ...")
    return dataclasses.replace(base, **changes)


def _nearest_key(key: str) -> str:
    """The key that is most like it, in a clause: the whole of it, or what stands behind its section."""

    def likeness(known: str) -> float:
        pairs = ((key, known), (key.rpartition(".")[2], known.rpartition(".")[2]))
        return max(difflib.SequenceMatcher(None, *pair).ratio() for pair in pairs)

    near = max(recipe_keys(), key=likeness)
    return f": did you mean {near}?" if likeness(near) >= 0.5 else "; `ftdnas recipes show quick` prints every key"


def _typed(value: Any, wanted: Any, key: str, source: str) -> Any:
    """`value` as the type `wanted`: int, float, bool, str, one of these or None, or a tuple of floats."""
    if isinstance(wanted, types.UnionType):
        if value is None or value == "none":
            return None
        (inner,) = (part for part in typing.get_args(wanted) if part is not types.NoneType)
        return _typed(value, inner, key, source)
    if typing.get_origin(wanted) is tuple:
        if isinstance(value, list | tuple):
            return tuple(_typed(part, typing.get_args(wanted)[0], key, source) for part in value)
        raise ValueError(f"{source}: {key} is {_shown(value)}, not a list of numbers such as [100, 1000]")
    if wanted is float and isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
        return float(value)
    if wanted is not float and type(value) is wanted:
        return value
    name = {int: "a whole number", float: "a finite number", bool: "true or false", str: "a text"}[wanted]
    raise ValueError(f"{source}: {key} is {_shown(value)}, not {name}")


def _shown(value: Any) -> str:
    return json.dumps(value, default=str, ensure_ascii=False)


def _values(part: Any, prefix: str) -> Iterator[tuple[str, Any]]:
    for field in dataclasses.fields(part):
        value = getattr(part, field.name)
        if dataclasses.is_dataclass(value):
            yield from _values(value, f"{prefix}{field.name}.")
        else:
            yield f"{prefix}{field.name}", value


def _plain(table: Mapping[str, Any]) -> dict[str, Any]:
    """A section as TOML can hold it: what is None as "none"."""
    plain = {key: _plain(value) if isinstance(value, dict) else value for key, value in table.items()}
    return {key: "none" if value is None else value for key, value in plain.items()}
