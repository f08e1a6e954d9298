"""What every built-in space promises, whatever it is made of."""

from __future__ import annotations

import itertools
import pickle

import pytest
import torch

from search_spaces.base import (
    SPACES,
    Architecture,
    find_space,
    flops,
    parameter_count,
    parse_architecture,
    random_architectures,
    stratified_sample,
)
from search_spaces.decisions import FirstDecisions, ReplayDecisions
from search_spaces.macro import Chain
from search_spaces.nasbench201 import Cell

SIZES = {"convnet": 720, "nasbench201": 15_625, "macro": 6_561, "residual": 3_840, "mobilenet": 118_098}


def few(space: str) -> list[Architecture]:
    return [a for a in random_architectures(SPACES[space], 12, 0) if a.obstacle((3, 16, 16)) is None][:5]


def counted(architecture: Architecture, shape: tuple[int, int, int] = (3, 32, 32)) -> int:
    return sum(weights.numel() for weights in architecture.build(shape, 10).parameters())


@pytest.mark.parametrize("name", SPACES)
def test_sizes_and_order(name: str) -> None:
    space = find_space(name)
    everything = space.architectures()
    assert space.size == SIZES[name] == len(everything)
    first = everything[0]
    assert space.suggest(FirstDecisions()).name == first.name
    names = [architecture.name for architecture in itertools.islice(everything, 1000)]
    assert len(set(names)) == len(names)
    assert everything[len(everything) - 1].name not in names or len(names) == len(everything)


@pytest.mark.parametrize("name", SPACES)
def test_a_name_gives_the_architecture_again(name: str) -> None:
    for architecture in few(name):
        again = parse_architecture(architecture.name)
        assert again == architecture
        assert hash(again) == hash(architecture)
        assert pickle.loads(pickle.dumps(architecture)) == architecture
        assert SPACES[name].suggest(ReplayDecisions(architecture.choices)) == architecture
        shrunk = architecture.shrunk()
        if shrunk is not None:
            assert parse_architecture(shrunk.name) == shrunk
            assert parameter_count(shrunk, (3, 32, 32), 10) < parameter_count(architecture, (3, 32, 32), 10)


@pytest.mark.parametrize("name", SPACES)
@pytest.mark.parametrize(("shape", "classes"), [((3, 16, 16), 10), ((1, 17, 21), 3), ((3, 64, 64), 2)])
def test_networks_give_a_score_per_class(name: str, shape: tuple[int, int, int], classes: int) -> None:
    for architecture in few(name)[:2]:
        network = architecture.build(shape, classes)
        scores = network(torch.randn(2, *shape))
        assert scores.shape == (2, classes)
        assert torch.isfinite(scores).all()
        scores.sum().backward()


@pytest.mark.parametrize("name", SPACES)
def test_costs_are_known_without_running(name: str) -> None:
    for architecture in few(name):
        assert parameter_count(architecture, (3, 32, 32), 10) == counted(architecture)
        assert flops(architecture, (3, 32, 32), 10) > 0


@pytest.mark.parametrize("name", SPACES)
def test_equal_cost_keys_mean_equal_costs(name: str) -> None:
    from torch.utils.flop_counter import FlopCounterMode

    seen: dict[object, tuple[int, int]] = {}
    for architecture in random_architectures(SPACES[name], 40, 1):
        if architecture.obstacle((3, 16, 16)) is not None:
            continue
        with torch.device("meta"):
            network, images = architecture.build((3, 16, 16), 10).eval(), torch.empty(1, 3, 16, 16)
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            network(images)
        cost = sum(weights.numel() for weights in network.parameters()), counter.get_total_flops()
        assert seen.setdefault(architecture.cost_key, cost) == cost


@pytest.mark.parametrize("name", SPACES)
def test_neighbours_differ_in_one_choice_and_know_each_other(name: str) -> None:
    space = SPACES[name]
    architecture = few(name)[0]
    neighbours = space.neighbours(architecture)
    assert len(set(neighbours)) == len(neighbours) > 0
    for other in neighbours:
        assert sum(other.choices[key] != value for key, value in architecture.choices.items()) == 1
        assert architecture in space.neighbours(other)


@pytest.mark.parametrize("name", SPACES)
def test_a_representative_stands_for_itself(name: str) -> None:
    for architecture in few(name):
        first = architecture.representative()
        assert first.representative() == first
        assert first.space == architecture.space


@pytest.mark.parametrize("name", SPACES)
def test_a_sample_begins_as_a_smaller_one(name: str) -> None:
    larger = stratified_sample(SPACES[name], 8, (3, 16, 16), 0)
    assert larger[:4] == stratified_sample(SPACES[name], 4, (3, 16, 16), 0)
    assert len({architecture.representative().name for architecture in larger}) == 8


