"""What every test gets: a home of its own, one thread, two real data sets, and what the documentation supposes."""

from __future__ import annotations

import io
import json
import multiprocessing
import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from distill.images.datasets import ImageDataset, load_dataset
from ftdnas.runtime.processes import TRAINING

# What takes too long for `make test`, each with its reason; `make slow` runs them. At most ten.
SLOW: dict[str, str] = {
    "tests/ftdnas/service/test_survival.py::test_killed_and_started_again_jobs_end_as_if_undisturbed": (
        "a server, its jobs and their processes are killed and begun again: a minute, mostly of starts"
    ),
    "tests/ftdnas/service/test_survival.py::test_a_search_through_ray": (
        "a Ray cluster starts for a job of the service: half a minute; test_ray.py has the cluster itself"
    ),
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.nodeid in SLOW:
            item.add_marker(pytest.mark.slow)
    # The longest test first: begun last, it would keep one core waiting for it.
    items.sort(key=lambda item: "test_the_readme_goes_the_main_path" not in item.nodeid)


@pytest.fixture(autouse=True)
def _own_home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is ever read from or written to the user's library."""
    monkeypatch.setenv("FTDNAS_HOME", str(tmp_path_factory.mktemp("home")))


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)  # results are bit for bit only at an equal number


@dataclass
class Apart:
    """Code that runs in a process of its own, to be looked at, interrupted or killed."""

    process: BaseProcess
    out: Path
    err: Path

    def send(self, number: signal.Signals) -> int:
        """The exit code after a signal: minus its number where the signal ended it."""
        assert self.process.pid is not None
        os.kill(self.process.pid, number)
        return self.end()

    def end(self) -> int:
        self.process.join(600)
        assert self.process.exitcode is not None, "it did not end"
        return self.process.exitcode


# Built-ins alone: what is forked does not know the modules of the tests.
_APART = """
import os, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell starts background jobs without one
os.environ.clear()
os.environ.update(environment)
for number, path in enumerate(streams, 1):
    os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
sys.argv[1:] = words
exec(code, {"__name__": "apart"})
"""
COMMAND = "import sys; from ftdnas.cli.main import run; sys.exit(run(sys.argv[1:]))"
Begin = Callable[..., Apart]


