"""Whether screening in bfloat16 ranks as in 32-bit floats: the same candidates, on the same images, in both.

    python benchmarks/precision.py cells --set SET.safetensors --table FILE.csv [--candidates 48] OUT
    python benchmarks/precision.py convnets --set SET.safetensors [--truth TRUTH.jsonl] OUT

Rows are kept in OUT/rows.jsonl, so that an interrupted run goes on; OUT/precision.json holds what is printed, and the
truth. ConvNets are those with a real training in TRUTH, cells a sample stratified by the table. A second seed in 32-bit
floats (of ConvNets) says how much two rankings differ that are meant to be the same. Seconds are those of processes of
one thread.
"""

from __future__ import annotations

import argparse
import json
import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from agreement import settled

from distill.synthetic import SyntheticSet
from ftdnas.agreement.bootstrap import Bootstrap
from ftdnas.agreement.estimates import spearman, spearman_difference
from ftdnas.candidates.reading import score_value
from ftdnas.candidates.screening import default_screening
from ftdnas.candidates.truth_table import Columns, read_table, stratified_by_truth
from ftdnas.proxies.bench import Workbench
from ftdnas.proxies.names import find_proxy
from ftdnas.runtime.rows import Row, RowFile
from ftdnas.sets.images import Source, images_of
from search_spaces.base import SPACES, parse_architecture

SPACE = {"cells": "nasbench201", "convnets": "convnet"}
SETTINGS = {"float32": ("float32", 0), "bfloat16": ("bfloat16", 0), "float32, another seed": ("float32", 1)}
PROXY = "set.late_loss"


def truth_of(asked: argparse.Namespace) -> dict[str, float]:
    """Architectures, and accuracies of real training."""
    if asked.what == "cells":
        columns = Columns("arch", "cifar10_test_accuracy_200_epochs", {})
        table = read_table(asked.table, SPACES["nasbench201"], columns)
        classes = {name: parse_architecture(name).representative().name for name in table.accuracy}
        names = stratified_by_truth(table.accuracy, classes, asked.candidates, 0)
        return {name: table.accuracy[name] for name in names}
    found: dict[str, list[float]] = defaultdict(list)
    for row in RowFile(asked.truth).settled().values():
        found[row["architecture"]].append(row["score"])
    return {name: float(np.mean(scores)) for name, scores in found.items()}


def judged(truth: Mapping[str, float], rows: Sequence[Row]) -> dict[str, dict[str, Any]]:
    """Of every setting that was run: how it ranks, beside float32."""
    bootstrap = Bootstrap(0, 4000, classes=tuple(parse_architecture(name).representative().name for name in truth))
    real = list(truth.values())
    columns: dict[str, list[float | None]] = {}
    lines: dict[str, dict[str, Any]] = {}
    for title, setting in SETTINGS.items():
        own = {row["architecture"]: row for row in rows if (row["recipe"]["precision"], row["seed"]) == setting}
        if not own:
            continue
        columns[title] = [score_value(own[one], "late_loss") for name in truth for one in _trained(name) if one in own]
        lines[title] = {
            "spearman with the truth": str(spearman(columns[title], real, bootstrap)),
            "seconds": round(sum(row["seconds"] for row in own.values()), 1),
        }
        if title != "float32":
            against = columns["float32"]
            lines[title] |= {
                "minus float32": str(spearman_difference(columns[title], against, real, bootstrap)),
                "spearman with float32": str(spearman(columns[title], against, bootstrap)),
            }
    return lines


def _trained(name: str) -> tuple[str, ...]:
    """As which a candidate may have been trained."""
    whole = parse_architecture(name).representative()
    shrunk = whole.shrunk()
    return (whole.name,) if shrunk is None else (whole.name, shrunk.name)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=sorted(SPACE))
    parser.add_argument("out", type=Path)
    parser.add_argument("--set", type=Path, required=True)
    parser.add_argument("--table", type=Path)
    parser.add_argument("--truth", type=Path, default=Path("results/2026-11-25_convnet_agreement/truth.jsonl"))
    parser.add_argument("--candidates", type=int, default=48)
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    parser.add_argument("--settings", nargs="+", choices=list(SETTINGS), default=list(SETTINGS))
    asked = parser.parse_args()
    truth = truth_of(asked)
    names = list(truth)
    synthetic = SyntheticSet.load(asked.set)
    data = images_of(synthetic, Source("", offline=True, root=Path(os.environ["FTDNAS_DATA"])))
    usual = default_screening(SPACE[asked.what]).screening
    file = RowFile(asked.out / "rows.jsonl")
    for title in asked.settings:
        precision, seed = SETTINGS[title]
        screening = replace(usual, precision=precision)
        bench = Workbench(data, screening, seed=seed, synthetic=synthetic, set_name=asked.set.stem)
        settled([find_proxy(PROXY, bench)], names, bench, file, asked.jobs)
    lines = judged(truth, list(file.settled().values()))
    for title, line in lines.items():
        print(f"{title:24} {line}", flush=True)
    facts = {"space": SPACE[asked.what], "candidates": len(names), "proxy": PROXY, "set": asked.set.name}
    facts |= {"torch": torch.__version__, "jobs": asked.jobs}
    (asked.out / "precision.json").write_text(json.dumps({**facts, "lines": lines, "truth": truth}, indent=1) + "\n")


if __name__ == "__main__":
    main()
