"""The rows of the ranking study: architectures of NAS-Bench-201, shrunk, trained in many ways.

    python benchmarks/ranking/run.py OUT --table TABLE.csv [--half tuning] [-n 60] [--seeds 1] [--settings NAME ...]

Rows are kept in OUT/rows.jsonl, so that an interrupted run goes on; without --settings all are taken in turn. Needs the
experts and sets of recipe cpu in the library, and the real images (FTDNAS_DATA).
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import time
from pathlib import Path
from typing import Any

import torch
from candidates import train
from sample import HALVES, sample
from settings import SETTINGS, Setting
from streams import Stream, Workshop

from ftdnas.runtime.rows import RowFile

_shared: dict[str, Any] = {}


def main() -> None:
    asked = parse()
    torch.set_num_threads(1)
    workshop = Workshop()
    names = sample(asked.table, asked.half, asked.n).names
    file = RowFile(asked.out / "rows.jsonl")
    for title in asked.settings or SETTINGS:
        setting = SETTINGS[title]
        rows = file.settled()
        lacking = ("clean_losses",) if setting.each_image else ()
        known = {key for key, row in rows.items() if row["error"] or all(name in row for name in lacking)}
        todo = [
            (name, seed) for seed in range(asked.seeds) for name in names if row_key(setting, name, seed) not in known
        ]
        if not todo:
            continue
        begun = time.monotonic()
        try:
            stream = workshop.stream(setting) if setting.shared else None
            _shared.update(setting=setting, workshop=workshop, stream=stream, held_out=workshop.held_out)
        except FileNotFoundError as error:
            print(f"{title}: left out, {error}", flush=True)
            continue
        made_s = time.monotonic() - begun
        # Forked, so that all share one copy of the batches.
        with multiprocessing.get_context("fork").Pool(asked.jobs) as pool:
            for row in pool.imap_unordered(_row, todo):
                file.append(row)
        spent = time.monotonic() - begun
        print(f"{title}: {len(todo)} rows in {spent:.0f} s, batches made in {made_s:.0f} s", flush=True)


def row_key(setting: Setting, name: str, seed: int) -> str:
    return f"{setting.key}/{name}/{seed}"


def _row(work: tuple[str, int]) -> dict[str, Any]:
    name, seed = work
    torch.set_num_threads(1)
    setting: Setting = _shared["setting"]
    stream: Stream = _shared["stream"] or _shared["workshop"].stream(setting, name)
    outcome = train(name, setting, seed, stream, _shared["held_out"])
    identity = {"setting": setting.key, "architecture": name, "seed": seed}
    return {"key": row_key(setting, name, seed), **identity, **outcome, "torch": torch.__version__}


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--settings", nargs="*", metavar="SETTING")
    parser.add_argument("--table", type=Path, default=_table())
    parser.add_argument("--half", choices=HALVES, default="tuning")
    parser.add_argument("-n", type=int, default=60)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    return parser.parse_args()


def _table() -> Path | None:
    root = os.environ.get("FTDNAS_DATA")
    return Path(root) / "nasbench201" / "cifar10.csv" if root else None


if __name__ == "__main__":
    main()
