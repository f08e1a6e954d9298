"""Distillation methods against each other over distillation seeds, and a results folder from which it is recomputed.

    python benchmarks/compare_methods.py collect FOLDER SET [SET ...] [--seeds 5] [--against random,herding,kmeans,full]
    python benchmarks/compare_methods.py tables FOLDER

`collect` judges sets of the library on test images, writes FOLDER/scores.json (raw scores, courses, costs, versions),
FOLDER/recipe.toml and, of the set that did best on validation images, the file itself, its contact sheet and its
course. `tables` needs that folder alone: it writes the tables of FOLDER/README.md anew, between its two marks.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shutil
import statistics
import sys
from pathlib import Path
from typing import Any

BEGIN, END = "<!-- tables: made by benchmarks/compare_methods.py -->", "<!-- end of the tables -->"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("action", choices=["collect", "tables"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("sets", nargs="*")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--against", default="random,herding,kmeans,full")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--override", dest="settings", action="append", default=[], help="of the recipe's evaluation")
    options = parser.parse_args()
    if options.action == "collect":
        collect(
            options.folder, options.sets, options.seeds, options.against.split(","), options.settings, options.threads
        )
    write_tables(options.folder)
    return 0


def collect(folder: Path, names: list[str], seeds: int, against: list[str], settings: list[str], threads: int) -> None:
    """Judge the sets, the first of them beside real images, and fill the folder."""
    from ftdnas.sets.judging import judge
    from ftdnas.sets.library import Library, curve_of, sheet_of
    from ftdnas.sets.recipes import recipe_from_dict, recipe_to_toml
    from ftdnas.sets.request import EvaluateRequest, pair

    library = Library()
    root = Path(os.environ["FTDNAS_DATA"]) if "FTDNAS_DATA" in os.environ else None
    changed = dict(map(pair, settings))
    scores: dict[str, Any] = {"sets": [], "against": []}
    for name in names:
        synthetic = library.load(name)
        kinds = ",".join(against) if name == names[0] else ""
        request = EvaluateRequest(
            set=name, against=kinds, seeds=seeds, settings=changed, data_root=root, threads=threads
        )
        judged = judge(request, print_progress).to_json()
        scores["sets"].append(
            {"name": name, "step_size": synthetic.step_size, **synthetic.provenance, "judged": judged["evaluations"][0]}
        )
        scores["against"] += judged["evaluations"][1:]
        scores |= {key: judged[key] for key in ("source", "split", "test_images")}
    recipe = next(made["recipe"] for made in scores["sets"] if made["method"] == "ftd")
    for made in scores["sets"]:
        del made["recipe"]["description"], made["recipe"]["hardware"]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "scores.json").write_text(json.dumps(scores, indent=1, sort_keys=True) + "\n")
    (folder / "recipe.toml").write_text(recipe_to_toml(recipe_from_dict(recipe, "recipe")))
    best = max(scores["sets"], key=lambda made: made["validation_accuracy"])["name"]
    path = library.path(best)
    for made, target in ((path, "set.safetensors"), (sheet_of(path), "sheet.png"), (curve_of(path), "course.png")):
        shutil.copyfile(made, folder / target)


def print_progress(progress: Any) -> None:
    print(progress.stage, progress.done, progress.total, dict(progress.values), progress.message, flush=True)


def write_tables(folder: Path) -> None:
    """Put the tables between the marks of FOLDER/README.md, which is begun where there is none."""
    path = folder / "README.md"
    text = path.read_text() if path.exists() else f"# {folder.name}\n\n{BEGIN}\n{END}\n"
    head, _, rest = text.partition(BEGIN)
    path.write_text(f"{head}{BEGIN}\n\n{tables(folder)}\n{END}{rest.partition(END)[2]}")


def tables(folder: Path) -> str:
    """Markdown, from scores.json alone."""
    scores = json.loads((folder / "scores.json").read_text())
    return "\n".join(
        [*judged_table(scores), "", *runs_table(scores), "", *comparison(scores), "", *made_with(scores), ""]
    )


def judged_table(scores: dict[str, Any]) -> list[str]:
    """The sets and the real images on test data."""
    lines = [
        f"Accuracy on the {scores['test_images']:,} test images in percent, mean +- sample deviation over trainings:",
        "",
        "| trained on | images | accuracy | n | learning rate | epochs | seconds |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for made in [*(each["judged"] for each in scores["sets"]), *scores["against"]]:
        values = made["accuracies"]
        lines.append(
            f"| {made['name']} | {made['train_images']:,} | {spread(values)} | {len(values)} | {made['lr']:.3g} "
            f"| {made['recipe']['epochs']} | {made['seconds']:.0f} |"
        )
    return lines


def runs_table(scores: dict[str, Any]) -> list[str]:
    """The distillations."""
    lines = [
        "The distillations (validation accuracy is that of the checkpoint that it chose, so it is a little too good;",
        "matching loss: mean of the last 50 outer steps; experts are shared by the seeds of a method):",
        "",
        "| set | method | seed | steps | matching loss | step size | validation | published | matching s | experts s |",
        "|---|---|---:|---:|---:|---:|---:|---|---:|---:|",
    ]
    for made in scores["sets"]:
        losses = [loss for _, loss in made["losses"]][-50:]
        lines.append(
            f"| {made['name']} | {made['method']} | {made['seed']} | {len(made['losses'])} "
            f"| {statistics.fmean(losses):.3f} | {made['step_size']:.4f} | {100 * made['validation_accuracy']:.1f} "
            f"| {made['published']} | {made['seconds']['matching']:.0f} | {made['seconds']['experts']:.0f} |"
        )
    return lines


def comparison(scores: dict[str, Any]) -> list[str]:
    """FTD against MTT over distillation seeds, and each method against random real images."""
    means: dict[str, list[float]] = {}
    for made in scores["sets"]:
        means.setdefault(made["method"], []).append(statistics.fmean(made["judged"]["accuracies"]))
    lines = [
        f"{method.upper()} over {len(values)} distillations: {spread(values)} (each the mean of its trainings)."
        for method, values in means.items()
    ]
    random = [made["accuracies"] for made in scores["against"] if made["name"] == "random"]
    if random:
        ahead = statistics.fmean(means["ftd"]) - statistics.fmean(random[0])
        lines.append(f"FTD is ahead of as many random real images by {100 * ahead:.1f} points.")
    if len(means.get("ftd", [])) > 1 and len(means.get("mtt", [])) > 1:
        difference, low, high = welch(means["ftd"], means["mtt"])
        lines.append(
            f"FTD minus MTT: {100 * difference:+.2f} points, 95 % interval [{100 * low:+.2f}, {100 * high:+.2f}] "
            f"(Welch, n = {len(means['ftd'])} and {len(means['mtt'])} distillations)."
        )
    return ["  \n".join(lines)]


def made_with(scores: dict[str, Any]) -> list[str]:
    """Data, device and versions."""
    first = scores["sets"][0]
    versions = ", ".join(f"{name} {version}" for name, version in sorted(first["versions"].items()))
    return [
        f"Data: {scores['source']}; {scores['split']}. Fingerprint {first['data_fingerprint'][:16]}.  ",
        f"Device: {first['device']}, {first['threads']} thread(s) each. Versions: {versions}.",
    ]


def spread(values: list[float]) -> str:
    text = f"{100 * statistics.fmean(values):.1f}"
    return f"{text} +- {100 * statistics.stdev(values):.1f}" if len(values) > 1 else text


def welch(first: list[float], second: list[float]) -> tuple[float, float, float]:
    """The difference of two means and its 95 % interval, variances not assumed equal."""
    from scipy.stats import t

    parts = [statistics.variance(values) / len(values) for values in (first, second)]
    freedom = sum(parts) ** 2 / sum(
        part**2 / (len(values) - 1) for part, values in zip(parts, (first, second), strict=True)
    )
    difference = statistics.fmean(first) - statistics.fmean(second)
    half = float(t.ppf(0.975, freedom)) * math.sqrt(sum(parts))
    return difference, difference - half, difference + half


if __name__ == "__main__":
    sys.exit(main())
