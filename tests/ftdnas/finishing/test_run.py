"""Finalists trained for real, and the files that stand alone."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from distill.files import Damaged
from distill.images.datasets import ImageDataset
from distill.recipe import TrainingRecipe
from distill.run import Progress
from ftdnas.agreement.fractions import wilson
from ftdnas.candidates.training import Score, Training
from ftdnas.candidates.truth import truth_materials, truth_rows
from ftdnas.finishing.card import Card
from ftdnas.finishing.predict import predict
from ftdnas.finishing.pretrained import recognise
from ftdnas.finishing.request import FinishRequest
from ftdnas.finishing.run import Finished, finish
from ftdnas.runtime.home import home
from ftdnas.runtime.processes import Failure
from ftdnas.runtime.records import from_json

SMALL = "convnet:width=32,depth=1,norm=batch,activation=relu,pooling=avg"
OTHER = "convnet:width=32,depth=2,norm=instance,activation=relu,pooling=avg"
TOO_DEEP = "convnet:width=32,depth=4,norm=instance,activation=relu,pooling=avg"
RECIPE = TrainingRecipe(epochs=2, lr=0.05, batch_size=64, augment="none")


@pytest.fixture(scope="module")
def few(digits: ImageDataset) -> ImageDataset:
    """300 digits to train on: a second or less."""
    return replace(digits, train=digits.train.take(np.arange(300)), fingerprint="f" * 64)


def done(request: FinishRequest, data: ImageDataset) -> tuple[Finished, list[str]]:
    """What came of it, and what was said."""
    said: list[str] = []

    def hear(progress: Progress) -> None:
        said.append(progress.message)

    return finish(request, hear, data), [message for message in said if message]


def accuracy_of(folder: Path, images: np.ndarray[Any, Any], labels: np.ndarray[Any, Any]) -> float:
    """By the plain code and the weights alone, from pixels."""
    space: dict[str, Any] = {}
    exec((folder / "network.py").read_text(encoding="utf-8"), space)
    network: nn.Module = space["load_network"](folder / "weights.safetensors")
    with torch.no_grad():
        scores: Tensor = network(space["prepare"](torch.from_numpy(images.copy()) / 255))
    return float((scores.argmax(1) == torch.from_numpy(labels.copy())).double().mean())


def test_from_the_trainings_to_files_that_stand_alone_and_nothing_twice(few: ImageDataset) -> None:
    finished, _ = done(FinishRequest(architectures=(SMALL, TOO_DEEP, SMALL), recipe=RECIPE, jobs=1), few)
    card = json.loads((finished.folder / "card.json").read_text())
    assert from_json(Card, card) == finished.card
    assert finished.card.architecture == SMALL
    assert [one["architecture"] for one in card["left_out"]] == [TOO_DEEP]
    assert "4 times 2x2 pooling" in card["left_out"][0]["reason"]
    score = few.score()
    assert accuracy_of(finished.folder, score.images, score.labels) == pytest.approx(card["validation"]["accuracy"])
    assert accuracy_of(finished.folder, few.test.images, few.test.labels) == pytest.approx(card["test"]["accuracy"])
    assert (card["validation"]["images"], card["test"]["images"]) == (len(score), len(few.test))
    assert {path.name for path in finished.folder.iterdir()} == {*card["files"], "card.json", "card.md", "lock"}
    assert onnx_agrees(finished.folder, few)
    text = (finished.folder / "card.md").read_text(encoding="utf-8")
    for fact in (str(finished.card.test), "read once", TOO_DEEP, "Recipe custom: 2 epochs", "## What was not done"):
        assert fact in text
    again, said = done(FinishRequest(architectures=(TOO_DEEP, SMALL), recipe=RECIPE, jobs=1), few)
    assert again == finished
    assert said == ["finished before: nothing is left to do"]

    # Code is for people to edit: it is run as it is, and stays.
    code = finished.folder / "network.py"
    edited = code.read_text(encoding="utf-8") + "# my note\n"
    code.write_text(edited, encoding="utf-8")
    assert predict(finished.folder, []) == []
    again, said = done(FinishRequest(architectures=(TOO_DEEP, SMALL), recipe=RECIPE, jobs=1), few)
    assert (again, code.read_text(encoding="utf-8")) == (finished, edited)

    # What is not read for it keeps nobody from predicting.
    if (onnx := finished.folder / "network.onnx").exists():
        written = onnx.read_bytes()
        onnx.write_bytes(written[:-1])
        assert predict(finished.folder, []) == []
        onnx.write_bytes(written)

    # A delivered file that is not as it was written is made again, of the weights that were kept.
    turn_signs(finished.folder / "weights.safetensors")
    with pytest.raises(Damaged, match="repeat the command that made it"):
        predict(finished.folder, [])
    again, said = done(FinishRequest(architectures=(TOO_DEEP, SMALL), recipe=RECIPE, jobs=1), few)
    assert (again.card.test, again.card.digests) == (finished.card.test, finished.card.digests)
    assert (finished.folder / "network.before.py").read_text(encoding="utf-8") == edited
    assert not any("trainings to do" in message for message in said)

    # Another finalist beside it: only that one is trained, and only a network that was not read meets the test images.
    request = FinishRequest(architectures=(SMALL, OTHER), recipe=RECIPE, no_onnx=True, jobs=1)
    more, said = done(request, few)
    assert any(re.match("1 trainings to do, .*; 1 done before", message) for message in said)
    rows = {row["architecture"]: Score.from_row(row) for row in truth_rows(few.fingerprint).read().values()}
    assert set(rows) == {SMALL, OTHER}  # real trainings are everybody's
    assert all(row.recipe == RECIPE and row.seed == 0 for row in rows.values())
    scores = {finalist.architecture: finalist.validation_accuracy or 0.0 for finalist in more.card.finalists}
    assert {name: row.score for name, row in rows.items()} == scores
    assert more.card.architecture == max(scores, key=lambda name: scores[name])
    assert len((home() / "finish" / "test_readings.jsonl").read_text().splitlines()) == len(
        {SMALL, more.card.architecture}
    )
    assert ("read for 2 networks" in more.card.test_note) is (more.card.architecture != SMALL)
    assert any("it was not asked for" in what for what in more.card.not_done)

    # The rows are known, the weights are damaged: only the chosen one is trained again, and ends as it did.
    for path in (home() / "finish" / "weights").iterdir():
        turn_signs(path)
    (more.folder / "card.json").unlink()
    again, said = done(request, few)
    assert f"{more.card.architecture} was trained before and its weights are not there: once more" in said
    assert len(list((home() / "finish" / "weights").glob("*.damaged"))) == 1
    assert (again.card.test, again.card.validation) == (more.card.test, more.card.validation)
    assert "reading the test images, once" not in said  # equal weights were read before


def turn_signs(weights: Path) -> None:
    content = bytearray(weights.read_bytes())
    content[-1:-80:-4] = bytes(byte ^ 0x80 for byte in content[-1:-80:-4])
    weights.write_bytes(content)


def onnx_agrees(folder: Path, data: ImageDataset) -> bool:
    try:
        import onnxruntime
    except ImportError:
        return not (folder / "network.onnx").exists()
    space: dict[str, Any] = {}
    exec((folder / "network.py").read_text(encoding="utf-8"), space)
    images = space["prepare"](torch.from_numpy(data.test.images[:9].copy()) / 255)
    session = onnxruntime.InferenceSession(folder / "network.onnx", providers=["CPUExecutionProvider"])
    (scores,) = session.run(None, {"images": images.numpy()})
    with torch.no_grad():
        expected = space["load_network"](folder / "weights.safetensors")(images)
    torch.testing.assert_close(torch.from_numpy(scores), expected, atol=1e-4, rtol=1e-4)
    return True


def weights_of(name: str, path: Path) -> Path:
    from torchvision.models import get_model

    torch.manual_seed(0)
    state = get_model(name, weights=None).state_dict()
    if path.suffix == ".safetensors":
        save_file(state, path)
    else:
        torch.save(state, path)
    return path


def test_a_pretrained_network_competes_and_is_kept_where_it_is_better(few: ImageDataset, tmp_path: Path) -> None:
    file = weights_of("resnet18", tmp_path / "weights.pth")
    hopeless = replace(RECIPE, lr=1e-6, batch_size=16)
    request = FinishRequest(
        architectures=(SMALL,),
        recipe=hopeless,
        pretrained_weights=file,
        pretrained_size=16,
        pretrained_lr=0.02,
        no_onnx=True,
        jobs=1,
    )
    finished, _ = done(request, few)
    rival = finished.card.pretrained
    assert rival is not None
    assert rival.validation is not None
    assert rival.test is not None
    assert (rival.network, rival.pixels, rival.lr, rival.error) == ("resnet18", 16, 0.02, None)
    assert rival.chosen is (rival.validation.accuracy > finished.card.validation.accuracy) is True
    assert finished.card.architecture == SMALL  # whose files are there all the same
    folder = finished.folder / rival.folder
    space: dict[str, Any] = {}
    exec((folder / "network.py").read_text(encoding="utf-8"), space)
    with torch.no_grad():
        pixels = torch.from_numpy(few.test.images.copy()) / 255
        scores = space["load_network"](folder / "weights.safetensors")(pixels)
    reached = float((scores.argmax(1) == torch.from_numpy(few.test.labels.copy())).double().mean())
    assert reached == pytest.approx(rival.test.accuracy, abs=0.01)
    assert "It is better than the searched network" in (finished.folder / "card.md").read_text()


def test_weights_are_recognised_and_others_refused_in_one_line(few: ImageDataset, tmp_path: Path) -> None:
    known = recognise(weights_of("mobilenet_v3_small", tmp_path / "weights.safetensors"))
    assert known.network == "mobilenet_v3_small"
    foreign = tmp_path / "foreign.pth"
    torch.save({"fc.weight": torch.zeros(3, 3)}, foreign)
    (tmp_path / "text.pth").write_text("no tensors")
    torch.save([1, 2], tmp_path / "list.pth")
    for name, message in (
        ("foreign.pth", "is not the state_dict of a network known here .*resnet18"),
        ("text.pth", "not plain tensors"),
        ("list.pth", "not a state_dict"),
    ):
        with pytest.raises(ValueError, match=message) as caught:
            done(FinishRequest(architectures=(SMALL,), recipe=RECIPE, pretrained_weights=tmp_path / name), few)
        assert "\n" not in str(caught.value)
    with pytest.raises(FileNotFoundError, match="no file"):
        done(FinishRequest(architectures=(SMALL,), recipe=RECIPE, pretrained_weights=tmp_path / "none.pth"), few)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"architectures": ()}, "what shall be finished"),
        ({"architectures": (TOO_DEEP,)}, "no finalist can carry 1 x 8 x 8 images: convnet:.*pooling"),
        ({"architectures": ("convet:width=3",)}, "did you mean convnet"),
        ({"recipe": replace(RECIPE, lr=None)}, "learning rate"),
        ({"recipe": replace(RECIPE, batch_norm="batch")}, "statistics of its own"),
    ],
)
def test_what_cannot_be_finished_is_said(few: ImageDataset, change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        finish(replace(FinishRequest(architectures=(SMALL,), recipe=RECIPE), **change), data=few)
    assert not (home() / "finish").exists()


def test_without_test_or_validation_images_it_says_so(few: ImageDataset) -> None:
    nothing, request = np.arange(0), FinishRequest(architectures=(SMALL,), recipe=RECIPE)
    with pytest.raises(ValueError, match="no test images"):
        finish(request, data=replace(few, test=few.test.take(nothing)))
    with pytest.raises(ValueError, match="without validation images"):
        finish(request, data=replace(few, validation=few.validation.take(nothing)))


def test_where_all_finalists_fail_each_is_named_with_its_reason(few: ImageDataset) -> None:
    images, held_out = truth_materials(few)
    training = Training(OTHER, images.label, held_out.label, RECIPE, 0)
    pool = truth_rows(few.fingerprint)
    pool.append(training.failed(Failure("the training loss was not finite")))
    with pytest.raises(ValueError, match=f"no finalist could be trained: {OTHER}: the training loss was not finite"):
        finish(FinishRequest(architectures=(OTHER,), recipe=RECIPE, jobs=1), data=few)


def test_the_interval_of_a_fraction_is_wilsons() -> None:
    """Against statsmodels' proportion_confint(method="wilson") for 45 of 50 and 0 of 20."""
    assert wilson(0.9, 50) == pytest.approx((0.78640, 0.95652), abs=2e-5)
    assert wilson(0.0, 20) == pytest.approx((0.0, 0.16113), abs=2e-5)
