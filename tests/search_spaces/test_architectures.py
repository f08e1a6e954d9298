"""What every architecture of every space and every named network promises."""

from __future__ import annotations

import pickle
import re
from collections.abc import Iterator

import pytest
import torch
from torch.nn import functional

from search_spaces.base import (
    NETWORKS,
    SPACES,
    Architecture,
    flops,
    parameter_count,
    parse_architecture,
    random_architectures,
    stratified_sample,
)

DRAWN = [
    *stratified_sample(SPACES["convnet"], 12, (3, 16, 16), 0),
    *(shrunk for name in SPACES for one in random_architectures(SPACES[name], 3, 0) if (shrunk := one.shrunk())),
    *(random_architectures(SPACES[name], 1, 1)[0] for name in SPACES if name != "convnet"),
]
ARCHITECTURES = [pytest.param(architecture, id=architecture.name) for architecture in [*DRAWN, *NETWORKS.values()]]
everyone = pytest.mark.parametrize("architecture", ARCHITECTURES)


@pytest.fixture(autouse=True)
def _seeded() -> Iterator[None]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


@everyone
def test_its_name_describes_it_completely(architecture: Architecture) -> None:
    assert parse_architecture(architecture.name) == architecture
    assert hash(parse_architecture(architecture.name)) == hash(architecture)
    assert pickle.loads(pickle.dumps(architecture)) == architecture


@everyone
@pytest.mark.parametrize(("shape", "classes"), [((3, 16, 16), 10), ((1, 28, 20), 3)])
def test_it_maps_images_of_any_shape_to_logits(
    architecture: Architecture, shape: tuple[int, int, int], classes: int
) -> None:
    # In float64: four sigmoids leave differences of 1e-5, where a norm over one pixel would leave rounding errors.
    network = architecture.build(shape, classes).double()
    with torch.no_grad():
        logits = network(torch.randn(2, *shape, dtype=torch.float64))
    assert logits.shape == (2, classes)
    assert torch.isfinite(logits).all()
    assert (logits[0] - logits[1]).abs().max() > 1e-9


@everyone
def test_costs_are_those_of_the_network_built(architecture: Architecture) -> None:
    network = architecture.build((3, 16, 16), 10)
    assert parameter_count(architecture, (3, 16, 16), 10) == sum(p.numel() for p in network.parameters())
    multiplied = 0  # multiply-accumulates, counted from the outputs' sizes

    def count(module: torch.nn.Module, _: object, output: torch.Tensor) -> None:
        nonlocal multiplied
        assert isinstance(module.weight, torch.Tensor)
        multiplied += output[0].numel() * module.weight[0].numel()

    for module in network.modules():
        if isinstance(module, torch.nn.Conv2d | torch.nn.Linear):
            module.register_forward_hook(count)
    with torch.no_grad():
        network(torch.randn(2, 3, 16, 16))
    assert flops(architecture, (3, 16, 16), 10) == 2 * multiplied


@everyone
def test_counting_costs_leaves_the_random_state_alone(architecture: Architecture) -> None:
    before = torch.get_rng_state()
    parameter_count(architecture, (3, 16, 16), 10)
    flops(architecture, (3, 16, 16), 10)
    assert torch.equal(torch.get_rng_state(), before)


@everyone
def test_the_initialisation_depends_on_the_seed_alone(architecture: Architecture) -> None:
    def weights(seed: int) -> torch.Tensor:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            return torch.nn.utils.parameters_to_vector(architecture.build((3, 16, 16), 10).parameters()).detach()

    first = weights(1)
    assert torch.equal(first, weights(1))
    assert not torch.equal(first, weights(2))


@everyone
def test_gradients_of_gradients_reach_the_images(architecture: Architecture) -> None:
    network = architecture.build((3, 8, 8), 4) if architecture.obstacle((3, 8, 8)) is None else None
    shape = (3, 8, 8) if network is not None else (3, 16, 16)
    network = network or architecture.build(shape, 4)
    weights = {name: value.detach().requires_grad_() for name, value in network.named_parameters()}
    images = torch.randn(3, *shape, requires_grad=True)

    logits = torch.func.functional_call(network, weights, (images,))
    loss = functional.cross_entropy(logits, torch.tensor([0, 1, 2]))
    gradients = torch.autograd.grad(loss, list(weights.values()), create_graph=True)
    (second,) = torch.autograd.grad(torch.stack([g.square().sum() for g in gradients]).sum(), images)
    assert torch.isfinite(second).all()
    assert second.abs().max() > 0
    assert gradients[0].abs().max() > 0  # the first layer learns


@everyone
def test_it_says_what_it_cannot_build(architecture: Architecture) -> None:
    with pytest.raises(ValueError, match="1 classes"):
        architecture.build((3, 16, 16), 1)
    with pytest.raises(ValueError, match="image shape"):
        architecture.build((0, 16, 16), 10)
    obstacle = architecture.obstacle((3, 1, 1))
    if obstacle is not None:
        with pytest.raises(ValueError, match=re.escape(f"{architecture.name} cannot carry 3 x 1 x 1 images: ")):
            architecture.build((3, 1, 1), 10)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("convet:width=64", r"unknown architecture 'convet:width=64': did you mean convnet\?"),
        ("resnet-18", r"did you mean resnet18"),
        ("", "choose from convnet, nasbench201, macro, .*, resnet18, vgg11, alexnet"),
        ("vgg11:width=3", "vgg11 has no settings"),
    ],
)
def test_an_unknown_architecture_names_the_nearest(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_architecture(text)
