"""How far the cpu set of CIFAR-10 ranks architectures: the tables behind results/ and the README.

    python benchmarks/agreement.py nasbench201 --set NAME --table FILE.csv --candidates 48 OUT
    python benchmarks/agreement.py convnet --set NAME --candidates 24 OUT

Rows are kept in OUT/rows.jsonl, so that an interrupted run goes on. The convnets' truth are two seeds of ten epochs on
all real images, in the pool of real trainings. Real images are found as everywhere, through FTDNAS_DATA.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from ftdnas.agreement.comparison import PROXY, REFERENCE, Column, Table, compare
from ftdnas.candidates.handover import hand_over
from ftdnas.candidates.materials import Shelf
from ftdnas.candidates.screening import Screening, default_screening
from ftdnas.candidates.truth import RealTrainings, truth_recipe
from ftdnas.candidates.truth_table import Columns, read_table, stratified_by_truth
from ftdnas.proxies.base import Proxy
from ftdnas.proxies.bench import Workbench
from ftdnas.proxies.names import find_proxy
from ftdnas.proxies.rank_sum import mean_ranks
from ftdnas.report.folder import write_report
from ftdnas.report.ledger import EACH, ONCE, Stage
from ftdnas.report.page import Extras
from ftdnas.report.study import column_of
from ftdnas.report.terminal import everything
from ftdnas.runtime.home import sets_folder
from ftdnas.runtime.processes import LocalProcesses
from ftdnas.runtime.rows import Row, RowFile
from ftdnas.runtime.shared import Record, Work, carry_out
from ftdnas.sets.images import Source, images_of
from ftdnas.sets.library import Library
from ftdnas.sets.recipes import recipe_from_dict
from search_spaces.base import SPACES, flops, parameter_count, parse_architecture, stratified_sample

SCREENING = {
    "nasbench201": Screening(lr=0.1, shrink=True, steps=150),  # half the default's steps, to be affordable on a CPU
    "convnet": default_screening("convnet").screening,
}
FREE = ["params", "flops", "synflow", "naswot", "jacob_cov", "az_nas", "az_nas+params"]
FEW = ["random1", "random2", "kmeans"]
BASELINES = [
    *(f"{few}.late_loss+params" for few in FEW),
    *(f"{few}.{score}" for few in FEW for score in ("late_loss", "accuracy")),
    *FREE,
]
EARLY = ["early.late_loss+params", "early.late_loss", "early.accuracy"]
OWN = ["set.late_loss", "set.accuracy", "set.loss", "set.auc", "set.late_loss+params+az_nas"]
TRUTH_EPOCHS, TRUTH_SEEDS = 10, (0, 1)


def main() -> None:
    asked = parse()
    library = Library()
    synthetic = library.load(library.path(asked.set))
    data = images_of(synthetic, Source("", offline=True, root=asked.data_root))
    recipe = truth_recipe(recipe_from_dict(synthetic.provenance["recipe"], "set").evaluation.full, TRUTH_EPOCHS)
    bench = Workbench(
        data,
        SCREENING[asked.space],
        seed=0,
        synthetic=synthetic,
        set_name=asked.set,
        truth=recipe,
        truth_seeds=TRUTH_SEEDS,
    )
    space = SPACES[asked.space]
    if asked.table:
        table = read_table(
            asked.table,
            space,
            Columns("arch", "cifar10_test_accuracy_200_epochs", {"12 epochs": "cifar10_test_accuracy_12_epochs"}),
        )
        classes = {name: parse_architecture(name).representative().name for name in table.accuracy}
        names = stratified_by_truth(table.accuracy, classes, asked.candidates, 0)
    else:
        sample = stratified_sample(space, asked.candidates, data.image_shape, 0, {"width": (32, 64)})
        names = [architecture.name for architecture in sample]
    proxies = [find_proxy(text, bench) for text in texts(asked.space)]
    rows = settled(proxies, names, bench, RowFile(asked.out / "rows.jsonl"), asked.jobs)

    architectures = [parse_architecture(name) for name in names]
    size = (data.image_shape, data.num_classes)
    parameters = tuple(parameter_count(architecture, *size) for architecture in architectures)
    columns = [column_of(proxies[0], names, rows, bench, PROXY)]
    columns += [column_of(proxy, names, rows, bench, None) for proxy in proxies[1:]]
    if asked.table:
        early = [table.others["12 epochs"][name] for name in names]
        columns += [
            Column("table: 12 epochs", "accuracy after 12 epochs of all real images, by the table", tuple(early)),
            Column(
                "table: 12 epochs + params",
                "rank sum of the table's 12 epochs and the parameters",
                tuple(mean_ranks([early, [float(count) for count in parameters]])),
            ),
        ]
        columns[-2:] = [replace(one, role=REFERENCE) for one in columns[-2:]]
        truth: dict[str, Any] = {"truth_name": table.source, "truth": tuple(table.accuracy[name] for name in names)}
    else:
        real = RealTrainings.of(data, recipe, len(TRUTH_SEEDS)).truth(names)
        spent = sum(real.seconds.values())
        truth = {
            "truth_name": real.title,
            "truth": tuple(real.accuracy(name) for name in names),
            "truth_by_seed": tuple(tuple(one[name] for name in names) for one in real.by_seed),
            "truth_images": real.images,
            "truth_seconds": spent,
            "train_all_s": spent,
        }
    judged = Table(
        space=asked.space,
        candidates=tuple(names),
        classes=tuple(architecture.representative().name for architecture in architectures),
        parameters=parameters,
        flops=tuple(flops(architecture, *size) for architecture in architectures),
        choices=tuple(architecture.choices for architecture in architectures),
        num_classes=data.num_classes,
        columns=tuple(columns),
        **truth,
    )
    comparison = compare(judged, 0)
    print("\n".join(everything(comparison)))
    write_report(asked.out, judged, comparison, extras(asked, bench, judged), png=True)


def texts(space: str) -> list[str]:
    """The proxies that are scored, the one that is judged first."""
    if space == "convnet":
        return ["set.late_loss+params", *BASELINES, *EARLY, *OWN]
    return ["set.late_loss+params", *(one for one in BASELINES if not one.startswith("kmeans")), *OWN]


def settled(proxies: list[Proxy], names: list[str], bench: Workbench, file: RowFile, jobs: int) -> dict[str, Row]:
    """All rows that the proxies ask for, done where they are not in the file."""
    rows: dict[str, Row] = dict(file.settled())
    begun = time.monotonic()

    def a_round(todo: Mapping[str, Work[Shelf]]) -> Mapping[str, Row]:
        done = 0

        def said(row: Row) -> None:  # noqa: ARG001
            nonlocal done
            done += 1
            print(f"{(time.monotonic() - begun) / 60:6.1f} min  {done} of {len(todo)}", flush=True)

        with tempfile.TemporaryDirectory() as folder:
            materials = Path(folder) / "materials"
            lay_out = lambda: hand_over(list(bench.shelf.values()), materials, "cpu")  # noqa: E731
            with LocalProcesses(lay_out, jobs) as processes:
                return carry_out(todo.values(), Record(file), processes, said)

    while todo := {work.key: work for proxy in proxies for work in proxy.todo(names, rows)}:
        rows |= a_round(todo)
    return rows


def extras(asked: argparse.Namespace, bench: Workbench, judged: Table) -> Extras:
    import platform

    import torch

    sheet = sets_folder() / f"{asked.set}.png"
    own = judged.columns[0]
    return Extras(
        title=f"{asked.space} on {bench.data.source}, {len(judged.candidates)} candidates",
        images={"the synthetic images": sheet} if sheet.exists() else {},
        provenance={
            "data": bench.data.source,
            "image size": bench.data.image_shape[1],
            "set": asked.set,
            "screening": bench.screening.describe(),
            "screening settings": json.dumps(bench.screening.to_json()),
            "truth recipe": json.dumps(asdict(bench.truth)) if bench.truth and not asked.table else judged.truth_name,
            "device": f"CPU, one thread a training, {platform.machine()}",
            "torch": torch.__version__,
        },
        notes=[
            "left out on a CPU: five random draws (two were taken), early stopping at equal total cost, the race"
            + ("" if asked.space == "convnet" else ", k-means, early stopping at equal marginal cost"),
            "choices (screening, proxy) were made before, not on these candidates",
        ],
        ledger=[
            Stage("experts and distillation", own.overhead_s, "CPU, one thread", ONCE),
            Stage("screening on the set", own.seconds, "CPU, one thread", EACH, len(judged.candidates)),
        ],
    )


def summary(report: dict[str, Any]) -> str:
    """The table of a results folder, from its report.json."""

    def told(one: dict[str, Any], factor: float = 1, digits: int = 2) -> str:
        if one["value"] is None:
            return str(one["method"])
        value, low, high = (f"{factor * one[name]:.{digits}f}" for name in ("value", "low", "high"))
        return f"{value} [{low}, {high}]"

    columns = {column["name"]: column for column in report["table"]["columns"]}
    lines = [
        "| ranking | Spearman, all above chance | better half by truth | regret@10, points | seconds, all candidates |",
        "|---|---|---|---|---|",
    ]
    for line in report["comparison"]["lines"]:
        column = columns[line["name"]]
        (top,) = (top for top in line["tops"] if top["k"] == 10)
        once = f" + {column['overhead_s']:,.0f}" if column["overhead_s"] else ""
        cells = [
            f"`{line['name']}`",
            told(line["headline"]["spearman"]),
            told(line["better_half"]["spearman"]),
            told(top["regret"], 100, 1),
            f"{column['seconds']:.0f}{once}" if column["seconds"] else "",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("space", choices=sorted(SCREENING))
    parser.add_argument("out", type=Path)
    parser.add_argument("--set", required=True)
    parser.add_argument("--table", type=Path)
    parser.add_argument("--data-root", type=Path, default=os.environ.get("FTDNAS_DATA"))
    parser.add_argument("--candidates", type=int, default=48)
    parser.add_argument("--jobs", type=int, default=2)
    return parser.parse_args()


if __name__ == "__main__":
    main()
