"""Model spaces of nni.nas 3.0: which labels are asked, and that the networks are those that nni.nas freezes."""

from __future__ import annotations

import fcntl
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional

pytest.importorskip("pytorch_lightning", reason="nni.nas needs the extra ftdnas[nas]")

from search_spaces.base import flops, parameter_count, random_architectures
from search_spaces.outside.definition import DefinedSpace
from search_spaces.outside.load import load_space
from search_spaces.outside.nni_nas import ModelSpaceDefinition, _one_at_a_time, import_nni_nas

import_nni_nas()

import nni  # noqa: E402
from nni.mutable import Categorical, ExpressionConstraint, Numerical  # noqa: E402
from nni.nas.nn.pytorch import (  # noqa: E402
    Cell,
    InputChoice,
    LayerChoice,
    ModelSpace,
    MutableConv2d,
    MutableDropout,
    MutableLinear,
    Repeat,
)

SHAPE = (3, 8, 8)


class Head(nn.Module):
    def __init__(self, channels: int, classes: int = 10) -> None:
        super().__init__()
        self.linear = nn.Linear(channels, classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.linear(images.mean((2, 3)))
        return result


class Whole(ModelSpace):  # type: ignore[misc]
    """Every kind of choice."""

    def __init__(self, image_shape: tuple[int, int, int], num_classes: int) -> None:
        super().__init__()
        width = nni.choice("width", [4, 8])
        self.stem = MutableConv2d(image_shape[0], width, nni.choice("kernel", [1, 3]), padding="same")
        self.op = LayerChoice(
            {
                "conv": MutableConv2d(width, width, 3, padding=1),
                "skip": nn.Identity(),
                "inner": LayerChoice([nn.ReLU(), nn.Tanh()], label="activation"),
            },
            label="op",
        )
        self.repeat = Repeat(
            lambda index: LayerChoice([MutableConv2d(width, width, 1), nn.AvgPool2d(3, 1, 1)], label=f"layer{index}"),
            (0, 2),
            label="depth",
        )
        self.mixed = InputChoice(3, 2, label="inputs")
        self.one = InputChoice(2, 1, label="one")
        self.dropout = MutableDropout(nni.uniform("dropout", 0.1, 0.5))
        self.head = MutableLinear(width * 2, num_classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        first = self.stem(images).relu()
        second = self.op(first)
        third = self.repeat(second)
        mixed = self.mixed([first, second, third])
        last = torch.cat([mixed, self.one([first, third])], dim=1)
        result: torch.Tensor = self.head(self.dropout(last.mean((2, 3))))
        return result


def space_of(factory: Callable[..., Any]) -> DefinedSpace:
    return DefinedSpace("nas.py:Space", "code", ModelSpaceDefinition(factory), load_space)


def finite(image_shape: tuple[int, int, int], num_classes: int) -> ModelSpace:
    """As `Whole`, without the dropout that has no end of values."""
    space = Whole(image_shape, num_classes)
    space.dropout = nn.Identity()
    return space


def test_labels_are_asked_only_where_they_play_a_part() -> None:
    space = space_of(finite)
    # op: conv, skip, inner x 2; repeat: depth 0, 1 x 2, 2 x 4; inputs 3; one 2
    assert space.size == 2 * 2 * 4 * 7 * 3 * 2
    architectures = space.architectures()
    assert len({a.name for a in architectures}) == space.size
    assert list(architectures[0].choices) == ["width", "kernel", "op", "depth", "inputs", "one"]
    for architecture in architectures:
        choices = architecture.choices
        assert ("activation" in choices) == (choices["op"] == "inner")
        assert [f"layer{index}" in choices for index in range(2)] == [index < choices["depth"] for index in range(2)]


def test_networks_are_those_that_nni_freezes() -> None:
    for architecture in random_architectures(space_of(Whole), 12, seed=0):
        choices = dict(architecture.choices)
        sample: dict[str, Any] = {"activation": 0, "layer0": 0, "layer1": 0, **choices}
        sample["inputs"] = [int(number) for number in str(choices["inputs"]).split("+")]
        sample["one"] = [choices["one"]]
        torch.manual_seed(0)
        theirs = Whole(SHAPE, 10).freeze(sample)
        torch.manual_seed(0)
        ours = architecture.build(SHAPE, 10)
        assert repr(ours) == repr(theirs)
        for name, weights in theirs.state_dict().items():
            assert ours.state_dict()[name].shape == weights.shape
        images = torch.randn(2, *SHAPE)
        assert torch.equal(ours.eval()(images), theirs.eval()(images))
        assert parameter_count(architecture, SHAPE, 10) == sum(weights.numel() for weights in theirs.parameters())
        assert flops(architecture, SHAPE, 10) > 0
        again = space_of(Whole).parse(architecture.name.removeprefix("nas.py:Space:"))
        assert again == architecture


def test_each_build_is_fresh_and_trains() -> None:
    architecture = random_architectures(space_of(Whole), 1, seed=3)[0]
    one, two = architecture.build(SHAPE, 10), architecture.build(SHAPE, 10)
    assert any(not torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))
    images, labels = torch.randn(16, *SHAPE), torch.arange(16) % 2
    images += labels[:, None, None, None]
    optimizer = torch.optim.Adam(one.parameters(), lr=0.02)
    losses = []
    for _ in range(40):
        optimizer.zero_grad()
        loss = functional.cross_entropy(one(images), labels)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]


