"""Latency, measured here or read from a table."""

from __future__ import annotations

import csv
import time
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from ftdnas.candidates.latency import (
    export_candidates,
    measure_latency,
    network_latency,
    read_latency_table,
    write_latency_table,
)
from search_spaces.base import SPACES, parse_architecture

SMALL = "convnet:width=32,depth=1,norm=instance,activation=relu,pooling=avg"
LARGE = "convnet:width=256,depth=4,norm=instance,activation=relu,pooling=avg"


class Sleeping(nn.Module):
    """Takes a known time, the first two times a longer one."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.seconds, self.calls, self.threads = seconds, 0, 0

    def forward(self, images: Tensor) -> Tensor:
        assert not self.training
        self.calls += 1
        self.threads = torch.get_num_threads()
        time.sleep(self.seconds * (5 if self.calls <= 2 else 1))
        return images


def test_it_is_the_median_after_a_warm_up_on_one_thread() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        network = Sleeping(0.02)
        assert network_latency(network, (1, 2, 2)) == pytest.approx(20, abs=5)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    assert network.threads == 1
    assert 9 <= network.calls <= 30


def test_a_larger_network_takes_longer_and_the_random_state_is_left_alone() -> None:
    state = torch.get_rng_state()
    small, large = (measure_latency(parse_architecture(name), (3, 32, 32), 10) for name in (SMALL, LARGE))
    assert 0 < small < large
    assert measure_latency(parse_architecture(SMALL), (3, 32, 32), 10) == small  # measured once
    assert torch.equal(torch.get_rng_state(), state)
    with pytest.raises(ValueError, match="cannot carry"):
        measure_latency(parse_architecture(LARGE), (3, 8, 8), 10)


def table(folder: Path, *rows: str, head: str = "architecture,latency_ms") -> Path:
    path = folder / "table.csv"
    path.write_text("\n".join([head, *rows]) + "\n", encoding="utf-8")
    return path


def test_a_table_gives_milliseconds_by_canonical_name(tmp_path: Path) -> None:
    path = table(tmp_path, '"convnet:depth=1,width=32",1.5', f'"{LARGE}", 20', head="﻿architecture,latency_ms")
    assert read_latency_table(path, SPACES["convnet"]) == {SMALL: 1.5, LARGE: 20.0}


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([f'"{SMALL}",1', '"convnet:width=32,depth=1",2'], "line 3: convnet:width=32.* stands in line 2 already"),
        ([f'"{SMALL}",'], "line 2: convnet.* has no latency"),
        ([f'"{SMALL}"'], "line 2: convnet.* has no latency"),
        ([f'"{SMALL}",-1'], "has the latency -1: milliseconds are above 0"),
        ([f'"{SMALL}",nan'], "has the latency nan"),
        ([f'"{SMALL}",fast'], "'fast', which is no number"),
        (["convet:width=32,1"], "line 2: unknown architecture .* did you mean convnet"),
        (["macro:00000000,1"], "line 2: macro:00000000 is of the space macro, not convnet"),
        ([], "has no rows"),
    ],
)
def test_what_is_wrong_with_a_table_is_named_by_its_line(tmp_path: Path, rows: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        read_latency_table(table(tmp_path, *rows), SPACES["convnet"])
    assert "\n" not in str(caught.value)


def test_other_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="there is no latency table"):
        read_latency_table(tmp_path / "none.csv")
    with pytest.raises(ValueError, match="no column latency_ms"):
        read_latency_table(table(tmp_path, head="architecture,ms"))
    (tmp_path / "photo.csv").write_bytes(b"\xff\xd8\xff\x00")
    with pytest.raises(ValueError, match="not a CSV file"):
        read_latency_table(tmp_path / "photo.csv")


def test_candidates_are_exported_with_a_table_to_fill(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx", reason="needs the extra ftdnas[onnx]")
    folder = tmp_path / "onnx"
    path = export_candidates(SPACES["convnet"], (1, 8, 8), 10, folder, 2)
    with path.open() as file:
        rows = list(csv.DictReader(file))
    assert sorted(one.name for one in folder.iterdir()) == ["0001.onnx", "0002.onnx", "latency.csv"]
    onnx.checker.check_model(onnx.load(folder / rows[0]["file"]))
    with pytest.raises(ValueError, match="has no latency: measure it on the device"):
        read_latency_table(path)
    filled = [f'"{row["architecture"]}",{number + 1}' for number, row in enumerate(rows)]
    path.write_text("\n".join(["architecture,latency_ms", *filled]))
    before = (folder / "0001.onnx").stat().st_mtime_ns
    export_candidates(SPACES["convnet"], (1, 8, 8), 10, folder, 2)  # again: nothing measured is lost
    assert list(read_latency_table(path).values()) == [1.0, 2.0]
    assert (folder / "0001.onnx").stat().st_mtime_ns == before
    with pytest.raises(ValueError, match="lists other candidates"):
        export_candidates(SPACES["convnet"], (1, 8, 8), 10, folder, 3)


def test_names_of_any_kind_survive_a_table(tmp_path: Path) -> None:
    cell = SPACES["nasbench201"].architectures()[7].name
    write_latency_table(tmp_path / "t.csv", {cell: "0001.onnx"})
    text = (tmp_path / "t.csv").read_text()
    (tmp_path / "t.csv").write_text(text.replace(",,", ",2.5,"))
    assert read_latency_table(tmp_path / "t.csv") == {cell: 2.5}
