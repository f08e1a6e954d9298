from __future__ import annotations

import io
import re

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from distill.images import photos
from distill.images.photos import ColourFoundError, decode, dimensions, jpeg_quality

ORIENTATION = 0x0112


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.fixture
def picture() -> Image.Image:
    """Smooth colours, different in every corner, 60 wide and 40 high."""
    y, x = np.mgrid[0:40, 0:60]
    return Image.fromarray(np.stack([x * 4, y * 6, 255 - x * 2 - y * 2], axis=-1).astype(np.uint8))


def pixels(image: Image.Image) -> NDArray[np.uint8]:
    return np.asarray(image).transpose(2, 0, 1)


def test_takes_the_middle_square_and_averages_over_areas(picture: Image.Image) -> None:
    image = decode(encoded(picture, "PNG"), 20, 3, "it")
    middle = pixels(picture)[:, :, 10:50].astype(float)
    assert np.abs(image.pixels - middle.reshape(3, 20, 2, 20, 2).mean((2, 4))).max() <= 0.5
    assert (image.short_side, image.encoding) == (40, "PNG")
    assert image.pixels.dtype == np.uint8


def test_keeps_pixels_of_the_wanted_size(picture: Image.Image) -> None:
    assert np.array_equal(decode(encoded(picture, "PNG"), 40, 3, "it").pixels, pixels(picture)[:, :, 10:50])


@pytest.mark.parametrize("size", [7, 32, 100])
def test_shrinks_and_enlarges_to_any_size(picture: Image.Image, size: int) -> None:
    image = decode(encoded(picture, "PNG"), size, 3, "it").pixels
    assert image.shape == (3, size, size)
    assert np.abs(image.mean((1, 2)) - pixels(picture)[:, :, 10:50].mean((1, 2))).max() < 2


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF"])
@pytest.mark.parametrize(
    ("orientation", "stored"),
    [
        (2, Image.Transpose.FLIP_LEFT_RIGHT),
        (3, Image.Transpose.ROTATE_180),
        (6, Image.Transpose.ROTATE_90),
        (8, Image.Transpose.ROTATE_270),
    ],
)
def test_turns_photos_upright(picture: Image.Image, orientation: int, stored: Image.Transpose, kind: str) -> None:
    lying = picture.transpose(stored)
    exif = lying.getexif()
    exif[ORIENTATION] = orientation
    options = {} if kind in ("PNG", "TIFF") else {"quality": 95}
    turned = decode(encoded(lying, kind, exif=exif, **options), 40, 3, "it").pixels
    upright = pixels(picture)[:, :, 10:50].astype(int)
    assert np.abs(turned - upright).mean() < 2


def test_a_grey_photo_that_lies_is_turned_too(picture: Image.Image) -> None:
    lying = picture.convert("L").transpose(Image.Transpose.ROTATE_90)
    exif = lying.getexif()
    exif[ORIENTATION] = 6
    turned = decode(encoded(lying, "PNG", exif=exif), 40, 3, "it").pixels
    assert np.array_equal(turned[1], np.asarray(picture.convert("L"))[:, 10:50])


def test_grey_becomes_three_equal_channels_and_stays_one_if_one_is_asked(picture: Image.Image) -> None:
    grey = encoded(picture.convert("L"), "PNG")
    three, one = decode(grey, 20, 3, "it").pixels, decode(grey, 20, 1, "it").pixels
    assert one.shape == (1, 20, 20)
    assert np.array_equal(three, np.repeat(one, 3, axis=0))


def test_colour_is_not_taken_for_grey(picture: Image.Image) -> None:
    with pytest.raises(ColourFoundError):
        decode(encoded(picture, "JPEG"), 20, 1, "it")


def test_sixteen_bits_are_scaled_not_clipped() -> None:
    ramp = np.linspace(0, 65535, 32 * 32).reshape(32, 32).astype(np.uint16)
    image = decode(encoded(Image.fromarray(ramp), "PNG"), 32, 1, "it").pixels
    assert np.array_equal(image[0], (ramp >> 8).astype(np.uint8))


def test_a_dark_image_of_sixteen_bits_stays_dark() -> None:
    dark = encoded(Image.fromarray(np.full((8, 8), 200, dtype=np.uint16)), "PNG")
    assert decode(dark, 8, 1, "it").pixels.max() == 0


@pytest.mark.parametrize("mode", ["P", "RGBA", "LA", "1", "CMYK"])
def test_reads_every_usual_kind_of_pixel(picture: Image.Image, mode: str) -> None:
    kind = "JPEG" if mode == "CMYK" else "PNG"
    image = decode(encoded(picture.convert(mode), kind), 40, 3, "it").pixels
    expected = pixels(picture.convert(mode).convert("RGB"))[:, :, 10:50].astype(int)
    assert np.abs(image - expected).mean() < 4


def test_a_transparent_palette_is_read(picture: Image.Image) -> None:
    palette = encoded(picture.convert("P"), "PNG", transparency=bytes(range(256)))
    read = picture.convert("P")
    opacity = np.asarray(read)[:, 10:50] / 255  # entry n of the palette is as opaque as n
    colours = pixels(read.convert("RGB"))[:, :, 10:50]
    expected = opacity * colours + (1 - opacity) * 255
    assert np.abs(decode(palette, 40, 3, "it").pixels - expected).max() <= 1


