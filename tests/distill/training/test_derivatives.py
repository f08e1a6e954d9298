"""Derivatives of a minibatch's loss: compiled ones are autograd's, and are taken only where that pays."""

from __future__ import annotations

import shutil
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from distill.training import derivatives
from distill.training.derivatives import CompiledDerivatives, Derivatives, about_s, derivatives_for
from distill.training.flat import FlatNetwork, initial_weights
from distill.training.memory import held, taken_bytes
from search_spaces.base import parse_architecture

SHAPE = (3, 8, 8)
COUNT, CLASSES = 10, 4
BuildTiny = Callable[..., Callable[[], nn.Module]]
Setting = tuple[FlatNetwork, Tensor, Tensor, Tensor]


@pytest.fixture
def setting() -> Setting:
    """(network, weights, images, labels) in float64."""
    network = lambda: parse_architecture("convnet:width=4,depth=1").build(SHAPE, CLASSES)  # noqa: E731
    flat = FlatNetwork(network())
    flat.module.double()
    images = torch.randn(COUNT, *SHAPE, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    return flat, initial_weights(network, 0).double(), images, torch.arange(COUNT) % CLASSES


def relative(value: Tensor, reference: Tensor) -> float:
    return float((value - reference).norm() / reference.norm())


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs g++ on a CPU")
def test_compiled_derivatives_are_autograds(setting: Setting, monkeypatch: pytest.MonkeyPatch) -> None:
    flat, weights, images, labels = setting
    monkeypatch.setattr(derivatives, "MOST_SHAPES", 1)  # compiling takes long
    said: list[str] = []
    made = derivatives_for(flat, weights, images, labels, calls=1, second=True, compiled=True, say=said.append)
    assert isinstance(made, CompiledDerivatives), said
    eager, vector = Derivatives(flat), torch.randn_like(weights)
    for rows in (slice(0, 10), slice(3, 6)):  # the second is left to autograd
        batch = weights, images[rows], labels[rows]
        for one, other in zip(made.loss_and_gradient(*batch), eager.loss_and_gradient(*batch), strict=True):
            assert relative(one, other) < 1e-12
        for one, other in zip(made.product(*batch, vector), eager.product(*batch, vector), strict=True):
            assert relative(one, other) < 1e-12


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs g++ on a CPU")
def test_compiled_derivatives_in_bfloat16_are_autograds(setting: Setting) -> None:
    flat, weights, images, labels = setting
    network, weights = FlatNetwork(flat.module.float()), weights.float()
    said: list[str] = []
    made = derivatives_for(
        network,
        weights,
        images.float(),
        labels,
        calls=1,
        second=True,
        precision="bfloat16",
        compiled=True,
        say=said.append,
    )
    assert isinstance(made, CompiledDerivatives), said
    batch = weights, images.float(), labels
    vector = Derivatives(network).gradient(*batch)  # its product with the gradient is not near 0 by chance
    eager, exact = (Derivatives(network, precision=one).product(*batch, vector) for one in ("bfloat16", "float32"))
    for one, other, true in zip(made.product(*batch, vector), eager, exact, strict=True):
        assert relative(one, other) < 0.05
        assert 0 < relative(one, true) < 0.1


def test_what_does_not_compile_is_left_to_autograd_and_said(setting: Setting, monkeypatch: pytest.MonkeyPatch) -> None:
    flat, weights, images, labels = setting

    def broken(*inputs: Tensor) -> tuple[Tensor, ...]:  # noqa: ARG001
        raise RuntimeError("no C++ compiler\nand more")

    monkeypatch.setattr(torch, "compile", lambda *_, **__: broken)
    said: list[str] = []
    made = derivatives_for(flat, weights, images, labels, calls=1, second=True, compiled=True, say=said.append)
    assert not made.compiled
    assert said == ["not compiled: no C++ compiler"]


def test_an_error_without_a_word_is_named(setting: Setting, monkeypatch: pytest.MonkeyPatch) -> None:
    flat, weights, images, labels = setting

    def broken(*_: object, **__: object) -> None:
        raise AssertionError

    monkeypatch.setattr(torch, "compile", broken)
    said: list[str] = []
    assert not derivatives_for(
        flat, weights, images, labels, calls=1, second=True, compiled=True, say=said.append
    ).compiled
    assert said == ["not compiled: AssertionError"]


@pytest.mark.parametrize(("part", "factor"), [(0, 7.0), (1, 1.2), (1, float("nan")), (2, float("nan"))])
def test_a_compiled_derivative_that_is_wrong_is_not_taken(
    setting: Setting, monkeypatch: pytest.MonkeyPatch, part: int, factor: float
) -> None:
    flat, weights, images, labels = setting

    def wrong(self: CompiledDerivatives, *inputs: Tensor) -> tuple[Tensor, ...]:
        found = list(Derivatives._second(self, *inputs))
        found[part] = found[part] * factor
        return tuple(found)

    monkeypatch.setattr(CompiledDerivatives, "_first", Derivatives._first)
    monkeypatch.setattr(CompiledDerivatives, "_second", wrong)
    said: list[str] = []
    made = derivatives_for(flat, weights, images, labels, calls=1, second=True, compiled=True, say=said.append)
    assert not made.compiled
    assert "differ from autograd's by" in said[0]


def test_short_work_is_not_compiled_and_long_work_is_estimated_shorter(setting: Setting) -> None:
    flat, weights, images, labels = setting
    assert not derivatives_for(flat, weights, images, labels, calls=5, second=True).compiled
    assert about_s(60, second=True) == 60
    assert about_s(3600, second=True) == pytest.approx(0.7 * 3600 + 2 * derivatives.COMPILE_S)


def test_memory_that_runs_out_halves_the_chunks_with_the_same_result(
    setting: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    flat, weights, images, labels = setting
    whole, vector = Derivatives(flat), torch.randn_like(weights)
    said: list[str] = []
    small = Derivatives(flat, say=said.append)
    second = Derivatives._second

    def narrow(self: Derivatives, *inputs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        if len(inputs[1]) > 3:
            raise RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory")
        return second(self, *inputs)

    expected = whole.product(weights, images, labels, vector)
    monkeypatch.setattr(Derivatives, "_second", narrow)
    found = small.product(weights, images, labels, vector)
    assert small.chunk_size == 3  # 10, 5, 3
    assert [message.split()[-5] for message in said] == ["5", "3"]
    for one, other in zip(found, expected, strict=True):
        assert relative(one, other) < 1e-12


def test_other_errors_and_one_image_too_many_are_raised(setting: Setting, monkeypatch: pytest.MonkeyPatch) -> None:
    flat, weights, images, labels = setting
    for error in (torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("shapes do not match")):

        def broken(self: Derivatives, *inputs: Tensor, error: Exception = error) -> tuple[Tensor, Tensor]:  # noqa: ARG001
            raise error

        monkeypatch.setattr(Derivatives, "_first", broken)
        with pytest.raises(type(error)):
            Derivatives(flat).gradient(weights, images, labels)


def test_a_budget_is_kept_by_chunks_and_counted_as_the_tensors_are(tiny_network: BuildTiny) -> None:
    network = tiny_network(3, 8, CLASSES)
    flat, weights = FlatNetwork(network()), initial_weights(network, 0)
    images, labels = torch.randn(400, *SHAPE), torch.arange(400) % CLASSES
    one = Derivatives(flat)

    def peak(count: int) -> int:
        return held(lambda images_: one.product(weights, images[:images_], labels[:images_], weights), count)

    free = (peak(40) + peak(60)) // 2
    said: list[str] = []
    made = derivatives_for(
        flat,
        weights,
        images,
        labels,
        calls=1,
        second=True,
        budget_bytes=taken_bytes(weights.device) + free,
        say=said.append,
    )
    assert made.chunk_size is not None
    assert 20 < made.chunk_size < 60
    assert peak(made.chunk_size) < free
    assert "in chunks of at most" in said[0]
    with pytest.raises(ValueError, match="one image alone takes"):
        derivatives_for(flat, weights, images, labels, calls=1, second=True, budget_bytes=10**6)
    roomy = derivatives_for(flat, weights, images, labels, calls=1, second=True, budget_bytes=2**40)
    assert roomy.chunk_size is None


def test_a_budget_that_batch_norm_does_not_allow_to_keep_is_refused(tiny_network: BuildTiny) -> None:
    network = tiny_network(3, 8, CLASSES, norm=nn.BatchNorm2d)
    images, labels = torch.randn(64, *SHAPE), torch.arange(64) % CLASSES
    with pytest.raises(ValueError, match="batch norm does not allow"):
        derivatives_for(
            FlatNetwork(network()),
            initial_weights(network, 0),
            images,
            labels,
            calls=1,
            second=True,
            budget_bytes=10**6,
        )


def test_nothing_is_made_elsewhere_than_the_weights_are(setting: Setting) -> None:
    flat, *given = setting
    there = torch.device("meta")
    weights, images, labels = (tensor.to(there) for tensor in given)
    made = Derivatives(flat.to(there), chunk_size=4)
    assert {tensor.device for tensor in made.loss_and_gradient(weights, images, labels)} == {there}
    assert {tensor.device for tensor in made.product(weights, images, labels, weights)} == {there}
