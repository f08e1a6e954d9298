"""What every built-in space promises, whatever it is made of."""

from __future__ import annotations

from collections.abc import Hashable

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from search_spaces.architecture import ENUMERATED
from search_spaces.base import (
    SPACES,
    Architecture,
    SearchSpace,
    find_space,
    flops,
    known_choices,
    parameter_count,
    parse_architecture,
    random_architectures,
)
from search_spaces.decisions import ReplayDecisions, Walk

SHAPE = (3, 16, 16)
every_space = pytest.mark.parametrize("space", SPACES.values(), ids=SPACES)


def few(space: SearchSpace, n: int = 5, seed: int = 0) -> list[Architecture]:
    drawn = random_architectures(space, 4 * n, seed)
    return [architecture for architecture in drawn if architecture.obstacle(SHAPE) is None][:n]


def weights_and_layers(network: nn.Module) -> tuple[int, int]:
    return sum(weights.numel() for weights in network.parameters()), len(list(network.modules()))


def counted(architecture: Architecture) -> tuple[int, int]:
    """Weights and FLOPs, from no cache."""
    with torch.device("meta"):
        network, images = architecture.build(SHAPE, 10).eval(), torch.empty(1, *SHAPE)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network(images)
    return sum(weights.numel() for weights in network.parameters()), counter.get_total_flops()


@every_space
def test_it_is_found_by_its_name(space: SearchSpace) -> None:
    assert find_space(space.name) is space
    assert space.code == ""


@every_space
def test_it_lists_each_of_its_architectures_once_in_the_order_of_their_decisions(space: SearchSpace) -> None:
    everything = space.architectures()
    assert space.size is not None
    assert len(everything) == space.size <= ENUMERATED
    stride = max(1, space.size // 2_000)
    listed = [everything[place] for place in range(0, space.size, stride)]
    assert len({architecture.name for architecture in listed}) == len(set(listed)) == len(listed)
    assert all(architecture.space == space.name for architecture in listed)
    again = space.architectures()
    assert [again[place] for place in range(0, space.size, stride)] == listed
    assert everything[0] == space.suggest(Walk(())) == next(iter(everything))
    assert everything[len(everything) - 1] == everything[-1]
    with pytest.raises(IndexError):
        everything[len(everything)]


@every_space
def test_names_and_choices_give_the_architecture_again(space: SearchSpace) -> None:
    size = space.size or 0
    for place in range(0, size, max(1, size // 100)):
        architecture = space.architectures()[place]
        assert parse_architecture(architecture.name) == architecture
        assert hash(parse_architecture(architecture.name)) == hash(architecture)
        assert space.suggest(ReplayDecisions(architecture.choices)) == architecture


@every_space
@pytest.mark.parametrize(("shape", "classes"), [((1, 17, 21), 3), ((3, 48, 32), 2)])
def test_networks_give_a_score_per_class(space: SearchSpace, shape: tuple[int, int, int], classes: int) -> None:
    for architecture in few(space, 2):
        scores = architecture.build(shape, classes)(torch.randn(2, *shape))
        assert scores.shape == (2, classes)
        assert torch.isfinite(scores).all()
        scores.sum().backward()


@every_space
def test_what_it_calls_feasible_can_be_built_and_nothing_else(space: SearchSpace) -> None:
    for architecture in few(space, 4, seed=1):
        for side in (1, 2, 3, 4, 5, 7, 8, 9):
            if architecture.obstacle((3, side, side)) is None:
                with torch.no_grad():
                    assert architecture.build((3, side, side), 4).eval()(torch.randn(1, 3, side, side)).shape == (1, 4)
            else:
                with pytest.raises(ValueError, match="cannot carry"):
                    parameter_count(architecture, (3, side, side), 4)


@every_space
def test_costs_are_known_without_building_and_equal_for_equal_cost_keys(space: SearchSpace) -> None:
    drawn = few(space, 15, seed=1)
    # Those that differ in one choice have nearly equal costs, or equal ones.
    own = drawn[0].choices
    changed = [{**own, key: value} for key, values in known_choices(space).items() for value in values]
    others = [space.suggest(ReplayDecisions(choices)) for choices in changed if choices != own]
    near = [other for other in others if other.obstacle(SHAPE) is None]
    alike: dict[Hashable, list[Architecture]] = {}
    for architecture in [*drawn, *near]:
        alike.setdefault(architecture.cost_key, []).append(architecture)
    pairs = [(same[0], same[-1]) for same in alike.values() if len(same) > 1]
    for first, last in [*pairs[:2], (drawn[0], drawn[0])]:
        cost = counted(last)
        assert (parameter_count(first, SHAPE, 10), flops(first, SHAPE, 10)) == cost == counted(first)


@every_space
def test_a_shrunk_network_is_cheaper_and_has_a_name(space: SearchSpace) -> None:
    for architecture in few(space, 3):
        shrunk = architecture.shrunk()
        if shrunk is not None:
            assert parse_architecture(shrunk.name) == shrunk != architecture
            smaller, larger = shrunk.build(SHAPE, 4), architecture.build(SHAPE, 4)
            assert smaller(torch.randn(2, *SHAPE)).shape == (2, 4)
            # A cell may have no weights of its own: then it is fewer layers that make it cheaper.
            assert weights_and_layers(smaller) < weights_and_layers(larger)
            assert shrunk.representative().representative() == shrunk.representative()


@every_space
def test_a_representative_stands_for_itself_and_comes_first(space: SearchSpace) -> None:
    everything = space.architectures()
    for place in range(0, len(everything), max(1, len(everything) // 50)):
        first = everything[place].representative()
        assert first.representative() == first
        assert first == everything[place] or any(first == everything[earlier] for earlier in range(place))


def test_an_unknown_space_is_named_with_the_nearest() -> None:
    with pytest.raises(LookupError, match="did you mean nasbench201"):
        find_space("nasbench")
