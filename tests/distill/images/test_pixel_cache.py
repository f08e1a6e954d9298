from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from distill.images.folders import list_folder
from distill.images.listing import Encoded, Listing, from_arrays
from distill.images.pixel_cache import CacheEntry, cached_pixels
from distill.run import Progress, ignore

IMAGES = np.random.default_rng(0).integers(256, size=(600, 4, 4, 3), dtype=np.uint8)
CHANNELS_FIRST = IMAGES.transpose(0, 3, 1, 2)
FORWARD = np.arange(600)


def colours(images: NDArray[np.uint8] = IMAGES) -> Listing:
    labels = np.zeros(len(images), np.int64)
    return from_arrays("toys", "Toys", "here", ["it"], [("", images, labels)], content="colours")


def unreadable(listing: Listing) -> Listing:
    """The same source, of which nothing can be decoded any more: whatever comes now comes from the cache."""

    def fetch() -> Iterator[Sequence[tuple[int, Encoded]]]:
        yield [(row, b"") for row in range(len(listing.labels))]

    return replace(listing, fetch=fetch)


def load(
    listing: Listing, cache: Path, order: NDArray[np.int64] = FORWARD, skipped: int = 0
) -> tuple[NDArray[np.uint8], CacheEntry]:
    return cached_pixels(listing, order, skipped, 4, cache, ignore)


def test_images_are_mapped_in_the_order_asked_for(tmp_path: Path) -> None:
    order = np.random.default_rng(1).permutation(600)
    images, entry = load(colours(), tmp_path, order)
    assert np.array_equal(images, CHANNELS_FIRST[order])
    assert isinstance(images, np.memmap)
    assert not images.flags.writeable
    assert entry.shape == (600, 3, 4, 4)
    assert (entry.short_side, entry.encodings) == (4, {})


def test_a_second_time_nothing_is_decoded(tmp_path: Path) -> None:
    images, entry = load(colours(), tmp_path)
    again, same = load(unreadable(colours()), tmp_path)
    assert np.array_equal(images, again)
    assert entry == same


def test_another_order_is_taken_from_the_one_that_is_there(tmp_path: Path) -> None:
    load(colours(), tmp_path, np.random.default_rng(2).permutation(600))
    order = np.random.default_rng(3).permutation(600)
    images, entry = load(unreadable(colours()), tmp_path, order, skipped=10)
    assert np.array_equal(images, CHANNELS_FIRST[order])
    direct = load(colours(), tmp_path / "elsewhere", order, skipped=10)[1]
    assert entry == direct


def test_the_digest_leaves_the_skipped_images_out(tmp_path: Path) -> None:
    changed = IMAGES.copy()
    changed[:5] = 0
    digests = [
        load(colours(images), tmp_path / str(number), skipped=skipped)[1].digest
        for number, (images, skipped) in enumerate([(IMAGES, 5), (changed, 5), (IMAGES, 4), (changed, 4)])
    ]
    assert digests[0] == digests[1]
    assert digests[2] != digests[3]


def test_grey_sets_keep_one_channel_unless_a_colour_image_turns_up(tmp_path: Path) -> None:
    grey = IMAGES[..., 0]
    mixed = from_arrays(
        "toys", "Toys", "", ["it"], [("", grey, np.zeros(600)), ("", IMAGES[:1], np.zeros(1))], content="mixed"
    )
    plain = from_arrays("toys", "Toys", "", ["it"], [("", grey, np.zeros(600))], content="grey")
    assert np.array_equal(load(plain, tmp_path)[0], grey[:, None])
    images = load(mixed, tmp_path, np.arange(601))[0]
    assert images.shape == (601, 3, 4, 4)
    assert np.array_equal(images[:600], np.repeat(grey[:, None], 3, axis=1))
    assert np.array_equal(images[600], CHANNELS_FIRST[0])


def test_photos_are_always_in_colour(tmp_path: Path) -> None:
    grey = from_arrays("toys", "Toys", "", ["it"], [("", IMAGES[..., 0], np.zeros(600))], content="grey")
    assert load(replace(grey, photos=True), tmp_path)[0].shape == (600, 3, 4, 4)


def entry_folder(cache: Path) -> Path:
    (folder,) = (path for path in (cache / "images").iterdir() if path.is_dir())
    return folder


def cut(folder: Path) -> None:
    pixels = folder / "pixels.u8"
    pixels.write_bytes(pixels.read_bytes()[:-1])


def lose(folder: Path) -> None:
    (folder / "pixels.u8").unlink()


def change(folder: Path) -> None:
    pixels = bytearray((folder / "pixels.u8").read_bytes())
    pixels[::7] = bytes(byte ^ 1 for byte in pixels[::7])
    (folder / "pixels.u8").write_bytes(pixels)


def change_test(folder: Path) -> None:
    pixels = bytearray((folder / "pixels.u8").read_bytes())
    pixels[0] ^= 1
    (folder / "pixels.u8").write_bytes(pixels)


def rewrite(folder: Path) -> None:
    entry = (folder / "entry.json").read_text()
    (folder / "entry.json").write_text(entry.replace('"short_side": 8', '"short_side": 9'))


def scribble(folder: Path) -> None:
    (folder / "entry.json").write_text('{"shape": [600, 3')


