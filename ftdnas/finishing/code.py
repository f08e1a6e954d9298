"""A network as a readable Python file of plain PyTorch, which needs nothing of this package."""

from __future__ import annotations

import builtins
import copy
import keyword
import math
import operator
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn

from ftdnas.candidates.layers import INDENT, Call, construct, is_layer, laid_out, literal, repeated

INFIX: Mapping[Callable[..., Any], str] = {
    operator.add: "+",
    operator.iadd: "+",
    operator.sub: "-",
    operator.mul: "*",
    operator.imul: "*",
    operator.truediv: "/",
    operator.floordiv: "//",
    operator.matmul: "@",
    operator.pow: "**",
}
OURS = {"self", "torch", "nn", "F"}  # names that no variable may take
INLINED = 90  # characters of an expression that is still put into another


def plain_code(
    network: nn.Module,
    name: str,
    image_shape: tuple[int, int, int],
    num_classes: int,
    standardized: tuple[Sequence[float], Sequence[float]] | None = None,
) -> str:
    """The text of a Python file with `build_network()` and `load_network(file)`, and the classes that these need.

    The network built there has the state_dict of `network`, name by name. `standardized`: mean and deviation of each
    channel of the pixels in [0, 1], for `prepare(pixels)`. What is written is how the network computes in evaluation
    mode. It is run once here, beside the original: raises ValueError in one line where the network cannot be written
    down (control flow that depends on images, layers shared between places, tensors that are in no state_dict) or what
    was written does not compute the same.
    """
    original = copy.deepcopy(network).cpu().eval()
    _check_unshared(original)
    writer, training = _Writer(), _Writer()
    try:
        expression = laid_out(writer.expression(original), 1, 11)
        training.expression(copy.deepcopy(original).train())
    except Exception as error:  # tracing runs code of anybody's
        said = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(f"{name} cannot be written as plain code: {said}") from None
    facts = [f"{sum(weights.numel() for weights in original.parameters()):,} weights."]
    facts += [] if writer.classes == training.classes else ["What only happens in training (dropout) is left out."]
    code = _file(name, image_shape, num_classes, writer.classes, expression, standardized, " ".join(facts))
    _check_equal(original, code, name, image_shape)
    return code


class _Writer:
    """Turns modules into expressions, and collects the classes that these call."""

    def __init__(self) -> None:
        self.classes: dict[str, str] = {}  # name -> text

    def expression(self, module: nn.Module) -> Call:
        children = list(module.named_children())
        if isinstance(module, nn.Sequential) and type(module).forward is nn.Sequential.forward:
            if [name for name, _ in children] == [str(number) for number in range(len(children))]:
                return Call("nn.Sequential", repeated([self.expression(child) for _, child in children]))
            pairs = [("", Call("", [("", literal(name)), ("", self.expression(child))])) for name, child in children]
            return Call("nn.Sequential", [("", Call("OrderedDict", [("", Call("", pairs, ("[", "]")))]))])
        if type(module) is nn.ModuleList:
            listed = repeated([self.expression(child) for _, child in children])
            return Call("nn.ModuleList", [("", Call("", listed, ("[", "]")))])
        if type(module) is nn.ModuleDict:
            entries = [(f"{literal(name)}: ", self.expression(child)) for name, child in children]
            return Call("nn.ModuleDict", [("", Call("", entries, ("{", "}")))])
        if is_layer(module):
            return construct(module)
        return self._custom(module)

    def _custom(self, module: nn.Module) -> Call:
        """A class of its own with `forward` as traced, given its parts when it is made."""
        members: dict[str, tuple[str, Call | str]] = {}  # attribute -> (how it is kept, what is given)
        for name, weights in module.named_parameters(recurse=False):
            given = Call("nn.Parameter", [("", _zeros(weights))])
            members[name] = f"self.{name} = {name}", given
        for name, buffer in module.named_buffers(recurse=False):
            if name not in module.state_dict():
                raise ValueError(f"its tensor {name!r} is in no state_dict, so it would be lost")
            members[name] = f'self.register_buffer("{name}", {name})', _zeros(buffer)
        for name, child in module._modules.items():
            members[name] = f"self.{name} = {name}", "None" if child is None else self.expression(child)
        wrong = [name for name in members if not name.isidentifier() or keyword.iskeyword(name)]
        if wrong:
            raise ValueError(f"its part {wrong[0]!r} has no name that Python allows")
        forward = _forward(module)
        lines = [f"def __init__(self{''.join(f', {name}' for name in members)}):", f"{INDENT}super().__init__()"]
        lines += [f"{INDENT}{kept}" for kept, _ in members.values()]
        body = "\n".join(f"{INDENT}{line}" if line else "" for line in ([*lines, ""] if members else []) + forward)
        name = self._class(type(module).__name__, body)
        return Call(name, [(f"{attribute}=", given) for attribute, (_, given) in members.items()])

    def _class(self, wanted: str, body: str) -> str:
        """The name of the class with this body, made if there is none."""
        number, name = 1, wanted
        while name in self.classes or name in OURS or hasattr(builtins, name):
            if self.classes.get(name) == body:
                return name
            number += 1
            name = f"{wanted}{number}"
        self.classes[name] = body
        return name