def test_choice_added_by_add_mutable() -> None:
    class Added(ModelSpace):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            from nni.mutable import ensure_frozen

            self.depth = self.add_mutable(nni.choice("depth", [1, 2, 3]))
            width = self.add_mutable(Categorical([4, 6], label="width"))
            real = ensure_frozen(width)
            layers = [nn.Conv2d(3 if i == 0 else real, real, 3, padding=1) for i in range(ensure_frozen(self.depth))]
            self.body = nn.Sequential(*layers)
            self.head = Head(real)

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            result: torch.Tensor = self.head(self.body(images))
            return result

    space = space_of(Added)
    assert space.size == 6
    network = space.parse('{"depth":3,"width":6}').build(SHAPE, 10)
    assert [tuple(m.weight.shape) for m in network.modules() if isinstance(m, nn.Conv2d)] == [
        (6, 3, 3, 3),
        (6, 6, 3, 3),
        (6, 6, 3, 3),
    ]


def test_cell_subsets_numbers_and_constraints() -> None:
    class Rest(ModelSpace, label_prefix="net"):  # type: ignore[misc, call-arg]
        def __init__(self) -> None:
            super().__init__()
            a = self.add_mutable(Categorical([1, 2, 3], default=2, label="a"))
            b = self.add_mutable(Categorical([1, 2], label="b"))
            self.add_mutable(ExpressionConstraint(a != b, label="differ"))
            self.any_inputs = InputChoice(2, None, label="any")
            self.drop = MutableDropout(Numerical(0.0, 0.4, quantize=0.2, label="drop"))
            self.cell = Cell([nn.Conv2d(4, 4, 1), nn.Identity()], num_nodes=2, label="cell")
            self.stem = nn.Conv2d(3, 4, 1)
            self.head = Head(8)

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            stem = self.drop(self.stem(images))
            result: torch.Tensor = self.head(self.cell([self.any_inputs([stem, stem])]))
            return result

    space = space_of(Rest)
    everything = space.architectures()
    # a x b, four subsets, three drops, two operations in each of two nodes of which the second has two inputs
    assert space.size == 6 * 4 * 3 * 2 * 2 * 2
    assert {a.choices["net/any"] for a in everything} == {"none", "0", "1", "0+1"}
    assert {a.choices["net/drop"] for a in everything} == {0.0, 0.2, 0.4}
    text = '{"net/a":%d,"net/any":"%s","net/b":1,"net/cell/input_1_0":0,"net/cell/input_2_0":1,'
    text += '"net/cell/op_1_0":"0","net/cell/op_2_0":"1","net/drop":0.2}'
    good = space.parse(text % (2, "0+1"))
    assert good.build(SHAPE, 10)(torch.zeros(2, *SHAPE)).shape == (2, 10)
    assert "is not satisfied" in str(space.parse(text % (1, "0+1")).obstacle(SHAPE))
    assert space.parse(text % (2, "none")).obstacle(SHAPE) is not None  # nni.nas allows no inputs at all
    with pytest.raises(ValueError, match="net/any=2 is not one of none, 0, 1, 0"):
        space.parse(text % (2, "2"))


def test_shape_that_a_fixed_space_cannot_carry() -> None:
    class Fixed(ModelSpace):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.stem = MutableConv2d(3, 4, nni.choice("kernel", [1, 9]))
            self.head = Head(4)

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            result: torch.Tensor = self.head(self.stem(images))
            return result

    small, large = space_of(Fixed).architectures()
    assert small.obstacle(SHAPE) is None
    assert "RuntimeError" in str(large.obstacle(SHAPE))
    assert large.obstacle((3, 16, 16)) is None
    with pytest.raises(ValueError, match=r"it gives \(2, 10\), where \(2, 4\) is needed"):
        small.build(SHAPE, 4)


@pytest.mark.parametrize(
    ("factory", "message"),
    [
        (lambda: nn.Linear(2, 2), "it makes a Linear, not an nni.nas ModelSpace"),
        (type("Empty", (ModelSpace,), {}), "it has no labelled choice"),
    ],
)
def test_what_is_no_model_space(factory: Callable[..., Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        space_of(factory)


def test_too_many_subsets() -> None:
    class Wide(ModelSpace):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.inputs = InputChoice(40, 5, label="inputs")

    with pytest.raises(ValueError, match="inputs: 658,008 ways to choose of 40"):
        space_of(Wide)


def test_processes_import_it_one_after_another() -> None:
    """Its first import writes a file of its own package: another process would read half of it."""
    layers = Path(nni.__path__[0], "nas", "nn", "pytorch", "layers.py")
    with layers.open("rb") as other:
        with _one_at_a_time(), pytest.raises(BlockingIOError):
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_without_lightning_it_says_what_to_install() -> None:
    code = (
        "import sys; sys.modules['pytorch_lightning'] = None\n"
        "from search_spaces.outside.nni_nas import import_nni_nas\n"
        "try:\n    import_nni_nas()\nexcept ValueError as error:\n    print(error)\n"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=Path(__file__).parents[3])
    assert "pip install 'ftdnas[nas]'" in ran.stdout, ran.stderr


def test_import_gives_no_warnings() -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        import_nni_nas.__wrapped__()
    assert not caught
