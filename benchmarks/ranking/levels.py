"""Hypotheses 2 and 6: how well the loss ranks against how low it has come, all along the training, setting by setting.

    python benchmarks/ranking/levels.py OUT [--settings NAME ...]

Writes OUT/levels.csv and OUT/levels.png: of every twentieth of each setting's steps the median loss, the share of
networks below 0.1, and Spearman over all and over the better half of the tuning cells.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.stats import spearmanr
from study import EASY, half

PARTS = 20
SHOWN = ["random500", "ftd50", "random500 teacher", "ftd50 teacher"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--settings", nargs="*", default=SHOWN)
    asked = parser.parse_args()
    on = half(asked.out, "tuning")
    truth = np.array(on.truth)
    better = truth >= np.median(truth)
    lines = []
    for title in asked.settings:
        curves = np.array([row["losses"] for row in on.rows[title]])
        for part, columns in enumerate(np.array_split(np.arange(curves.shape[1]), PARTS)):
            loss = curves[:, columns].mean(axis=1)
            figures = {"level": np.median(loss), "easy": (loss < EASY).mean()}
            figures |= {"all": spearmanr(-loss, truth).statistic}
            figures |= {"better half": spearmanr(-loss[better], truth[better]).statistic}
            done = {"setting": title, "done": (part + 1) / PARTS}
            lines.append({**done, **{name: round(float(value), 3) for name, value in figures.items()}})
    table = pd.DataFrame(lines)
    table.to_csv(asked.out / "levels.csv", index=False)
    figure(table, asked.out / "levels.png")


def figure(table: pd.DataFrame, path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    picture, axes = plt.subplots(1, 2, figsize=(10, 4), sharey=True)
    for axis, part in zip(axes, ("all", "better half"), strict=True):
        for title, of_it in table.groupby("setting", sort=False):
            axis.plot(of_it["level"], of_it[part], marker="o", ms=3, label=title)
            axis.plot(
                of_it["level"].iloc[-1:], of_it[part].iloc[-1:], marker="o", ms=7, color=axis.lines[-1].get_color()
            )
        axis.set_xscale("log")
        axis.invert_xaxis()
        axis.set_xlabel(f"median training loss, falling; {part}")
    axes[0].set_ylabel("Spearman with the accuracy after 200 epochs")
    axes[0].legend()
    picture.tight_layout()
    picture.savefig(path, dpi=110)


if __name__ == "__main__":
    main()