def age(folder: Path) -> None:
    fields = json.loads((folder / "entry.json").read_text())
    (folder / "entry.json").write_text(json.dumps({**fields, "format": 0}))


def rename(folder: Path) -> None:
    fields = json.loads((folder / "entry.json").read_text())
    (folder / "entry.json").write_text(json.dumps({**fields, "colour": "blue"}))


@pytest.mark.parametrize("damage", [cut, lose, change, change_test, rewrite, scribble, age, rename])
def test_a_damaged_cache_is_made_anew(tmp_path: Path, damage: object) -> None:
    load(colours(), tmp_path)
    assert callable(damage)
    damage(entry_folder(tmp_path))
    assert np.array_equal(load(colours(), tmp_path)[0], CHANNELS_FIRST)
    assert np.array_equal(load(unreadable(colours()), tmp_path)[0], CHANNELS_FIRST)


def test_a_lost_order_is_not_copied_from(tmp_path: Path) -> None:
    load(colours(), tmp_path)
    order = entry_folder(tmp_path) / "order.safetensors"
    for content in (b"", b"nothing of the kind"):
        order.write_bytes(content)
        backwards = FORWARD[::-1].copy() if content else np.roll(FORWARD, 1)
        assert np.array_equal(load(colours(), tmp_path, backwards)[0], CHANNELS_FIRST[backwards])


def test_an_unreadable_image_leaves_nothing_behind_that_would_be_used(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="image 0 of toys cannot be read"):
        load(unreadable(colours()), tmp_path)
    assert np.array_equal(load(colours(), tmp_path)[0], CHANNELS_FIRST)


def test_what_was_left_half_written_is_replaced(tmp_path: Path) -> None:
    load(colours(), tmp_path)
    folder = entry_folder(tmp_path)
    folder.rename(folder.with_name(folder.name + ".partial"))
    (folder.with_name(folder.name + ".partial") / "pixels.u8").write_bytes(bytes(IMAGES.size))
    assert np.array_equal(load(colours(), tmp_path)[0], CHANNELS_FIRST)


def test_progress_counts_images(tmp_path: Path) -> None:
    seen: list[Progress] = []
    cached_pixels(colours(), FORWARD, 0, 4, tmp_path, seen.append)
    assert [(step.stage, step.total) for step in seen] == [("images", 600)] * len(seen)
    done = [step.done for step in seen]
    assert done == sorted(done)
    assert done[-1] == 600


def test_threads_that_come_together_decode_once(tmp_path: Path) -> None:
    fetched = []
    source = colours()

    def fetch() -> Iterator[Sequence[tuple[int, Encoded]]]:
        fetched.append(1)
        yield from source.fetch()

    results: list[NDArray[np.uint8]] = []
    threads = [
        threading.Thread(target=lambda: results.append(load(replace(source, fetch=fetch), tmp_path)[0]))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 4
    assert all(np.array_equal(images, CHANNELS_FIRST) for images in results)
    assert len(fetched) == 2  # once as grey, until the first colour image, and once for good


_MEMORY = """
import re, sys
from pathlib import Path
from distill.images.datasets import load_dataset

def own_megabytes():  # the peak of what is not a mapped file
    return int(re.search(r"RssAnon:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) / 1024

before, peak = own_megabytes(), 0.0

def listener(progress):
    global peak
    peak = max(peak, own_megabytes())

data = load_dataset(f"folder:{sys.argv[1]}", root=None, cache=Path(sys.argv[2]), image_size=224, listener=listener)
first = data.train.images[:100].mean()
halves = data.choose(), data.score()
peak = max(peak, own_megabytes())
print(peak - before, data.train.images.shape[0] * 3 * 224 * 224 / 2**20)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads the memory of a process where Linux shows it")
def test_photos_take_no_memory_beside_their_cache(photo_folder: Path, tmp_path: Path) -> None:
    """800 photos of 224 pixels are 115 MB decoded; memory must not grow with their number."""
    many = tmp_path / "many"
    photo = photo_folder / "temple" / "temple01.jpg"
    for number in range(800):
        link = many / f"class{number % 4}" / f"{number}.jpg"
        link.parent.mkdir(parents=True, exist_ok=True)
        link.hardlink_to(photo)
    command = [sys.executable, "-c", _MEMORY, str(many), str(tmp_path / "cache")]
    answer = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout
    grown, cache = map(float, answer.split())
    assert cache > 85
    assert grown < 30


def test_a_photo_in_a_folder_that_changed_is_decoded_again(tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    for name in ("a", "b"):
        (folder / name).mkdir(parents=True)
        for number in range(2):
            Image.fromarray(np.full((4, 4, 3), 50, np.uint8)).save(folder / name / f"{number}.png")
    order = np.arange(4)
    assert (cached_pixels(list_folder(folder), order, 0, 4, tmp_path / "cache", ignore)[0] == 50).all()
    Image.fromarray(np.full((5, 5, 3), 90, np.uint8)).save(folder / "a" / "0.png")
    images = cached_pixels(list_folder(folder), order, 0, 4, tmp_path / "cache", ignore)[0]
    assert images[:, 0, 0, 0].tolist() == [90, 50, 50, 50]
