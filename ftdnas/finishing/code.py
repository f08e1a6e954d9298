"""A network as a readable Python file of plain PyTorch, which needs nothing of this package."""

from __future__ import annotations

import ast
import builtins
import copy
import keyword
import operator
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn

from ftdnas.candidates.layers import INDENT, Call, construct, is_layer, laid_out, literal, repeated
from ftdnas.finishing.card import text_of
from search_spaces.messages import FOREIGN

IN_PLACE = {operator.iadd: operator.add, operator.isub: operator.sub, operator.imul: operator.mul}  # as it is printed
OURS = {"self", "torch", "nn", "F"}  # names that no class may take
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
    except FOREIGN as error:  # tracing runs code of anybody's
        said = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(f"{name} cannot be written as plain code: {said}") from None
    facts = [f"{sum(weights.numel() for weights in original.parameters()):,} weights."]
    facts += [] if writer.classes == training.classes else ["What only happens in training (dropout) is left out."]
    channels, height, width = image_shape
    code = text_of(
        "network.py.txt",
        title=name.replace("\\", "\\\\").replace('"""', "'''"),
        shape=f"(N, {channels}, {height}, {width})",
        num_classes=num_classes,
        facts=" ".join(facts),
        classes=writer.classes,
        expression=expression,
        functional=any("F." in body for body in [*writer.classes.values(), expression]),
        standardized=standardized and [literal([float(value) for value in values]) for values in standardized],
    )
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
    """The lines of `forward`: the trace as torch.fx prints it, in plainer words."""
    graph = _Shallow().trace(module)
    paths: list[str] = []  # to the parts of the module, in the order in which they are printed
    for node in graph.nodes:
        if node.op == "get_attr" and str(node.target) not in module.state_dict():
            raise ValueError("it makes a tensor of constants, which is in no state_dict")
        if node.op in ("get_attr", "call_module"):
            paths.append(_path(module, str(node.target)))
            node.target = f"part_{len(paths) - 1}_"
        if node.op == "call_function":
            node.target = IN_PLACE.get(node.target, node.target)
            origin = str(getattr(node.target, "__module__", None) or "torch")
            if origin.partition(".")[0] not in ("torch", "_operator", "builtins"):
                raise ValueError(f"it calls {origin}.{node.target.__name__}, which is not of PyTorch")
    text = re.sub(r"\btorch\.(nn\.functional|_C\._nn)\.", "F.", graph.python_code("self").src)
    text = re.sub(r"\bself\.part_(\d+)_", lambda part: paths[int(part[1])], text)
    (function,) = (part for part in ast.parse(text).body if isinstance(part, ast.FunctionDef))
    function.returns = None
    function = _Plainer().visit(function)
    function.body = list(_nested(function.body))
    return ast.unparse(ast.fix_missing_locations(function)).replace("'", '"').splitlines()


class _Plainer(ast.NodeTransformer):
    """What torch.fx prints, as people write it."""

    def visit_arg(self, node: ast.arg) -> ast.arg:
        return ast.arg(node.arg)

    def visit_Call(self, node: ast.Call) -> ast.expr:
        self.generic_visit(node)
        if ast.unparse(node.func) == "slice":
            bounds = [None if ast.unparse(bound) == "None" else bound for bound in node.args]
            return ast.Slice(*bounds)
        node.keywords = [word for word in node.keywords if ast.unparse(word) != "inplace=False"]
        return node

    def visit_Name(self, node: ast.Name) -> ast.expr:
        plain = {"inf": 'float("inf")', "nan": 'float("nan")', "Ellipsis": "..."}.get(node.id)
        return node if plain is None else ast.parse(plain, mode="eval").body


class _Inlined(ast.NodeTransformer):
    def __init__(self, values: Mapping[str, ast.expr]) -> None:
        self.values = values

    def visit_Name(self, node: ast.Name) -> ast.expr:
        return self.values.get(node.id, node)


def _nested(body: Sequence[ast.stmt]) -> Iterator[ast.stmt]:
    """The statements; what is used once, and next, stands where it is used, so that the order of the trace remains."""
    loads = [node for line in body for node in _names(line) if isinstance(node.ctx, ast.Load)]
    uses = Counter(node.id for node in loads)
    waiting: dict[str, ast.expr] = {}  # not yet written: each is used once, by a statement to come

    def assigned(values: Mapping[str, ast.expr]) -> list[ast.stmt]:
        return [ast.Assign([ast.Name(name, ast.Store())], value) for name, value in values.items()]

    for line in body:
        assert isinstance(line, ast.Assign | ast.Return)
        if line.value is None or ast.unparse(line.value) == "None":  # a name that is let go
            continue
        used = [node.id for node in _names(line.value) if node.id in waiting]
        if list(waiting)[len(waiting) - len(used) :] != used:
            yield from assigned(waiting)  # else they would be computed in another order
            waiting.clear()
        line.value = _Inlined(waiting).visit(line.value)
        waiting = {name: value for name, value in waiting.items() if name not in used}
        if isinstance(line, ast.Return):
            yield from [*assigned(waiting), line]
            return
        (target,) = line.targets
        name = ast.unparse(target)
        waiting[name] = line.value
        if uses[name] != 1 or len(ast.unparse(line.value)) > INLINED:
            yield from assigned(waiting)
            waiting.clear()


def _names(tree: ast.AST) -> list[ast.Name]:
    """In the order in which Python reads them."""
    return sorted((n for n in ast.walk(tree) if isinstance(n, ast.Name)), key=lambda n: (n.lineno, n.col_offset))


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


def _zeros(tensor: Tensor) -> Call:
    shape = ", ".join(map(str, tensor.shape))
    kind = "" if tensor.dtype == torch.float32 else f", dtype={tensor.dtype}"
    return Call("torch.zeros", [("", f"({shape}{',' if tensor.ndim == 1 else ''}){kind}")])


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
    try:
        exec(compile(code, "plain code", "exec"), space)  # our own text, of our own tracing
        with torch.random.fork_rng(devices=[]):
            written = space["build_network"]().eval()
            images = torch.randn(1, *image_shape)
        written.load_state_dict(original.state_dict())
        equal = torch.equal(written(images), original(images))
    except FOREIGN as error:
        raise ValueError(f"{name} cannot be written as plain code: {' '.join(str(error).split())[:200]}") from None
    if not equal:
        raise ValueError(f"{name} cannot be written as plain code: what was written computes something else")
