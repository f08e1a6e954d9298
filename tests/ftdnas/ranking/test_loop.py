"""A search from a set to a ranking on real digits: what it leaves behind, how it goes on, what it refuses."""

from __future__ import annotations

import csv
import fcntl
import json
import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import optuna
import pytest

from distill.images.datasets import ImageDataset
from distill.run import Progress
from distill.synthetic import SyntheticSet
from ftdnas.candidates.handover import hand_over
from ftdnas.candidates.materials import Material, Shelf
from ftdnas.candidates.screening import Screening
from ftdnas.ranking import job as search_job
from ftdnas.ranking.loop import advice, search
from ftdnas.ranking.request import SearchRequest
from ftdnas.ranking.run import choose_set, needs_set
from ftdnas.ranking.study import ranked_study
from ftdnas.ranking.table import Ranking
from ftdnas.ranking.trials import open_study
from ftdnas.runtime.database import open_storage
from ftdnas.runtime.processes import LocalProcesses
from ftdnas.runtime.rows import RowFile
from ftdnas.sets.library import Library
from search_spaces.base import SPACES

SetOf = Callable[..., SyntheticSet]

RECIPE = {"name": "tiny", "evaluation": {"train": {"epochs": 20}, "full": {"epochs": 2, "lr": 0.05}}}
SCREENING = Screening(epochs=10, lr="set", batch_norm="running")
REQUEST = SearchRequest(
    where=("width=32", "depth=1,2"),
    candidates=5,
    compare=("params", "random.accuracy"),
    screening=SCREENING,
    jobs=2,
    device="cpu",
    study="first",
)


@dataclass(frozen=True, eq=False)
class Searched:
    home: Path
    synthetic: SyntheticSet
    ranking: Ranking
    listener: list[Progress]


@pytest.fixture(scope="module")
def search_once(digits: ImageDataset, set_of: SetOf, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Searched]:
    """One search, of which every test of this file gets a copy."""
    home = tmp_path_factory.mktemp("searched")
    listener: list[Progress] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FTDNAS_HOME", str(home))
        provenance = {"dataset": "digits", "data_fingerprint": digits.fingerprint, "recipe": RECIPE}
        synthetic = set_of(digits, ipc=2, provenance=provenance)
        yield Searched(home, synthetic, search(REQUEST, synthetic, "tiny", digits, listener.append), listener)


@pytest.fixture(autouse=True)
def searched(search_once: Searched, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, _own_home: None) -> Searched:
    home = Path(shutil.copytree(search_once.home, tmp_path / "home"))
    monkeypatch.setenv("FTDNAS_HOME", str(home))
    return replace(search_once, home=home, ranking=replace(search_once.ranking, folder=home / "studies" / "first"))


def test_candidates_are_ranked_best_first(searched: Searched) -> None:
    ranking = searched.ranking
    scores = [candidate.score for candidate in ranking.candidates]
    assert len(scores) == 5
    assert all(score is not None for score in scores)
    assert scores == sorted(scores, key=lambda score: -(score or 0))
    for candidate in ranking.candidates:
        assert candidate.accuracy is not None
        assert candidate.late_loss is not None
        assert candidate.guide == -candidate.late_loss
        assert candidate.flops > candidate.parameters > 0
    assert (ranking.failures, ranking.compared) == (0, ("params", "random.accuracy"))
    assert set(ranking.seconds) == {"set.late_loss+params", "params", "random.accuracy"}
    assert ranking.seconds["params"] == 0 < ranking.seconds["random.accuracy"]
    assert ranked_study("first")[1] == ranking
    assert ranking.best(2) == [one.architecture for one in ranking.candidates[:2]]


def test_it_says_what_it_does_before_it_does_it(searched: Searched) -> None:
    text = "\n".join(progress.message for progress in searched.listener)
    assert "measured" not in text  # what does not change what is done next stands in the files
    assert "5 of the space's 720 architectures: as many as were asked for" in text
    assert text.count("5 evaluations to do") == 2
    last = {progress.stage: (progress.done, progress.total) for progress in searched.listener if progress.total}
    assert last == {"screening": (5, 5), "baselines": (5, 5)}


