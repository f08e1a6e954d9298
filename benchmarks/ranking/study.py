"""The tables, the figure and the README of the ranking study, from its rows.

    python benchmarks/ranking/study.py OUT [--reported SETTING ...]

OUT holds rows.jsonl and measures.jsonl (run.py, measures.py) of the tuning half and, for the settings that are
reported, of the reporting half. Writes tuning.csv, reporting.csv, settings.json, hybrids.json, explained.csv,
ranking.png and, where it is not there yet, sample.csv: the architectures with their truth, from which all can be
computed again without the table.
"""

from __future__ import annotations

import argparse
import itertools
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from measures import az_nas_of
from run import _table, row_key
from sample import EARLY, sample
from scipy.stats import rankdata
from scores import SCORES, value
from settings import SETTINGS, Setting

from ftdnas.agreement.bootstrap import Bootstrap
from ftdnas.agreement.estimates import better_half, regret_at, spearman, spearman_difference
from ftdnas.proxies.calibration import calibrate
from ftdnas.proxies.rank_sum import mean_ranks
from ftdnas.proxies.untrained import rank_product
from ftdnas.runtime.rows import RowFile
from search_spaces.base import flops, parameter_count, parse_architecture
from search_spaces.nasbench201 import OPERATIONS

SAMPLES = {"tuning": ("tuning", 60), "calibration": ("tuning", 300), "reporting": ("reporting", 300)}  # (half, n)
RESAMPLES = 4000
EASY = 0.1  # a loss below this tells networks apart no more
Column = list[float]
Scores = Sequence[float | None]


@dataclass(frozen=True)
class Half:
    """The architectures of a sample of a half, their truth, and every column that ranks them."""

    names: list[str]
    truth: Column
    free: Mapping[str, Column]  # without training on few images
    trained: Mapping[str, Mapping[str, Column]]  # setting -> score -> column
    rows: Mapping[str, Sequence[Mapping[str, Any]]]  # setting -> row of each architecture

    @cached_property
    def bootstrap(self) -> Bootstrap:
        classes = tuple(parse_architecture(name).representative().name for name in self.names)
        return Bootstrap(0, RESAMPLES, classes=classes)


def sampled(out: Path) -> pd.DataFrame:
    """The architectures of all samples with their accuracies after 200 and 12 epochs, fractions."""
    path = out / "sample.csv"
    parts = [pd.read_csv(path)] if path.exists() else []
    missing = {which: how for which, how in SAMPLES.items() if not parts or which not in set(parts[0]["half"])}
    if missing:
        for which, (of, n) in missing.items():
            found = sample(_table(), of, n)
            truth = [found.table.accuracy[name] for name in found.names]
            early = [found.table.others[EARLY][name] for name in found.names]
            parts.append(pd.DataFrame({"half": which, "architecture": found.names, "truth": truth, "early": early}))
        pd.concat(parts).to_csv(path, index=False)
    return pd.read_csv(path)


def half(out: Path, which: str) -> Half:
    table = sampled(out)
    table = table[table["half"] == which]
    names = list(table["architecture"])
    size = (3, 32, 32), 10
    parsed = [parse_architecture(name) for name in names]
    counts = [float(parameter_count(one, *size)) for one in parsed]
    work = [float(flops(one, *size)) for one in parsed]
    measured = RowFile(out / "measures.jsonl").settled()
    values = [measured[az_nas_of(name).key]["values"] for name in names]
    parts = [[one[part] for one in values] for part in ("expressivity", "progressivity", "trainability")]
    early = list(table["early"])
    free = {
        "params": counts,
        "flops": work,
        "az_nas": list(rank_product([*parts, work])),
        "table: 12 epochs": early,
        "table: 12 epochs + params": mean_ranks([early, counts]),
    }
    free["az_nas + params"] = mean_ranks([free["az_nas"], counts])
    rows = RowFile(out / "rows.jsonl").settled()
    own: dict[str, list[Mapping[str, Any]]] = {}
    for title, setting in SETTINGS.items():
        of_it = [rows.get(row_key(setting, name, 0)) for name in names]
        if None not in of_it:
            own[title] = of_it  # type: ignore[assignment]
    trained = {title: {score: [value(row, score) for row in of_it] for score in SCORES} for title, of_it in own.items()}
    return Half(names, list(table["truth"]), free, trained, own)


