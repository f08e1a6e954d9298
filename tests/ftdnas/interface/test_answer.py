"""A search that goes the whole way: from images and a time to a trained network."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

import ftdnas
from distill.run import Progress
from ftdnas.cli.answer import WIDTH, describe
from ftdnas.finishing import contest, pretrained, transfer
from ftdnas.finishing.winner import Answer
from ftdnas.interface import answer as whole
from ftdnas.interface import teacher
from ftdnas.interface.answer import answer
from ftdnas.interface.ledger import Ledger
from ftdnas.ranking.request import SearchRequest
from ftdnas.runtime.home import studies_folder

ASKED = SearchRequest(dataset="digits", budget="10m", study="whole", jobs=1, threads=1)


@pytest.fixture(autouse=True)
def short_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few candidates and epochs: the time is not used up, however slow the machine."""
    monkeypatch.setattr(whole, "FREE", (12, 12))
    monkeypatch.setattr(whole, "SHORT", 0.5)
    monkeypatch.setattr(whole, "SHARES", {**whole.SHARES, "short trainings": 0.001})
    monkeypatch.setattr(contest, "RECIPE", replace(contest.RECIPE, epochs=3))


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """No pretrained weights."""
    monkeypatch.setattr(whole, "reachable", lambda: None)


def rows() -> list[str]:
    return [json.loads(line)["key"] for line in (studies_folder() / "whole/answer/rows.jsonl").read_text().splitlines()]


def said(heard: list[Progress]) -> str:
    return "\n".join(progress.message for progress in heard)


def short_enough(found: Answer) -> None:
    lines = describe(found)
    assert len(lines) <= 20
    assert max(len(line) for line in lines if str(found.folder) not in line) <= WIDTH


@pytest.mark.usefixtures("alone")
def test_interrupted_and_given_again_it_ends_with_what_it_had() -> None:
    heard: list[Progress] = []

    def interrupting(progress: Progress) -> None:
        heard.append(progress)
        if progress.stage == "finalists" and progress.done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        answer(ASKED, interrupting)
    assert "best so far: nothing was trained yet" in said(heard)
    assert "no pretrained weights on this machine" in said(heard)
    before = rows()
    heard.clear()
    found = answer(ASKED, heard.append)
    assert "of it left" in said(heard)
    after = rows()
    assert after[: len(before)] == before
    assert len(after) == len(set(after))
    assert found.card.architecture == found.entries[0].architecture
    drawn = json.loads((studies_folder() / "whole/answer/answer.json").read_text())["stages"]["drawn"]["chosen"][
        "names"
    ]
    assert len(drawn) == found.scored == 12
    assert all(name.startswith("convnet:") and "norm=batch" in name for name in drawn)
    assert len(set(found.defaults) & {entry.architecture for entry in found.entries}) == 2
    assert found.card.test.images == 364
    assert found.card.test.accuracy > 0.5
    assert {"weights.safetensors", "card.json", "card.md"} <= {path.name for path in found.folder.iterdir()}
    assert "pip install 'ftdnas[pretrained]'" in " ".join(" ".join(describe(found)).split())
    short_enough(found)
    again = ftdnas.answer("digits", "10m", study="whole", jobs=1, threads=1)
    assert rows() == after
    assert again.card == found.card
    with pytest.raises(ValueError, match="was begun with another request"):
        answer(replace(ASKED, seed=1))


def test_the_pretrained_network_is_beside_it_and_teaches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(teacher, "SIDES", (32,))
    monkeypatch.setattr(transfer, "STRENGTHS", (0.01,))
    heard: list[Progress] = []
    found = answer(ASKED, heard.append)
    rival = found.card.pretrained
    assert rival is not None
    assert rival.network == "efficientnet_lite0"
    assert rival.test is not None
    assert rival.test.accuracy > 0.3
    assert (found.folder / "pretrained" / "weights.safetensors").exists() == rival.chosen
    assert any(entry.taught for entry in found.entries)
    short_enough(found)


def test_no_time_is_told(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "answer.json", 10.0, {"request": "a"})
    ledger._before = 11.0
    ledger.keep()
    assert Ledger(tmp_path / "answer.json", 10.0, {"request": "a"}).left_s < 0
    later = Ledger(tmp_path / "answer.json", 20.0, {"request": "a"})
    assert 8 < later.left_s < 9
    assert later.resumed


def test_what_a_stage_chose_stays(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "answer.json", 10.0, {})
    assert ledger.chosen("a", lambda: {"seconds": 1.5}) == {"seconds": 1.5}
    assert ledger.known("a") is None
    again = Ledger(tmp_path / "answer.json", 10.0, {})
    assert again.chosen("a", lambda: {"seconds": 2.5}) == {"seconds": 1.5}
    assert again.found("a", lambda: {"best": "x"}) == {"best": "x"}
    assert again.known("a") == {"best": "x"}


@pytest.mark.parametrize(
    ("asked", "whole_way"),
    [
        ({}, True),
        ({"set": "demo"}, False),
        ({"proxy": "params"}, False),
        ({"candidates": 8}, False),
        ({"budget": None}, False),
        ({"dataset": None}, False),
    ],
)
def test_only_images_and_a_time_go_the_whole_way(asked: dict[str, object], whole_way: bool) -> None:
    request = SearchRequest(**{"dataset": "digits", "budget": "1h", **asked})  # type: ignore[arg-type]
    assert request.whole == whole_way
    assert request.space == ("" if whole_way else "convnet")


def test_weights_are_found_without_running_a_package() -> None:
    found = pretrained.reachable()
    assert found is not None
    assert found.network == "efficientnet_lite0"
    assert found.digest.startswith("57934424")
