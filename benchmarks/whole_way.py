"""A search of the whole way beside a default network trained as long, on folders of 2,000 CIFAR-10 images.

    python benchmarks/whole_way.py OUT --minutes 15 --folders 3 [--weights]

For each folder: 2,000 images of the training part and 2,000 of the test part, drawn by its number and written as files;
then, one after the other on one core, `ftdnas search --dataset folder:... --budget MINUTESm` and the reference: a
ResNet-8 in plain PyTorch, of whose time a tenth goes to each of three rates and the rest to the best of them. With
--weights pretrained weights may take part, where there are any. Figures are lines of OUT/figures.jsonl.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

IMAGES = 2000
RATES = (0.02, 0.06, 0.2)
NAMES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
WITHOUT = (
    "import importlib.util as u; f = u.find_spec; u.find_spec = lambda n, *a: None if 'lite0' in n else f(n, *a); "
)


def write_folder(root: Path, out: Path, number: int) -> Path:
    """train/<class>/* and test/<class>/* below `out`, the bytes as they are in the table."""
    folder = out / f"folder-{number}"
    for split in ("train", "test"):
        table = pq.read_table(root / "cifar10" / f"{split}.parquet")
        labels = table["label"].to_numpy()
        for row in np.random.default_rng(number).permutation(len(labels))[:IMAGES]:
            place = folder / split / NAMES[labels[row]]
            place.mkdir(parents=True, exist_ok=True)
            encoded = table["img"][int(row)].as_py()["bytes"]
            suffix = "png" if encoded.startswith(b"\x89PNG") else "jpg"
            (place / f"{row:05d}.{suffix}").write_bytes(encoded)
    return folder


def read_folder(folder: Path) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Standardised training images and labels, then test images and labels."""
    parts = []
    for split in ("train", "test"):
        files = [
            (file, label) for label, name in enumerate(NAMES) for file in sorted((folder / split / name).iterdir())
        ]
        pixels = np.stack([np.asarray(Image.open(file).convert("RGB")) for file, _ in files])
        parts.append((torch.from_numpy(pixels).permute(0, 3, 1, 2) / 255, torch.tensor([label for _, label in files])))
    (train, labels), (test, wanted) = parts
    mean, deviation = train.mean((0, 2, 3), keepdim=True), train.std((0, 2, 3), keepdim=True)
    return (train - mean) / deviation, labels, (test - mean) / deviation, wanted


class Block(nn.Module):
    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(before, after, 3, stride, 1, bias=False),
            nn.BatchNorm2d(after),
            nn.ReLU(),
            nn.Conv2d(after, after, 3, 1, 1, bias=False),
            nn.BatchNorm2d(after),
        )
        self.shortcut: nn.Module = nn.Sequential()
        if stride > 1 or before != after:
            self.shortcut = nn.Sequential(nn.Conv2d(before, after, 1, stride, bias=False), nn.BatchNorm2d(after))

    def forward(self, images: Tensor) -> Tensor:
        return F.relu(self.body(images) + self.shortcut(images))


def resnet8() -> nn.Module:
    stem = (nn.Conv2d(3, 32, 3, 1, 1, bias=False), nn.BatchNorm2d(32), nn.ReLU())
    blocks = (Block(32, 32, 1), Block(32, 64, 2), Block(64, 128, 2))
    return nn.Sequential(*stem, *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(128, len(NAMES)))


def augmented(images: Tensor, draws: torch.Generator) -> Tensor:
    """Shifted by up to an eighth, half of them flipped."""
    count, _, height, width = images.shape
    padded = F.pad(images, [height // 8] * 4)
    down, right = torch.randint(0, 2 * (height // 8) + 1, (2, count), generator=draws)
    shifted = torch.stack([padded[k, :, down[k] : down[k] + height, right[k] : right[k] + width] for k in range(count)])
    flipped = torch.rand(count, generator=draws) < 0.5
    shifted[flipped] = shifted[flipped].flip(3)
    return shifted


def trained(images: Tensor, labels: Tensor, lr: float, seconds: float) -> nn.Module:
    torch.manual_seed(0)
    network, draws = resnet8(), torch.Generator().manual_seed(0)
    descent = torch.optim.SGD(network.parameters(), lr=lr, momentum=0.9, weight_decay=5e-4, nesterov=True)
    begun, done = time.perf_counter(), 0.0
    while done < 1:
        for rows in torch.split(torch.randperm(len(images), generator=draws), 64):
            done = (time.perf_counter() - begun) / seconds
            if done >= 1:
                break
            for group in descent.param_groups:
                group["lr"] = lr * min(1, done / 0.05 + 0.05) * 0.5 * (1 + math.cos(math.pi * done))
            loss = F.cross_entropy(network(augmented(images[rows], draws)), labels[rows], label_smoothing=0.1)
            descent.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            descent.step()
    return network.eval()


@torch.no_grad()
def accuracy(network: nn.Module, images: Tensor, labels: Tensor) -> float:
    parts = zip(torch.split(images, 500), torch.split(labels, 500), strict=True)
    return sum(int((network(part).argmax(1) == own).sum()) for part, own in parts) / len(labels)


def reference(folder: Path, minutes: float) -> dict[str, float]:
    begun = time.perf_counter()
    images, labels, test, wanted = read_folder(folder)
    left = 60 * minutes - (time.perf_counter() - begun)
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(1))
    held, rest = order[: len(images) // 10], order[len(images) // 10 :]
    reached = {
        lr: accuracy(trained(images[rest], labels[rest], lr, left / 10), images[held], labels[held]) for lr in RATES
    }
    best = max(reached, key=lambda lr: reached[lr])
    network = trained(images, labels, best, 0.68 * left)
    return {"test": accuracy(network, test, wanted), "lr": best, "seconds": time.perf_counter() - begun}


def search(folder: Path, minutes: float, home: Path, weights: bool) -> dict[str, object]:
    call = "" if weights else WITHOUT
    code = f"{call}from ftdnas.cli.main import main; main()"
    asked = ["search", "--dataset", f"folder:{folder}", "--budget", f"{minutes:g}m", "--threads", "1", "--json"]
    begun = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", code, *asked, "--study", "whole"],
        env={**os.environ, "FTDNAS_HOME": str(home), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        check=True,
    )
    told = json.loads(done.stdout)
    return {**told, "seconds": time.perf_counter() - begun}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--minutes", type=float, default=15)
    parser.add_argument("--folders", type=int, default=3)
    parser.add_argument("--weights", action="store_true")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    for number in range(1, asked.folders + 1):
        folder = write_folder(Path(os.environ["FTDNAS_DATA"]), asked.out, number)
        kind = "with" if asked.weights else "without"
        found = search(folder, asked.minutes, asked.out / f"home-{number}-{kind}", asked.weights)
        plain = reference(folder, asked.minutes)
        line = {"folder": number, "weights": asked.weights, "search": found, "default": plain}
        with (asked.out / "figures.jsonl").open("a") as file:
            file.write(json.dumps(line) + "\n")
        print(f"folder {number}: default {100 * plain['test']:.1f} %, search: {found['folder']}", flush=True)


if __name__ == "__main__":
    main()