def judged(name: str, column: Scores, on: Half, against: Mapping[str, Scores]) -> dict[str, Any]:
    """One line of a table: Spearman over all and the better half, regret of the best ten, and paired differences."""
    bootstrap = on.bootstrap
    line: dict[str, Any] = {"ranking": name}
    for label, estimate in (
        ("all", spearman(column, on.truth, bootstrap)),
        ("better half", spearman(column, on.truth, bootstrap, better_half)),
        ("regret@10", regret_at(10, column, on.truth, bootstrap)),
    ):
        scale = 100 if label == "regret@10" else 1
        for part in ("value", "low", "high"):
            found = getattr(estimate, part)
            line[f"{label} {part}"] = None if found is None else round(scale * found, 3)
    for other, baseline in against.items():
        difference = spearman_difference(column, baseline, on.truth, bootstrap)
        line[f"minus {other}"] = str(difference)
    return line


def control_of(setting: Setting) -> str:
    """The same recipe on as many random real images; empty where there is none."""
    for title, other in SETTINGS.items():
        free = {"images": "", "each_image": False}
        same = {**asdict(setting), **free} == {**asdict(other), **free}
        if same and setting.images.startswith("set:") and other.images.startswith("random:500:0"):
            return title
    return ""


def tuning_table(on: Half) -> pd.DataFrame:
    lines = [judged(name, column, on, {}) for name, column in on.free.items()]
    for title, columns in on.trained.items():
        losses = np.array(columns["late loss"])
        level = {"level": round(-float(np.median(losses)), 3), "easy": round(float((losses > -EASY).mean()), 2)}
        level["seconds"] = round(float(np.mean([row["seconds"] for row in on.rows[title]])), 1)
        control = control_of(SETTINGS[title])
        for score, column in columns.items():
            against = {"control": on.trained[control][score]} if control in on.trained else {}
            lines.append({"setting": title, **level, **judged(score, column, on, against)})
        with_parameters = mean_ranks([columns["late loss"], on.free["params"]])
        lines.append({"setting": title, **level, **judged("late loss + params", with_parameters, on, {})})
    return pd.DataFrame(lines)


def fitted(parts: Callable[[Half], list[Column]], tuning: Half, reporting: Half) -> tuple[Column, list[float]]:
    """Ranks weighted by a ridge regression on the tuning half, frozen, applied to the reporting half."""
    weights = calibrate(parts(tuning), tuning.truth).weights
    table = np.column_stack([_standard(column) for column in parts(reporting)])
    return list(table @ np.array(weights)), [round(weight, 3) for weight in weights]


def _standard(column: Sequence[float]) -> np.ndarray:
    ranks = rankdata(column)
    return np.asarray((ranks - ranks.mean()) / ranks.std())


def reporting_table(
    tuning: Half, calibration: Half, on: Half, reported: Sequence[str]
) -> tuple[pd.DataFrame, dict[str, list[float]]]:
    """Hybrids are fitted on the larger sample of the tuning half where the setting was measured on it."""
    references = {
        "params": on.free["params"],
        "az_nas": on.free["az_nas"],
        "az_nas + params": on.free["az_nas + params"],
    }
    lines = [judged(name, column, on, {}) for name, column in on.free.items()]
    weights: dict[str, list[float]] = {}
    for title in reported:
        lines += [
            judged(f"{title}: {score}", on.trained[title][score], on, references)
            for score in ("late loss", "full pass", "sum of losses", "accuracy")
        ]
        for score, other in itertools.product(("late loss", "full pass"), ("params", "az_nas")):
            summed = mean_ranks([on.trained[title][score], on.free[other]])
            lines.append(judged(f"{title}: {score} + {other}", summed, on, references))

        def parts(of: Half, title: str = title) -> list[Column]:
            own = of.trained[title]
            return [own["late loss"], own["full pass"], own["sum of losses"], of.free["az_nas"], of.free["params"]]

        measured = next((one for one in (calibration, tuning) if title in one.trained), None)
        if measured is not None:
            column, weights[title] = fitted(parts, measured, on)
            lines.append(judged(f"{title}: hybrid", column, on, references))
    for one, other in itertools.combinations(reported[:2], 2):
        late = [on.trained[title]["late loss"] for title in (one, other)]
        lines.append(judged(f"{one} and {other}: late loss", mean_ranks(late), on, references))
        for name, more in (("az_nas", ["az_nas"]), ("az_nas + params", ["az_nas", "params"])):
            summed = mean_ranks([*late, *(on.free[each] for each in more)])
            lines.append(judged(f"{one} and {other}: late loss + {name}", summed, on, references))
    for title in reported:  # what distilled images add to random ones in the same recipe
        control = control_of(SETTINGS[title])
        if control in reported:
            for score in ("late loss", "full pass", "accuracy"):
                against = {"random images": on.trained[control][score]}
                lines.append(judged(f"{title}: {score}, paired", on.trained[title][score], on, against))
            sums = [mean_ranks([on.trained[which]["late loss"], on.free["az_nas"]]) for which in (title, control)]
            lines.append(judged(f"{title}: late loss + az_nas, paired", sums[0], on, {"random images": sums[1]}))
    return pd.DataFrame(lines), weights


