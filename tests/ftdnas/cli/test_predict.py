"""ftdnas predict: a finished network says what photos show."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from distill.images.datasets import ImageDataset, load_dataset
from distill.recipe import TrainingRecipe
from ftdnas.cli.main import WRONG_INPUT, run
from ftdnas.finishing.predict import finished_folder, predict
from ftdnas.finishing.request import FinishRequest
from ftdnas.finishing.run import Finished, finish

SMALL = "convnet:width=32,depth=1,norm=batch,activation=relu,pooling=avg"
RECIPE = TrainingRecipe(epochs=4, lr=0.05, batch_size=16, augment="none")


def finished(folder: Path, keep_ranking: Callable[..., Path]) -> Finished:
    """A study `mine` of a folder of photos, with a network finished at 16 pixels."""
    keep_ranking("mine", {SMALL: 1.0}, "late loss of the set", title="photos")
    data = load_dataset(f"folder:{folder}", root=None, cache=folder.parent / "cache", image_size=16, validation=0.2)
    return finish(FinishRequest(study="mine", top=1, recipe=RECIPE, no_onnx=True, jobs=1), data=data)


def test_photos_are_judged_as_the_test_images_were(
    photo_folder: Path, keep_ranking: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    (photo_folder / "notes.txt").write_text("no photo, and not looked at")
    card = finished(photo_folder, keep_ranking).card
    capsys.readouterr()
    assert run(["predict", "mine", str(photo_folder), "--csv", str(photo_folder / "said.csv"), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)["predictions"]
    with (photo_folder / "said.csv").open(encoding="utf-8") as file:
        assert [row["class_name"] for row in csv.DictReader(file)] == [one["class_name"] for one in told]
    assert len(told) == 67
    said = {str(Path(one["photo"]).relative_to(photo_folder)): one for one in told}
    found = card.test.by_class
    assert found is not None
    assert found.worst or card.test.accuracy == 1.0
    for mistake in found.worst:
        one = said[mistake.photo]
        assert (one["class_name"], one["probability"]) == (mistake.said, pytest.approx(mistake.probability, abs=1e-3))
        assert mistake.photo.startswith(f"{mistake.label}/")
        assert one["second"] != one["class_name"]
        assert one["second_probability"] <= one["probability"]

    # A file that is no photo: told among others, an error by itself.
    broken = photo_folder / "temple" / "broken.jpg"
    broken.write_bytes(b"no image")
    assert run(["predict", "mine", str(photo_folder / "temple")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if "left out" in line] == [
        f"{broken}: left out, {broken} cannot be read as an image: damaged, or of a format that Pillow does not read "
        "(JPEG and PNG are the safest)"
    ]
    assert run(["predict", "mine", str(broken)]) == WRONG_INPUT
    assert "broken.jpg cannot be read as an image" in capsys.readouterr().err
    assert run(["predict", "mine", str(broken.with_name("none.jpg"))]) == WRONG_INPUT
    assert "none.jpg is not there" in capsys.readouterr().err


def test_without_a_network_it_says_how_to_make_one(
    keep_ranking: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    keep_ranking("mine", {SMALL: 1.0}, "late loss of the set")
    assert run(["predict", "mine", str(tmp_path)]) == WRONG_INPUT
    assert "study mine has no finished network yet: ftdnas finish mine" in capsys.readouterr().err
    assert run(["predict", "other", str(tmp_path)]) == WRONG_INPUT
    assert "no study 'other' was ranked" in capsys.readouterr().err


def test_a_grey_network_sees_colour_photos_and_onnx_says_the_same(digits: ImageDataset, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    folder = finish(FinishRequest(architectures=(SMALL,), recipe=RECIPE, jobs=1), data=digits).folder
    assert finished_folder(str(folder)) == folder
    pixels = digits.test.images[:20, 0]
    for number, image in enumerate(pixels):
        Image.fromarray(image).convert("RGB").save(tmp_path / f"{number:02}.png")
    by_code = predict(folder, [tmp_path])
    right = [one.class_name == str(label) for one, label in zip(by_code, digits.test.labels, strict=False)]
    assert len(right) == 20
    assert sum(right) >= 15
    (folder / "network.py").unlink()
    by_onnx = predict(folder, [tmp_path])
    assert [one.class_name for one in by_onnx] == [one.class_name for one in by_code]
    assert by_onnx[0].probability == pytest.approx(by_code[0].probability, abs=1e-4)
    (folder / "network.onnx").unlink()
    with pytest.raises(ValueError, match=r"neither a network.py nor a network.onnx"):
        predict(folder, [tmp_path])
