"""What ships as ftdnas/ranking/evidence.json: the figures of our results that say how a proxy ranks a space.

python benchmarks/evidence.py
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd

from ftdnas.ranking.evidence import PLACE

ROOT = Path(__file__).parents[1]
STUDY = "2026-11-25_ranking_study"
CONVNETS = "2026-11-25_convnet_agreement"
TUNING = {  # (setting, ranking) -> proxy, labels
    ("random500", "late loss"): ("random.late_loss", "set"),
    ("random500", "late loss + params"): ("random.late_loss+params", "set"),
    ("random500", "accuracy"): ("random.accuracy", "set"),
    ("ftd50", "late loss"): ("set.late_loss", "set"),
    ("ftd50", "late loss + params"): ("set.late_loss+params", "set"),
    ("ftd50", "accuracy"): ("set.accuracy", "set"),
    ("ftd50 teacher", "late loss"): ("set.late_loss", "teachers"),
    ("ftd50 teacher", "late loss + params"): ("set.late_loss+params", "teachers"),
}
REPORTING = {  # ranking -> proxy, labels
    "params": ("params", ""),
    "flops": ("flops", ""),
    "az_nas": ("az_nas", ""),
    "az_nas + params": ("az_nas+params", ""),
    "random500 teacher: late loss": ("random.late_loss", "teachers"),
    "random500 teacher: late loss + params": ("random.late_loss+params", "teachers"),
    "random500 teacher: late loss + az_nas": ("random.late_loss+az_nas", "teachers"),
}
CELL_DATA = "CIFAR-10 at 16 pixels against 200 epochs at 32"
CONVNET_DATA = "widths 32 and 64, CIFAR-10 at 16 pixels, 100 images, against ten epochs"
PARTS = ("value", "low", "high")
FREE = ("params", "flops", "synflow", "naswot", "jacob_cov", "az_nas", "az_nas+params")


def main() -> None:
    records = ",\n".join(json.dumps(record) for record in evidence())
    PLACE.write_text(f"[\n{records}\n]\n", encoding="utf-8")


def evidence() -> list[dict[str, Any]]:
    """Recomputed from the tables in results/, in the order in which they ship."""
    study = ROOT / "results" / STUDY
    told = pd.read_csv(study / "reporting.csv").set_index("ranking")
    tried = pd.read_csv(study / "tuning.csv").set_index(["setting", "ranking"])
    records = [_of_cells(*REPORTING[name], 300, told.loc[name]) for name in REPORTING if name in told.index]
    records += [_of_cells(*TUNING[key], 60, tried.loc[key]) for key in TUNING]
    compared = json.loads((ROOT / "results" / CONVNETS / "report.json").read_text())["comparison"]["lines"]
    for line in compared:
        name = line["name"].replace("random1.", "random.")  # the first draw
        regret = next(top["regret"] for top in line["tops"] if top["k"] == 10)
        figures = {
            "all": [round(line["headline"]["spearman"][part], 3) for part in PARTS],
            "better_half": [round(line["better_half"]["spearman"][part], 3) for part in PARTS],
            "regret": [round(100 * regret[part], 3) for part in PARTS],
        }
        known = {"space": "convnet", "proxy": name, "labels": "" if name in FREE else "set", "candidates": 24}
        records.append({**known, **figures, "data": CONVNET_DATA, "result": CONVNETS})
    return records


def _of_cells(proxy: str, labels: str, candidates: int, row: Any) -> dict[str, Any]:
    """The record of a proxy's row in a table of the ranking study."""
    columns = {"all": "all", "better_half": "better half", "regret": "regret@10"}
    figures = {name: [float(row[f"{column} {part}"]) for part in PARTS] for name, column in columns.items()}
    known = {"space": "nasbench201", "proxy": proxy, "labels": labels, "candidates": candidates}
    return {**known, **figures, "data": CELL_DATA, "result": STUDY}


if __name__ == "__main__":
    main()