def test_what_each_way_costs_is_said(searched: Searched, digits: ImageDataset) -> None:
    given = advice(replace(REQUEST, candidates=100), searched.synthetic, "tiny", digits)
    assert [way.name for way in given.ways] == [
        "screen with a set at hand",
        "race on real data",
        "train all for 2 epochs",
    ]
    screen, race, everything = (way.total_s(100, given.jobs) for way in given.ways)
    assert 0 < screen < everything
    assert 0 < race < everything
    with pytest.raises(ValueError, match="params trains nothing"):
        advice(replace(REQUEST, proxy="params"), searched.synthetic, "tiny", digits)


def test_a_quicker_precision_is_named_where_there_is_one(
    searched: Searched, digits: ImageDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    def said(there: bool, precision: str) -> str:
        monkeypatch.setattr(search_job, "multiplies_bfloat16", lambda: there)
        listener: list[Progress] = []
        request = replace(REQUEST, screening=replace(SCREENING, precision=precision))
        advice(request, searched.synthetic, "tiny", digits, listener.append)
        return "\n".join(progress.message for progress in listener)

    assert "--precision bfloat16" in said(True, "float32")
    assert "bfloat16" not in said(False, "float32")
    rounded = said(True, "bfloat16")
    assert "--precision" not in rounded
    assert "all real images are float32: they take another time than is estimated from bfloat16" in rounded


def test_candidates_are_screened_in_the_precision_that_is_asked_for(searched: Searched, digits: ImageDataset) -> None:
    request = replace(REQUEST, screening=replace(SCREENING, precision="bfloat16"), study="rounded", compare=())
    ranking = search(request, searched.synthetic, "tiny", digits)
    exact = {one.architecture: one for one in searched.ranking.candidates}
    for one in ranking.candidates:
        assert one.late_loss != exact[one.architecture].late_loss
        assert one.late_loss == pytest.approx(exact[one.architecture].late_loss, rel=0.05)
    with pytest.raises(ValueError, match="with another screening"):
        search(replace(REQUEST, study="rounded"), searched.synthetic, "tiny", digits)


def test_files_hold_the_same_ranking(searched: Searched) -> None:
    folder = searched.home / "studies" / "first"
    stored = json.loads((folder / "ranking.json").read_text()) | {"folder": str(folder)}  # it was copied
    assert stored.pop("$sum").startswith("sha256:")
    assert stored == json.loads(json.dumps(searched.ranking.to_json()))
    with (folder / "ranking.csv").open() as file:
        table = list(csv.DictReader(file))
    assert [row["architecture"] for row in table] == [one.architecture for one in searched.ranking.candidates]
    assert not (folder / "materials").exists() or not list((folder / "materials").iterdir())


def test_every_candidate_is_one_trial_of_an_optuna_study(searched: Searched) -> None:
    with open_storage() as storage, open_study(storage, "first", SPACES["convnet"]) as study:
        trials = study.optuna.get_trials()
    values = {trial.user_attrs["row"]["architecture"]: trial.value for trial in trials}
    assert values == {one.architecture: one.guide for one in searched.ranking.candidates}
    for trial in trials:
        assert trial.state == optuna.trial.TrialState.COMPLETE
        assert f"norm={trial.params['norm']}" in trial.user_attrs["row"]["architecture"]


def test_the_same_search_again_trains_nothing(searched: Searched, digits: ImageDataset) -> None:
    file = searched.home / "studies" / "first" / "scores.jsonl"
    before = file.read_bytes()
    again = search(REQUEST, searched.synthetic, "tiny", digits)
    assert again == searched.ranking
    assert file.read_bytes() == before
    with open_storage() as storage, open_study(storage, "first", SPACES["convnet"]) as study:
        assert len(study.optuna.get_trials()) == 5


def test_a_lost_study_and_a_torn_row_are_made_up_for(searched: Searched, digits: ImageDataset) -> None:
    """What a kill between a row and its trial, and one in the middle of a row, leave behind."""
    rows = RowFile(searched.home / "studies" / "first" / "scores.jsonl")
    lines = rows.path.read_bytes().splitlines(keepends=True)
    rows.path.write_bytes(b"".join(lines[1:]) + lines[0][:50])
    with open_storage() as storage:
        optuna.delete_study(study_name="first", storage=storage.url)
    again = search(REQUEST, searched.synthetic, "tiny", digits)

    def known(ranking: Ranking) -> list[object]:
        return [(one.architecture, one.score, one.accuracy, one.late_loss) for one in ranking.candidates]

    assert known(again) == known(searched.ranking)
    with open_storage() as storage, open_study(storage, "first", SPACES["convnet"]) as study:
        assert len(study.evaluated()) == 5
    assert len(rows.read()) == len(lines)


def test_more_candidates_keep_those_that_were_there(searched: Searched, digits: ImageDataset) -> None:
    request = replace(REQUEST, study="second", compare=(), candidates=3, jobs=1)
    few = search(request, searched.synthetic, "tiny", digits)
    more = search(replace(request, candidates=4), searched.synthetic, "tiny", digits)
    assert {one.architecture for one in few.candidates} < {one.architecture for one in more.candidates}
    assert len(RowFile(searched.home / "studies" / "second" / "scores.jsonl").read()) == 4
    kept = search(replace(request, candidates=None), searched.synthetic, "tiny", digits)
    assert kept.candidates == more.candidates  # a study keeps its own candidates


def test_candidates_that_diverge_are_counted_and_never_zero(searched: Searched, digits: ImageDataset) -> None:
    wild = replace(searched.synthetic, step_size=1e30)
    request = replace(
        REQUEST, where=("width=32", "depth=1", "norm=none"), candidates=2, compare=(), jobs=1, study="wild"
    )
    ranking = search(request, wild, "wild", digits)
    assert [one.score for one in ranking.candidates] == [None, None]
    assert ranking.failures == 2
    assert all(one.error and "not finite" in one.error for one in ranking.candidates)
    with open_storage() as storage, open_study(storage, "wild", SPACES["convnet"]) as study:
        assert [trial.state for trial in study.optuna.get_trials()] == [optuna.trial.TrialState.FAIL] * 2


def test_limits_are_kept_before_anything_is_trained(searched: Searched, digits: ImageDataset) -> None:
    request = replace(REQUEST, study="small", compare=(), candidates=3, max_params=6_000)
    ranking = search(request, searched.synthetic, "tiny", digits)
    assert all(one.parameters <= 6_000 for one in ranking.candidates)
    assert any("at most 6,000 parameters" in note for note in ranking.notes)
    with pytest.raises(ValueError, match=r"no candidate|asked for|cannot|limit") as error:
        search(replace(request, study="none", max_params=10), searched.synthetic, "tiny", digits)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("sampler", "objectives"), [("tpe", ("params",)), ("nni-tpe", ())])
