from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from ftdnas.proxies.az_nas import az_nas, feature_entropy, gradient_trainability
from search_spaces.base import parse_architecture


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=generator(seed))


def signs(*shape: int, seed: int = 0) -> Tensor:
    return torch.randint(0, 2, shape, generator=generator(seed)) * 2.0 - 1


def test_white_noise_is_as_expressive_as_its_channels_allow() -> None:
    assert feature_entropy(noise(64, 16, 16, 16)) == pytest.approx(math.log(16), abs=0.001)


def test_entropy_of_known_variances() -> None:
    features = noise(64, 3, 32, 32) * torch.tensor([1.0, math.sqrt(2.0), 0.0])[:, None, None]
    expected = -(1 / 3 * math.log(1 / 3) + 2 / 3 * math.log(2 / 3))
    assert feature_entropy(features + 5) == pytest.approx(expected, abs=0.003)


def test_entropy_does_not_see_a_rotation_of_the_channels() -> None:
    features = noise(8, 6, 4, 4) * torch.arange(1, 7)[:, None, None]
    turn = torch.linalg.qr(noise(6, 6, seed=1))[0]
    turned = torch.einsum("nchw,dc->ndhw", features, turn)
    assert feature_entropy(turned) == pytest.approx(feature_entropy(features), rel=1e-4)


def test_constant_features_have_no_entropy() -> None:
    assert math.isnan(feature_entropy(torch.zeros(2, 3, 4, 4)))
    assert math.isnan(feature_entropy(torch.full((2, 3, 4, 4), 1.5)))


def test_an_orthogonal_convolution_passes_gradients_on_best() -> None:
    given = signs(256, 8, 16, 16)
    turn = torch.linalg.qr(noise(8, 8))[0]
    received = torch.einsum("nchw,cd->ndhw", given, turn)
    # The correlation is the rotation, up to sampling: s = 1, so 2 - 1 - 1.
    assert gradient_trainability(given, received) == pytest.approx(0, abs=0.01)
    for factor in (0.5, 2.0):
        assert gradient_trainability(given, received * factor) == pytest.approx(2 - factor - 1 / factor, abs=0.03)


def test_a_halved_side_makes_channels_of_the_pixels() -> None:
    given = signs(2048, 4, 4, 4)
    # Average pooling: each of the four input pixels gets a quarter of the output's gradient; s = sqrt(4) / 4.
    received = given.repeat_interleave(2, 2).repeat_interleave(2, 3) / 4
    assert gradient_trainability(given, received) == pytest.approx(2 - 0.5 - 2, abs=0.05)


@pytest.mark.parametrize("side", [7, 9])
def test_odd_sides_are_cut_or_filled_up(side: int) -> None:
    given = signs(4, 8, 4, 4)
    assert math.isfinite(gradient_trainability(given, noise(4, 8, side, side)))


def test_more_pixels_than_before_are_refused() -> None:
    with pytest.raises(ValueError, match="a block makes 8 x 8 of 4 x 4 pixels"):
        gradient_trainability(signs(2, 3, 8, 8), noise(2, 3, 4, 4))


def measured(text: str) -> dict[str, float]:
    network = parse_architecture(text).build((3, 16, 16), 10)
    return az_nas(network, noise(16, 3, 16, 16), generator(7))


def cell(*operations: str) -> str:
    a, b, c, d, e, f = operations
    return f"nasbench201:cells=1:|{a}~0|+|{b}~0|{c}~1|+|{d}~0|{e}~1|{f}~2|"


CONV, SKIP, NONE = "nor_conv_3x3", "skip_connect", "none"


def test_the_identity_is_untrainable() -> None:
    values = measured(cell(NONE, NONE, NONE, SKIP, NONE, NONE))
    assert values["trainability"] == -math.inf
    assert math.isfinite(values["expressivity"])


def test_zeros_are_nothing() -> None:
    values = measured(cell(*[NONE] * 6))
    assert not any(map(math.isfinite, values.values()))


def test_a_cell_that_computes_has_three_figures() -> None:
    values = measured(cell(CONV, SKIP, CONV, NONE, CONV, CONV))
    assert all(map(math.isfinite, values.values()))
    assert values["trainability"] < 0


def test_the_weights_are_drawn_from_the_generator_alone() -> None:
    assert measured(cell(CONV, SKIP, CONV, NONE, CONV, CONV)) == measured(cell(CONV, SKIP, CONV, NONE, CONV, CONV))


def test_entropies_are_summed_and_the_least_rise_counts() -> None:
    class Known(nn.Module):
        """Noise of 4 channels, then of 2 of them, then of all again."""

        def __init__(self) -> None:
            super().__init__()
            self.steps = nn.ModuleList([Mask(4), Mask(2), Mask(4)])

        def forward(self, images: Tensor) -> Tensor:
            features = images
            for step in self.steps:
                features = step(features) + 1e-3 * images
            return features.mean((2, 3))

        def blocks(self) -> list[nn.Module]:
            return list(self.steps)

    class Mask(nn.Module):
        def __init__(self, kept: int) -> None:
            super().__init__()
            self.kept = kept

        def forward(self, images: Tensor) -> Tensor:
            masked = images * (torch.arange(4) < self.kept)[:, None, None]
            return masked + 0 * images if self.kept < 4 else 2 * masked

    values = az_nas(Known(), noise(64, 4, 16, 16), generator())
    # The third sees two channels and a thousandth of the other two.
    assert values["expressivity"] == pytest.approx(math.log(4) + 2 * math.log(2), abs=0.01)
    assert values["progressivity"] == pytest.approx(math.log(2) - math.log(4), abs=0.01)


def test_networks_that_work_in_place_are_measured_alike() -> None:
    def network(inplace: bool) -> nn.Module:
        class Steps(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.first, self.second = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
                self.activation = nn.ReLU(inplace=inplace)

            def forward(self, images: Tensor) -> Tensor:
                features = nn.functional.relu(self.first(images), inplace=inplace)
                return self.activation(self.second(features)).mean((2, 3))

        return Steps()

    images = noise(8, 3, 8, 8)
    first, second = (az_nas(network(inplace), images, generator()) for inplace in (False, True))
    assert first == second
    assert all(map(math.isfinite, first.values()))


def test_parallel_branches_are_refused() -> None:
    class Parallel(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.left, self.right = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(3, 4, 3, padding=1)

        def forward(self, images: Tensor) -> Tensor:
            total: Tensor = self.left(images) + self.right(images)
            return total.mean((2, 3))

    with pytest.raises(ValueError, match="one does not depend on the one before"):
        az_nas(Parallel(), noise(4, 3, 8, 8), generator())
