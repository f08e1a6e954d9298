"""A search where the real images of the set are not here: what it ranks by, what it refuses, how it goes on at home."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from distill.images.datasets import ImageDataset
from distill.run import Progress
from distill.synthetic import SyntheticSet
from distill.training.flat import initial_weights
from ftdnas.candidates.materials import Taught
from ftdnas.candidates.reading import guess_loss
from ftdnas.ranking.advice import Advice
from ftdnas.ranking.request import AdviseRequest, SearchRequest
from ftdnas.ranking.run import run_advice, run_search
from ftdnas.ranking.table import Ranking
from ftdnas.report.request import ReportRequest, TruthRequest
from ftdnas.report.run import run_report, run_truth
from ftdnas.runtime.rows import RowFile
from ftdnas.sets.images import ALONE, Source
from ftdnas.sets.library import Library
from search_spaces.base import parse_architecture

SetOf = Callable[..., SyntheticSet]
NETWORKS = "convnet:width=32,depth={},norm=instance,activation={},pooling=avg"
NAMES = (NETWORKS.format(1, "relu"), NETWORKS.format(3, "sigmoid"), NETWORKS.format(2, "relu"))
ASKED: dict[str, Any] = {"set": "tiny", "epochs": 40, "names": NAMES, "jobs": 1, "device": "cpu"}
BASELINES_LEFT = {"set.late_loss", "params", "flops", "synflow", "jacob_cov", "az_nas"}


@pytest.fixture(autouse=True)
def tiny(digits: ImageDataset, set_of: SetOf) -> SyntheticSet:
    """A set in the library that does not say where its images are."""
    synthetic = set_of(digits, provenance={"dataset": "digits", "data": {}})
    Library().add(synthetic, "tiny")
    return synthetic


def searched(**asked: Any) -> tuple[Ranking, list[str]]:
    said: list[Progress] = []
    ranking = run_search(SearchRequest(**{**ASKED, **asked}), said.append)
    return ranking, [progress.message for progress in said]


def test_it_ranks_by_what_needs_no_real_image_and_finishes_at_home(digits: ImageDataset, tiny: SyntheticSet) -> None:
    ranking, said = searched(compare=("all",), study="alone")
    assert "the images behind the set tiny are not here: ranked by the set alone (--dataset names images)" in said
    assert ranking.proxy == "set.late_loss+params"
    assert set(ranking.compared) == BASELINES_LEFT
    assert ranking.settings["data"] == ALONE
    assert any("no real image was looked at" in note for note in ranking.notes)
    assert all(one.accuracy is None and one.late_loss is not None for one in ranking.candidates)
    errors = {one.architecture: one.error for one in ranking.candidates}
    assert "dead: a late loss of 2.3" in str(errors[NAMES[1]])
    assert {name for name, error in errors.items() if error is None} == {NAMES[0], NAMES[2]}
    # At home, where the images are, the candidates are trained for real, and the same scores are held up to that.
    Library().remove("tiny")
    Library().add(tiny.with_provenance(data=Source("digits").to_json(), data_fingerprint=digits.fingerprint), "tiny")
    _, reached = run_truth(TruthRequest(study="alone", epochs=1, seeds=1, jobs=1, device="cpu"))
    assert reached.known == set(NAMES)
    written = run_report(ReportRequest(study="alone"))  # held up to that truth, the only one
    assert (written.take is not None, written.comparison is not None) == (True, True)
    # With the images another search is another study, and there are accuracies.
    other, _ = searched(names=NAMES[:2])
    assert other.study != ranking.study
    assert all(one.accuracy is not None for one in other.candidates)


@pytest.mark.parametrize("given", [{"proxy": "set.accuracy"}, {"compare": ("random.late_loss",)}, {"proxy": "race"}])
def test_what_needs_images_is_refused_and_what_does_not_is_named(given: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"needs real images: this set does not say.*; set.late_loss, .* need none$"):
        searched(**given)


def test_images_that_are_named_are_not_done_without() -> None:
    with pytest.raises(FileNotFoundError):
        searched(dataset="folder:/nowhere")


def test_a_set_whose_images_are_gone_is_enough_too(tiny: SyntheticSet) -> None:
    Library().remove("tiny")
    Library().add(tiny.with_provenance(data=Source("folder:/nowhere").to_json()), "tiny")
    ranking, _ = searched(proxy="jacob_cov+flops")
    assert ranking.settings["source"]["spec"] == "folder:/nowhere"
    assert ranking.failures == 0


def test_advice_names_the_one_way_that_there_is() -> None:
    told: Advice = run_advice(AdviseRequest(set="tiny", epochs=2, candidates=3, jobs=1, device="cpu"))
    assert [way.name for way in told.ways] == ["screen with a set at hand"]


def test_under_labels_of_teachers_the_loss_of_guessing_is_a_divergence(tiny: SyntheticSet) -> None:
    backbone = parse_architecture(tiny.backbone)
    weights = initial_weights(lambda: backbone.build(tiny.image_shape, 10), 0)[None]
    taught = replace(tiny, teachers=weights)
    Library().add(taught, "taught")
    ranking, _ = searched(set="taught", labels="teachers", names=NAMES[:1], candidates=1)
    (row,) = RowFile(ranking.folder / "scores.jsonl").settled().values()
    labels = Taught.of(taught).all(taught.images)  # type: ignore[union-attr]  # it has some; the set is not augmented
    assert row["guess_loss"] == pytest.approx(guess_loss(labels, divergence=True), abs=1e-5)
    assert row["guess_loss"] < 1  # an untrained teacher says nearly the same of every image
