"""A search from a set to a ranking on real digits: what it leaves behind, how it goes on, what it refuses."""

from __future__ import annotations

import csv
import fcntl
import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import optuna
import pytest

from distill.datasets import ImageDataset
from distill.run import Progress
from distill.synthetic import SyntheticSet
from ftdnas.library import Library
from ftdnas.ranking import Ranking
from ftdnas.rows import RowFile
from ftdnas.search import Request, choose_set, open_study, screening_recipe, search

SetOf = Callable[..., SyntheticSet]

RECIPE = {
    "name": "tiny",
    "evaluation": {"train": {"epochs": 20}, "full": {"epochs": 2, "lr": 0.05}},
}
REQUEST = Request(
    where=("width=32", "depth=1,2"), candidates=5, truth_epochs=1, random_draws=1, jobs=2, device="cpu", study="first"
)


@dataclass(frozen=True, eq=False)
class Searched:
    home: Path
    synthetic: SyntheticSet
    ranking: Ranking
    heard: list[Progress]


@pytest.fixture(scope="module")
def searched(digits: ImageDataset, set_of: SetOf, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Searched]:
    """One search, which all tests of this file look at."""
    home = tmp_path_factory.mktemp("searched")
    heard: list[Progress] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FTDNAS_HOME", str(home))
        provenance = {"dataset": "digits", "data_fingerprint": digits.fingerprint, "recipe": RECIPE}
        synthetic = set_of(digits, ipc=2, provenance=provenance)
        yield Searched(home, synthetic, search(REQUEST, synthetic, "tiny", digits, heard.append), heard)


@pytest.fixture(autouse=True)
def _same_home(searched: Searched, monkeypatch: pytest.MonkeyPatch, _own_home: None) -> None:
    monkeypatch.setenv("FTDNAS_HOME", str(searched.home))


def test_candidates_are_ranked_best_first(searched: Searched) -> None:
    ranking = searched.ranking
    scores = [candidate.score for candidate in ranking.candidates]
    assert len(scores) == 5
    assert all(score is not None and 0.1 < score <= 1 for score in scores)
    assert scores == sorted(scores, key=lambda score: -(score or 0))
    for candidate in ranking.candidates:
        assert candidate.truth is not None
        assert len(candidate.random_scores) == 1
        assert candidate.parameters > 0
        assert candidate.flops > candidate.parameters
    assert ranking.failures == 0
    assert set(ranking.seconds) == {"screening", "random subset 1", "truth"}


def test_the_comparison_holds_the_set_beside_parameters_and_a_random_subset(searched: Searched) -> None:
    comparison = searched.ranking.comparison
    assert comparison is not None
    names = [line.title for line in comparison.lines]
    assert names == ["the set", "the set, by late training loss", "the parameter count", "random subset 1"]
    assert comparison.candidates == 5
    assert comparison.verdict


def test_it_says_what_it_does_before_it_does_it(searched: Searched) -> None:
    text = "\n".join(progress.message for progress in searched.heard)
    assert "screening: 20 images, 20 epochs, SGD at 0.02 (step)" in text
    assert "truth: 1," in text
    assert "5 of 90 feasible architectures" in text  # all of width 32 and depth 1 or 2
    assert "15 trainings to do, about " in text
    assert any("test images were not read" in note for note in searched.ranking.notes)
    last = {progress.stage: (progress.done, progress.total) for progress in searched.heard if progress.total}
    assert last == {"screening": (5, 5), "random subset 1": (5, 5), "truth": (5, 5)}


def test_files_hold_the_same_ranking(searched: Searched) -> None:
    folder = searched.home / "studies" / "first"
    assert json.loads((folder / "ranking.json").read_text()) == json.loads(json.dumps(searched.ranking.to_json()))
    with (folder / "ranking.csv").open() as file:
        table = list(csv.DictReader(file))
    assert [row["architecture"] for row in table] == [one.architecture for one in searched.ranking.candidates]
    assert [float(row["score"]) for row in table] == [one.score for one in searched.ranking.candidates]
    assert [float(row["random_1"]) for row in table] == [one.random_scores[0] for one in searched.ranking.candidates]
    assert not (folder / "materials").exists()


