"""Training-free measures of the same architectures, at full size: what a hybrid may add to the late loss.

    python benchmarks/ranking/measures.py OUT [--half tuning] [-n 60]

Rows are kept in OUT/measures.jsonl.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from run import _table
from sample import HALVES, sample

from ftdnas.proxies.measures import Measurement
from ftdnas.runtime.rows import RowFile
from search_spaces.base import parse_architecture

SHAPE, CLASSES = (3, 16, 16), 10  # of the images that candidates are screened on


def az_nas_of(name: str) -> Measurement:
    architecture = parse_architecture(name).representative()
    return Measurement("az_nas", architecture.name, "", SHAPE, CLASSES, None, seed=0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--half", choices=HALVES, default="tuning")
    parser.add_argument("-n", type=int, default=60)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    file = RowFile(asked.out / "measures.jsonl")
    known = file.settled()
    for name in sample(_table(), asked.half, asked.n).names:
        work = az_nas_of(name)
        if work.key not in known:
            file.append(work({}))


if __name__ == "__main__":
    main()
