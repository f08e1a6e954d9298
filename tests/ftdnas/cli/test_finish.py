"""ftdnas finish: from a study of small photos to a network for large ones; killed, it goes on."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ftdnas.cli.main import WRONG_INPUT, run

TINY = "residual:width=16,depth1=1,depth2=1,depth3=1,stem=quarter,block=basic,kernel=3"
FINALISTS = ["convnet:width=32,depth=1", "convnet:width=32,depth=2"]


def test_a_study_of_64_pixels_is_finished_at_224(
    photo_folder: Path, keep_ranking: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    source = {
        "spec": f"folder:{photo_folder}",
        "image_size": 64,
        "validation": 0.2,
        "split_file": None,
        "split_seed": 0,
    }
    scores = dict.fromkeys([TINY, "macro:00000000", "macro:11111111"], 1.0)
    folder = keep_ranking("photos", scores, "late loss of the set", source=source, title="photos")
    options = ["--top", "1", "--epochs", "1", "--lr", "0.05", "--no-onnx", "--jobs", "1", "--json"]
    assert run(["finish", "photos", *options]) == 0
    card = json.loads(capsys.readouterr().out)
    assert card["image_shape"] == [3, 224, 224]
    assert card["architecture"] == TINY
    assert card["standing"] == {"study": "photos", "proxy": "late loss of the set", "ranked": 3, "ranks": {TINY: 1}}
    assert card["recipe"]["epochs"] == 1
    assert card["recipe"]["name"] == "photos"
    assert card["class_names"] == ["flower", "rings", "stripes", "temple"]
    assert Path(card["folder"]).parent == folder / "finish"
    assert "Study photos ranked 3 candidates by late loss of the set; there it stood in place 1." in (
        Path(card["folder"]) / "card.md"
    ).read_text(encoding="utf-8")


def test_killed_it_goes_on_with_the_finalists_that_are_missing(
    tmp_path: Path, begin: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FTDNAS_HOME", str(tmp_path))
    named = [part for one in FINALISTS for part in ("--architecture", one)]
    command = ["finish", "--dataset", "digits", "--epochs", "2", "--jobs", "1", *named, "--no-onnx", "--threads", "1"]
    apart = begin(*command)
    while not rows(tmp_path) and apart.process.is_alive():
        time.sleep(0.01)
    assert apart.send(signal.SIGKILL) == -signal.SIGKILL
    first = rows(tmp_path)[0]
    weights = next((tmp_path / "finish" / "weights").glob("[!.]*"))
    before = weights.stat().st_mtime_ns
    assert run([*command, "--json"]) == 0
    card = json.loads(capsys.readouterr().out)
    assert len(card["finalists"]) == 2
    assert rows(tmp_path)[0] == first
    assert len(rows(tmp_path)) == len({row["key"] for row in rows(tmp_path)}) == 2
    assert weights.stat().st_mtime_ns == before
    assert not list(tmp_path.glob("finish/*/materials"))


def rows(folder: Path) -> list[dict[str, object]]:
    """Whole lines only."""
    lines = [line for file in folder.glob("truth/*.jsonl") for line in file.read_text().splitlines(keepends=True)]
    return [json.loads(line) for line in lines if line.endswith("\n")]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "what shall be finished? ftdnas finish STUDY, or --architecture ARCH --dataset NAME"),
        (["none"], "no study 'none' was ranked: ftdnas search makes one"),
        (["--architecture", FINALISTS[0]], "which images? --dataset NAME"),
        (["--architecture", "convet", "--dataset", "digits"], "did you mean convnet"),
        (
            ["--architecture", "macro:00000000", "--dataset", "digits", "--image-size", "6"],
            "no finalist can carry 1 x 6 x 6",
        ),
        (
            ["--architecture", FINALISTS[0], "--dataset", "digits", "--pretrained-weights", "none.pth"],
            "no file none.pth",
        ),
    ],
)
def test_wrong_input_is_one_line(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["finish", *words]) == WRONG_INPUT
    said = capsys.readouterr().err.splitlines()
    assert message in said[-1]
    assert said[-1].startswith("ftdnas: ")
