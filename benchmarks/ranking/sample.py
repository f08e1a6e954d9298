"""The architectures: NAS-Bench-201 split once, by isomorphism class, into a tuning and a reporting half."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from ftdnas.candidates.truth_table import Columns, TruthTable, read_table, stratified_by_truth
from search_spaces.base import SPACES, parse_architecture

HALVES = ("tuning", "reporting")
EARLY = "12 epochs"


@dataclass(frozen=True)
class Sample:
    """Canonical names, in random order, and the table they are from."""

    names: list[str]
    table: TruthTable


def sample(table_path: Path | None, half: str, n: int) -> Sample:
    """`n` architectures of a half, one from each of n equal parts of its accuracies, all of different classes."""
    if table_path is None:
        raise FileNotFoundError("the table of NAS-Bench-201 is not under FTDNAS_DATA")
    columns = Columns("arch", "cifar10_test_accuracy_200_epochs", {EARLY: "cifar10_test_accuracy_12_epochs"})
    table = read_table(table_path, SPACES["nasbench201"], columns)
    classes = {name: parse_architecture(name).representative().name for name in table.accuracy}
    chosen = {name for name in table.accuracy if half_of(classes[name]) == half}
    accuracy = {name: value for name, value in table.accuracy.items() if name in chosen}
    return Sample(stratified_by_truth(accuracy, classes, n, 0), table)


def half_of(representative: str) -> str:
    return HALVES[hashlib.sha256(f"ranking half {representative}".encode()).digest()[0] % 2]
