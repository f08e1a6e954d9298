"""Near-duplicates: which images are, and how a split keeps them together."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from distill.images.datasets import ImageDataset, load_dataset
from distill.images.duplicates import near_duplicates
from ftdnas.sets.images import Source


def scenes(count: int, side: int = 64) -> NDArray[np.uint8]:
    """(N, 3, side, side): different smooth pictures."""
    draw = np.random.default_rng(3)
    coarse = [Image.fromarray(draw.integers(0, 256, (12, 12, 3), dtype=np.uint8)) for _ in range(count)]
    return np.stack([np.asarray(one.resize((side, side), Image.Resampling.BICUBIC)) for one in coarse]).transpose(
        0, 3, 1, 2
    )


def taken_again(image: NDArray[np.uint8], number: int) -> NDArray[np.uint8]:
    """(H, W, 3): the same scene a moment later: moved by a pixel, a little darker, noisy."""
    draw = np.random.default_rng(number)
    moved = np.roll(image.transpose(1, 2, 0), int(draw.integers(0, 2)), axis=1).astype(float)
    return (0.9 * moved + draw.normal(0, 3, moved.shape)).clip(0, 255).astype(np.uint8)


def test_bursts_are_found_and_different_scenes_are_not() -> None:
    pictures = scenes(300)
    burst = np.stack([taken_again(pictures[7], number) for number in range(3)]).transpose(0, 3, 1, 2)
    flat = np.full((5, 3, 64, 64), 128, dtype=np.uint8)
    found = near_duplicates(np.concatenate([pictures, burst, flat]))
    expected = np.arange(308)
    expected[300:303] = 7
    assert found.tolist() == expected.tolist()  # flat images show nothing that could be alike
    assert near_duplicates(np.concatenate([pictures[:1]] * 3000)).tolist() == [0] * 3000
    assert near_duplicates(flat).tolist() == [0, 1, 2, 3, 4]


def written(folder: Path, bursts: bool = True, splits: tuple[str, ...] = ("",)) -> Path:
    """Two classes of 40 scenes each; with `bursts`, ten of the first are taken three times more."""
    pictures = scenes(80)
    for number, picture in enumerate(pictures):
        place = folder / splits[number % len(splits)] / ("one" if number < 40 else "two")
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture.transpose(1, 2, 0)).save(place / f"{number:02}.png")
        for again in range(3 if bursts and number < 10 else 0):
            place = folder / splits[(number + again + 1) % len(splits)] / "one"
            place.mkdir(parents=True, exist_ok=True)
            Image.fromarray(taken_again(picture, again)).save(place / f"{number:02}-{again}.png")
    return folder


def loaded(folder: Path, seed: int = 0, size: int | None = None, parted: bool = False) -> ImageDataset:
    return load_dataset(
        f"folder:{folder}",
        root=None,
        cache=folder.parent / "cache",
        validation=0.2,
        seed=seed,
        image_size=size,
        parted=parted,
    )


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_drawn_split_keeps_bursts_together_at_every_size(tmp_path: Path, seed: int) -> None:
    folder = written(tmp_path / "photos")
    data = loaded(folder, seed)
    assert data.split_note.endswith("40 images in 10 groups of near-duplicates, kept together")
    parts = [data.train.images, data.choose().images, data.score().images, data.test.images]
    groups = near_duplicates(np.concatenate(parts))
    part_of = np.repeat(np.arange(4), [len(part) for part in parts])
    assert all(len(set(part_of[groups == group])) == 1 for group in groups)
    for held, share in ((data.test, 0.1), (data.validation, 0.2 * 0.9)):
        assert len(held) == pytest.approx(share * 110, abs=4)
    larger = loaded(folder, seed, 96)
    assert larger.test_files == data.test_files
    assert larger.train.labels.tolist() == data.train.labels.tolist()
    parted = loaded(folder, seed, parted=True)
    assert "look better than they are" in parted.split_note


def test_without_any_the_split_is_what_it_was(tmp_path: Path) -> None:
    folder = written(tmp_path / "photos", bursts=False)
    data = loaded(folder)
    assert data.split_note.endswith("no near-duplicates were found")
    assert data.fingerprint == loaded(folder, parted=True).fingerprint
    files = hashlib.sha256("\n".join(data.test_files).encode()).hexdigest()
    assert files[:12] == "4d41652cab11"  # as drawn before there was such a search


def test_a_given_split_stays_and_what_crosses_it_is_told(tmp_path: Path) -> None:
    data = loaded(written(tmp_path / "photos", splits=("train", "validation", "test")))
    assert "40 images in 10 groups of near-duplicates: " in data.split_note
    assert "test images and" in data.split_note
    assert "look better than they are" in data.split_note
    assert data.test_files[0].startswith("test/")


def test_small_images_are_not_compared(digits: ImageDataset) -> None:
    assert "duplicates" not in digits.split_note


def test_what_was_split_by_an_earlier_version_is_found_again(tmp_path: Path) -> None:
    source = Source(f"folder:{written(tmp_path / 'photos')}")
    now, before = source.load(), Source(source.spec, parted=True).load()
    assert now.fingerprint != before.fingerprint
    known, data = source.known_by(before.fingerprint)
    assert data.fingerprint == before.fingerprint
    assert Source.from_json(known.to_json()) == known
    assert source.known_by(now.fingerprint)[0] == source
    assert "parted" not in source.to_json()


def test_a_small_class_that_an_earlier_version_split_is_found_again_and_can_be_scored(tmp_path: Path) -> None:
    for number in range(16):
        noise = np.random.default_rng(number).integers(0, 256, (8, 8, 3), dtype=np.uint8)
        (tmp_path / f"photos/{number % 2}").mkdir(parents=True, exist_ok=True)
        Image.fromarray(noise).save(tmp_path / f"photos/{number % 2}/{number}.png")
    source = Source(f"folder:{tmp_path / 'photos'}")
    before = Source(source.spec, lone=True).load()
    assert np.bincount(before.validation.labels).tolist() == [1, 1]
    known, data = source.known_by(before.fingerprint)
    assert data.fingerprint == before.fingerprint != source.load().fingerprint
    assert Source.from_json(known.to_json()) == known
    assert np.bincount(data.score().labels).tolist() == [1, 1]
    assert "lone" not in source.to_json()