class _Shallow(fx.Tracer):
    """Traces one module; what it calls are leaves."""

    proxy_buffer_attributes = True  # else what is computed of them would become a constant

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:  # noqa: ARG002
        return True


def _forward(module: nn.Module) -> list[str]:
    """The lines of `forward`, in the order of the trace; what is used once, and next, stands where it is used."""
    graph = _Shallow().trace(module)
    uses = Counter(used for node in graph.nodes for used in _inputs(node))
    texts: dict[fx.Node, str] = {}
    arguments: list[str] = []
    lines: list[str] = []
    waiting: list[fx.Node] = []  # not yet written: each is used once, by a node to come

    def write_down(nodes: list[fx.Node]) -> None:
        for node in nodes:
            lines.append(f"{_name(node)} = {texts[node]}")
            texts[node] = _name(node)
        waiting.clear()

    for node in graph.nodes:
        if node.op == "placeholder":
            arguments.append(_argument(node))
            texts[node] = _name(node)
            continue
        used = [one for one in _inputs(node) if one in waiting]
        if waiting[len(waiting) - len(used) :] != used:
            write_down(waiting)  # else they would be computed in another order
        del waiting[len(waiting) - len(used) :]
        expression = _expression(module, node, texts)
        if node.op == "output":
            write_down(waiting)
            lines.append(f"return {expression}")
        elif uses[node] == 1 and len(expression) <= INLINED:
            texts[node] = expression
            waiting.append(node)
        else:
            write_down(waiting)
            texts[node] = expression
            write_down([node])
    return [f"def forward(self, {', '.join(arguments)}):", *(f"{INDENT}{line}" for line in lines)]


def _inputs(node: fx.Node) -> list[fx.Node]:
    """Every use of another node, in the order in which Python evaluates the arguments."""
    found: list[fx.Node] = []
    fx.map_arg((node.args, node.kwargs), found.append)
    return found


def _name(node: fx.Node) -> str:
    return f"{node.name}_" if node.name in OURS or keyword.iskeyword(node.name) else node.name


def _argument(node: fx.Node) -> str:
    return f"{_name(node)}={literal(node.args[0])}" if node.args else _name(node)


def _expression(module: nn.Module, node: fx.Node, texts: Mapping[fx.Node, str]) -> str:
    def text(value: Any) -> str:
        if isinstance(value, fx.Node):
            return texts[value]
        if isinstance(value, slice):
            parts = ["" if part is None else text(part) for part in (value.start, value.stop)]
            return ":".join(parts if value.step is None else [*parts, text(value.step)])
        if isinstance(value, tuple):
            return f"({', '.join(map(text, value))}{',' if len(value) == 1 else ''})"
        if isinstance(value, list):
            return f"[{', '.join(map(text, value))}]"
        if isinstance(value, torch.dtype):
            return str(value)
        if isinstance(value, float) and not math.isfinite(value):
            return f'float("{value}")'
        return literal(value)

    given = [text(value) for value in node.args] + [
        f"{key}={text(value)}" for key, value in node.kwargs.items() if (key, value) != ("inplace", False)
    ]
    if node.op == "output":
        return text(node.args[0])
    if node.op == "get_attr":
        if str(node.target) not in module.state_dict():
            raise ValueError("it makes a tensor of constants, which is in no state_dict")
        return _path(module, str(node.target))
    if node.op == "call_module":
        return f"{_path(module, str(node.target))}({', '.join(given)})"
    if node.op == "call_method":
        return f"{_atom(given[0])}.{node.target}({', '.join(given[1:])})"
    target = node.target
    assert callable(target)
    if target is getattr:
        return f"{_atom(given[0])}.{node.args[1]}"
    if target is operator.getitem:
        index = node.args[1]
        inside = ", ".join(map(text, index)) if isinstance(index, tuple) and index else text(index)
        return f"{_atom(given[0])}[{inside}]"
    if target in INFIX and len(given) == 2:
        return f"{_term(given[0], node.args[0])} {INFIX[target]} {_term(given[1], node.args[1], last=True)}"
    if target is operator.neg:
        return f"-{_atom(given[0])}"
    return f"{_function(target)}({', '.join(given)})"


def _atom(text: str) -> str:
    """The text, in brackets where what is put behind it would belong to its last part alone."""
    depth = 0
    for letter in text:
        depth += (letter in "([{") - (letter in ")]}")
        if letter == " " and depth == 0:
            return f"({text})"
    return f"({text})" if text.startswith("-") or text[:1].isdigit() else text


