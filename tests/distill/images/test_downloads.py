"""Downloads from a server on this machine that holds small sets in the published formats.

Addresses and checksums are attributes of torchvision's classes; here they are set to those of the small sets.
"""

from __future__ import annotations

import functools
import gc
import gzip
import hashlib
import http.server
import io
import pickle
import tarfile
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.io
from numpy.typing import NDArray
from torchvision import datasets

from distill.images.datasets import DATASETS, ImageDataset, load_dataset
from distill.run import Listener, Progress, ignore

# torchvision keeps the answers of mirrors that failed.
pytestmark = pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")

PER_CLASS = 8
LABELS = np.repeat(np.arange(10), PER_CLASS)
COLOUR = np.random.default_rng(0).integers(256, size=(len(LABELS), 32, 32, 3), dtype=np.uint8)
GREY = COLOUR[:, :28, :28, 0]


def md5(data: bytes) -> str:
    return hashlib.md5(data, usedforsecurity=False).hexdigest()


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Path, str]]:
    """A folder and the address at which its files are served."""
    folder = tmp_path / "served"
    folder.mkdir()
    monkeypatch.setenv("no_proxy", "127.0.0.1")

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=folder)) as serving:
        thread = threading.Thread(target=serving.serve_forever)
        thread.start()
        yield folder, f"http://127.0.0.1:{serving.server_port}/"
        serving.shutdown()
        thread.join()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


@pytest.fixture
def cifar10(server: tuple[Path, str], monkeypatch: pytest.MonkeyPatch) -> Path:
    """The served archive of a CIFAR-10 of 80 training and 80 test images."""
    folder, address = server
    rows = COLOUR.transpose(0, 3, 1, 2).reshape(len(LABELS), -1)
    members = {
        "data_batch_1": pickle.dumps({"data": rows, "labels": LABELS.tolist()}),
        "test_batch": pickle.dumps({"data": rows[::-1], "labels": LABELS[::-1].tolist()}),
        "batches.meta": pickle.dumps({"label_names": [f"thing {label}" for label in range(10)]}),
    }
    archive = folder / "cifar-10-python.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        for name, content in members.items():
            facts = tarfile.TarInfo(f"cifar-10-batches-py/{name}")
            facts.size = len(content)
            tar.addfile(facts, io.BytesIO(content))
    kind = datasets.CIFAR10
    monkeypatch.setattr(kind, "url", f"{address}{archive.name}")
    monkeypatch.setattr(kind, "tgz_md5", md5(archive.read_bytes()))
    monkeypatch.setattr(kind, "train_list", [["data_batch_1", md5(members["data_batch_1"])]])
    monkeypatch.setattr(kind, "test_list", [["test_batch", md5(members["test_batch"])]])
    monkeypatch.setattr(kind, "meta", {**kind.meta, "md5": md5(members["batches.meta"])})
    return archive


def idx(values: np.ndarray) -> bytes:
    """The format of the MNIST files."""
    head = bytes([0, 0, 8, values.ndim]) + b"".join(size.to_bytes(4, "big") for size in values.shape)
    return head + values.astype(np.uint8).tobytes()


@pytest.fixture
def mnist(server: tuple[Path, str], monkeypatch: pytest.MonkeyPatch) -> Path:
    folder, address = server
    resources = []
    files: dict[str, NDArray[Any]] = {
        "train-images-idx3-ubyte.gz": GREY,
        "train-labels-idx1-ubyte.gz": LABELS,
        "t10k-images-idx3-ubyte.gz": GREY[::-1],
        "t10k-labels-idx1-ubyte.gz": LABELS[::-1],
    }
    for name, values in files.items():
        (folder / name).write_bytes(gzip.compress(idx(values)))
        resources.append((name, md5((folder / name).read_bytes())))
    monkeypatch.setattr(datasets.MNIST, "mirrors", [f"{address}nowhere/", address])
    monkeypatch.setattr(datasets.MNIST, "resources", resources)
    return folder


@pytest.fixture
def svhn(server: tuple[Path, str], monkeypatch: pytest.MonkeyPatch) -> Path:
    folder, address = server
    listed = {}
    for split, step in (("train", 1), ("test", -1)):
        file = folder / f"{split}_32x32.mat"
        tens = np.where(LABELS == 0, 10, LABELS)[::step]  # SVHN writes the digit 0 as class 10
        scipy.io.savemat(file, {"X": COLOUR[::step].transpose(1, 2, 3, 0), "y": tens[:, None].astype(np.uint8)})
        listed[split] = [f"{address}{file.name}", file.name, md5(file.read_bytes())]
    monkeypatch.setattr(datasets.SVHN, "split_list", listed)
    return folder


def load(
    name: str, tmp_path: Path, *, root: Path | None = None, offline: bool = False, listener: Listener = ignore
) -> ImageDataset:
    cache, downloads = tmp_path / "cache", tmp_path / "downloads"
    return load_dataset(
        name, root=root, cache=cache, downloads=downloads, validation=0, offline=offline, listener=listener
    )


