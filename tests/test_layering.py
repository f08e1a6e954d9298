"""The walls of the house: who may import what, read from the syntax trees."""

from __future__ import annotations

import ast
import functools
import re
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("distill", "search_spaces", "ftdnas")
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for package in PACKAGES
    for path in sorted((ROOT / package).rglob("*.py"))
}
# Every room imports from those that stand after it, and from no other: the order from the shells down to the ground.
ROOMS = (
    "cli",
    "service",
    "interface",
    "finishing",
    "report",
    "ranking",
    "proxies",
    "candidates",
    "sets",
    "runtime",
    "agreement",
)
ONLY_IN = {
    # package: where it may be imported
    "click": {"ftdnas.cli"},
    "rich": {"ftdnas.cli"},
    "optuna": {"ftdnas.ranking.trials", "ftdnas.ranking.optuna_brain", "search_spaces.outside.optuna"},
    "sqlalchemy": {"ftdnas.runtime.database", "ftdnas.runtime.leases", "ftdnas.service.queue"},
    "psycopg": {"ftdnas.runtime.database"},
    "nni": {"search_spaces.outside.nni_json", "search_spaces.outside.nni_nas", "ftdnas.ranking.nni_brain"},
    "ray": {"ftdnas.runtime.ray"},
    "fastapi": {"ftdnas.service"},
    "pydantic": {"ftdnas.service"},
    "uvicorn": {"ftdnas.service"},
    "onnxruntime": {"ftdnas.candidates.onnx"},
    "jinja2": {"ftdnas.finishing.card", "ftdnas.report.svg", "ftdnas.service"},
    "pickle": set(),
    "dill": set(),
    "cloudpickle": set(),
    "joblib": set(),
    "shelve": set(),
    "marshal": set(),
}
LEAVES = {
    "distill": {"torch", "torchvision", "numpy", "scipy", "safetensors", "pyarrow", "PIL", "sklearn"},
    "search_spaces": {"torch", "torchvision", "numpy", "scipy", "safetensors", "pyarrow", "optuna", "nni"},
}
TORCH_LOAD = "ftdnas.sets.published"  # the tensors that the field publishes are .pt files
HEAVY = {"torch", "torchvision", "optuna", "nni", "pandas", "scipy", "sklearn", "matplotlib", "numpy", "pyarrow"}


@functools.cache
def tree(module: str) -> ast.Module:
    return ast.parse(MODULES[module].read_text(encoding="utf-8"))


@functools.cache
def imports_of(module: str) -> frozenset[str]:
    return frozenset(imports(tree(module)))


def imports(parsed: ast.AST) -> Iterator[str]:
    """Dotted names of everything imported anywhere in the tree, inside functions too."""
    for node in ast.walk(parsed):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative import"
            assert node.module is not None
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def standard(name: str) -> bool:
    import sys

    return name in sys.stdlib_module_names


def inside(module: str, places: set[str]) -> bool:
    return any(module == place or module.startswith(f"{place}.") for place in places)


def committed() -> list[Path]:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True, text=True).stdout
    return [ROOT / name for name in listed.split("\0") if name and (ROOT / name).is_file()]


def test_three_packages_are_installed_and_there_are_no_others() -> None:
    found = {path.parent.name for path in ROOT.glob("*/__init__.py")}
    assert found == set(PACKAGES)
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]["find"]
    assert {pattern.rstrip("*") for pattern in settings["include"]} == set(PACKAGES)
    assert not [path.parent for path in (ROOT / "tests").rglob("__init__.py")]


@pytest.mark.parametrize("leaf", LEAVES)
def test_leaves_import_only_what_they_may(leaf: str) -> None:
    for module in MODULES:
        if inside(module, {leaf}):
            for name in imports_of(module):
                top = name.partition(".")[0]
                assert top in LEAVES[leaf] | {leaf, "__future__"} or standard(top), f"{module} imports {name}"


def our_imports(module: str) -> set[str]:
    """Of our own modules, those that it imports anywhere: `from a import b` is b where that is a module, else a."""
    names = imports_of(module)
    return {name if name in MODULES else name.rpartition(".")[0] for name in names} & set(MODULES) - {module}


def room(module: str) -> str:
    """Of a module of ftdnas; "" of its own top."""
    return ".".join(module.split(".")[1:2])


def test_rooms_stand_in_the_order_that_is_listed_here() -> None:
    folders = {path.parent.name for path in (ROOT / "ftdnas").glob("*/__init__.py")}
    assert folders == set(ROOMS)
    for module in MODULES:
        if module.startswith("ftdnas.") and room(module) in ROOMS:
            below = ROOMS[ROOMS.index(room(module)) :]
            for name in our_imports(module):
                assert not name.startswith("ftdnas") or room(name) in below, (
                    f"{module} imports {name}, which is above it"
                )


