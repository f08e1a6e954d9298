"""One encoded image to a square of uint8 pixels: any size, EXIF orientation, palette, 16 bit, grey or colour."""

from __future__ import annotations

import io
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from distill.images.listing import GROUND, Encoded

# Annex K of the JPEG standard, the luminance table that the Independent JPEG Group's encoders scale by quality.
_LUMINANCE = (
    *(16, 11, 10, 16, 24, 40, 51, 61, 12, 12, 14, 19, 26, 58, 60, 55, 14, 13, 16, 24, 40, 57, 69, 56),
    *(14, 17, 22, 29, 51, 87, 80, 62, 18, 22, 37, 56, 68, 109, 103, 77, 24, 35, 55, 64, 81, 104, 113, 92),
    *(49, 64, 78, 87, 103, 121, 120, 101, 72, 92, 95, 98, 112, 100, 103, 99),
)

MOST_PIXELS = 100_000_000  # of an image as it is decoded: some 600 MB on the way
LARGE = 25_000_000  # pixels of an image, of which only one is decoded at a time
_one_large = threading.Lock()


class ColourFoundError(Exception):
    """A set taken for grey holds a colour image."""


class Decoded(NamedTuple):
    pixels: NDArray[np.uint8]  # (C, size, size)
    short_side: int  # of the original
    encoding: str  # "PNG", "JPEG-75", ..., "" for bare pixels


def decode(encoded: Encoded, size: int, channels: int, where: str) -> Decoded:
    """Decode, turn upright, cut the middle square out and bring it to size x size pixels in 1 or 3 channels.

    Shrinking averages over areas. Raises ValueError naming `where` if the image cannot be read to its end, and
    ColourFoundError where one channel is asked of a colour image.
    """
    with _opened(encoded, where) as image:
        short_side, encoding = min(image.size), _encoding(image)
        if image.format == "JPEG" and short_side > 4 * size:
            scale = 2 * size / short_side
            # libjpeg shrinks by 2, 4 or 8 while decoding; twice the wanted size keeps the rest of it exact enough.
            image.draft("RGB", (round(image.width * scale), round(image.height * scale)))
        if channels == 1 and not is_grey(image):
            raise ColourFoundError
        count = image.width * image.height
        if count > MOST_PIXELS:
            raise ValueError(_too_large(f"{image.width:,} x {image.height:,} pixels are"))
        with _one_large if count > LARGE else nullcontext():
            upright = ImageOps.exif_transpose(_convert(image, channels))
            pixels = np.asarray(_square(upright, size))
    planes = pixels[None] if channels == 1 else np.ascontiguousarray(pixels.transpose(2, 0, 1))
    return Decoded(planes, short_side, encoding)


def dimensions(encoded: Encoded, where: str) -> tuple[int, int]:
    """(width, height) in pixels from the header alone. Raises ValueError naming `where` if there is none."""
    with _opened(encoded, where) as image:
        return image.size


def is_grey(image: Image.Image) -> bool:
    return image.mode in ("1", "L", "LA", "I", "F") or image.mode.startswith("I;")


@lru_cache(maxsize=256)
def jpeg_quality(luminance: tuple[int, ...]) -> int | None:
    """The quality, 1 .. 100, at which IJG's encoders use this quantisation table; None for a table of another kind."""
    for quality in range(100, 0, -1):
        scale = 5000 // quality if quality < 50 else 200 - 2 * quality
        if luminance == tuple(min(max((value * scale + 50) // 100, 1), 255) for value in _LUMINANCE):
            return quality
    return None


@contextmanager
def _opened(encoded: Encoded, where: str) -> Iterator[Image.Image]:
    try:
        if isinstance(encoded, np.ndarray):
            yield Image.fromarray(encoded)
        else:
            with Image.open(encoded if isinstance(encoded, Path) else io.BytesIO(encoded)) as image:
                yield image
    except ColourFoundError:
        raise
    except Exception as error:  # damaged files make Pillow raise whatever comes
        raise ValueError(f"{where} cannot be read as an image: {_reason(error)}") from error


def _encoding(image: Image.Image) -> str:
    tables = getattr(image, "quantization", None)
    if image.format != "JPEG" or not tables:
        return image.format or ""
    quality = jpeg_quality(tuple(tables[min(tables)]))
    return "JPEG" if quality is None else f"JPEG-{quality}"


def _convert(image: Image.Image, channels: int) -> Image.Image:
    mode = "L" if channels == 1 else "RGB"
    if image.mode == "I" or image.mode.startswith("I;"):
        # Pillow clips 16 bits to 8 instead of scaling them. Its older versions read a PNG of 16 bits as 32.
        values = np.asarray(image).astype(np.int64)
        sixteen = image.mode != "I" or image.format == "PNG" or values.max(initial=0) > 255
        grey = Image.fromarray((values >> 8 if sixteen else values).clip(0, 255).astype(np.uint8))
        grey.info.update(image.info)
        return grey.convert(mode)
    if image.mode == "F":
        raise ValueError("pixels are floating-point numbers, whose range is not known")
    image.load()
    if image.has_transparency_data:
        seen = image.convert("RGBA")
        ground = Image.new("RGBA", image.size, GROUND)
        ground.alpha_composite(seen)
        ground.info.update(image.info)
        ground.info.pop("transparency", None)  # what was a palette's is no colour's
        image = ground
    return image if image.mode == mode else image.convert(mode)  # EXIF lives in `info`, which convert keeps


def _square(image: Image.Image, size: int) -> Image.Image:
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    box = (left, top, left + side, top + side)
    if side == size:
        return image.crop(box)
    if side % size == 0:
        return image.resize((size, size), Image.Resampling.BOX, box=box)
    # Pillow widens the filter when shrinking, so this averages too.
    return image.resize((size, size), Image.Resampling.BILINEAR if side > size else Image.Resampling.BICUBIC, box=box)


def _too_large(what: str) -> str:
    return f"{what} more than the {MOST_PIXELS // 1_000_000} million that are read: store it smaller"


def _reason(error: BaseException) -> str:
    if isinstance(error, FileNotFoundError | PermissionError | IsADirectoryError):
        return str(error.strerror).lower()
    text = str(error) or type(error).__name__
    if isinstance(error, Image.DecompressionBombError):
        return _too_large("its pixels are")
    if "cannot identify" in text:
        return "damaged, or of a format that Pillow does not read (JPEG and PNG are the safest)"
    return text.splitlines()[0]
