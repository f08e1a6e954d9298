"""What the code of a search space says, whatever its layout: the definitions that it comes to, each digested.

Comments, docstrings, layout, what is not used and in which of the files beside each other something stands do not
count. What runs whenever a file does (statements without a name, decorated definitions, what changes an imported name)
always counts, and in its order, also that of a file that is imported for nothing else.
"""

from __future__ import annotations

import ast
import contextlib
import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_DYNAMIC = {"globals", "locals", "vars", "eval", "exec", "__import__", "importlib", "sys"}  # may reach anything by name


@dataclass(frozen=True)
class Meaning:
    """`parts`: name of a definition -> digest of what it says."""

    parts: Mapping[str, str]

    @property
    def digest(self) -> str:
        return _sha(sorted(self.parts.items()))

    def changes(self, before: Mapping[str, str]) -> str:
        """Which definitions are others than `before`, in words; "" where none is."""
        changed = [name for name in self.parts if name in before and before[name] != self.parts[name]]
        new, gone = self.parts.keys() - before.keys(), before.keys() - self.parts.keys()
        kinds = {"changed": changed, "new": new, "gone": gone}
        return "; ".join(f"{', '.join(sorted(names))} {kind}" for kind, names in kinds.items() if names)


def meaning(file: Path, attribute: str, beside: Sequence[Path], *whole: tuple[str, str]) -> Meaning:
    """Of an attribute of a file, with what it uses of those beside it. `whole`: further parts and their text."""
    reached = _Reached({path: _Module.of(path, file.parent) for path in (file, *beside)}, file)
    reached.take(file, attribute)
    return Meaning({**reached.digests(), **{name: _sha(text) for name, text in whole}})


class Codes:
    """Which code, of those that rows are keyed by, stands for a meaning: that of the files when it was first met.

    A file a meaning, in the folder of `place`; None: nothing is kept, and other bytes are another code.
    """

    def __init__(self) -> None:
        self.place: Callable[[], Path] | None = None

    def code(self, name: str, meant: Meaning, written: str) -> str:
        """The code of a space; `written`: a digest of the bytes of its files now."""
        if self.place is None:
            return written
        file = self.place() / f"{meant.digest[:32]}.json"
        known = _read(file)
        if known is None:
            taken = any(one["code"] == written and one["name"] == name for one in self._all())
            code = _sha([written, meant.digest])[:16] if taken else written
            _put(file, {"code": code, "name": name, "parts": dict(meant.parts)})
            known = _read(file) or {"code": code}  # the folder cannot be written to, or another process was first
        return str(known["code"])

    def parts(self, code: str) -> Mapping[str, str] | None:
        """What was said under a code; None where that is not known."""
        return next((one["parts"] for one in self._all() if one["code"] == code), None)

    def _all(self) -> Iterator[dict[str, Any]]:
        files = sorted(self.place().glob("*.json")) if self.place is not None else []
        return (known for file in files if (known := _read(file)) is not None)


CODES = Codes()


@dataclass(eq=False)
class _Module:
    named: dict[str, list[ast.stmt]] = field(default_factory=dict)
    always: list[ast.stmt] = field(default_factory=list)  # what runs whenever the file does
    imports: dict[str, tuple[str, str | None]] = field(default_factory=dict)  # alias -> module, attribute
    stars: list[str] = field(default_factory=list)
    runs: list[str] = field(default_factory=list)  # modules that may be imported with it

    @staticmethod
    def of(path: Path, root: Path) -> _Module:
        """`root`: the folder in which imports that are not relative begin."""
        module, inside = _Module(), path.parent.relative_to(root).parts
        try:
            tree = ast.parse(path.read_bytes())
        except (SyntaxError, ValueError):
            module.always.append(ast.Expr(ast.Constant(path.read_bytes())))  # running it says what is wrong
            return module
        tree.body = [statement for statement in tree.body if not _is_of_main(statement)]
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                for alias in node.names:
                    known = alias.asname or alias.name.partition(".")[0]
                    module.imports[known] = alias.name if alias.asname else known, None
                    module.runs.append(alias.name)
            elif isinstance(node, ast.ImportFrom):
                base = inside[: max(0, len(inside) - node.level + 1)] if node.level else ()
                target = ".".join([*base, *filter(None, [node.module])])
                for alias in node.names:
                    if alias.name == "*":
                        module.stars.append(target)
                    module.imports[alias.asname or alias.name] = target, alias.name
                    module.runs.append(f"{target}.{alias.name}")
        for statement in tree.body:
            if _says_something(statement):
                module._sort(statement)
        return module

    def _sort(self, statement: ast.stmt) -> None:
        names = _bound(statement)
        for name in names:
            self.named.setdefault(name, []).append(statement)
        if not names or _registers(statement) or any(name in self.imports for name in names):
            self.always.append(statement)