def explained(on: Half, columns: Mapping[str, Sequence[float]]) -> pd.DataFrame:
    """Of each ranking: by how much of all ranks one more of an operation is over-rated, beside the others.

    A linear regression of (rank by the proxy - rank by truth) / n on the number of each operation in the cell, "none"
    left out, so each figure is against an edge that is cut. And what of its Spearman remains when ranks by parameters,
    and by AZ-NAS too, are known.
    """
    operations = [one for one in OPERATIONS if one != "none"]
    cells = [parse_architecture(name).operations for name in on.names]  # type: ignore[attr-defined]
    counts = np.array([[1.0, *(cell.count(one) for one in operations)] for cell in cells])
    truth = rankdata(on.truth)
    lines = []
    for name, column in columns.items():
        ranks = rankdata(column)
        fit = np.linalg.lstsq(counts, (ranks - truth) / len(ranks), rcond=None)[0][1:]
        line: dict[str, Any] = {"ranking": name, **dict(zip(operations, fit.round(3), strict=True))}
        for label, given in (("params", ["params"]), ("params and az_nas", ["params", "az_nas"])):
            known = np.column_stack([np.ones(len(ranks)), *(rankdata(on.free[one]) for one in given)])
            left = [side - known @ np.linalg.lstsq(known, side, rcond=None)[0] for side in (ranks, truth)]
            line[f"partial given {label}"] = round(float(np.corrcoef(left[0], left[1])[0, 1]), 3)
        lines.append(line)
    return pd.DataFrame(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--reported", nargs="*", default=[])
    asked = parser.parse_args()
    tuning = half(asked.out, "tuning")
    table = tuning_table(tuning)
    table.to_csv(asked.out / "tuning.csv", index=False)
    settings = {title: {**asdict(SETTINGS[title]), "key": SETTINGS[title].key} for title in tuning.trained}
    (asked.out / "settings.json").write_text(json.dumps(settings, indent=1) + "\n")
    figure(table, asked.out / "ranking.png")
    if asked.reported:
        reporting = half(asked.out, "reporting")
        own = {title: reporting.trained[title]["late loss"] for title in asked.reported}
        explained(reporting, {**own, **reporting.free}).to_csv(asked.out / "explained.csv", index=False)
        told, weights = reporting_table(tuning, half(asked.out, "calibration"), reporting, asked.reported)
        told.to_csv(asked.out / "reporting.csv", index=False)
        (asked.out / "hybrids.json").write_text(json.dumps(weights, indent=1) + "\n")
        print(told.to_string(max_colwidth=60))


def figure(table: pd.DataFrame, path: Path) -> None:
    """Spearman of the late loss with its interval, setting by setting, over all and over the better half."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    shown = table[(table["ranking"] == "late loss") | table["setting"].isna()]
    labels = [row["ranking"] if pd.isna(row["setting"]) else row["setting"] for _, row in shown.iterrows()]
    places = np.arange(len(shown))[::-1]
    picture, axis = plt.subplots(figsize=(8, 0.32 * len(shown) + 1.2))
    for shift, part, colour in ((0.13, "all", "#0b57a4"), (-0.13, "better half", "#b4530a")):
        middle = shown[f"{part} value"].to_numpy(float)
        reach = [middle - shown[f"{part} low"].to_numpy(float), shown[f"{part} high"].to_numpy(float) - middle]
        axis.errorbar(middle, places + shift, xerr=reach, fmt="o", ms=4, lw=1.2, color=colour, label=part)
    axis.set_yticks(places, labels)
    axis.axvline(0, color="0.7", lw=0.8)
    axis.set_xlabel("Spearman with the accuracy after 200 epochs, 95 % interval")
    axis.legend(loc="lower left")
    picture.tight_layout()
    picture.savefig(path, dpi=110)


if __name__ == "__main__":
    main()
