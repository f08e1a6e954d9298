"""Spaces from outside: every kind passes the same contract, and what is wrong is said in one line."""

from __future__ import annotations

import importlib.util
import json
import multiprocessing
import pickle
import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional

from search_spaces.architecture import Architecture, SearchSpace
from search_spaces.base import find_space, flops, parameter_count, parse_architecture, random_architectures
from search_spaces.decisions import RandomDecisions
from search_spaces.outside.load import installed_spaces, is_file_space, load_space

FILE = """
import torch
from torch import nn
from search_spaces.convnet import CONVNET

def layers(width, depth, kernel, channels, classes):
    found = []
    for _ in range(depth):
        found += [nn.Conv2d(channels, width, kernel, padding=kernel // 2), nn.ReLU()]
        channels = width
    return nn.Sequential(*found, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, classes))

def build(trial):
    depth = trial.suggest_int("depth", 1, 2)
    kernel = trial.suggest_categorical("kernel", [1, 3]) if depth == 2 else 3
    return layers(trial.suggest_categorical("width", [4, 8]), depth, kernel, 3, 10)

def sized(trial, image_shape, num_classes):
    trial.suggest_float("dropout", 0.0, 0.5)
    return layers(4, trial.suggest_int("depth", 1, 3), 3, image_shape[0], num_classes)

def params(params, image_shape, num_classes):
    conv = params["conv"]
    kernel = conv["kernel"] if conv["_name"] == "wide" else 3
    return layers(params["width"], 1, kernel, image_shape[0], num_classes)

class Nets:
    choices = {"width": [4, 8], "depth": range(1, 4)}
    def build(self, choices, image_shape, num_classes):
        return layers(choices["width"], choices["depth"], 3, image_shape[0], num_classes)

class Fixed:
    choices = {"width": [4, 8]}
    def build(self, choices):
        return layers(choices["width"], 1, 3, 3, 7)

foreign = CONVNET
number = 3
def nothing(a, b, c, d): pass
"""
NAS_FILE = """
import nni
from torch import nn as plain
from nni.nas.nn.pytorch import LayerChoice, ModelSpace, MutableConv2d, MutableLinear

class Space(ModelSpace):
    def __init__(self, image_shape, num_classes):
        super().__init__()
        width = nni.choice("width", [4, 8])
        self.stem = MutableConv2d(image_shape[0], width, 3, padding=1)
        conv = MutableConv2d(width, width, 3, padding=1)
        self.block = LayerChoice({"conv": conv, "skip": plain.Identity()}, label="op")
        self.head = MutableLinear(width, num_classes)
    def forward(self, images):
        return self.head(self.block(self.stem(images).relu()).mean((2, 3)))
"""
JSON = {
    "width": {"_type": "choice", "_value": [4, 8]},
    "conv": {
        "_type": "choice",
        "_value": [{"_name": "narrow"}, {"_name": "wide", "kernel": {"_type": "choice", "_value": [3, 5]}}],
    },
}
SPECS = {
    "nets.py:build": 6,
    "nets.py:sized": None,
    "nets.py:Nets": 6,
    "space.json+nets.py:params": 6,
    "nets.py:foreign": 720,
    "team": 6,
}
LIGHTNING = importlib.util.find_spec("pytorch_lightning") is not None  # of the extra ftdnas[nas]
if LIGHTNING:
    SPECS["nas.py:Space"] = 4
SHAPE = (3, 8, 8)


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "nets.py").write_text(FILE)
    (tmp_path / "nas.py").write_text(NAS_FILE)
    (tmp_path / "space.json").write_text(json.dumps(JSON))
    packages = tmp_path / "packages"
    _install(packages, "teamnets", "1.2", FILE, "team = teamnets:Nets")
    monkeypatch.syspath_prepend(str(packages))
    monkeypatch.chdir(tmp_path)


def _install(folder: Path, name: str, version: str, code: str, *points: str) -> None:
    """What pip leaves of an installed package."""
    about = folder / f"{name}-{version}.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    (about / "entry_points.txt").write_text("\n".join(["[ftdnas.spaces]", *points]) + "\n")
    (folder / f"{name}.py").write_text(code)
    sys.modules.pop(name, None)


def some(space: SearchSpace, n: int = 4) -> list[Architecture]:
    return random_architectures(space, n, seed=1)