def test_cifar10_is_downloaded_once_with_progress(cifar10: Path, tmp_path: Path) -> None:
    seen: list[Progress] = []
    data = load("cifar10", tmp_path, listener=seen.append)
    assert np.array_equal(data.train.images, COLOUR.transpose(0, 3, 1, 2))
    assert np.array_equal(data.train.labels, LABELS)
    assert np.array_equal(data.test.labels, LABELS[::-1])
    assert data.class_names[3] == "thing 3"
    assert data.source == "CIFAR-10, as torchvision reads it"
    steps = [step for step in seen if step.stage == "download"]
    assert steps[0].message == f"downloading CIFAR-10: {datasets.CIFAR10.url}"
    assert steps[-1].done == steps[-1].total == 1
    cifar10.unlink()
    assert load("cifar10", tmp_path, offline=True).fingerprint == data.fingerprint


def test_an_archive_that_the_user_brought_is_unpacked_offline(cifar10: Path, tmp_path: Path) -> None:
    (tmp_path / "downloads" / "cifar10").mkdir(parents=True)
    cifar10.rename(tmp_path / "downloads" / "cifar10" / cifar10.name)
    assert len(load("cifar10", tmp_path, offline=True).train) == 80


@pytest.mark.parametrize("below", ["", "cifar10"])
def test_torchvision_s_files_under_the_data_root_are_found(cifar10: Path, tmp_path: Path, below: str) -> None:
    root = tmp_path / "root"
    with tarfile.open(cifar10) as tar:
        tar.extractall(root / below, filter="data")
    data = load("cifar10", tmp_path, root=root, offline=True)
    assert len(data.train) == 80
    assert not (tmp_path / "downloads").exists()


@pytest.mark.usefixtures("mnist")
def test_mnist_is_fetched_from_the_mirror_that_answers(tmp_path: Path) -> None:
    data = load("mnist", tmp_path)
    assert np.array_equal(data.train.images, GREY[:, None])
    assert np.array_equal(data.test.images, GREY[::-1, None])
    assert np.array_equal(data.train.labels, LABELS)
    assert data.image_shape == (1, 28, 28)
    assert data.num_classes == 10


@pytest.mark.usefixtures("svhn")
def test_svhn_counts_its_zeros_as_class_0(tmp_path: Path) -> None:
    data = load("svhn", tmp_path)
    assert np.array_equal(data.train.images, COLOUR.transpose(0, 3, 1, 2))
    assert np.array_equal(data.train.labels, LABELS)
    assert np.array_equal(data.test.images, COLOUR[::-1].transpose(0, 3, 1, 2))
    assert data.class_names == tuple("0123456789")


def refused(name: str, tmp_path: Path, *, root: Path | None = None, offline: bool = False) -> str:
    with pytest.raises(FileNotFoundError) as caught:
        load(name, tmp_path, root=root, offline=offline)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("name", [name for name in DATASETS if name != "digits"])
def test_offline_says_what_was_looked_for_where_and_how_to_bring_it(name: str, tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    message = refused(name, tmp_path, root=root, offline=True)
    assert message.startswith(f"{DATASETS[name][0]} is not here: looked ")
    assert str(root) in message
    assert str(tmp_path / "downloads") in message
    assert "http" in message


def test_without_a_network_the_reason_is_told(cifar10: Path, tmp_path: Path) -> None:
    address = datasets.CIFAR10.url
    cifar10.unlink()
    home = tmp_path / "downloads" / "cifar10"
    assert refused("cifar10", tmp_path) == (
        f"CIFAR-10 is not here: looked in {home} for train.parquet or what torchvision keeps; "
        f"not downloaded (HTTP Error 404: File not found): put {address} into {home}, "
        "or run again with a network and without --offline"
    )


def test_other_data_than_the_published_ones_are_not_taken(cifar10: Path, tmp_path: Path) -> None:
    cifar10.write_bytes(b"a page that asks to log in")
    assert "not downloaded (File not found or corrupted.)" in refused("cifar10", tmp_path)
    left = [path.name for path in (tmp_path / "downloads" / "cifar10").iterdir()]
    assert left == [".lock"]


def test_a_damaged_download_is_fetched_again(cifar10: Path, tmp_path: Path) -> None:
    target = tmp_path / "downloads" / "cifar10" / cifar10.name
    target.parent.mkdir(parents=True)
    target.write_bytes(cifar10.read_bytes()[:100])
    assert len(load("cifar10", tmp_path).train) == 80


@pytest.mark.usefixtures("mnist")
def test_unpacked_files_that_are_damaged_are_named(tmp_path: Path) -> None:
    load("mnist", tmp_path)
    images = tmp_path / "downloads" / "mnist" / "MNIST" / "raw" / "train-images-idx3-ubyte"
    images.write_bytes(images.read_bytes()[:100])
    with pytest.raises(ValueError, match=r"MNIST in .*mnist cannot be read: remove that folder and run again"):
        load("mnist", tmp_path)
