"""Search spaces from outside: a Python file, an NNI JSON file with a builder, an installed package.

Loading one runs its code, so a spec may come from the user's own command line and never from the network.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib.metadata
import importlib.util
import inspect
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from search_spaces.architecture import SearchSpace
from search_spaces.messages import FOREIGN, hint, one_line
from search_spaces.outside.definition import DefinedSpace, Definition, canonical_json, positional
from search_spaces.outside.meaning import CODES, Meaning, meaning
from search_spaces.outside.nni_json import JsonDefinition, read_search_space
from search_spaces.outside.nni_nas import ModelSpaceDefinition, import_nni_nas, is_model_space, quiet
from search_spaces.outside.plain import ClassDefinition, is_plain
from search_spaces.outside.renamed import RenamedSpace

GROUP = "ftdnas.spaces"
KINDS = (
    "an Optuna function build(trial), an nni.nas ModelSpace class or a function of no argument or two that returns one,"
    " a class with choices and build, or a SearchSpace"
)


def is_file_space(spec: str) -> bool:
    """Whether a spec names a file: what must not be taken from the network."""
    return ".py:" in spec


def load_space(spec: str) -> SearchSpace:
    """The space of "path/to/file.py:attribute", of "space.json+path/to/file.py:builder", or of an installed package.

    The attribute is an Optuna function `build(trial)` or `build(trial, image_shape, num_classes)`; an nni.nas
    ModelSpace class, or a function of () or (image_shape, num_classes) that returns one; a class (or object) with
    `choices`, a mapping from names to values, and `build(choices)` or `build(choices, image_shape, num_classes)`; or a
    SearchSpace. The builder beside a JSON file gets NNI's configuration: `builder(params)` or
    `builder(params, image_shape, num_classes)`. Relative paths start at the working directory. Runs the file: a spec
    must never come from the network.

    Raises FileNotFoundError, or ValueError with one line that says what is wrong where.
    """
    if not is_file_space(spec):
        installed = installed_spaces()
        if spec not in installed:
            raise ValueError(f"unknown search space {spec!r}: {hint(spec, [*installed, 'path/to/file.py:attribute'])}")
        return installed[spec]()
    files, attribute = _files_of(spec)
    name = "+".join(file.as_posix() for file in files) + f":{attribute}"
    written = _digest(*(file.read_bytes() for file in (*files[:-1], *_sources(files[-1]))))
    code = CODES.code(name, _meaning(files, attribute), written)
    # What was loaded stays loaded as long as the files say the same.
    return _of_files(name, code, Path.cwd(), tuple(files), attribute)


def _files_of(spec: str) -> tuple[list[Path], str]:
    """The Python file, before it the JSON file where there is one, and the attribute.

    A plus in the name of a file or folder parts nothing where that file is there.
    """
    place, _, attribute = spec.rpartition(":")
    plus = [at for at, letter in enumerate(place) if letter == "+"]
    pairs = [(place[:at], place[at + 1 :]) for at in plus if place[:at].endswith(".json")] or [
        (place[:at], place[at + 1 :]) for at in plus[-1:]
    ]
    if Path(place).is_file() or not plus:
        pairs = [(place,)]  # type: ignore[list-item]
    there = [pair for pair in pairs if all(Path(name).is_file() for name in pair)]
    files = [Path(os.path.normpath(name)) for name in (there or pairs)[0]]
    if not files[-1].is_file():
        raise FileNotFoundError(f"no file {files[-1]} (of the search space {spec})")
    if not files[0].is_file():
        raise FileNotFoundError(f"no search-space file {files[0]} (of the search space {spec})")
    return files, attribute


def installed_spaces() -> dict[str, Callable[[], SearchSpace]]:
    """The spaces of installed packages (entry points of the group "ftdnas.spaces") by name, each loaded when called.

    A call raises ValueError, one line that names the package, where its code is broken; the others are not touched.
    """
    folders = [Path(folder) for folder in sys.path if Path(folder).is_dir()]
    points = _entry_points(tuple((str(folder.absolute()), folder.stat().st_mtime_ns) for folder in folders))
    return {point.name: functools.partial(_of_package, point) for point in points}


@functools.lru_cache(maxsize=4)
def _entry_points(folders: tuple[tuple[str, int], ...]) -> list[importlib.metadata.EntryPoint]:  # noqa: ARG001
    """Those of the packages in the folders of sys.path, which change when one is installed; looking takes 5 ms."""
    return sorted(importlib.metadata.entry_points(group=GROUP), key=lambda point: point.name)


@functools.lru_cache(maxsize=64)
def _of_files(name: str, code: str, folder: Path, files: tuple[Path, ...], attribute: str) -> SearchSpace:
    search_space = read_search_space(folder / files[0]) if len(files) > 1 else None
    module = _run(folder / files[-1], f"ftdnas_space_{code}")
    if not hasattr(module, attribute):
        own = [key for key, value in vars(module).items() if getattr(value, "__module__", "") == module.__name__]
        raise ValueError(f"{files[-1]} has no {attribute!r}: {hint(attribute, own)}")
    defined = getattr(module, attribute)
    try:
        if search_space is not None:
            return DefinedSpace(name, code, JsonDefinition(search_space, defined), load_space)
        return _space(name, code, defined)
    except FOREIGN as error:
        raise ValueError(f"{name}: {_said(error)}") from None


def _of_package(point: importlib.metadata.EntryPoint) -> SearchSpace:
    try:
        with quiet():
            file = _module_file(point.module)
            if file is not None and _mentions_nni_nas(file):
                import_nni_nas()
            defined = point.load()
        package = f"{point.dist.name} {point.dist.version}" if point.dist else ""
        code = _digest(package.encode(), *(source.read_bytes() for source in (_sources(file) if file else ())))
        return _space(point.name, code, defined)
    except FOREIGN as error:
        origin = f" of {point.dist.name} {point.dist.version}" if point.dist else ""
        raise ValueError(f"the search space {point.name}{origin} ({point.value}) is broken: {_said(error)}") from None


def _space(name: str, code: str, defined: Any) -> SearchSpace:
    if isinstance(defined, DefinedSpace):
        return DefinedSpace(name, code, defined.definition, load_space)
    if all(hasattr(defined, key) for key in ("name", "size", "suggest", "architectures", "parse")):
        if isinstance(defined, type):
            defined = defined()
        return RenamedSpace(name, code, defined, load_space)
    return DefinedSpace(name, code, _definition(defined), load_space)


def _definition(defined: Any) -> Definition:
    if is_model_space(defined):
        return ModelSpaceDefinition(defined)
    if is_plain(defined):
        return ClassDefinition(defined() if isinstance(defined, type) else defined)
    if inspect.isfunction(defined):
        if positional(defined) in (0, 2):
            return ModelSpaceDefinition(defined)
        if positional(defined) in (1, 3):
            from search_spaces.outside.optuna import TrialDefinition

            return TrialDefinition(defined)
    raise ValueError(f"it is a {type(defined).__name__}, not {KINDS}")


def _run(path: Path, name: str) -> ModuleType:
    """The module of a file, which may import the files beside it."""
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ValueError(f"{path} is not a Python file")
    if _mentions_nni_nas(path):
        import_nni_nas()
    for beside in {source.relative_to(path.parent).parts[0] for source in _sources(path, packages=True)[1:]}:
        name_beside = beside.removesuffix(".py")
        left = Path(getattr(sys.modules.get(name_beside), "__file__", None) or "")
        if str(left.parent.parent if left.name == "__init__.py" else left.parent) not in sys.path:
            # Another space's file of that name, or an older version of this one's.
            for known in [known for known in sys.modules if known.partition(".")[0] == name_beside]:
                del sys.modules[known]
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look there
    sys.path.insert(0, str(path.parent))
    try:
        with quiet():
            spec.loader.exec_module(module)
    except FOREIGN as error:
        del sys.modules[name]
        raise ValueError(f"{path} cannot be run: {_said(error)}") from None
    finally:
        sys.path.remove(str(path.parent))
    return module


def changes(spec: str, code: str) -> str:
    """What is another in the files of a space than it was under `code`, in words; "" where nothing is.

    Raises what `load_space` raises.
    """
    space = load_space(spec)
    if space.code == code:
        return ""
    before = CODES.parts(code)
    named = "" if before is None or not is_file_space(spec) else _meaning(*_files_of(spec)).changes(before)
    return named or "what it says is not what it said"


def _meaning(files: Sequence[Path], attribute: str) -> Meaning:
    beside = [source for source in _sources(files[-1], packages=True) if source != files[-1]]
    spaces = [(file.name, canonical_json(read_search_space(file))) for file in files[:-1]]
    return meaning(files[-1], attribute, beside, *spaces)


def _sources(file: Path, packages: bool = False) -> list[Path]:
    """The file and those beside it that it imports, directly or not; `packages`: all files of such folders too."""
    sources = [file]
    for source in sources:
        for name in _imported(source.read_bytes()):
            folder = file.parent / name
            inside = folder.rglob("*.py") if (folder / "__init__.py").is_file() else folder.glob("*.py")
            for beside in (file.parent / f"{name}.py", *(sorted(inside) if packages and name else ())):
                if beside.is_file() and beside not in sources:
                    sources.append(beside)
    return sources


@functools.lru_cache(maxsize=256)
def _imported(source: bytes) -> tuple[str, ...]:
    """The first parts of the names that a source imports."""
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError):
        return ()  # running it says so
    nodes = list(ast.walk(tree))
    names = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    names += [node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module]
    return tuple(name.partition(".")[0] for name in names)


def _mentions_nni_nas(file: Path) -> bool:
    return any(b"nni.nas" in text or b"from nni import nas" in text for text in map(Path.read_bytes, _sources(file)))


def _module_file(name: str) -> Path | None:
    spec = importlib.util.find_spec(name)
    file = Path(spec.origin) if spec and spec.origin else None
    return file if file is not None and file.is_file() else None


def _digest(*contents: bytes) -> str:
    whole = hashlib.sha256()
    for content in contents:
        whole.update(len(content).to_bytes(8, "big") + content)
    return whole.hexdigest()[:16]


def _said(error: BaseException) -> str:
    """What is wrong, in one line; where in the file, for a mistake in its syntax."""
    return str(error) if type(error) is ValueError and "\n" not in str(error) else one_line(error)