@pytest.mark.parametrize("spec", SPECS)
def test_contract(spec: str) -> None:
    space = find_space(spec)
    assert space.name == spec
    assert space.code
    assert space.size == SPECS[spec]
    if space.size is None:
        with pytest.raises(ValueError, match=r"cannot be enumerated: dropout is any number between 0 and 0\.5"):
            space.architectures()
    else:
        everything = space.architectures()
        assert len(set(everything)) == len({a.name for a in everything}) == space.size
        assert everything == space.architectures()
    for architecture in some(space):
        assert architecture.space == spec
        assert architecture.code == space.code
        assert parse_architecture(architecture.name) == architecture
        assert hash(parse_architecture(architecture.name)) == hash(architecture)
        assert list(parse_architecture(architecture.name).choices.items()) == list(architecture.choices.items())
        assert pickle.loads(pickle.dumps(architecture)) == architecture  # as between processes
        if space.size is not None:
            assert architecture in space.architectures()


@pytest.mark.parametrize("spec", SPECS)
def test_network_is_built_counted_and_trained(spec: str) -> None:
    architecture = next(a for a in some(find_space(spec), 20) if a.obstacle(SHAPE) is None)
    torch.manual_seed(0)
    network = architecture.build(SHAPE, 10)
    torch.manual_seed(0)
    again = architecture.build(SHAPE, 10)
    other = architecture.build(SHAPE, 10)
    for weights, same, fresh in zip(network.parameters(), again.parameters(), other.parameters(), strict=True):
        assert torch.equal(weights, same)
        assert weights is not same
        assert weights.data_ptr() != fresh.data_ptr()
    assert any(not torch.equal(a, b) for a, b in zip(network.parameters(), other.parameters(), strict=True))
    assert parameter_count(architecture, SHAPE, 10) == sum(weights.numel() for weights in network.parameters())
    assert flops(architecture, SHAPE, 10) > 0
    losses = _losses(network)
    assert losses[-1] < 0.5 * losses[0]


