"""Real digits as a small synthetic set, and a real PostgreSQL server, for every test that needs one."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from distill.images.datasets import ImageDataset
from distill.images.preprocess import fit_preprocess
from distill.synthetic import SyntheticSet
from ftdnas.ranking.plan import Plan
from ftdnas.ranking.study import study_folder
from ftdnas.ranking.table import Ranked, Ranking

MakeSet = Callable[..., SyntheticSet]
SetOf = Callable[..., SyntheticSet]


@pytest.fixture(scope="session")
def make_set() -> MakeSet:
    """make_set(classes=3, ipc=2, channels=1, kind="standardize", soft=False, **fields): real digits, 8 x 8 pixels."""
    digits = load_digits()
    grey = (digits.images * 255 / 16).astype(np.uint8)[:, None]

    def make(
        classes: int = 3, ipc: int = 2, channels: int = 1, kind: str = "standardize", soft: bool = False, **fields: Any
    ) -> SyntheticSet:
        rows = np.concatenate([np.flatnonzero(digits.target == label % 10)[:ipc] for label in range(classes)])
        # Channels that differ, so that a wrong order of colours would show.
        pixels = np.concatenate([grey[rows] // (channel + 1) for channel in range(channels)], axis=1)
        preprocess = fit_preprocess(kind, pixels)
        hard = torch.arange(classes).repeat_interleave(ipc)
        given: dict[str, Any] = {
            "images": preprocess.apply(pixels),
            "labels": torch.nn.functional.one_hot(hard, classes) * 0.9 + 0.1 / classes if soft else hard,
            "step_size": 0.02,
            "preprocess": preprocess,
            "augment": "color_crop",
            "backbone": "convnet:width=32,depth=2",
            "class_names": tuple(f"digit {label}" for label in range(classes)),
            "ipc": ipc,
            "provenance": {"dataset": "digits", "method": "ftd", "recipe": {"name": "quick"}, "seed": 0},
        }
        return SyntheticSet(**(given | fields))

    return make


@pytest.fixture(scope="session")
def set_of() -> SetOf:
    """set_of(data, ipc=3, **fields): the first training images of every class, as a set of those very images."""

    def make(data: ImageDataset, ipc: int = 3, **fields: Any) -> SyntheticSet:
        preprocess = fit_preprocess("standardize", data.train.images)
        rows = np.concatenate([np.flatnonzero(data.train.labels == label)[:ipc] for label in range(data.num_classes)])
        given: dict[str, Any] = {
            "images": preprocess.apply(data.train.images[rows]),
            "labels": torch.arange(data.num_classes).repeat_interleave(ipc),
            "step_size": 0.02,
            "preprocess": preprocess,
            "augment": "none",
            "backbone": "convnet:width=32,depth=1",
            "class_names": data.class_names,
            "ipc": ipc,
        }
        return SyntheticSet(**(given | fields))

    return make


@pytest.fixture
def keep_ranking() -> Callable[..., Path]:
    """keep_ranking(study, {architecture: score}, title of the proxy, **settings): the folder, as a search leaves it."""

    def keep(name: str, scores: Mapping[str, float | None], title: str, /, **settings: Any) -> Path:
        folder = study_folder(name)
        candidates = tuple(
            Ranked(architecture, 1, 1, None, score, score, None, None, None if score else "it failed", 1.0)
            for architecture, score in scores.items()
        )
        plan = Plan(tuple(scores), None, "all of them", None, None)
        folder.path.mkdir(parents=True)
        folder.keep_ranking(Ranking(name, folder.path, settings, plan, candidates, "set.late_loss", title, (), {}, ()))
        return folder.path

    return keep


@dataclass(frozen=True)
class Server:
    """A PostgreSQL server of the tests' own, on loopback."""

    folder: Path
    port: int
    control: tuple[str, ...]

    @property
    def url(self) -> str:
        return f"postgresql://ftdnas@127.0.0.1:{self.port}/postgres"

    def start(self) -> None:
        options = f"-p {self.port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={self.folder} -c fsync=off"
        self._run("start", "-w", "-l", str(self.folder / "log"), "-o", options)

    def stop(self) -> None:
        """As a crash would."""
        self._run("stop", "-w", "-m", "immediate")

    def _run(self, *words: str) -> None:
        subprocess.run([*self.control, "-D", str(self.folder / "data"), *words], check=True, stdout=subprocess.DEVNULL)


@pytest.fixture(scope="session")
def postgresql() -> Iterator[Server]:
    """A running server; it is started by the first test that asks, as the user postgres where tests run as root."""
    pytest.importorskip("psycopg", reason="needs the extra ftdnas[postgres]")
    places = [str(path.parent) for path in sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))]
    found = shutil.which("initdb", path=os.pathsep.join([*places, os.environ.get("PATH", "")]))
    if found is None:
        pytest.skip("PostgreSQL's server programs are not installed")
    as_whom: tuple[str, ...] = ()
    folder = Path(tempfile.mkdtemp(prefix="ftdnas-postgres-"))
    if os.geteuid() == 0:  # which PostgreSQL refuses to run as
        try:
            shutil.chown(folder, "postgres")
        except LookupError:
            pytest.skip("tests run as root, and there is no user postgres to run the server as")
        as_whom = ("runuser", "-u", "postgres", "--")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    initdb = Path(found).resolve()
    subprocess.run(
        [*as_whom, str(initdb), "-D", str(folder / "data"), "-U", "ftdnas", "-A", "trust", "--no-sync"],
        check=True,
        stdout=subprocess.DEVNULL,
        cwd="/",
    )
    server = Server(folder, port, (*as_whom, str(initdb.with_name("pg_ctl"))))
    server.start()
    yield server
    server.stop()
    shutil.rmtree(folder)