@pytest.mark.parametrize(
    ("name", "weights"),
    [
        ("convnet:", 320_010),
        ("nasbench201:|none~0|+|none~0|none~1|+|none~0|none~1|none~2|", 73_306),
        (
            "nasbench201:|nor_conv_1x1~0|+|nor_conv_1x1~0|nor_conv_1x1~1|"
            "+|nor_conv_1x1~0|nor_conv_1x1~1|nor_conv_1x1~2|",
            241_306,
        ),
        (
            "nasbench201:|nor_conv_3x3~0|+|nor_conv_3x3~0|nor_conv_3x3~1|"
            "+|nor_conv_3x3~0|nor_conv_3x3~1|nor_conv_3x3~2|",
            1_531_546,
        ),
        ("macro:00000000", 387_882),
        ("macro:11111111", 1_588_874),
        ("macro:22222222", 2_932_586),
    ],
)
def test_published_parameter_counts(name: str, weights: int) -> None:
    assert parameter_count(parse_architecture(name), (3, 32, 32), 10) == weights


def cell(text: str) -> Cell:
    found = parse_architecture(f"nasbench201:{text}")
    assert isinstance(found, Cell)
    return found


@pytest.mark.parametrize(
    ("one", "other"),
    [
        # Two nodes change places.
        (
            "|nor_conv_3x3~0|+|none~0|none~1|+|none~0|nor_conv_1x1~1|none~2|",
            "|none~0|+|nor_conv_3x3~0|none~1|+|none~0|none~1|nor_conv_1x1~2|",
        ),
        # What does not reach the output.
        (
            "|nor_conv_3x3~0|+|avg_pool_3x3~0|none~1|+|skip_connect~0|none~1|none~2|",
            "|none~0|+|none~0|none~1|+|skip_connect~0|none~1|none~2|",
        ),
        # An identity on the way.
        (
            "|skip_connect~0|+|none~0|nor_conv_3x3~1|+|none~0|none~1|skip_connect~2|",
            "|none~0|+|none~0|none~1|+|nor_conv_3x3~0|none~1|none~2|",
        ),
    ],
)
def test_cells_that_compute_the_same_are_one(one: str, other: str) -> None:
    assert cell(one).representative() == cell(other).representative()


def test_a_convolution_used_twice_is_not_two_convolutions() -> None:
    twice = cell("|nor_conv_3x3~0|+|none~0|skip_connect~1|+|none~0|skip_connect~1|skip_connect~2|")
    two = cell("|nor_conv_3x3~0|+|nor_conv_3x3~0|none~1|+|none~0|skip_connect~1|skip_connect~2|")
    assert twice.representative() != two.representative()


def test_how_many_cells_differ() -> None:
    everything = SPACES["nasbench201"].architectures()
    assert len({architecture.representative() for architecture in everything}) == 5_875


@pytest.mark.parametrize("seed", range(6))
def test_a_representative_computes_the_same_with_the_same_weights(seed: int) -> None:
    """Of chains, where the layers keep their order: the weights can be carried over."""
    chain = random_architectures(SPACES["macro"], 8, seed)[-1]
    first = chain.representative()
    assert isinstance(chain, Chain)
    assert isinstance(first, Chain)
    networks = chain.build((3, 16, 16), 10).eval(), first.build((3, 16, 16), 10).eval()
    weights = list(networks[0].state_dict().values())
    target = networks[1].state_dict()
    assert [tensor.shape for tensor in weights] == [tensor.shape for tensor in target.values()]
    networks[1].load_state_dict(dict(zip(target, weights, strict=True)))
    images = torch.randn(2, 3, 16, 16)
    assert torch.equal(networks[0](images), networks[1](images))


@pytest.mark.parametrize(
    "wrong",
    [
        "nasbench201:|nor_conv_3x3~0|",
        "nasbench201:|conv~0|+|none~0|none~1|+|none~0|none~1|none~2|",
        "nasbench201:|none~0|+|none~1|none~0|+|none~0|none~1|none~2|",
        "nasbench201:cells=9:|none~0|+|none~0|none~1|+|none~0|none~1|none~2|",
        "macro:0123",
        "macro:00000003",
        "residual:width=17x",
        "residual:colour=red",
        "mobilenet:se=2",
        "elsewhere:1",
    ],
)
def test_what_is_not_in_a_space_is_named(wrong: str) -> None:
    with pytest.raises(ValueError, match=r"macro|nasbench201|residual|mobilenet|elsewhere") as error:
        parse_architecture(wrong)
    assert "\n" not in str(error.value)


def test_an_unknown_space_is_named() -> None:
    with pytest.raises(LookupError, match="did you mean nasbench201"):
        find_space("nasbench")