def _losses(network: nn.Module) -> list[float]:
    """Of a short training to tell light from dark images."""
    labels = torch.arange(40) % 2
    noise = torch.randn(40, *SHAPE, generator=torch.Generator().manual_seed(0))
    images = 0.1 * noise + torch.where(labels == 0, -1.0, 1.0)[:, None, None, None]
    optimizer = torch.optim.Adam(network.parameters(), lr=0.02)
    losses = []
    for _ in range(40):
        optimizer.zero_grad()
        loss = functional.cross_entropy(network(images), labels)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def test_names_are_canonical_json_of_the_choices() -> None:
    space = load_space("nets.py:build")
    names = [architecture.name for architecture in space.architectures()]
    assert names[0] == 'nets.py:build:{"depth":1,"width":4}'
    assert names[-1] == 'nets.py:build:{"depth":2,"kernel":3,"width":8}'
    assert list(space.architectures()[-1].choices) == ["depth", "kernel", "width"]
    json_space = load_space("space.json+nets.py:params")
    architecture = json_space.parse('{"width": 8, "conv": {"kernel": 5, "_name": "wide"}}')
    assert architecture.name == 'space.json+nets.py:params:{"conv":{"_name":"wide","kernel":5},"width":8}'
    assert architecture.choices == {"width": 8, "conv": "wide", "conv/wide/kernel": 5}
    assert find_space("./nets.py:Nets").name == "nets.py:Nets"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('nets.py:build:{"depth":3,"width":4}', "nets.py:build: depth=3 is not a whole number between 1 and 2"),
        ('nets.py:build:{"depth":1}', "nets.py:build: width is not given: it is one of 4, 8"),
        (
            'nets.py:build:{"depth":1,"kernel":3,"width":4}',
            "nets.py:build: nothing is decided by 'kernel' here: choose from depth, width",
        ),
        ('nets.py:build:{"depth":1', "is not JSON"),
        pytest.param(
            'nas.py:Space:{"op":"pool","width":4}',
            "nas.py:Space: op=pool is not one of conv, skip",
            marks=pytest.mark.skipif(not LIGHTNING, reason="nni.nas needs the extra ftdnas[nas]"),
        ),
        (
            'space.json+nets.py:params:{"width":4,"conv":{"_name":"deep"}}',
            "'conv' is not an object with a \"_name\" of narrow, wide",
        ),
        ('space.json+nets.py:params:{"width":4,"conv":{"_name":"wide"}}', "'conv/wide/kernel' is not given"),
        ('space.json+nets.py:params:{"width":4,"convv":{}}', "unknown parameter 'convv': did you mean conv?"),
        ('nets.py:foreign:{"name":"norm=none,width=wide"}', "convnet: width=wide is not a whole number"),
        ("nets.py:foreign:{}", 'is not {"name": "..."}'),
    ],
)
def test_architecture_that_is_not_in_the_space(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(text.partition(":")[0])) as raised:
        parse_architecture(text)
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("spec", "kind", "message"),
    [
        ("gone.py:build", FileNotFoundError, "no file gone.py (of the search space gone.py:build)"),
        ("gone.json+nets.py:params", FileNotFoundError, "no search-space file gone.json"),
        ("nets.py:buidl", ValueError, "nets.py has no 'buidl': did you mean build?"),
        ("nets.py:number", ValueError, "nets.py:number: it is a int, not an Optuna function build(trial)"),
        ("nets.py:nothing", ValueError, "nets.py:nothing: it is a function, not an Optuna function build(trial)"),
        ("space.json+nets.py:number", ValueError, "the builder is a int, not a function of params"),
        ("syntax.py:build", ValueError, "cannot be run: SyntaxError"),
        ("raises.py:build", ValueError, "cannot be run: RuntimeError: no licence"),
        ("exits.py:build", ValueError, "cannot be run: SystemExit: 3"),
        ("imports.py:build", ValueError, "cannot be run: ModuleNotFoundError: No module named 'not_there'"),
        ("broken.json+nets.py:params", ValueError, "broken.json is not JSON: Expecting"),
        ("wrong.json+nets.py:params", ValueError, "wrong.json: 'conv/wide/kernel': the _value of randint is"),
        ("twice.json+nets.py:params", ValueError, "twice.json: the key 'a' stands there twice"),
    ],
)
def test_what_is_wrong_with_a_file_is_said_in_one_line(spec: str, kind: type[Exception], message: str) -> None:
    Path("syntax.py").write_text("def build(trial:\n")
    Path("raises.py").write_text("raise RuntimeError('no licence\\nsecond line')\n")
    Path("exits.py").write_text("raise SystemExit(3)\n")
    Path("imports.py").write_text("import not_there\n")
    Path("broken.json").write_text('{"width": }')
    Path("twice.json").write_text('{"a": {"_type": "choice", "_value": [1]}, "a": {"_type": "choice", "_value": [1]}}')
    wrong = {"_type": "choice", "_value": [{"_name": "wide", "kernel": {"_type": "randint", "_value": [5, 3]}}]}
    Path("wrong.json").write_text(json.dumps({"conv": wrong}))
    with pytest.raises(kind) as raised:
        load_space(spec)
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


def test_network_that_does_not_fit_is_an_obstacle_or_an_error_with_both_shapes() -> None:
    fixed = some(load_space("nets.py:Fixed"), 1)[0]
    assert fixed.obstacle(SHAPE) is None
    assert str(fixed.obstacle((1, 8, 8))).startswith("images of shape (2, 1, 8, 8) end in RuntimeError: ")
    with pytest.raises(ValueError, match=r"\(2, 3, 8, 8\) it gives \(2, 7\), where \(2, 10\) is needed"):
        fixed.build(SHAPE, 10)
    with pytest.raises(ValueError, match="cannot carry 1 x 8 x 8 images"):
        fixed.build((1, 8, 8), 7)
    assert fixed.build(SHAPE, 7)(torch.zeros(2, *SHAPE)).shape == (2, 7)
    Path("bad.py").write_text(
        "from torch import nn\n"
        "class Image:\n    choices = {'a': [1, 2]}\n    def build(self, choices): return nn.Conv2d(3, 8, 3)\n"
        "class Text:\n    choices = {'a': [1, 2]}\n    def build(self, choices): return 'network'\n"
    )
    image, text = (some(load_space(f"bad.py:{name}"), 1)[0] for name in ("Image", "Text"))
    said = image.obstacle(SHAPE)
    assert said == "it turns images of shape (2, 3, 8, 8) into (2, 8, 6, 6), where (2, classes) is needed"
    assert (
        text.obstacle(SHAPE)
        == "images of shape (2, 3, 8, 8) end in ValueError: it returns a str, not a torch.nn.Module"
    )


