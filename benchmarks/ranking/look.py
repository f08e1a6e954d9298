"""Setting by setting: how the scores rank the architectures that were trained.

python benchmarks/ranking/look.py OUT [--half tuning] [-n 60]
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from run import _table, row_key
from sample import EARLY, HALVES, sample
from scipy.stats import rankdata, spearmanr
from scores import SCORES, value
from settings import SETTINGS

from ftdnas.runtime.rows import RowFile
from search_spaces.base import parameter_count, parse_architecture

SHOWN = ["late loss", "late third", "sum of losses", "full pass", "accuracy", "held-out loss", "taught loss"]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("out", type=Path)
    parser.add_argument("--half", choices=HALVES, default="tuning")
    parser.add_argument("-n", type=int, default=60)
    parser.add_argument("--scores", nargs="*", default=SHOWN)
    asked = parser.parse_args()
    found = sample(_table(), asked.half, asked.n)
    names = found.names
    truth = np.array([found.table.accuracy[name] for name in names])
    params = np.array([parameter_count(parse_architecture(name), (3, 32, 32), 10) for name in names])
    early = np.array([found.table.others[EARLY][name] for name in names])
    rows = RowFile(asked.out / "rows.jsonl").settled()
    better = truth >= np.median(truth)

    def told(column: np.ndarray) -> str:
        return f"{spearmanr(column, truth).statistic:5.2f} /{spearmanr(column[better], truth[better]).statistic:5.2f}"

    both = told(rankdata(params) + rankdata(early))
    print(f"{len(names)} of {asked.half}; params {told(params)}; 12 epochs {told(early)}; both {both}")
    heads = " ".join(f"{score[:13]:>13}" for score in asked.scores)
    print(f"{'':28}{'level':>6}{'s':>6} {heads}   late+params")
    for title, setting in SETTINGS.items():
        for seed in range(4):
            keys = [row_key(setting, name, seed) for name in names]
            if not rows.keys() >= set(keys):
                continue
            own = [rows[key] for key in keys]
            columns = {score: np.array([value(row, score) for row in own]) for score in SCORES}
            level = -float(np.median(columns["late loss"]))
            seconds = float(np.mean([row["seconds"] for row in own]))
            mix = rankdata(columns["late loss"]) + rankdata(params)
            label = title if seed == 0 else f"{title} (seed {seed})"
            figures = " ".join(f"{told(columns[score]):>13}" for score in asked.scores)
            print(f"{label:28}{level:6.2f}{seconds:6.1f} {figures}   {told(mix)}")


if __name__ == "__main__":
    main()