def test_agreement_is_statistics_alone() -> None:
    for module in MODULES:
        if inside(module, {"ftdnas.agreement"}):
            for name in imports_of(module):
                top = name.partition(".")[0]
                assert top in {"numpy", "scipy", "__future__"} or standard(top) or name.startswith("ftdnas.agreement")


def test_no_module_is_in_a_circle() -> None:
    """However late an import is made, inside a function or for types alone."""
    left = {module: our_imports(module) for module in MODULES}
    while free := {module for module, needed in left.items() if not needed & set(left)}:
        left = {module: needed for module, needed in left.items() if module not in free}
    assert not left, f"circles among {sorted(left)}"


def test_few_things_lie_on_the_first_level() -> None:
    names = {path.relative_to(ROOT / "ftdnas").parts[0] for path in committed() if inside_folder(path, "ftdnas")}
    assert len(names) <= 14, sorted(names)


def inside_folder(path: Path, folder: str) -> bool:
    return (ROOT / folder) in path.parents


@pytest.mark.parametrize("package", ONLY_IN)
def test_package_is_imported_only_where_it_may_be(package: str) -> None:
    for module in MODULES:
        names = {name.partition(".")[0] for name in imports_of(module)}
        assert package not in names or inside(module, ONLY_IN[package]), f"{module} imports {package}"


def test_torch_load_occurs_once_and_reads_weights_only() -> None:
    places = []
    for module in MODULES:
        for node in ast.walk(tree(module)):
            if isinstance(node, ast.Attribute) and node.attr == "load" and ast.unparse(node.value) == "torch":
                places.append(module)
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "torch.load":
                given = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
                assert given.get("weights_only") == "True", module
        assert "torch.load" not in imports_of(module)
        assert not any(name.startswith("torch.serialization") for name in imports_of(module)), module
    assert places == [TORCH_LOAD]


def test_the_shell_starts_without_heavy_libraries() -> None:
    """What `ftdnas.cli.main` imports at its top, followed through our own modules, is light."""
    seen: set[str] = set()
    waiting = [
        "ftdnas",
        "ftdnas.__main__",
        "ftdnas.cli",
        "ftdnas.cli.main",
        "ftdnas.cli.recipes",
        "ftdnas.sets.library",
    ]
    while waiting:
        module = waiting.pop()
        if module in seen:
            continue
        seen.add(module)
        top = ast.Module([node for node in tree(module).body if not isinstance(node, ast.If)], [])
        for node in top.body:
            if not isinstance(node, ast.Import | ast.ImportFrom):
                continue
            for name in imports(ast.Module([node], [])):
                assert name.partition(".")[0] not in HEAVY, f"{module} imports {name} when it is imported"
                waiting += [known for known in (name, name.rpartition(".")[0]) if known in MODULES]
    assert "distill.recipe" in seen  # the walk follows our own imports


def test_no_committed_file_names_a_place_of_one_machine() -> None:
    places = [
        r"/(?:home|Users)/[a-z]\w+/",
        r"/root/",
        r"(?<![\w.~])/[a-z]+/main/",  # a checkout at the root of a machine
        r"[A-Z]:\\Users",
        r"https?://[\w.-]*(?:internal|corp)\b",
    ]
    pattern = re.compile("|".join(places))
    for path in committed():
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        if path == Path(__file__):
            continue
        found = pattern.search(text)
        assert not found, f"{path.relative_to(ROOT)} holds {found.group() if found else ''}"


def test_constraints_are_exact_and_name_no_address() -> None:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    for line in pins:
        assert re.fullmatch(r"[A-Za-z0-9._-]+==[0-9][A-Za-z0-9.]*", line), line
    names = {re.sub(r"[-_.]+", "-", line.partition("==")[0]).lower() for line in pins}
    assert len(names) == len(pins)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    for requirement in [*project["dependencies"], *(one for several in extras.values() for one in several)]:
        if requirement.startswith("ftdnas["):
            assert set(requirement[7:-1].split(",")) <= set(extras)
            continue
        name = re.sub(r"[-_.]+", "-", re.split(r"[<>=!~\[; ]", requirement)[0]).lower()
        assert name in names, f"{requirement} is not pinned"


def test_few_tests_are_slow_and_each_is_there() -> None:
    (slow,) = (
        ast.literal_eval(node.value)
        for node in ast.parse((ROOT / "tests" / "conftest.py").read_text()).body
        if isinstance(node, ast.AnnAssign) and ast.unparse(node.target) == "SLOW" and node.value is not None
    )
    assert len(slow) <= 10
    for name, reason in slow.items():
        file, _, function = name.partition("::")
        assert f"def {function.partition('[')[0]}(" in (ROOT / file).read_text(), name
        assert len(reason) > 20
