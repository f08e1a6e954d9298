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
    PLACE.write_text(json.dumps(evidence(), indent=1) + "\n")


def evidence() -> list[dict[str, Any]]:
    """Recomputed from the tables in results/."""
    study = ROOT / "results" / STUDY
    told = pd.read_csv(study / "reporting.csv").set_index("ranking")
    found = [
        _line("nasbench201", *REPORTING[name], 300, told.loc[name], STUDY) for name in REPORTING if name in told.index
    ]
    tried = pd.read_csv(study / "tuning.csv").set_index(["setting", "ranking"])
    found += [_line("nasbench201", *TUNING[key], 60, tried.loc[key], STUDY) for key in TUNING]
    compared = json.loads((ROOT / "results" / CONVNETS / "report.json").read_text())["comparison"]["lines"]
    for line in compared:
        name = line["name"].replace("random1.", "random.")  # the first draw
        regret = next(top["regret"] for top in line["tops"] if top["k"] == 10)
        figures = {}
        for label, one in (("all", line["headline"]["spearman"]), ("better_half", line["better_half"]["spearman"])):
            figures[label] = [round(one[part], 3) for part in PARTS]
        figures["regret"] = [round(100 * regret[part], 3) for part in PARTS]
        known = {"space": "convnet", "proxy": name, "labels": "" if name in FREE else "set", "candidates": 24}
        found.append({**known, **figures, "data": CONVNET_DATA, "result": CONVNETS})
    return found


def _line(space: str, proxy: str, labels: str, candidates: int, row: Any, result: str) -> dict[str, Any]:
    columns = {"all": "all", "better_half": "better half", "regret": "regret@10"}
    figures = {name: [float(row[f"{column} {part}"]) for part in PARTS] for name, column in columns.items()}
    return {
        "space": space,
        "proxy": proxy,
        "labels": labels,
        "candidates": candidates,
        **figures,
        "data": CELL_DATA,
        "result": result,
    }


if __name__ == "__main__":
    main()