def test_network_that_needs_numbers_is_examined_with_numbers() -> None:
    Path("numbers.py").write_text(
        "import torch\nfrom torch import nn\n"
        "class Scaled(nn.Module):\n"
        "    def __init__(self):\n        super().__init__()\n        self.head = nn.Linear(192, 10)\n"
        "        self.scale = float(self.head.weight.abs().mean())\n"
        "    def forward(self, images): return self.head(images.flatten(1)) * self.scale\n"
        "class Nets:\n    choices = {'a': [1, 2]}\n    def build(self, choices): return Scaled()\n"
    )
    architecture = some(load_space("numbers.py:Nets"), 1)[0]
    before = torch.get_rng_state()
    assert architecture.obstacle(SHAPE) is None
    assert torch.equal(before, torch.get_rng_state())  # looking draws nothing from the global generator


def test_file_may_import_the_files_beside_it_and_the_code_covers_both() -> None:
    Path("using.py").write_text(
        "import wide\nclass Nets:\n    choices = {'width': wide.WIDTHS}\n    def build(self, choices): ...\n"
    )
    Path("wide.py").write_text("WIDTHS = [4, 8]\n")
    first = load_space("using.py:Nets")
    parsed = parse_architecture('using.py:Nets:{"width":8}')
    assert parse_architecture('using.py:Nets:{"width":8}') is parsed
    assert first.size == 2
    assert load_space("using.py:Nets") is first
    Path("wide.py").write_text("WIDTHS = [4, 8, 16]\n")
    second = load_space("using.py:Nets")
    assert second.size == 3
    changed = parse_architecture('using.py:Nets:{"width":8}')
    assert (changed.name, changed.code) == (parsed.name, second.code)
    assert second.code != first.code
    assert second != first


def test_too_many_to_enumerate_is_said_without_counting_them() -> None:
    Path("large.py").write_text(
        "class Nets:\n    choices = {f'layer{i}': range(5) for i in range(12)}\n    def build(self, choices): ...\n"
    )
    space = load_space("large.py:Nets")
    assert space.size is None
    with pytest.raises(ValueError, match=r"it has about 2\.4e\+08 architectures"):
        space.architectures()
    assert len(random_architectures(space, 50, seed=0)) == 50


def _name_in_a_worker(name: str) -> tuple[str, int]:
    architecture = parse_architecture(name)
    return architecture.code, sum(weights.numel() for weights in architecture.build(SHAPE, 10).parameters())


def test_relative_path_and_installed_package_work_in_a_worker_process() -> None:
    with multiprocessing.get_context("fork").Pool(1) as pool:
        for spec in ("nets.py:Nets", "team"):
            architecture = some(find_space(spec), 1)[0]
            expected = architecture.code, parameter_count(architecture, SHAPE, 10)
            assert pool.apply(_name_in_a_worker, (architecture.name,)) == expected


def test_installed_spaces_and_a_broken_one_among_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _install(
        tmp_path / "more", "oddnets", "0.1", "raise RuntimeError('no licence')", "odd = oddnets:build", "no = gone:x"
    )
    monkeypatch.syspath_prepend(str(tmp_path / "more"))
    found = installed_spaces()
    assert list(found) == ["no", "odd", "team"]
    assert found["team"]().size == 6
    with pytest.raises(ValueError, match=r"odd of oddnets 0.1 \(oddnets:build\) is broken: RuntimeError: no licence"):
        found["odd"]()
    with pytest.raises(ValueError, match=r"no of oddnets 0.1 .* is broken: ModuleNotFoundError"):
        load_space("no")
    with pytest.raises(LookupError, match="unknown search space 'teem'"):
        find_space("teem")


def test_code_of_an_installed_space_changes_with_its_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    codes: list[str] = []
    for version in ("1.0", "1.1"):
        folder = tmp_path / version
        _install(folder, "othernets", version, FILE, "other = othernets:Nets")
        with monkeypatch.context() as patch:
            patch.syspath_prepend(str(folder))
            importlib.invalidate_caches()
            codes.append(find_space("other").code)
            sys.modules.pop("othernets")
    assert len(set(codes)) == 2


def test_what_names_a_file_is_known_without_running_it() -> None:
    outside: Callable[[str], bool] = is_file_space
    assert all(outside(spec) == (".py" in spec) for spec in SPECS)


def test_decisions_that_are_asked_for_are_those_of_the_name() -> None:
    space = load_space("nets.py:sized")
    architecture = space.suggest(RandomDecisions(torch.Generator().manual_seed(3)))
    assert json.loads(architecture.name.removeprefix("nets.py:sized:")) == architecture.choices
