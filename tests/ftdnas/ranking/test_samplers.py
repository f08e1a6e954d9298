"""Every sampler on product and define-by-run spaces: nothing twice, nothing that does not fit, an end with a reason."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ftdnas.ranking.ask_tell import Sampler, Settings
from ftdnas.ranking.samplers import SAMPLERS, make_sampler
from search_spaces.base import Architecture, SearchSpace, find_space, parameter_count, stratified_sample

CONVNETS = {"width": {32, 64}, "depth": {1, 2}, "norm": {"batch"}, "pooling": {"none"}}  # 12 of 720
BUILD = """
from torch import nn

def build(trial):
    width = trial.suggest_int("width", 4, 6)
    layers = [nn.Flatten(), nn.Linear(64, width)]
    if trial.suggest_categorical("deep", ["no", "yes"]) == "yes":
        layers.append(nn.Dropout(trial.suggest_float("dropout", 0.0, 0.5, step=0.25)))
    return nn.Sequential(*layers, nn.Linear(width, 10))
"""
SHAPE = (1, 8, 8)


@pytest.fixture
def convnet() -> SearchSpace:
    return find_space("convnet")


@pytest.fixture
def by_run(tmp_path: Path) -> SearchSpace:
    """Three widths, alone or with one of three dropouts: 12."""
    (tmp_path / "nets.py").write_text(BUILD)
    return find_space(f"{tmp_path / 'nets.py'}:build")


@pytest.fixture(autouse=True)
def _loud_nni() -> Iterator[None]:
    yield
    logging.getLogger("nni").setLevel(logging.NOTSET)


def settings(**more: object) -> Settings:
    given: dict[str, object] = {"seed": 0, "image_shape": SHAPE, "num_classes": 10}
    return Settings(**(given | more))  # type: ignore[arg-type]


def walk(
    sampler: Sampler, score: Callable[[Architecture], tuple[float, ...] | None], most: int = 100
) -> list[Architecture]:
    found: list[Architecture] = []
    while len(found) < most and (architecture := sampler.ask()) is not None:
        found.append(architecture)
        sampler.tell(architecture, score(architecture))
    return found


def width(architecture: Architecture) -> tuple[float, ...] | None:
    """Some fail."""
    wide = float(architecture.choices["width"])
    return None if architecture.choices.get("depth") == 2 and wide > 32 else (wide,)


@pytest.mark.parametrize("name", [name for name in SAMPLERS if name != "gp"])
def test_a_small_part_is_walked_to_its_end_and_nothing_comes_twice(name: str, convnet: SearchSpace) -> None:
    sampler = make_sampler(name, convnet, settings(restrict=CONVNETS))
    found = walk(sampler, width)
    assert len({one.name for one in found}) == len(found) == 12
    for one in found:
        assert all(one.choices[key] in allowed for key, allowed in CONVNETS.items())
    assert sampler.ask() is None
    assert "12 proposed or known" in sampler.reason


@pytest.mark.parametrize("name", [name for name in SAMPLERS if name != "gp"])
def test_decisions_that_depend_on_each_other_are_walked_too(name: str, by_run: SearchSpace) -> None:
    found = walk(make_sampler(name, by_run, settings()), width)
    assert len({one.name for one in found}) == len(found) == 12
    assert {one.choices.get("dropout") for one in found} == {None, 0.0, 0.25, 0.5}


@pytest.mark.parametrize("name", [*SAMPLERS])
def test_limits_and_what_is_known_are_never_proposed(name: str, convnet: SearchSpace) -> None:
    def fits(architecture: Architecture) -> str | None:
        count = parameter_count(architecture, SHAPE, 10)
        return f"{count:,} parameters, more than 50,000" if count > 50_000 else None

    sampler = make_sampler(name, convnet, settings(fits=fits, restrict={"norm": {"batch", "none"}}))
    told = make_sampler("exhaustive", convnet, settings(fits=fits, restrict={"norm": {"batch"}})).ask()
    assert told is not None
    sampler.tell(told, (0.5,))
    found = walk(
        sampler, width, most=14 if name == "gp" else 30
    )  # beyond the first ten of TPE and GP, which are random
    assert told not in found
    assert all(fits(one) is None and one.obstacle(SHAPE) is None for one in found)


def nothing_fits(architecture: Architecture) -> str:  # noqa: ARG001
    return "too slow"


def test_a_limit_that_none_meets_ends_with_an_example(convnet: SearchSpace) -> None:
    for name in ("exhaustive", "random", "tpe", "nni-tpe"):
        sampler = make_sampler(name, convnet, settings(fits=nothing_fits, restrict=CONVNETS))
        assert sampler.ask() is None
        assert "0 proposed or known, 12 do not fit (as convnet:" in sampler.reason
        assert sampler.reason.endswith("too slow)")
    with pytest.raises(ValueError, match="architecture"):
        make_sampler("stratified", convnet, settings(fits=nothing_fits, restrict=CONVNETS)).ask()


def test_known_orders_are_those_of_the_space(convnet: SearchSpace) -> None:
    exhaustive = walk(make_sampler("exhaustive", convnet, settings(image_shape=(3, 32, 32))), width, most=720)
    assert exhaustive == list(convnet.architectures())
    stratified = walk(make_sampler("stratified", convnet, settings(seed=3)), width, most=80)
    assert stratified == list(stratified_sample(convnet, 80, SHAPE, 3))  # 80 is beyond the first part of the order


@pytest.mark.parametrize("name", [name for name in SAMPLERS if name != "gp"])
def test_a_seed_gives_the_same_walk_again(name: str) -> None:
    cells = find_space("nasbench201")

    def convolutions(one: Architecture) -> tuple[float, ...]:
        return (float(sum("conv" in str(choice) for choice in one.choices.values())),)

    walks = [walk(make_sampler(name, cells, settings(seed=seed)), convolutions, most=40) for seed in (5, 5, 6)]
    assert walks[0] == walks[1]
    assert (walks[0] == walks[2]) == (name == "exhaustive")


@pytest.mark.parametrize("name", ["tpe", "nsga2", "nni-tpe", "nni-evolution"])
def test_adaptive_ones_find_better_cells_than_chance(name: str) -> None:
    cells = find_space("nasbench201")

    def convolutions(one: Architecture) -> tuple[float, ...]:
        return (float(sum(choice == "nor_conv_3x3" for choice in one.choices.values())),)

    def late_mean(which: str) -> float:
        late = [
            convolutions(one)[0]
            for seed in range(3)
            for one in walk(make_sampler(which, cells, settings(seed=seed)), convolutions, most=150)[100:]
        ]
        return sum(late) / len(late)

    assert late_mean(name) > late_mean("random") + 0.3


def test_several_objectives_and_those_that_are_still_out(convnet: SearchSpace) -> None:
    directions = ("maximize", "minimize")
    for name in ("tpe", "nsga2"):
        sampler = make_sampler(name, convnet, settings(directions=directions, restrict=CONVNETS))
        out = [sampler.ask() for _ in range(12)]  # none told yet
        assert len({one.name for one in out if one is not None}) == 12
        assert sampler.ask() is None
        for one in out:
            assert one is not None
            sampler.tell(one, (0.5, 1.0))
        with pytest.raises(ValueError, match="has 1 objectives, the sampler 2"):
            sampler.tell(out[0], (0.5,))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="nni-tpe weighs one objective, not 2: take nsga2"):
        make_sampler("nni-tpe", convnet, settings(directions=directions))
    with pytest.raises(LookupError, match="unknown sampler 'tpee': did you mean tpe"):
        make_sampler("tpee", convnet, settings())


def test_nni_refuses_a_name_that_is_asked_in_different_ways(tmp_path: Path) -> None:
    (tmp_path / "odd.py").write_text(
        "from torch import nn\n"
        "def build(trial):\n"
        "    most = trial.suggest_int('most', 1, 2)\n"
        "    width = trial.suggest_int('width', 1, most)\n"
        "    return nn.Sequential(nn.Flatten(), nn.LazyLinear(width), nn.LazyLinear(10))\n"
    )
    with pytest.raises(ValueError, match="asked in the same way, and width is not: take tpe"):
        make_sampler("nni-tpe", find_space(f"{tmp_path / 'odd.py'}:build"), settings())


@pytest.mark.parametrize("name", ["stratified", "random", "tpe", "nsga2"])
def test_choices_that_depend_on_others_are_searched(name: str, tmp_path: Path) -> None:
    """Optuna itself wants a name to mean the same choices always."""
    (tmp_path / "dynamic.py").write_text(
        "from torch import nn\n"
        "def build(trial):\n"
        "    wide = trial.suggest_categorical('wide', [0, 1])\n"
        "    width = trial.suggest_categorical('width', [12, 16, 24] if wide else [4, 6, 8])\n"
        "    return nn.Sequential(nn.Flatten(), nn.LazyLinear(width), nn.LazyLinear(10))\n"
    )
    space = find_space(f"{tmp_path / 'dynamic.py'}:build")
    sampler = make_sampler(name, space, settings())
    told = next(iter(space.architectures()))
    sampler.tell(told, (4.0,))
    assert len({one.name for one in walk(sampler, width)} - {told.name}) == 5