def _term(text: str, value: Any, last: bool = False) -> str:
    """An operand of an infix operator; a sum may stay as it is before another plus."""
    if text.startswith("-"):
        return f"({text})"
    plain = not isinstance(value, fx.Node) or value.target not in INFIX
    return text if plain or (not last and value.target in (operator.add, operator.iadd)) else _atom(text)


def _path(module: nn.Module, target: str) -> str:
    """ "edges.0" as `self.edges[0]`."""
    owner: Any = module
    path = "self"
    for part in target.split("."):
        if part.isdigit():
            path += f"[{part}]"
        elif isinstance(owner, nn.ModuleDict):
            path += f"[{literal(part)}]"
        else:
            path += f".{part}"
        owner = getattr(owner, part)
    return path


def _function(function: Callable[..., Any]) -> str:
    name = getattr(function, "__name__", "")
    for prefix, home in (("torch", torch), ("F", nn.functional), ("torch.special", torch.special)):
        if getattr(home, name, None) is function:
            return f"{prefix}.{name}"
    if getattr(builtins, name, None) is function:
        return name
    if getattr(math, name, None) is function:
        return f"math.{name}"
    raise ValueError(f"it calls {getattr(function, '__module__', '?')}.{name}, which is not of PyTorch")


def _zeros(tensor: Tensor) -> Call:
    shape = ", ".join(map(str, tensor.shape))
    kind = "" if tensor.dtype == torch.float32 else f", dtype={tensor.dtype}"
    return Call("torch.zeros", [("", f"({shape}{',' if tensor.ndim == 1 else ''}){kind}")])


def _file(
    name: str,
    image_shape: tuple[int, int, int],
    num_classes: int,
    classes: Mapping[str, str],
    expression: str,
    standardized: tuple[Sequence[float], Sequence[float]] | None,
    facts: str,
) -> str:
    channels, height, width = image_shape
    shape = f"(N, {channels}, {height}, {width})"
    bodies = [*classes.values(), expression]
    imports = ["import math"] if any("math." in body for body in bodies) else []
    imports += ["from collections import OrderedDict"] if "OrderedDict(" in expression else []
    imports += ["", "import torch"] if imports else ["import torch"]
    imports += ["import torch.nn.functional as F"] if any("F." in body for body in bodies) else []
    title = name.replace("\\", "\\\\").replace('"""', "'''")
    parts = [
        f'"""{title}\n\nFor float32 images {shape} and {num_classes} classes: {facts}\n'
        f'It needs PyTorch alone, and safetensors to load weights.\n"""\n',
        "\n".join([*imports, "from torch import nn"]),
    ]
    parts += [f"\n\nclass {called}(nn.Module):\n{body}" for called, body in classes.items()]
    parts.append(
        f'\n\ndef build_network():\n{INDENT}"""The network with fresh weights: images {shape} to scores '
        f'(N, {num_classes})."""\n{INDENT}return {expression}'
    )
    parts.append(_LOAD)
    if standardized is not None:
        mean, deviation = (literal([float(value) for value in values]) for values in standardized)
        parts.append(_PREPARE.format(mean=mean, deviation=deviation, shape=shape))
    return "\n".join(parts) + "\n"


_LOAD = '''

def load_network(file):
    """The network with the weights of a .safetensors file, ready to be used."""
    from safetensors.torch import load_file

    network = build_network()
    network.load_state_dict(load_file(file))
    return network.eval()'''
_PREPARE = '''

MEAN = {mean}
DEVIATION = {deviation}


def prepare(pixels):
    """Pixels {shape} between 0 and 1 as the network was trained on."""
    mean, deviation = (torch.tensor(values).view(1, -1, 1, 1) for values in (MEAN, DEVIATION))
    return (pixels - mean) / deviation'''


def _check_unshared(network: nn.Module) -> None:
    places: dict[int, str] = {}
    for name, module in network.named_modules(remove_duplicate=False):
        first = places.setdefault(id(module), name)
        if first != name and module.state_dict():
            raise ValueError(f"plain code cannot say that {first} and {name} are one layer")


@torch.no_grad()
def _check_equal(original: nn.Module, code: str, name: str, image_shape: tuple[int, int, int]) -> None:
    """Run what was written, with the same weights, on the same images."""
    space: dict[str, Any] = {"__name__": "plain"}
    exec(compile(code, "plain code", "exec"), space)  # our own text, of our own tracing
    with torch.random.fork_rng(devices=[]):
        written = space["build_network"]().eval()
        images = torch.randn(1, *image_shape)
    try:
        written.load_state_dict(original.state_dict())
        equal = torch.equal(written(images), original(images))
    except Exception as error:
        raise ValueError(f"{name} cannot be written as plain code: {' '.join(str(error).split())[:200]}") from None
    if not equal:
        raise ValueError(f"{name} cannot be written as plain code: what was written computes something else")