def test_every_candidate_is_one_trial_of_an_optuna_study(searched: Searched) -> None:
    with open_study("first") as study:
        trials = study.get_trials()
    values = {trial.user_attrs["row"]["architecture"]: trial.value for trial in trials}
    assert values == {one.architecture: one.score for one in searched.ranking.candidates}
    for trial in trials:
        assert trial.state == optuna.trial.TrialState.COMPLETE
        assert f"norm={trial.params['norm']}" in trial.user_attrs["row"]["architecture"]
        assert trial.distributions["width"] == optuna.distributions.CategoricalDistribution((32, 64, 128, 256))
    with sqlite3.connect(searched.home / "studies.db") as database:
        assert database.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    database.close()


def test_the_same_search_again_trains_nothing(searched: Searched, digits: ImageDataset) -> None:
    files = [searched.home / "studies" / "first" / "scores.jsonl", *(searched.home / "truth").iterdir()]
    before = [file.read_bytes() for file in files]
    again = search(REQUEST, searched.synthetic, "tiny", digits)
    assert again == searched.ranking
    assert [file.read_bytes() for file in files] == before
    with open_study("first") as study:
        assert len(study.get_trials()) == 5


def test_a_lost_trial_and_a_torn_row_are_made_up_for(searched: Searched, digits: ImageDataset) -> None:
    """What a kill between a row and its trial, and one in the middle of a row, leave behind."""
    rows = RowFile(searched.home / "studies" / "first" / "scores.jsonl")
    whole = rows.path.read_bytes()
    lines = whole.splitlines(keepends=True)
    torn = next(number for number, line in enumerate(lines) if b"random subset" not in line)
    rows.path.write_bytes(b"".join(lines[:torn] + lines[torn + 1 :]) + lines[torn][:50])
    with open_study("first") as study:
        optuna.delete_study(study_name="first", storage=study._storage)
    again = search(REQUEST, searched.synthetic, "tiny", digits)
    assert [replace(one) for one in again.candidates] == list(searched.ranking.candidates)
    with open_study("first") as study:
        assert len(study.get_trials()) == 5
    assert len(rows.read()) == len(lines)


def test_more_candidates_keep_those_that_were_there_and_truth_is_shared(
    searched: Searched, digits: ImageDataset
) -> None:
    (pool,) = (searched.home / "truth").iterdir()
    before = len(RowFile(pool).read())
    request = replace(REQUEST, study="second", epochs=1, candidates=6, random_draws=0, jobs=1)
    other = search(request, searched.synthetic, "tiny", digits)
    assert {one.architecture for one in searched.ranking.candidates} < {one.architecture for one in other.candidates}
    assert len(RowFile(pool).read()) == before + 1
    truth = {one.architecture: one.truth for one in other.candidates}
    assert all(truth[one.architecture] == one.truth for one in searched.ranking.candidates)
    kept = search(replace(request, candidates=None), searched.synthetic, "tiny", digits)
    assert kept == other  # a study keeps its own candidates


def test_candidates_that_diverge_are_counted_and_never_zero(searched: Searched, digits: ImageDataset) -> None:
    wild = replace(searched.synthetic, step_size=1e30)
    ranking = search(
        Request(where=("width=32", "depth=1", "norm=none"), candidates=2, device="cpu", jobs=1, study="wild"),
        wild,
        "wild",
        digits,
    )
    assert [one.score for one in ranking.candidates] == [None, None]
    assert ranking.failures == 2
    assert all(one.error and "not finite" in one.error for one in ranking.candidates)
    with open_study("wild") as study:
        assert [trial.state for trial in study.get_trials()] == [optuna.trial.TrialState.FAIL] * 2


