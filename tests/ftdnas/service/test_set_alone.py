"""A server that never sees the images: a set goes there, a ranking comes back, the winner is trained at home."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from distill.synthetic import SyntheticSet
from ftdnas.cli.main import run
from ftdnas.ranking.study import ranked_study
from ftdnas.runtime.home import home
from ftdnas.service.client import Client, ServerError
from ftdnas.service.fetch import fetch_study
from ftdnas.sets.images import ALONE, Source
from ftdnas.sets.library import Library

SEARCH = ("--space=convnet", "--where=width=32", "--where=depth=1", "--candidates=2", "--epochs=20", "--study=far")


def test_a_set_is_searched_where_nobody_has_its_images_and_finished_at_home(
    start: Callable[..., Any],
    set_of: Callable[..., SyntheticSet],
    photo_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("FTDNAS_DATA", str(tmp_path / "nowhere"))
    far = home()
    token = tmp_path / "token"
    token.write_text("a-token-of-the-test-alone\n")
    program = start("serve", "--port=0", f"--token-file={token}")
    address = program.url
    monkeypatch.setenv("FTDNAS_HOME", str(tmp_path / "home"))
    source = Source(f"folder:{photo_folder}", image_size=8, validation=0.3)
    data = source.load()
    provenance = {"data": source.to_json(), "data_fingerprint": data.fingerprint, "dataset": data.name}
    Library().add(set_of(data, ipc=1, provenance=provenance), "mine")
    held = [f"--token-file={token}"]
    assert run(["sets", "push", "mine", address, "--yes"]) == 2  # no token
    assert run([*held, "sets", "push", "mine", address, "--yes"]) == 0
    said = capsys.readouterr()
    assert f"warning: it says where its images are: folder:{photo_folder}" in said.err
    assert run([*held, "--server", address, "search", "--set=mine", *SEARCH]) == 0
    assert "the images behind the set mine are not here" in capsys.readouterr().err
    assert not (far / "cache").exists()  # no image was ever decoded there
    stored = json.loads((far / "studies" / "far" / "ranking.json").read_text())
    assert stored["settings"]["data"] == ALONE
    assert str(photo_folder) not in json.dumps(stored)

    finish = [*held, "finish", "far", "--from", address, "--top=1", "--epochs=1", "--image-size=8", "--no-onnx"]
    assert run(finish) == 0
    told = capsys.readouterr().out
    assert "place 1 by proxy" in told
    study, ranking = ranked_study("far")
    assert ranking.best(2) == [one["architecture"] for one in stored["candidates"]]
    assert ranking.settings["source"] == source.to_json()  # known here alone
    (card,) = study.path.glob("finish/*/card.json")
    assert json.loads(card.read_text())["data"]["fingerprint"] == data.fingerprint
    assert run(finish) == 0  # goes on, and finds it done
    with Client(address, token.read_text().strip()) as client, pytest.raises(ServerError, match="no study 'near'"):
        fetch_study(client, "near")
    with Client(address) as client, pytest.raises(ServerError, match="token"):
        fetch_study(client, "far")


def test_a_ranking_that_names_code_or_takes_a_name_is_not_brought_home(
    keep_ranking: Callable[..., Path], tmp_path: Path
) -> None:
    class Answers(Client):
        told: Any = None

        def ranking(self, study: str) -> dict[str, Any]:  # noqa: ARG002
            return self.told

    client = Answers("http://127.0.0.1:1")
    name = "convnet:width=32,depth=1,norm=instance,activation=relu,pooling=avg"
    good = json.loads((keep_ranking("good", {name: 1.0}, "") / "ranking.json").read_text())
    (tmp_path / "evil.py").write_text("raise SystemExit('it ran')")
    for architecture in (f"{tmp_path}/evil.py:build:{{}}", 7, ""):
        client.told = {**good, "candidates": [{**good["candidates"][0], "architecture": architecture}]}
        with pytest.raises(ServerError, match="cannot be used here"):
            fetch_study(client, "evil")
    damaged: list[Any] = [{}, {"candidates": 3}, [], {**good, "plan": None}]
    for wrong in damaged:
        client.told = wrong
        with pytest.raises(ServerError, match="cannot be used here"):
            fetch_study(client, "evil")
    client.told = good
    assert fetch_study(client, "evil").best(1) == [name]
    (home() / "studies" / "good" / "study.json").write_text('{"settings": {}}')
    with pytest.raises(ValueError, match="there is a study good here that is not from"):
        fetch_study(client, "good")
    with pytest.raises(ValueError, match="name"):
        fetch_study(client, "../evil")
