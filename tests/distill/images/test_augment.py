"""The six operations of DSA against what they are defined to do."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from distill.images.augment import OPERATIONS, Draw, augment, draw, parse_augment

SHAPE = (3, 16, 16)


def _images(count: int = 6, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(count, *SHAPE, generator=torch.Generator().manual_seed(1), dtype=dtype)


def _draw(operation: str, seed: int = 0, count: int = 6) -> Draw:
    return draw((operation,), count, SHAPE, torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("operation", OPERATIONS)
def test_a_draw_can_be_replayed_and_its_gradient_is_right(operation: str) -> None:
    images = _images(2)[:, :, :8, :8].clone().requires_grad_()
    drawn = draw((operation,), 2, (3, 8, 8), torch.Generator().manual_seed(5))
    assert torch.equal(augment(images, drawn), augment(images, drawn))
    assert torch.autograd.gradcheck(lambda x: augment(x, drawn), images)


@pytest.mark.parametrize("operation", OPERATIONS)
def test_every_operation_is_affine_and_keeps_shape_and_type(operation: str) -> None:
    a, b = _images(), _images().flip(0)
    drawn = _draw(operation)
    mixed = augment(0.3 * a + 0.7 * b, drawn)
    assert torch.allclose(mixed, 0.3 * augment(a, drawn) + 0.7 * augment(b, drawn))
    single = augment(_images(dtype=torch.float32), drawn)
    assert single.dtype == torch.float32
    assert single.shape == (6, *SHAPE)


@pytest.mark.parametrize("operation", OPERATIONS)
def test_parameters_are_independent_per_image(operation: str) -> None:
    same = _images(1).expand(64, -1, -1, -1)
    changed = augment(same, _draw(operation, count=64))
    weight = torch.linspace(0, 1, 16)
    distinct = {round(float((image * weight).square().sum()), 6) for image in changed}
    assert len(distinct) == 2 if operation == "flip" else len(distinct) > 20


def test_operations_are_drawn_uniformly_and_from_the_generator_alone() -> None:
    operations = parse_augment("color_crop_cutout_flip_scale_rotate")
    generator = torch.Generator().manual_seed(0)
    counts = dict.fromkeys(operations, 0)
    for _ in range(1200):
        counts[draw(operations, 1, SHAPE, generator).operation] += 1
    assert all(150 < count < 250 for count in counts.values())


def test_color_is_brightness_then_saturation_then_contrast() -> None:
    image = _images(1)
    parameters = {
        name: torch.tensor([value]) for name, value in [("brightness", 0.3), ("saturation", 0.5), ("contrast", 1.2)]
    }
    expected = image + 0.3
    grey = expected.mean(1, keepdim=True)
    expected = (expected - grey) * 0.5 + grey
    expected = (expected - expected.mean()) * 1.2 + expected.mean()
    assert torch.allclose(augment(image, Draw("color", parameters)), expected)


def test_crop_shifts_and_fills_with_zeros() -> None:
    image = _images(1)
    moved = augment(image, Draw("crop", {"down": torch.tensor([2]), "right": torch.tensor([-1])}))
    assert torch.equal(moved, F.pad(image, (1, 0, 0, 2))[:, :, 2:, :16])
    shifts = _draw("crop", count=4000).parameters["down"]
    assert set(shifts.tolist()) == set(range(-2, 3))  # int(0.125 * 16 + 0.5)


def test_cutout_is_half_the_side_and_is_clipped_at_the_border() -> None:
    ones = torch.ones(2, *SHAPE)
    cut = augment(ones, Draw("cutout", {"row": torch.tensor([8, 0]), "column": torch.tensor([8, 16])}))
    assert int((cut[0, 0] == 0).sum()) == 64
    assert torch.equal(cut[0, 0, 4:12, 4:12], torch.zeros(8, 8))
    assert torch.equal(cut[1, 0, :4, 12:], torch.zeros(4, 4))
    assert int((cut[1, 0] == 0).sum()) == 16


@pytest.mark.parametrize(("side", "last"), [(16, 16), (9, 8), (10, 9)])
def test_the_centre_of_an_odd_cutout_is_a_pixel_as_in_the_published_code(side: int, last: int) -> None:
    generator = torch.Generator().manual_seed(0)
    rows = draw(("cutout",), 2000, (1, side, side), generator).parameters["row"]
    assert (int(rows.min()), int(rows.max())) == (0, last)


def test_flip_mirrors_about_half_of_the_images() -> None:
    images = _images(1).expand(400, -1, -1, -1)
    flipped = augment(images, _draw("flip", count=400))
    mirrored = (flipped == images.flip(3)).flatten(1).all(1)
    assert torch.equal((flipped == images).flatten(1).all(1), ~mirrored)
    assert 160 < int(mirrored.sum()) < 240


def test_scale_samples_the_grid_times_the_factor() -> None:
    ramp = torch.linspace(-1, 1, 16, dtype=torch.float64).expand(1, 1, 16, 16)
    sx = torch.tensor([0.9], dtype=torch.float64)
    scaled = augment(ramp, Draw("scale", {"sx": sx, "sy": torch.ones_like(sx)}))
    assert torch.allclose(scaled, 0.9 * ramp)
    factors = _draw("scale", count=2000).parameters["sy"]
    assert 1 / 1.2 <= float(factors.min()) < 0.85
    assert 1.18 < float(factors.max()) <= 1.2


def test_rotate_turns_about_the_centre() -> None:
    ramp = torch.linspace(-1, 1, 17, dtype=torch.float64).expand(1, 1, 17, 17)
    turned = augment(ramp, Draw("rotate", {"degrees": torch.tensor([10.0], dtype=torch.float64)}))
    angle = math.radians(10)
    y, x = torch.meshgrid(*[torch.linspace(-1, 1, 17, dtype=torch.float64)] * 2, indexing="ij")
    middle = slice(4, 13)
    assert torch.allclose(turned[0, 0, middle, middle], (math.cos(angle) * x - math.sin(angle) * y)[middle, middle])
    assert float(_draw("rotate", count=2000).parameters["degrees"].abs().max()) <= 15


def test_none_is_the_identity_and_draws_nothing() -> None:
    generator = torch.Generator().manual_seed(0)
    before = generator.get_state()
    images = _images()
    assert augment(images, draw(parse_augment("none"), 6, SHAPE, generator)) is images
    assert torch.equal(before, generator.get_state())


@pytest.mark.parametrize(
    ("text", "word"), [("crop_blur", "'blur'"), ("", "''"), ("flip_flip", "twice"), ("none_flip", "'none'")]
)
def test_a_wrong_name_is_refused(text: str, word: str) -> None:
    with pytest.raises(ValueError, match=word):
        parse_augment(text)


@pytest.mark.parametrize("operation", OPERATIONS)
def test_nothing_is_made_elsewhere_than_the_images_are(operation: str) -> None:
    images = torch.randn(4, 3, 8, 8, device="meta")
    drawn = draw((operation,), 4, (3, 8, 8), torch.Generator().manual_seed(0), images.device)
    assert augment(images, drawn).device == images.device
