"""Hypothesis 3: weights per image, such that calibration networks order like their accuracies; tested on others.

    python benchmarks/ranking/weights.py OUT

The ranks of every image's loss in the last full pass are weighted by a ridge regression that draws the weights towards
equal ones. Fitted on random parts of the calibration sample and tested on its rest (weights.csv),
and fitted on all of it and tested once on the reporting half. The penalty is chosen by ten-fold cross-validation among
those that are fitted on.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import rankdata, spearmanr
from study import Half, half, judged

from ftdnas.proxies.rank_sum import mean_ranks

Floats = NDArray[np.float64]
SETTING = "random500 teacher 8 pixels"
PENALTIES = (100.0, 300.0, 1000.0, 3000.0, 10_000.0)
SIZES, DRAWS = (24, 40, 100, 200), 20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    out = parser.parse_args().out
    calibration, reporting = half(out, "calibration"), half(out, "reporting")
    images, truth = ranks_of(calibration), standard(calibration.truth)
    draw = np.random.default_rng(0)
    lines = []
    for size in SIZES:
        figures = []
        for _ in range(DRAWS):
            order = draw.permutation(len(truth))
            fitted_on, rest = order[:size], order[size:]
            penalty = chosen(images[fitted_on], truth[fitted_on])
            weighted = -images[rest] @ fit(images[fitted_on], truth[fitted_on], penalty)
            figures.append([*pair(weighted, truth[rest]), *pair(-images[rest].mean(1), truth[rest])])
        means = np.mean(figures, axis=0).round(3)
        names = ("all", "better half", "equal weights, all", "equal weights, better half")
        lines.append({"fitted on": size, **dict(zip(names, means, strict=True))})
    penalty = chosen(images, truth)
    column = list(-ranks_of(reporting) @ fit(images, truth, penalty))
    plain = list(-ranks_of(reporting).mean(1))
    pd.DataFrame(lines).to_csv(out / "weights.csv", index=False)
    late, free = reporting.trained[SETTING]["late loss"], reporting.free
    against = {"equal weights": plain, "late loss": late, "az_nas": free["az_nas"]}
    told = [
        judged(f"weighted images, penalty {penalty:g}", column, reporting, against),
        judged("equal weights", plain, reporting, {}),
    ]
    for name in ("params", "az_nas"):
        sums = [mean_ranks([one, free[name]]) for one in (column, late)]
        told.append(judged(f"weighted images + {name}", sums[0], reporting, {f"late loss + {name}": sums[1]}))
    table = pd.DataFrame(told)
    table.to_csv(out / "weights_reporting.csv", index=False)
    print(pd.DataFrame(lines).to_string(), table.to_string(max_colwidth=60), sep="\n")


def ranks_of(on: Half) -> Floats:
    """(networks, images) standardised ranks of the loss of each image, network among network."""
    losses = np.array([row["clean_losses"] for row in on.rows[SETTING]])
    return np.column_stack([standard(column) for column in losses.T])


def standard(column: Sequence[float] | Floats) -> Floats:
    ranks = rankdata(column)
    spread = ranks.std()
    return np.asarray((ranks - ranks.mean()) / (spread if spread else 1.0))


def fit(images: Floats, truth: Floats, penalty: float) -> Floats:
    """Weights w that minimise ||truth + images w||^2 + penalty ||w - equal||^2; equal: 1 / images each."""
    equal = np.full(images.shape[1], 1 / images.shape[1])
    left = -(truth - truth.mean()) - images @ equal
    gram = images @ images.T + penalty * np.eye(len(truth))
    return np.asarray(equal + images.T @ np.linalg.solve(gram, left))


def chosen(images: Floats, truth: Floats) -> float:
    return max(PENALTIES, key=lambda one: crossed(images, truth, one))


def crossed(images: Floats, truth: Floats, penalty: float) -> float:
    """Spearman of ten-fold cross-validation."""
    order = np.random.default_rng(0).permutation(len(truth))
    found = np.empty(len(truth))
    for fold in np.array_split(order, 10):
        others = np.setdiff1d(order, fold)
        found[fold] = -images[fold] @ fit(images[others], truth[others], penalty)
    return float(spearmanr(found, truth).statistic)


def pair(column: Floats, truth: Floats) -> tuple[float, float]:
    better = truth >= np.median(truth)
    return float(spearmanr(column, truth).statistic), float(spearmanr(column[better], truth[better]).statistic)


if __name__ == "__main__":
    main()