class _Reached:
    """What an attribute comes to: names of files, and the statements that bind them."""

    def __init__(self, modules: Mapping[Path, _Module], main: Path) -> None:
        self._modules = modules
        self._folder = main.parent
        self._seen: set[tuple[Path, str]] = set()
        self._entered: set[Path] = set()
        self._said: dict[str, list[str]] = {}
        self._classes: set[str] = set()

    def digests(self) -> dict[str, str]:
        return {name: _sha(texts) for name, texts in self._said.items()}

    def take(self, path: Path, name: str) -> None:
        """A name as it is known in a file."""
        if (path, name) in self._seen:
            return
        self._seen.add((path, name))
        self._enter(path)
        module = self._modules[path]
        if name in module.named:
            for statement in module.named[name]:
                self._say(name, statement)
                self._follow(path, statement)
                if isinstance(statement, ast.ClassDef):
                    self._inherited(statement.name)
        if name in module.imports:
            self._imported(name, *module.imports[name])
        elif name not in module.named:
            for star in module.stars:
                if found := self._beside(star):
                    self.take(found[0], name)
        if name in _DYNAMIC:
            for other in self._modules:
                self._whole(other)

    def _imported(self, name: str, target: str, attribute: str | None) -> None:
        files = self._beside(f"{target}.{attribute}" if attribute else target) or self._beside(target)
        if not files:  # of a package
            self._said.setdefault(f"import {name}", []).append(_sha([target, attribute]))
        elif attribute is not None and len(files) == 1 and attribute in self._modules[files[0]].named:
            if attribute != name:
                self._said.setdefault(name, []).append(_sha(["is", attribute]))
            self.take(files[0], attribute)
        else:
            for file in files:
                self._whole(file)

    def _beside(self, target: str) -> list[Path]:
        """The files of a module beside the main one; of a package all of them."""
        if not target:
            return [path for path in self._modules if path.parent == self._folder]
        parts = target.strip(".").split(".")
        file = self._folder.joinpath(*parts).with_suffix(".py")
        if file in self._modules:
            return [file]
        package = self._folder / parts[0]
        return [path for path in self._modules if path.is_relative_to(package)]

    def _whole(self, path: Path) -> None:
        self._enter(path)
        for name in self._modules[path].named:
            self.take(path, name)

    def _enter(self, path: Path) -> None:
        if path not in self._entered:
            self._entered.add(path)
            for statement in self._modules[path].always:
                self._say("(what runs at once)", statement)
                self._follow(path, statement)
                if isinstance(statement, ast.ClassDef):
                    self._inherited(statement.name)
            for target in self._modules[path].runs:
                place = self._folder
                for part in filter(None, target.split(".")):
                    place /= part
                    for file in (place / "__init__.py", place.with_name(f"{part}.py")):
                        if file in self._modules:
                            self._enter(file)

    def _inherited(self, base: str) -> None:
        """Classes that say they are a reached one's may be found through it."""
        if base not in self._classes:
            self._classes.add(base)
            for path, module in self._modules.items():
                for name, statements in list(module.named.items()):
                    bases = [b for one in statements if isinstance(one, ast.ClassDef) for b in one.bases]
                    if any(getattr(b, "id", getattr(b, "attr", "")) == base for b in bases):
                        self.take(path, name)

    def _follow(self, path: Path, statement: ast.stmt) -> None:
        for node in ast.walk(statement):
            if isinstance(node, ast.Name):
                self.take(path, node.id)

    def _say(self, name: str, statement: ast.stmt) -> None:
        self._said.setdefault(name, []).append(_sha(_canonical(statement)))


def _says_something(statement: ast.stmt) -> bool:
    if isinstance(statement, ast.Import | ast.ImportFrom | ast.Pass):
        return False  # what is used of them is looked at where it is used
    return not (isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant))


def _is_of_main(statement: ast.stmt) -> bool:
    """Whether it runs only where the file is a program of its own."""
    named = ast.walk(statement.test) if isinstance(statement, ast.If) else ()
    return any(isinstance(node, ast.Name) and node.id == "__name__" for node in named)


def _registers(statement: ast.stmt) -> bool:
    """Whether the definition, or that of a subclass, may do more than to bind a name."""
    body = statement.body if isinstance(statement, ast.ClassDef) else []
    hooks = any(isinstance(one, ast.FunctionDef) and one.name == "__init_subclass__" for one in body)
    return hooks or bool(getattr(statement, "decorator_list", None) or getattr(statement, "keywords", None))


def _bound(statement: ast.stmt) -> list[str]:
    """The names that a statement on top of a file binds or changes; none of one that holds others."""
    if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return [statement.name]
    targets = getattr(statement, "targets", None) or [getattr(statement, "target", None)]
    if isinstance(statement, ast.Assign | ast.AnnAssign | ast.AugAssign):
        return [node.id for target in targets for node in ast.walk(target) if isinstance(node, ast.Name)]
    return []


def _canonical(node: Any) -> Any:
    """A syntax tree as JSON that is the same in every version of Python, without docstrings and places."""
    if isinstance(node, ast.AST):
        body = getattr(node, "body", None)
        fields = {name: value for name, value in ast.iter_fields(node) if name not in ("ctx", "kind", "type_comment")}
        if isinstance(body, list):
            fields["body"] = [
                one for one in body if not (isinstance(one, ast.Expr) and isinstance(one.value, ast.Constant))
            ]
        told = {name: _canonical(value) for name, value in fields.items() if value is not None and value != []}
        return [type(node).__name__, told]
    if isinstance(node, list):
        return [_canonical(one) for one in node]
    return node if isinstance(node, str) else [type(node).__name__, repr(node)]


def _sha(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _read(file: Path) -> dict[str, Any] | None:
    try:
        known = json.loads(file.read_text(encoding="utf-8"))
        return known if isinstance(known["code"], str) and isinstance(known["parts"], dict) and known["name"] else None
    except (OSError, ValueError, TypeError, KeyError):
        return None


def _put(file: Path, content: Mapping[str, Any]) -> None:
    """Whole, and where no other process was first; a folder that cannot be written to keeps nothing."""
    with contextlib.suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        beside = file.with_name(f".{file.name}.{os.getpid()}")
        try:
            beside.write_text(json.dumps(content, sort_keys=True), encoding="utf-8")
            if file.exists():  # damaged
                beside.replace(file)
            else:
                file.hardlink_to(beside)
        finally:
            beside.unlink(missing_ok=True)