def test_samplers_that_learn_find_different_candidates_and_go_on(
    sampler: str, objectives: Any, searched: Searched, digits: ImageDataset
) -> None:
    request = replace(REQUEST, study=f"by-{sampler}", compare=(), candidates=3, sampler=sampler, where=())
    request = replace(request, max_flops=3_000_000, objectives=objectives)
    ranking = search(request, searched.synthetic, "tiny", digits)
    assert len({one.architecture for one in ranking.candidates}) == 3
    more = search(replace(request, candidates=5), searched.synthetic, "tiny", digits)
    assert {one.architecture for one in ranking.candidates} <= {one.architecture for one in more.candidates}
    assert len(more.candidates) == 5
    directions = {"score": "maximize"} | dict.fromkeys(objectives, "minimize")
    with open_storage() as storage, open_study(storage, f"by-{sampler}", SPACES["convnet"], directions) as study:
        assert len(study.optuna.get_trials()) == 5


def test_a_whole_space_by_a_count_starts_no_process(digits: ImageDataset, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*given: object) -> None:
        raise AssertionError(f"a process was started for {given}")

    monkeypatch.setattr(LocalProcesses, "_started", never)
    request = SearchRequest(proxy="params", sampler="exhaustive", study="all", where=("depth=1,2", "width=32,64"))
    ranking = search(request, None, "", digits)
    assert len(ranking.candidates) == 180
    sizes = [one.parameters for one in ranking.candidates]
    assert sizes == sorted(sizes, reverse=True)