def test_what_cannot_be_is_refused_in_one_line(searched: Searched, digits: ImageDataset) -> None:
    def refused(
        kind: type[Exception], pattern: str, synthetic: SyntheticSet = searched.synthetic, **other: object
    ) -> None:
        with pytest.raises(kind, match=pattern) as caught:
            search(replace(REQUEST, **other), synthetic, "tiny", digits)  # type: ignore[arg-type]
        assert "\n" not in str(caught.value)

    refused(LookupError, "unknown search space 'convnets': did you mean convnet", space="convnets")
    refused(ValueError, "study first with another recipe: give this one another name", epochs=3)
    refused(ValueError, "study first with another restrict, seed", where=(), seed=1)
    refused(ValueError, "cannot name a folder", study="../elsewhere")
    refused(ValueError, "has no width '7'", where=("width=7",))
    halves = replace(searched.synthetic, images=searched.synthetic.images[:, :, :4])
    refused(ValueError, r"the set has images \(1, 4, 8\)", synthetic=halves)
    with (searched.home / "studies" / "first" / "lock").open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        refused(ValueError, "another process is working on study first")


def test_a_set_of_unknown_or_other_origin_is_remarked_on(searched: Searched, digits: ImageDataset) -> None:
    for provenance, words in (({"recipe": RECIPE}, "does not say"), ({"data_fingerprint": "x"}, "from other images")):
        stranger = replace(searched.synthetic, provenance={"recipe": RECIPE, **provenance})
        ranking = search(REQUEST, stranger, "tiny", digits)
        assert any(words in note for note in ranking.notes)
    assert not any("does not say" in note or "other images" in note for note in searched.ranking.notes)


def test_screening_is_as_the_set_is_judged_but_no_longer_than_the_papers(searched: Searched) -> None:
    from distill.recipe import TrainingRecipe

    synthetic = searched.synthetic
    long = TrainingRecipe(epochs=1000)
    assert screening_recipe(synthetic, long) == replace(long, epochs=200, lr=synthetic.step_size)
    assert screening_recipe(synthetic, replace(long, epochs=150, lr=0.5)) == replace(long, epochs=150, lr=0.5)
    assert screening_recipe(synthetic, long, 300).epochs == 300


def test_without_a_name_the_newest_set_of_the_data_is_taken(searched: Searched, tmp_path: Path) -> None:
    library = Library(tmp_path / "sets")
    with pytest.raises(LookupError, match="no set of cifar10 yet: ftdnas distill --dataset cifar10"):
        choose_set(library, None, "cifar10")
    for age, name in enumerate(("new", "old")):
        path = library.add(searched.synthetic, name)
        os.utime(path, (1e9 - age, 1e9 - age))
    assert choose_set(library, None, "")[0] == "new"
    assert choose_set(library, "ol", "")[0] == "old"
    with pytest.raises(LookupError, match="no set of svhn"):
        choose_set(library, None, "svhn")


SCRIPT = """
import sys
from pathlib import Path
from distill.synthetic import SyntheticSet
from ftdnas.real_images import Source
from ftdnas.search import Request, search

if __name__ == "__main__":
    request = Request(where=("width=32", "depth=1,2"), candidates=5, jobs=1, device="cpu", study="killed")
    search(request, SyntheticSet.load(sys.argv[1]), "tiny", Source("digits").load())
"""


def test_a_search_that_is_killed_goes_on_to_the_same_ranking(
    searched: Searched, digits: ImageDataset, tmp_path: Path
) -> None:
    script, stored = tmp_path / "search.py", tmp_path / "set.safetensors"
    script.write_text(SCRIPT)
    searched.synthetic.save(stored)
    rows = RowFile(searched.home / "studies" / "killed" / "scores.jsonl")
    with subprocess.Popen([sys.executable, script, stored], start_new_session=True) as process:
        end = time.monotonic() + 600
        while not rows.read() and process.poll() is None and time.monotonic() < end:
            time.sleep(0.005)
        os.killpg(process.pid, signal.SIGKILL)
    there = len(rows.read())
    assert there > 0
    ranking = search(replace(REQUEST, study="killed", truth_epochs=None, jobs=1), searched.synthetic, "tiny", digits)
    alike = {one.architecture: (one.score, one.late_loss) for one in searched.ranking.candidates}
    assert {one.architecture: (one.score, one.late_loss) for one in ranking.candidates} == alike
    assert ranking.comparison is None
    assert len(rows.path.read_bytes().splitlines()) == 5  # nothing was done twice
