"""One's own photos, large, of mixed sizes, some lying on their side, one class rare: from the folder to the set."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
import torch
from PIL import Image

from distill.synthetic import SyntheticSet
from ftdnas.cli.distill import describe
from ftdnas.cli.main import run
from ftdnas.sets.making import Distilled

# The recipe for photos with less of everything.
SMALLER = [
    "--recipe=photos",
    "--ipc=8",
    "--threads=1",
    "--override=backbone=convnet:width=32,depth=3",
    "--override=experts.num_experts=2",
    "--override=experts.batch_size=16",
    "--override=matching.outer_steps=6",
    "--override=matching.syn_steps=3",
    "--override=matching.max_start_epoch=2",
    "--override=matching.expert_epochs=1",
    "--override=matching.batch_size=8",
    "--override=matching.lr_images_grid=[10, 100]",
    "--override=matching.grid_steps=2",
    "--override=matching.validate_every=3",
    "--override=evaluation.validation.epochs=3",
    "--override=evaluation.train.epochs=5",
]


def test_a_folder_of_photos_is_distilled_and_judged(photo_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["distill", "--dataset", f"folder:{photo_folder}", "--image-size", "32", *SMALLER, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    made = SyntheticSet.load(told["path"])
    assert made.image_shape == (3, 32, 32)
    assert made.class_names == ("flower", "rings", "stripes", "temple")
    assert torch.bincount(made.labels).tolist() == [8] * 4  # rings have fewer than 8 photos to start from
    assert made.target_size is not None
    assert made.target_size > 32
    assert any("lr_images" in note and "chosen on validation" in note for note in told["notes"])
    assert Path(told["sheet"]).stat().st_size > 0
    assert run(["evaluate", told["name"], "--seeds", "2", "--against", "random", "--json"]) == 0
    judged = json.loads(capsys.readouterr().out)
    assert [each["train_images"] for each in judged["evaluations"]] == [
        32,
        27,
    ]  # of the rings three are left to train on
    assert all(0.25 < each["mean"] <= 1 for each in judged["evaluations"])


def test_photos_are_64_pixels_unless_asked_otherwise(photo_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = run(["distill", "--dataset", f"folder:{photo_folder}", "--method", "random", *SMALLER])
    out = capsys.readouterr()
    assert code == 0
    assert "64 x 64 pixels (--image-size chooses another size)" in out.err + out.out


def test_a_corrupt_photo_is_named_exactly(photo_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    victim = photo_folder / "stripes" / "stripes03.jpg"
    victim.write_bytes(victim.read_bytes()[:200])
    assert run(["distill", "--dataset", f"folder:{photo_folder}", *SMALLER]) == 2
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert line.startswith(f"ftdnas: {victim} cannot be read as an image: ")
    other = photo_folder / "temple" / "notes.png"
    victim.unlink()
    Image.new("RGB", (50, 50)).save(other)
    other.write_text("not an image")
    assert run(["distill", "--dataset", f"folder:{photo_folder}", *SMALLER]) == 2
    assert str(other) in capsys.readouterr().err


def test_what_was_found_among_the_photos_is_one_line(tmp_path: Path) -> None:
    note = "9 test images drawn from 90; 8 images in 2 groups of near-duplicates, kept together"
    made = SimpleNamespace(provenance={"split_note": note}, images=[], step_size=0.1)
    result = cast(Distilled, SimpleNamespace(name="a", path=tmp_path / "a", new=False, seconds=1.0, synthetic=made))
    assert "photos    8 images in 2 groups of near-duplicates, kept together" in describe(result)
    made.provenance["split_note"] = "9 test images drawn from 90"
    assert not [line for line in describe(result) if line.startswith("photos")]
