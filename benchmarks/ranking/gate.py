"""The gate: how reliable the late loss is over seeds, and what averaging two of them brings.

    python benchmarks/ranking/gate.py OUT [--setting "random500 teacher 8 pixels"]

On the tuning half, seeds 0 and 1 (other weights, the same batches). Writes OUT/gate.json.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
from run import row_key
from scipy.stats import spearmanr
from scores import value
from settings import SETTINGS
from study import half

from ftdnas.proxies.rank_sum import mean_ranks
from ftdnas.runtime.rows import RowFile


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--setting", default="random500 teacher 8 pixels")
    asked = parser.parse_args()
    on, rows = half(asked.out, "tuning"), RowFile(asked.out / "rows.jsonl").settled()
    found = {"setting": asked.setting, "networks": len(on.names)}
    for score in ("late loss", "full pass"):
        seeds = [
            [value(rows[row_key(SETTINGS[asked.setting], name, seed)], score) for name in on.names] for seed in (0, 1)
        ]
        columns = {"seed 0": seeds[0], "seed 1": seeds[1], "mean of both": mean_ranks(seeds)}
        between = float(spearmanr(seeds[0], seeds[1]).statistic)
        truth = np.array(on.truth)
        better = truth >= np.median(truth)
        told = {
            name: [
                round(float(spearmanr(np.array(one)[part], truth[part]).statistic), 3) for part in (truth > -1, better)
            ]
            for name, one in columns.items()
        }
        # Spearman and Brown: of the mean of two; a ranking cannot agree with the truth beyond the root of its own.
        doubled = 2 * between / (1 + between)
        found[score] = {
            "between seeds": round(between, 3),
            "of their mean": round(doubled, 3),
            "all, better half": told,
        }
    (asked.out / "gate.json").write_text(json.dumps(found, indent=1) + "\n")
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
