"""First and second derivatives of a network's loss by its flat weights: all that experts and matching compute."""

from __future__ import annotations

import contextlib
import logging
import math
import time
import warnings
from collections.abc import Callable, Iterator
from functools import cached_property
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.func import functional_call, grad, grad_and_value, jvp

from distill.training.flat import FlatNetwork
from distill.training.memory import fitting, held, is_exhaustion, taken_bytes
from distill.training.precision import computing, logits_in

COMPILE_S = 40.0  # that torch.compile takes for one static function here, at most
SAVED = 0.3  # of the time of a derivative, at least, that compiling it saves
Say = Callable[[str], None]
Result = TypeVar("Result")
MOST_SHAPES = 2  # that a function is compiled for
# Relative difference to the eager gradient; rounding alone makes 0.01, in bfloat16 0.05.
TOLERANCE = {"float32": 0.05, "ieee": 0.05, "bfloat16": 0.2}


def silent(message: str) -> None:
    """Say nothing."""


class Derivatives:
    """Gradient and Hessian-vector product of a network's loss on a minibatch, by torch's own autograd.

    `chunk_size`: a minibatch that does not fit is accumulated in chunks of at most so many images, which is exact, as
    both are sums over images. It is halved, and `say` hears of it, whenever memory runs out. Raises ValueError for
    chunks with batch norm, which mixes the images of a minibatch.
    """

    compiled = False

    def __init__(
        self, network: FlatNetwork, *, precision: str = "float32", chunk_size: int | None = None, say: Say = silent
    ):
        if chunk_size is not None and network.mixes_batch:
            raise ValueError(f"chunk_size {chunk_size}: batch norm does not allow to cut a minibatch: leave it out")
        self.network = network
        self.precision = precision
        self.chunk_size = chunk_size
        self.say = say

    def gradient(self, weights: Tensor, images: Tensor, labels: Tensor) -> Tensor:
        """(P,) gradient of the mean loss of a minibatch (B, C, H, W) by the weights (P,)."""
        return self.loss_and_gradient(weights, images, labels)[1]

    def loss_and_gradient(self, weights: Tensor, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """The mean loss () of a minibatch, and its gradient (P,)."""

        def computed() -> tuple[Tensor, Tensor]:
            loss, total = torch.zeros_like(weights[0]), torch.zeros_like(weights)
            for part, targets, share in self._chunks(images, labels):
                value, gradient = self._first(weights.detach(), part.detach(), targets)
                loss += share * value
                total += share * gradient
            return loss, total

        return self._in_memory(computed, images)

    def product(self, weights: Tensor, images: Tensor, labels: Tensor, vector: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """<gradient, vector> (), and its derivatives by the weights (P,) and by the images (B, C, H, W)."""

        def computed() -> tuple[Tensor, Tensor, Tensor]:
            total, by_weights, by_images = torch.zeros_like(weights[0]), torch.zeros_like(weights), []
            for part, targets, share in self._chunks(images, labels):
                value, over_weights, over_images = self._second(weights.detach(), part.detach(), targets, vector)
                total += share * value
                by_weights += share * over_weights
                by_images.append(share * over_images)
            return total, by_weights, torch.cat(by_images)

        return self._in_memory(computed, images)

    def _in_memory(self, computed: Callable[[], Result], images: Tensor) -> Result:
        while True:
            try:
                with computing(self.precision, images.device):
                    return computed()
            except (RuntimeError, MemoryError) as error:
                size = min(self.chunk_size or len(images), len(images))
                if not is_exhaustion(error) or self.network.mixes_batch or size == 1:
                    raise
                self.chunk_size = math.ceil(size / 2)
            self.say(f"memory ran out: minibatches are taken in chunks of {self.chunk_size} images from now on")

    def _first(self, weights: Tensor, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        at = weights.requires_grad_()
        loss = self._loss(self.network.named(at), images, labels)
        (gradient,) = torch.autograd.grad(loss, at)
        return loss.detach(), gradient

    def _second(self, weights: Tensor, images: Tensor, labels: Tensor, vector: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        at, seen = weights.requires_grad_(), images.requires_grad_()
        (gradient,) = torch.autograd.grad(self._loss(self.network.named(at), seen, labels), at, create_graph=True)
        value = torch.dot(gradient, vector)
        over_weights, over_images = torch.autograd.grad(value, (at, seen))
        return value.detach(), over_weights, over_images

    def _loss(self, named: dict[str, Tensor], images: Tensor, labels: Tensor) -> Tensor:
        network = lambda seen: functional_call(self.network.module, named, (seen,))  # noqa: E731
        return F.cross_entropy(logits_in(self.precision, network, images), labels)

    def _chunks(self, images: Tensor, labels: Tensor) -> list[tuple[Tensor, Tensor, float]]:
        """The pieces of a minibatch, of about one size, and the share of each in its mean loss."""
        count = math.ceil(len(images) / (self.chunk_size or len(images)))
        pieces = zip(torch.tensor_split(images, count), torch.tensor_split(labels, count), strict=True)
        return [(part, targets, len(part) / len(images)) for part, targets in pieces]


class CompiledDerivatives(Derivatives):
    """The same, each of the two as one function that torch.compile makes static, once for every shape of minibatch.

    The product is a forward derivative along the vector of the gradient by weights and images (a jvp of a grad), which
    compiles whole, where a graph of a graph does not. On a GPU the functions are captured as CUDA graphs and replayed:
    on an H200 an outer step of the paper took 0.22 of the plain loop's time. Shapes beyond the first two are left to
    autograd.
    """

    compiled = True

    @cached_property
    def _static(self) -> dict[str, tuple[Callable[..., tuple[Tensor, ...]], list[tuple[int, ...]]]]:
        """Either function, compiled, and the shapes of images that it was compiled for."""
        mode = "reduce-overhead" if next(self.network.module.parameters()).is_cuda else "default"
        functions: dict[str, Callable[..., tuple[Tensor, ...]]] = {
            "first": self._first_static,
            "second": self._second_static,
        }
        return {which: (torch.compile(each, dynamic=False, mode=mode), []) for which, each in functions.items()}

    def _first(self, weights: Tensor, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        return self._call("first", super()._first, weights, images, labels)  # type: ignore[return-value]

    def _second(self, weights: Tensor, images: Tensor, labels: Tensor, vector: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return self._call("second", super()._second, weights, images, labels, vector)  # type: ignore[return-value]

    def _call(self, which: str, eager: Callable[..., tuple[Tensor, ...]], *inputs: Tensor) -> tuple[Tensor, ...]:
        shape, (static, known) = tuple(inputs[1].shape), self._static[which]
        if shape not in known:
            if len(known) == MOST_SHAPES:
                return eager(*inputs)
            with _quiet():
                static(*inputs)
            known.append(shape)
        if not inputs[0].is_cuda:
            return tuple(static(*inputs))
        torch.compiler.cudagraph_mark_step_begin()  # type: ignore[no-untyped-call]
        # A replay overwrites what the one before returned.
        return tuple(output.clone() for output in static(*inputs))

    def _first_static(self, weights: Tensor, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        gradient, loss = grad_and_value(self._loss)(self._named(weights), images, labels)
        return loss, _joined(gradient)

    def _second_static(
        self, weights: Tensor, images: Tensor, labels: Tensor, vector: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        if self.precision == "bfloat16":
            return self._second_backward(weights, images, labels, vector)

        def gradients(named: dict[str, Tensor], seen: Tensor) -> tuple[dict[str, Tensor], Tensor]:
            return grad_and_value(self._loss, argnums=(0, 1))(named, seen, labels)[0]  # type: ignore[no-any-return]

        at, along = (self._named(weights), images), (self._named(vector), torch.zeros_like(images))
        primal, (over_weights, over_images) = jvp(gradients, at, along)[:2]
        gradient, _ = primal
        return torch.dot(_joined(gradient), vector), _joined(over_weights), over_images

    def _second_backward(
        self, weights: Tensor, images: Tensor, labels: Tensor, vector: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Backward through the backward pass: forward, tangents of a group norm in bfloat16 would be 32-bit floats."""

        def value(named: dict[str, Tensor], seen: Tensor) -> Tensor:
            return torch.dot(_joined(grad(self._loss)(named, seen, labels)), vector)

        (over_weights, over_images), product = grad_and_value(value, argnums=(0, 1))(self._named(weights), images)
        return product, _joined(over_weights), over_images

    def _named(self, weights: Tensor) -> dict[str, Tensor]:
        # Copies, for torch's forward derivative does not pass through these views when it is compiled.
        return {name: piece.clone() for name, piece in self.network.named(weights).items()}


def derivatives_for(
    network: FlatNetwork,
    weights: Tensor,
    images: Tensor,
    labels: Tensor,
    *,
    calls: int,
    second: bool,
    precision: str = "float32",
    chunk_size: int | None = None,
    budget_bytes: int | None = None,
    beside_bytes: int = 0,
    compiled: bool | None = None,
    say: Say = silent,
) -> Derivatives:
    """Derivatives for `calls` minibatches such as `images` (B, C, H, W), with Hessian-vector products if `second`.

    They are compiled where that pays back what compiling takes, which a timed call tells, or as `compiled` says: a run
    must go on with what it was begun with, for the last digits differ. What was compiled is held up to autograd once;
    where it fails, or differs by more than rounding, autograd stays and the reason is said. `budget_bytes`: of memory
    for the whole process, or on its GPU, which chunks of at most `chunk_size` keep to; `beside_bytes` of it are for
    what the caller will make besides. Raises ValueError for a budget that even one image at a time exceeds, or that
    batch norm does not allow to keep to.
    """
    eager = Derivatives(network, precision=precision, chunk_size=chunk_size, say=say)
    if budget_bytes is not None:
        free = budget_bytes - beside_bytes - taken_bytes(images.device)
        eager.chunk_size = _within(free, eager, weights, images, labels, second=second)
    if compiled is False:
        return eager

    along = eager.gradient(weights, images, labels)

    def call(derivatives: Derivatives) -> tuple[Tensor, ...]:
        loss, gradient = derivatives.loss_and_gradient(weights, images, labels)
        return (loss, gradient, *(derivatives.product(weights, images, labels, along) if second else ()))

    expected = call(eager)
    if compiled is None:
        float(expected[0])  # a GPU may still be at it
        begun = time.perf_counter()
        float(call(eager)[0])
        eager_s = calls * (time.perf_counter() - begun)
        if about_s(eager_s, second=second) == eager_s:
            return eager
    try:
        made = CompiledDerivatives(network, precision=precision, chunk_size=eager.chunk_size, say=say)
        computed = call(made)
    except Exception as error:  # whatever the compiler met: a missing C++ compiler, an operation that it does not know
        say(f"not compiled: {(str(error).strip() or type(error).__name__).splitlines()[0][:200]}")
        return eager
    pairs = zip(computed, expected, strict=True)
    differences = [float((value - exact).norm() / exact.norm().clamp_min(1e-12)) for value, exact in pairs]
    if not all(difference < TOLERANCE[precision] for difference in differences):  # NaN is below nothing
        told = ", ".join(f"{difference:.2g}" for difference in differences)
        say(f"not compiled: compiled derivatives differ from autograd's by {told}")
        return eager
    return made


def _within(
    free_bytes: int, derivatives: Derivatives, weights: Tensor, images: Tensor, labels: Tensor, *, second: bool
) -> int | None:
    """The size of chunks that keeps to what is free; the derivatives' own where that is small enough."""
    whole = min(derivatives.chunk_size or len(images), len(images))

    def compute(count: int) -> object:
        _, gradient = derivatives.loss_and_gradient(weights, images[:count], labels[:count])
        return derivatives.product(weights, images[:count], labels[:count], gradient) if second else gradient

    size = fitting(compute, whole, free_bytes)
    if size == whole:
        return derivatives.chunk_size
    if derivatives.network.mixes_batch:
        raise ValueError("the memory does not hold a minibatch, and batch norm does not allow to cut it: allow more")
    needed = held(compute, 1)
    if size == 1 and needed > free_bytes:
        raise ValueError(
            f"the memory is too little: one image alone takes {needed / 2**20:,.0f} MB, and of what was allowed "
            f"{max(0, free_bytes) / 2**20:,.0f} MB are free: allow more, or take a narrower backbone"
        )
    derivatives.say(f"minibatches of {len(images)} images are taken in chunks of at most {size}, to keep to the memory")
    return size


def about_s(eager_s: float, *, second: bool) -> float:
    """Seconds that work of so many seconds of autograd takes, compiled where that pays."""
    return min(eager_s, (1 - SAVED) * eager_s + COMPILE_S * (1 + second))


def _joined(named: dict[str, Tensor]) -> Tensor:
    return torch.cat([piece.reshape(-1) for piece in named.values()])


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without what torch says of itself while it compiles."""
    logger = logging.getLogger("torch.utils.cpp_extension")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