def test_transparent_pixels_are_laid_on_white() -> None:
    """An icon whose only colour is black, its shape in the alpha channel."""
    shape = np.zeros((8, 8), np.uint8)
    shape[2:6, 3:5] = 255
    icon = Image.merge("LA", [Image.new("L", (8, 8), 0), Image.fromarray(shape)])
    for mode in ("LA", "RGBA"):
        seen = decode(encoded(icon.convert(mode), "PNG"), 8, 3, "it").pixels
        assert np.array_equal(seen, np.broadcast_to(255 - shape, (3, 8, 8)))
    assert np.array_equal(decode(encoded(icon, "PNG"), 8, 1, "it").pixels, 255 - shape[None])


def test_a_colour_that_stands_for_transparency_is_laid_on_white() -> None:
    image = Image.new("RGB", (8, 8), (0, 0, 0))
    image.paste((10, 20, 30), (0, 0, 8, 4))
    seen = decode(encoded(image, "PNG", transparency=(0, 0, 0)), 8, 3, "it").pixels
    assert seen[:, 0, 0].tolist() == [10, 20, 30]
    assert seen[:, 7, 7].tolist() == [255, 255, 255]


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_opaque_pixels_stay_as_they_are(picture: Image.Image, mode: str) -> None:
    expected = pixels(picture.convert(mode).convert("RGB"))[:, :, 10:50]
    assert np.array_equal(decode(encoded(picture.convert(mode), "PNG"), 40, 3, "it").pixels, expected)


def test_a_transparent_photo_that_lies_is_turned_too(picture: Image.Image) -> None:
    exif = Image.Exif()
    exif[274] = 3  # upside down
    clear = picture.convert("RGBA")
    clear.putpixel((0, 0), (0, 0, 0, 0))
    turned = decode(encoded(clear.transpose(Image.Transpose.ROTATE_180), "PNG", exif=exif), 40, 3, "it").pixels
    assert np.array_equal(turned, decode(encoded(clear, "PNG"), 40, 3, "it").pixels)


@pytest.mark.parametrize("side", [50, 1000])
def test_an_image_that_would_fill_the_memory_is_refused_in_our_words(
    side: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By our limit, or by Pillow's own, which is met while the file is opened."""
    monkeypatch.setattr(photos, "MOST_PIXELS", 2000)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 4000)
    assert decode(encoded(Image.new("1", (40, 50)), "PNG"), 8, 1, "it").pixels.shape == (1, 8, 8)
    with pytest.raises(ValueError, match=r"^it cannot be read as an image: .* that are read: store it smaller$"):
        decode(encoded(Image.new("1", (side, side)), "PNG"), 8, 1, "it")


def test_floating_point_pixels_are_refused() -> None:
    image = encoded(Image.fromarray(np.ones((8, 8), np.float32)), "TIFF")
    with pytest.raises(ValueError, match="it cannot be read as an image: pixels are floating-point"):
        decode(image, 8, 3, "it")


def test_large_jpegs_are_shrunk_while_decoding_with_nearly_the_same_result(picture: Image.Image) -> None:
    large = encoded(picture.resize((960, 640), Image.Resampling.BICUBIC), "JPEG", quality=95)
    fast = decode(large, 32, 3, "it")
    exact = decode(np.asarray(Image.open(io.BytesIO(large))), 32, 3, "it")
    assert fast.short_side == exact.short_side == 640
    assert np.abs(fast.pixels.astype(int) - exact.pixels).mean() < 1


def test_names_the_quality_of_a_jpeg(picture: Image.Image) -> None:
    for quality in (1, 30, 75, 95, 100):
        assert decode(encoded(picture, "JPEG", quality=quality), 20, 3, "it").encoding == f"JPEG-{quality}"
    odd = encoded(picture, "JPEG", qtables=[list(range(1, 65))])
    assert decode(odd, 20, 3, "it").encoding == "JPEG"
    assert jpeg_quality(tuple(range(1, 65))) is None


def test_bare_pixels_have_no_encoding(picture: Image.Image) -> None:
    assert decode(np.asarray(picture), 20, 3, "it").encoding == ""


def test_dimensions_come_from_the_header(picture: Image.Image) -> None:
    assert dimensions(encoded(picture, "JPEG")[:-50], "it") == (60, 40)
    with pytest.raises(ValueError, match="it cannot be read as an image: damaged, or of a format that Pillow"):
        dimensions(b"no image", "it")


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "WEBP", "BMP", "TIFF"])
@pytest.mark.filterwarnings("ignore")
def test_damage_is_named_and_nothing_else_escapes(picture: Image.Image, kind: str) -> None:
    """Bytes are flipped and files cut at random: an image comes out, or one ValueError in one line."""
    whole = encoded(picture, kind)
    draw = np.random.default_rng(3)
    refused = 0
    for number in range(150):
        damaged = np.frombuffer(whole, np.uint8).copy()
        places = draw.integers(min(len(damaged), 300 if number % 2 else len(damaged)), size=4)
        damaged[places] = draw.integers(256, size=4)
        damaged = damaged[: draw.integers(len(damaged))] if number % 3 == 0 else damaged
        try:
            image, message = decode(damaged.tobytes(), 16, 3, "holiday.jpg").pixels, ""
        except ValueError as error:
            image, message = np.zeros((3, 16, 16), dtype=np.uint8), str(error)
            refused += 1
        assert image.shape == (3, 16, 16)
        assert re.fullmatch(r"(holiday\.jpg cannot be read as an image: .+)?", message)
    assert refused > 5


def test_a_file_that_is_cut_off_is_refused_although_its_top_is_there(picture: Image.Image) -> None:
    for kind in ("PNG", "JPEG"):
        whole = encoded(picture.resize((600, 400)), kind)
        with pytest.raises(ValueError, match="photo cannot be read as an image"):
            decode(whole[: len(whole) * 3 // 4], 64, 3, "photo")
