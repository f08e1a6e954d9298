"""Every folder of results says what its own files say."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd
import pytest

from distill.synthetic import SyntheticSet
from ftdnas.agreement.comparison import Table, compare
from ftdnas.runtime.records import from_json
from ftdnas.runtime.rows import RowFile
from ftdnas.sets.recipes import load_recipe
from search_spaces.base import parse_architecture

ROOT = Path(__file__).parents[1]
REPORTS = sorted(path.parent for path in (ROOT / "results").glob("*/report.json"))
FOLDERS = sorted(path.parent for path in (ROOT / "results").glob("*/scores.json"))


@pytest.fixture(scope="module")
def compare_methods() -> ModuleType:
    return importlib.import_module("compare_methods")


def test_there_are_results() -> None:
    assert FOLDERS


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_the_tables_are_computed_from_the_scores(folder: Path, compare_methods: ModuleType) -> None:
    assert compare_methods.tables(folder) in (folder / "README.md").read_text()


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_recipe_and_set_are_whole_and_belong_together(folder: Path) -> None:
    recipe = load_recipe(folder / "recipe.toml")
    made = SyntheticSet.load(folder / "set.safetensors")
    assert made.ipc == recipe.ipc
    assert made.backbone == recipe.backbone
    assert made.provenance["recipe"]["matching"]["outer_steps"] == recipe.matching.outer_steps


@pytest.mark.parametrize("folder", REPORTS, ids=lambda folder: folder.name)
def test_the_table_of_an_agreement_is_its_report(folder: Path) -> None:
    report = json.loads((folder / "report.json").read_text())
    assert importlib.import_module("agreement").summary(report) in (folder / "README.md").read_text()
    assert report["verdict"] in (folder / "README.md").read_text().replace("\n", " ")


@pytest.mark.parametrize("folder", REPORTS, ids=lambda folder: folder.name)
def test_an_agreement_is_computed_again_from_its_scores(folder: Path) -> None:
    report = json.loads((folder / "report.json").read_text())
    table = from_json(Table, report["table"])
    rows = list(RowFile(folder / "rows.jsonl").read().values())
    losses = {
        parse_architecture(row["architecture"]).representative().name: row["late_loss"]
        for row in rows
        if str(row.get("trained_on", {}).get("name", "")).startswith("the set")
    }
    (own,) = (column for column in table.columns if column.name == "set.late_loss")
    for name, value in zip(table.candidates, own.values, strict=True):
        first = parse_architecture(name).representative()
        trained = first if first.name in losses else first.shrunk()
        assert trained is not None
        assert value == pytest.approx(-losses[trained.name], rel=1e-3)
    again = compare(table, 0, resamples=200)
    for line, stored in zip(again.lines, report["comparison"]["lines"], strict=True):
        assert line.headline.spearman.value == stored["headline"]["spearman"]["value"]
        assert line.better_half.spearman.value == stored["better_half"]["spearman"]["value"]


RANKING = ROOT / "results" / "2026-11-25_ranking_study"


def test_the_ranking_study_is_computed_again_from_its_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT / "benchmarks" / "ranking")
    study = importlib.import_module("study")
    monkeypatch.setattr(study, "RESAMPLES", 100)  # the intervals are not compared
    samples = [study.half(RANKING, which) for which in ("tuning", "calibration", "reporting")]
    tuning, calibration, reporting = samples
    assert [len(one.names) for one in samples] == [60, 300, 300]
    stored = pd.read_csv(RANKING / "tuning.csv")
    settings = json.loads((RANKING / "settings.json").read_text())
    assert set(settings) == set(tuning.trained) == set(stored["setting"].dropna())
    for title, setting in settings.items():
        for score in ("late loss", "accuracy"):
            line = stored[(stored["setting"] == title) & (stored["ranking"] == score)].iloc[0]
            again = study.judged(score, tuning.trained[title][score], tuning, {})
            assert again["all value"] == pytest.approx(line["all value"], abs=1e-3)
            assert again["better half value"] == pytest.approx(line["better half value"], abs=1e-3)
        assert study.SETTINGS[title].key == setting["key"]
    told = pd.read_csv(RANKING / "reporting.csv").set_index("ranking")
    readme = (RANKING / "README.md").read_text()
    for title in reporting.trained:
        again = study.judged("", reporting.trained[title]["late loss"], reporting, {})
        line = told.loc[f"{title}: late loss"]
        assert again["all value"] == pytest.approx(line["all value"], abs=1e-3)
        assert f"{line['all value']:.2f}" in readme
    race, weights = importlib.import_module("race"), importlib.import_module("weights")
    real_s = json.loads((RANKING / "cost.json").read_text())["seconds"]
    raced = pd.read_csv(RANKING / "race.csv").set_index(["sample", "promoted by"])
    for name, way in race.ways_of(reporting, ["random500 teacher"], real_s):
        promoted = way(np.arange(300))
        cell: Any = raced.loc[("reporting", name)]
        assert len(promoted) == cell["promoted"]
        assert race.regret(reporting, promoted, np.arange(300)) == pytest.approx(cell["regret@10"], abs=1e-3)
    weighted = pd.read_csv(RANKING / "weights_reporting.csv").iloc[0]
    penalty = float(weighted["ranking"].split()[-1])
    fitted = weights.fit(weights.ranks_of(calibration), weights.standard(calibration.truth), penalty)
    again = study.judged("", list(-weights.ranks_of(reporting) @ fitted), reporting, {})
    assert again["all value"] == pytest.approx(weighted["all value"], abs=1e-3)


@pytest.mark.parametrize("what", ["cells", "convnets"])
def test_what_precision_does_to_ranks_is_computed_again_from_its_rows(what: str) -> None:
    folder = ROOT / "results" / "2026-11-26_precision"
    stored = json.loads((folder / f"{what}.json").read_text())
    judged = importlib.import_module("precision").judged
    assert judged(stored["truth"], list(RowFile(folder / f"{what}.jsonl").settled().values())) == stored["lines"]
    readme = (folder / "README.md").read_text()
    for line in stored["lines"].values():
        for key in ("spearman with the truth", "minus float32", "spearman with float32"):
            assert line.get(key, "") in readme
