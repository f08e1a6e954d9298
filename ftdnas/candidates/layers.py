"""The expressions that construct PyTorch's own layers, and how nested expressions are laid out as text."""

from __future__ import annotations

import inspect
import itertools
import json
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor, nn

WIDTH = 110  # columns
INDENT = "    "
# Written as one number where all sides are equal.
PER_SIDE = {"kernel_size", "stride", "padding", "dilation", "output_padding", "output_size"}
NOT_KEPT = {"device", "dtype"}
# Whether there is such a tensor, not which.
TENSORS = {"bias", "affine", "elementwise_affine", "track_running_stats"}


@dataclass(frozen=True)
class Call:
    """`function` of arguments between two brackets; an argument is text, or a call of its own after `keyword=`."""

    function: str
    arguments: Sequence[tuple[str, Call | str]] = ()
    brackets: tuple[str, str] = ("(", ")")
    comma: bool = True  # behind the last argument, where each has a line of its own


def repeated(expressions: Sequence[Call]) -> list[tuple[str, Call | str]]:
    """Arguments without keywords; those that are the same several times in a row are written once."""
    runs = [(one, len(list(run))) for one, run in itertools.groupby(expressions)]
    return [
        ("", Call("*", [("", one)], ("[", f" for _ in range({times})]"), comma=False) if times > 1 else one)
        for one, times in runs
    ]


def laid_out(expression: Call | str, depth: int = 0, taken: int = 0) -> str:
    """Its text, on one line if it fits after `taken` columns, else an argument a line."""
    if isinstance(expression, str):
        return expression
    flat = ", ".join(prefix + laid_out(argument, 0, -WIDTH * 1000) for prefix, argument in expression.arguments)
    line = f"{expression.function}{expression.brackets[0]}{flat}{expression.brackets[1]}"
    if taken + len(line) <= WIDTH or not expression.arguments:
        return line
    below = INDENT * (depth + 1)
    lines = [
        f"{below}{prefix}{laid_out(argument, depth + 1, len(below) + len(prefix) + 1)}"
        for prefix, argument in expression.arguments
    ]
    inside = ",\n".join(lines) + ("," if expression.comma else "")
    clause, closing = expression.brackets[1][:-1].strip(), expression.brackets[1][-1]
    inside += f"\n{below}{clause}" if clause else ""
    return f"{expression.function}{expression.brackets[0]}\n{inside}\n{INDENT * depth}{closing}"


def is_layer(module: nn.Module) -> bool:
    """Whether it is a layer of torch.nn itself, containers aside."""
    kind = type(module)
    return kind.__module__.startswith("torch.nn.modules.") and getattr(nn, kind.__name__, None) is kind


def construct(layer: nn.Module) -> Call:
    """The call that makes such a layer; what has its default is left out.

    Raises ValueError where an argument without a default cannot be told from the layer.
    """
    arguments: list[tuple[str, Call | str]] = []
    kind = nn.RNNBase if isinstance(layer, nn.RNNBase) else type(layer)  # whose own arguments are *args, **kwargs
    parameters = list(inspect.signature(kind.__init__).parameters.values())[2 if kind is nn.RNNBase else 1 :]
    positional = True  # as long as no argument has been left out
    for parameter in parameters:
        name = parameter.name
        if (
            name in NOT_KEPT
            or (name == "mode" and kind is nn.RNNBase)
            or parameter.kind in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL)
        ):
            continue
        required = parameter.default is parameter.empty
        if not hasattr(layer, name):
            if required:
                raise ValueError(f"a layer {type(layer).__name__} does not keep its {name}")
            continue
        value = _plain(name, getattr(layer, name), layer)
        if not required and value == _plain(name, parameter.default, layer):
            positional = False
            continue
        arguments.append(("" if required and positional else f"{name}=", literal(value)))
    if isinstance(layer, nn.RNN) and layer.mode != "RNN_TANH":
        arguments.append(("nonlinearity=", literal("relu")))
    return Call(f"nn.{type(layer).__name__}", arguments)


def _plain(name: str, value: object, layer: nn.Module) -> object:
    if name in TENSORS and (value is None or isinstance(value, Tensor)):
        return value is not None
    if (
        name == "stride"
        and (value is None or value == getattr(layer, "kernel_size", None))
        and not hasattr(layer, "weight")
    ):
        return None  # of a pool: its own size
    if name in PER_SIDE and isinstance(value, tuple) and len(set(value)) == 1:
        return value[0]
    return value


def literal(value: object) -> str:
    """Python text of a plain value. Raises ValueError for anything else."""
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    if value is ...:
        return "..."
    if value is None or isinstance(value, bool | int | float):
        return repr(value)
    if isinstance(value, tuple):
        return f"({', '.join(map(literal, value))}{',' if len(value) == 1 else ''})"
    if isinstance(value, list):
        return f"[{', '.join(map(literal, value))}]"
    raise ValueError(f"a value of type {type(value).__name__} cannot be written down")