@pytest.fixture
def begin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Begin]:
    """begin("distill", ..., home=FOLDER): `ftdnas distill ...` in a process of its own; or its own `code` with argv.

    It is forked from the server that worker processes are forked from, which has imported torch: some 50 ms instead of
    seconds. How many threads it has it must say itself.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([*TRAINING, "sklearn.datasets"])
    begun: list[Apart] = []

    def begin(*words: str | Path, home: Path | None = None, code: str = COMMAND) -> Apart:
        folder = tmp_path_factory.mktemp("apart")
        streams = folder / "out", folder / "err"
        known = {
            "environment": {**os.environ, **({} if home is None else {"FTDNAS_HOME": str(home)})},
            "streams": [str(path) for path in streams],
            "words": [str(word) for word in words],
            "code": code,
        }
        process = context.Process(target=exec, args=(_APART, known))
        process.start()
        begun.append(Apart(process, *streams))
        return begun[-1]

    yield begin
    for apart in begun:
        if apart.process.is_alive():
            apart.process.kill()
        apart.process.join()
        apart.process.close()


def until(condition: Callable[[], Any], timeout_s: float = 300.0) -> None:
    """Wait for it. The time is for what hangs, not for what is slow."""
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.01)


@pytest.fixture(scope="session")
def digits(tmp_path_factory: pytest.TempPathFactory) -> ImageDataset:
    return load_dataset("digits", root=None, cache=tmp_path_factory.mktemp("digits") / "cache")


@pytest.fixture(scope="session")
def _photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos") / "photos"
    write_photos(folder, 67)
    return folder


@pytest.fixture
def photo_folder(_photos: Path, tmp_path: Path) -> Path:
    """67 photos in four classes, 224 pixels and odd sizes, PNG and JPEG, some grey, some EXIF-rotated, one class rare.

    A copy for each test, which may damage it.
    """
    return Path(shutil.copytree(_photos, tmp_path / "photos"))


def write_photos(folder: Path, count: int) -> None:
    """About `count` of them in four classes of unequal size."""
    from sklearn.datasets import load_sample_images

    temple, flower = load_sample_images().images
    draw = np.random.default_rng(7)
    classes: dict[str, tuple[int, Callable[[int, int], NDArray[np.uint8]]]] = {
        "temple": (count * 25 // 67, lambda height, width: _crop(temple, height, width, draw)),
        "flower": (count * 20 // 67, lambda height, width: _crop(flower, height, width, draw)),
        "stripes": (count * 16 // 67, lambda height, width: _pattern(height, width, draw, rings=False)),
        "rings": (count * 6 // 67, lambda height, width: _pattern(height, width, draw, rings=True)),
    }
    for name, (of_class, make) in classes.items():
        (folder / name).mkdir(parents=True)
        for number in range(of_class):
            height, width = (224, 224) if number % 3 else map(int, draw.integers(97, 301, size=2))
            image = Image.fromarray(make(height, width))
            if number % 5 == 1:
                image = image.convert("L")
            exif = image.getexif()
            if number % 7 == 2:  # stored lying on its side, as a phone held upright does
                image = image.transpose(Image.Transpose.ROTATE_90)
                exif[0x0112] = 6
            file = folder / name / f"{name}{number:02d}.{'png' if number % 4 == 0 else 'jpg'}"
            image.save(file, exif=exif, quality=90)  # which PNG does not hear of


def _crop(photo: NDArray[np.uint8], height: int, width: int, draw: np.random.Generator) -> NDArray[np.uint8]:
    top, left = draw.integers(photo.shape[0] - height), draw.integers(photo.shape[1] - width)
    crop = photo[top : top + height, left : left + width]
    return np.ascontiguousarray(crop[:, ::-1] if draw.integers(2) else crop)


def _pattern(height: int, width: int, draw: np.random.Generator, *, rings: bool) -> NDArray[np.uint8]:
    y, x = np.mgrid[0:height, 0:width].astype(np.float64)
    if rings:
        distance = np.hypot(y - draw.uniform(0, height), x - draw.uniform(0, width))
    else:
        angle = draw.uniform(0, np.pi)
        distance = np.cos(angle) * y + np.sin(angle) * x
    wave = 0.5 + 0.5 * np.sin(2 * np.pi * distance / draw.uniform(24, 60) + draw.uniform(0, 6))
    colours = draw.uniform(0, 255, size=(2, 3))
    pixels = colours[0] + wave[..., None] * (colours[1] - colours[0]) + draw.normal(0, 8, size=(height, width, 3))
    return pixels.clip(0, 255).astype(np.uint8)


@pytest.fixture(scope="session")
def lay_out_materials(_photos: Path) -> Callable[[Path], None]:
    """Makes what the pages suppose in a folder: data/cifar10, photos, photos.csv and published."""
    return partial(_materials, photos=_photos)


def _materials(folder: Path, photos: Path) -> None:
    _write_tables(folder / "data" / "cifar10")
    shutil.copytree(photos, folder / "photos")
    _write_split(folder / "photos", folder / "photos.csv")
    published = folder / "published"
    published.mkdir()
    torch.save(torch.randn(20, 3, 16, 16, generator=torch.Generator().manual_seed(0)), published / "images_best.pt")
    torch.save(torch.arange(10).repeat_interleave(2), published / "labels_best.pt")
    torch.save(torch.tensor(0.02), published / "lr_best.pt")


def _write_tables(folder: Path) -> None:
    """train.parquet with 15 digits of each class, enlarged to 16 pixels and coloured, and test.parquet with 3."""
    import pyarrow as pa
    import pyarrow.parquet as pq
    from sklearn.datasets import load_digits

    digits = load_digits()
    folder.mkdir(parents=True)
    kinds = pa.schema([("img", pa.struct([("bytes", pa.binary()), ("path", pa.string())])), ("label", pa.int64())])
    names = {"info": {"features": {"label": {"names": [f"kind {label}" for label in range(10)]}}}}
    kinds = kinds.with_metadata({"huggingface": json.dumps(names)})
    for split, first, last in (("test", 0, 3), ("train", 3, 18)):
        rows = [
            {"img": {"bytes": _encoded(digits.images[row]), "path": None}, "label": label}
            for label in range(10)
            for row in np.flatnonzero(digits.target == label)[first:last]
        ]
        pq.write_table(pa.Table.from_pylist(rows, schema=kinds), folder / f"{split}.parquet")


def _encoded(digit: np.ndarray) -> bytes:
    grey = Image.fromarray((digit * 255 / 16).astype(np.uint8)).resize((16, 16))
    stream = io.BytesIO()
    Image.merge("RGB", [grey.point(lambda value, part=part: value * part // 3) for part in (3, 2, 1)]).save(
        stream, "PNG"
    )
    return stream.getvalue()


def _write_split(photos: Path, file: Path) -> None:
    lines = ["file,split"]
    for folder in sorted(photos.iterdir()):
        for number, photo in enumerate(sorted(folder.iterdir())):
            split = {0: "test", 1: "validation"}.get(number % 6, "train")
            lines.append(f"{folder.name}/{photo.name},{split}")
    file.write_text("\n".join(lines) + "\n")