def test_all_rounds_share_one_layout_of_the_images_and_one_pool(
    searched: Searched, digits: ImageDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    laid_out: list[int] = []
    folders: list[Path] = []

    def counted(materials: Sequence[Material], folder: Path, device: str) -> Callable[[], Shelf]:
        laid_out.append(len(materials))
        folders.append(folder)
        return hand_over(materials, folder, device)

    monkeypatch.setattr("ftdnas.ranking.job.hand_over", counted)
    proxies = ("random.accuracy", "early.late_loss", "race")  # rounds of their own, on images of their own
    request = replace(REQUEST, study="once", candidates=3, compare=proxies, jobs=1)
    ranking = search(request, searched.synthetic, "tiny", digits)
    assert set(ranking.seconds) == {"set.late_loss+params", *proxies}
    assert laid_out == [4]  # the set, a random subset, all real images, and what scores them
    assert not folders[0].exists()


def test_a_race_needs_no_set(digits: ImageDataset) -> None:
    from distill.recipe import TrainingRecipe

    request = replace(
        REQUEST,
        proxy="race",
        compare=(),
        candidates=4,
        study="race",
        truth=TrainingRecipe(epochs=4, lr=0.05),
        where=("width=32", "depth=1"),
    )
    assert not needs_set(request)
    ranking = search(request, None, "", digits)
    assert ranking.candidates[0].score is not None
    assert ranking.candidates[0].score > 1  # it reached the second rung
    assert needs_set(REQUEST)


def test_what_cannot_be_is_refused_in_one_line(searched: Searched, digits: ImageDataset) -> None:
    def refused(
        kind: type[Exception], pattern: str, synthetic: SyntheticSet = searched.synthetic, **other: object
    ) -> None:
        with pytest.raises(kind, match=pattern) as caught:
            search(replace(REQUEST, **other), synthetic, "tiny", digits)  # type: ignore[arg-type]
        assert "\n" not in str(caught.value)

    refused(LookupError, "unknown search space 'convnets': did you mean convnet", space="convnets")
    refused(LookupError, "unknown proxy 'sets.accuracy': did you mean set.accuracy", proxy="sets.accuracy")
    refused(LookupError, "unknown sampler 'tpee': did you mean", sampler="tpee")
    refused(ValueError, "study first with another screening: give", screening=replace(SCREENING, epochs=3))
    refused(ValueError, "study first with another restrict, seed", where=(), seed=1)
    refused(ValueError, "cannot name a file or folder", study="../elsewhere")
    refused(ValueError, "has no width '7'", where=("width=7",))
    refused(ValueError, "asks for one candidate after another", sampler="tpe", proxy="race")
    halves = replace(searched.synthetic, images=searched.synthetic.images[:, :, :4])
    refused(ValueError, r"the set has images \(1, 4, 8\)", synthetic=halves)
    with (searched.home / "studies" / "first" / "lock").open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        refused(ValueError, "another process is working on study first")
    with pytest.raises(LookupError, match="no study 'frst' was ranked: did you mean first"):
        ranked_study("frst")


def test_a_set_of_unknown_or_other_origin_is_remarked_on(searched: Searched, digits: ImageDataset) -> None:
    for provenance, words in (({"recipe": RECIPE}, "does not say"), ({"data_fingerprint": "x"}, "from other images")):
        stranger = replace(searched.synthetic, provenance={"recipe": RECIPE, **provenance})
        ranking = search(REQUEST, stranger, "tiny", digits)
        assert any(words in note for note in ranking.notes)
    assert not any("does not say" in note or "other images" in note for note in searched.ranking.notes)


def test_without_a_name_the_newest_set_of_the_data_is_taken(searched: Searched, tmp_path: Path) -> None:
    library = Library(tmp_path / "sets")
    with pytest.raises(LookupError, match=r"no set of cifar10 yet: make one \(ftdnas distill --dataset cifar10\)"):
        choose_set(library, None, "cifar10")
    for age, name in enumerate(("new", "old")):
        path = library.add(searched.synthetic, name)
        os.utime(path, (1e9 - age, 1e9 - age))
    assert choose_set(library, None, "")[0] == "new"
    assert choose_set(library, "ol", "")[0] == "old"


SCRIPT = """
import sys
from pathlib import Path
from distill.synthetic import SyntheticSet
from ftdnas.sets.images import Source
from ftdnas.candidates.screening import Screening
from ftdnas.ranking.loop import search
from ftdnas.ranking.request import SearchRequest

request = SearchRequest(
    where=("width=32", "depth=1,2"), candidates=5, jobs=1, device="cpu", study="killed", join="join" in sys.argv,
    screening=Screening(epochs=10, lr="set", batch_norm="running"),
)
search(request, SyntheticSet.load(sys.argv[1]), "tiny", Source("digits").load())
"""


def _outcomes(ranking: Ranking) -> dict[str, tuple[float | None, float | None]]:
    return {one.architecture: (one.accuracy, one.late_loss) for one in ranking.candidates}


@pytest.mark.parametrize("join", [False, True])
def test_a_search_that_is_killed_goes_on_to_the_same_ranking(
    join: bool,
    searched: Searched,
    digits: ImageDataset,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    begin: Callable[..., Any],
) -> None:
    monkeypatch.setenv("FTDNAS_HOME", str(tmp_path / "home"))
    stored = tmp_path / "set.safetensors"
    searched.synthetic.save(stored)
    rows = RowFile(tmp_path / "home" / "studies" / "killed" / "scores.jsonl")
    apart = begin(stored, *["join"] * join, code=SCRIPT)
    while not rows.read() and apart.process.is_alive():
        time.sleep(0.005)
    assert apart.send(signal.SIGKILL) == -signal.SIGKILL
    assert rows.read()
    request = replace(REQUEST, study="killed", compare=(), jobs=1, join=join)
    ranking = search(request, searched.synthetic, "tiny", digits)
    assert _outcomes(ranking) == _outcomes(searched.ranking)
    assert len(rows.path.read_bytes().splitlines()) == 5  # nothing was done twice


def test_processes_that_join_share_the_work(
    searched: Searched, digits: ImageDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, begin: Callable[..., Any]
) -> None:
    monkeypatch.setenv("FTDNAS_HOME", str(tmp_path / "home"))
    stored = tmp_path / "set.safetensors"
    searched.synthetic.save(stored)
    processes = [begin(stored, "join", code=SCRIPT) for _ in range(2)]
    assert [apart.end() for apart in processes] == [0, 0]
    rows = RowFile(tmp_path / "home" / "studies" / "killed" / "scores.jsonl")
    assert len(rows.path.read_bytes().splitlines()) == len(rows.read()) == 5
    ranking = search(replace(REQUEST, study="killed", compare=(), join=True), searched.synthetic, "tiny", digits)
    assert _outcomes(ranking) == _outcomes(searched.ranking)
    with open_storage() as storage, open_study(storage, "killed", SPACES["convnet"]) as study:
        assert len(study.optuna.get_trials()) == 5
