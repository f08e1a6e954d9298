"""Recipes as TOML: one file is one `distill.recipe.Recipe`.

Unknown keys, wrong types and values out of range are refused. A key that is left out keeps the default of its
dataclass. Where a value may be None, TOML writes it "none".
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import math
import tomllib
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from distill.recipe import BATCH_NORM, PRECISIONS, Recipe

PREPROCESSES = ("none", "standardize", "zca")
STORAGES = ("float32", "bfloat16")
SCHEDULES = ("step", "constant", "cosine")


def recipe_names() -> list[str]:
    """Names of the shipped recipes, sorted so that ipc 10 follows ipc 1."""
    names = [file.name.removesuffix(".toml") for file in _shipped().iterdir() if file.name.endswith(".toml")]
    return sorted(names, key=lambda name: [int(part) if part.isdigit() else part for part in _number_parts(name)])


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
            raise LookupError(f"unknown recipe {text!r}: {_hint(text, recipe_names())}, or give a .toml file")
        if not path.is_file():
            raise FileNotFoundError(f"no recipe file {path}")
        try:
            content, source, name = path.read_text(encoding="utf-8"), str(path), path.stem
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
            raise ValueError(f"--set {setting}: write section.key=value, for example matching.outer_steps=400")
        nested: Any = _value(text.strip())
        for part in reversed(key.split(".")):
            nested = {part: nested}
        recipe = _merged(recipe, nested, "", f"--set {setting}")
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
    return "\n".join(_toml_lines(recipe, "")) + "\n"


def recipe_keys() -> list[str]:
    """Every dotted key that a recipe may set."""
    return list(_keys(Recipe, ""))


def check(recipe: Recipe) -> Recipe:
    """`recipe` itself, its values in range. Raises ValueError that names the key, the value and the range.

    Names of architectures and augmentations are checked where they are known: see `ftdnas.sets.making`.
    """
    if not recipe.name or any(not (letter.isalnum() or letter in "-_.") for letter in recipe.name):
        raise ValueError(f"name is {recipe.name!r}: use letters, digits and - _ . (it becomes part of a file's name)")
    values = dict(_values(recipe, ""))
    for key, (low, high, meaning) in _RANGES.items():
        value = values[key]
        if value is None:
            continue
        for number in value if isinstance(value, tuple) else (value,):
            if not low <= number <= high:
                raise ValueError(f"{key} is {number:g}, not {meaning}")
    for key, choices in _CHOICES.items():
        if values[key] not in choices:
            raise ValueError(f"{key} is {values[key]!r}: {_hint(values[key], choices)}")
    if recipe.matching.lr_images_grid and not recipe.matching.grid_steps:
        raise ValueError("matching.lr_images_grid needs matching.grid_steps, the outer steps tried with each")
    if recipe.matching.lr_images_grid and not recipe.data.validation:
        raise ValueError(
            "matching.lr_images_grid is chosen on validation images, and data.validation = 0 keeps none: "
            "hold some back, or --set 'matching.lr_images_grid=[]'"
        )
    if recipe.evaluation.full.lr is None:
        raise ValueError("evaluation.full.lr is none, but real images come with no learned step size: give a number")
    return recipe


_MOST = 10**9
_POSITIVE = (math.ulp(0.0), math.inf, "above 0")
_COUNT = (1, _MOST, "1 or more")
_FRACTION = (0.0, 1.0 - 1e-12, "from 0 up to, not including, 1")
_FROM_ZERO = (0.0, math.inf, "0 or more")
_SEED = (0, 2**63 - 1, "from 0 to 2^63 - 1")
_RANGES: dict[str, tuple[float, float, str]] = {
    "ipc": _COUNT,
    "teachers": (0, 1000, "from 0 to 1,000"),
    "data.image_size": (4, 1024, "between 4 and 1024 pixels"),
    "data.validation": (0.0, 0.9, "between 0 and 0.9, a fraction of the training images"),
    "experts.num_experts": _COUNT,
    "experts.seed": _SEED,
    "experts.lr": _POSITIVE,
    "experts.batch_size": _COUNT,
    "experts.rho": _FROM_ZERO,
    "experts.alpha": _FROM_ZERO,
    "matching.outer_steps": _COUNT,
    "matching.syn_steps": _COUNT,
    "matching.expert_epochs": _COUNT,
    "matching.max_start_epoch": _COUNT,
    "matching.batch_size": _COUNT,
    "matching.chunk_size": _COUNT,
    "matching.lr_images": _POSITIVE,
    "matching.lr_images_grid": _POSITIVE,
    "matching.grid_steps": (0, _MOST, "0 or more"),
    "matching.lr_step_size": _FROM_ZERO,
    "matching.initial_step_size": _POSITIVE,
    "matching.momentum": _FRACTION,
    "matching.ema_decay": _FRACTION,
    "matching.validate_every": _COUNT,
    "matching.checkpoint_every": _COUNT,
    "evaluation.subset_lrs": _POSITIVE,
}
_CHOICES: dict[str, Sequence[str]] = {"preprocess": PREPROCESSES, "experts.storage": STORAGES}
_CHOICES |= {f"{part}.precision": tuple(PRECISIONS) for part in ("experts", "matching")}
for _part in ("train", "validation", "full"):
    _RANGES |= {
        f"evaluation.{_part}.epochs": _COUNT,
        f"evaluation.{_part}.lr": _POSITIVE,
        f"evaluation.{_part}.batch_size": _COUNT,
        f"evaluation.{_part}.momentum": _FRACTION,
        f"evaluation.{_part}.weight_decay": _FROM_ZERO,
    }
    _CHOICES |= {f"evaluation.{_part}.schedule": SCHEDULES, f"evaluation.{_part}.batch_norm": tuple(BATCH_NORM)}
    _CHOICES |= {f"evaluation.{_part}.precision": tuple(PRECISIONS)}


def _shipped() -> resources.abc.Traversable:
    return resources.files("ftdnas.sets") / "recipes"


def _number_parts(name: str) -> list[str]:
    parts: list[str] = [""]
    for letter in name:
        if letter.isdigit() == parts[-1].isdigit() and parts[-1]:
            parts[-1] += letter
        else:
            parts.append(letter)
    return parts


def _hint(name: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"did you mean {near[0]}?" if near else f"choose from {', '.join(known)}"


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
    known = recipe_keys()
    last = key.rpartition(".")[2]
    same_name = [other for other in known if other.rpartition(".")[2] == last]
    near = same_name[:1] or difflib.get_close_matches(key, known, n=1, cutoff=0.5)
    if not near:
        by_last = {other.rpartition(".")[2]: other for other in reversed(known)}
        near = [by_last[name] for name in difflib.get_close_matches(last, by_last, n=1, cutoff=0.5)]
    return f": did you mean {near[0]}?" if near else "; `ftdnas recipes show quick` prints every key"


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


def _keys(kind: type, prefix: str) -> Iterator[str]:
    for name, hint in typing.get_type_hints(kind).items():
        if dataclasses.is_dataclass(hint):
            yield from _keys(typing.cast(type, hint), f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"


def _values(part: Any, prefix: str) -> Iterator[tuple[str, Any]]:
    for field in dataclasses.fields(part):
        value = getattr(part, field.name)
        if dataclasses.is_dataclass(value):
            yield from _values(value, f"{prefix}{field.name}.")
        else:
            yield f"{prefix}{field.name}", value


def _toml_lines(part: Any, section: str) -> Iterator[str]:
    fields = [(field.name, getattr(part, field.name)) for field in dataclasses.fields(part)]
    for name, value in fields:
        if not dataclasses.is_dataclass(value):
            yield f"{name} = {_toml_value(value)}"
    for name, value in fields:
        if dataclasses.is_dataclass(value):
            yield ""
            if any(not dataclasses.is_dataclass(getattr(value, field.name)) for field in dataclasses.fields(value)):
                yield f"[{section}{name}]"
            yield from _toml_lines(value, f"{section}{name}.")


def _toml_value(value: Any) -> str:
    if value is None:
        return '"none"'
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, tuple):
        return f"[{', '.join(_toml_value(part) for part in value)}]"
    if isinstance(value, str):
        # JSON's escapes are TOML's, but for the one control character that JSON leaves as it is.
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    return repr(value)
