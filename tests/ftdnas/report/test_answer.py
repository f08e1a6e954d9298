"""What a search prints: on one screen, whatever the space, and never cut inside a word."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from distill.run import about
from ftdnas.agreement.winner import Readings
from ftdnas.candidates.truth import Truth
from ftdnas.ranking.plan import Plan
from ftdnas.ranking.table import Ranked, Ranking
from ftdnas.report.answer import answer, beside, everything
from ftdnas.sets.images import ALONE
from search_spaces.base import find_space, stratified_sample

CHANCE = "dead: 10.0% of the held-out images are right, which is chance level"
SURE = "Not known for your images yet. On CIFAR-10 at 16 pixels its first ten of 24 held the best (95 %: at most 3.0 "
SURE += "points lost). Do not take the first one unseen."


def ranking_of(space: str, count: int, *, dead: int = 0, failed: int = 0) -> Ranking:
    draw, names = random.Random(0), {}
    for one in stratified_sample(find_space(space), min(count, 40), (3, 32, 32), 0, {}, 10):
        names[one.name] = dict(one.choices)
    while len(names) < count:  # more than can be sampled in a moment: the names alone matter
        operations = [draw.choice(["nor_conv_3x3", "avg_pool_3x3", "skip_connect"]) for _ in range(6)]
        names[f"{space}:{len(names)}|{'|'.join(operations)}|"] = dict(zip("abcdef", operations, strict=True))
    candidates = []
    for number, (name, choices) in enumerate(names.items()):
        error = CHANCE if number >= count - dead - failed else None
        score: float | None = float(count - number)
        if number >= count - failed:
            score, error = None, "its training loss was not finite"
        candidates.append(Ranked(name, 12345 + number, 9, None, score, score, 0.5, 1.0, error, 1.0, choices))
    return Ranking(
        study="demo",
        folder=Path("/srv/studies/demo"),
        settings={},
        plan=Plan(tuple(names), None, "as many as were asked for", None, None),
        candidates=tuple(candidates),
        proxy="set.late_loss+params",
        title="late training loss (the last 10%) on the set digits + parameters",
        compared=("params",),
        seconds={"set.late_loss+params": 97.0, "params": 0.0},
        notes=("accuracies are of 141 validation images that chose nothing before (one image is 0.71 points)",),
        sure=SURE,
        ahead_s={"finish": 30.0, "trust": 130.0},
    )


def in_words(lines: Sequence[str], width: int) -> bool:
    """Whether a line is longer only where one word is, beside its margin."""
    return all(len(line) <= width or len(line.split()) <= 2 for line in lines)


def test_the_best_guess_how_sure_and_what_next_come_before_the_table() -> None:
    ranking = ranking_of("convnet", 30, dead=3, failed=1)
    lines = answer(ranking)
    best = ranking.ids[ranking.best(1)[0]]
    assert lines[0].startswith(f"Best guess   {best}  width ")
    headings = [line.split("  ")[0] for line in lines if line[:1].strip()]
    assert headings == ["Best guess", "How sure", "Next"]
    assert "             ftdnas trust demo   train all 26 for real, 1 to 3 min" in lines
    table = lines[lines.index("") + 1 :]
    assert table[0].split() == ["id", "width", "depth", "norm", "activation", "pooling", "weights", "score"]
    assert [line.split()[:2] for line in table[1:6]] == [
        [str(place), ranking.ids[name]] for place, name in enumerate(ranking.best(5), start=1)
    ]
    assert table[1].endswith("█" * 12)
    assert table[6:] == [
        "  21 more: ftdnas studies show demo --all",
        "  3 learned nothing and have no place",
        "  1 failed, the first: its training loss was not finite",
    ]
    assert len([*lines, beside(ranking)]) <= 20
    assert max(map(len, lines)) <= 80
    one = answer(ranking_of("convnet", 4, dead=1))
    assert "  1 learned nothing and has no place" in one


@pytest.mark.parametrize("space", ["convnet", "nasbench201", "macro", "residual", "mobilenet"])
def test_every_space_fits_on_a_screen(space: str) -> None:
    ranking = ranking_of(space, 40, dead=2, failed=2)
    for width in (200, 80, 60, 40):
        lines = answer(ranking, width)
        if width >= 80:
            assert len(lines) < 20
        assert in_words(lines, min(width, 80))
        assert sum(letters in " ".join(lines) for letters in ranking.ids.values()) >= 1


def test_thousands_of_long_names_are_ids_alone() -> None:
    ranking = ranking_of("nasbench201", 5000, dead=100, failed=3)
    lines = answer(ranking)
    assert len(lines) < 20
    assert max(map(len, lines)) <= 80
    assert lines[lines.index("") + 1].split() == ["id", "weights", "score"]
    shown = [line for line in lines if line.endswith("█")]
    assert f"  {4897 - len(shown):,} more: ftdnas studies show demo --all" in lines
    assert len(set(ranking.ids.values())) == 5000


def test_everything_names_every_candidate_and_what_it_cost() -> None:
    ranking = ranking_of("nasbench201", 40, dead=2, failed=2)
    lines = everything(ranking)
    text = " ".join(" ".join(lines).split())
    assert all(letters in text for letters in ranking.ids.values())
    assert text.count(CHANCE) == 2
    assert "97 s" in text.replace("2 min", "97 s")
    assert "one image is 0.71 points" in text
    assert in_words(lines, 80)


def test_where_candidates_were_really_trained_it_says_how_the_first_did() -> None:
    ranking = ranking_of("convnet", 4)
    first, second, third, _ = ranking.best(4)
    readings = {first: Readings((0.9,)), second: Readings((0.95,)), third: Readings((0.8,))}
    lines = answer(ranking, 80, Truth("ten epochs", (), readings=readings))
    text = " ".join(" ".join(lines).split())
    assert f"it reads 90.0 % and is number 2 of 3; the best, {ranking.ids[second]}, reads 95.0 %." in text
    assert "ftdnas report demo which network to take" in text
    assert "trust" not in text
    unknown = answer(ranking, 80, Truth("ten epochs", (), readings={third: Readings((0.8,))}))
    assert "Not known for your images yet." in " ".join(unknown)


def test_where_nobody_has_a_place_it_says_so() -> None:
    lines = answer(replace(ranking_of("convnet", 3, dead=2, failed=1), sure=""))
    assert lines[0] == "Best guess   none: every candidate failed or learned nothing"
    assert "ftdnas finish" not in "".join(lines)


def test_a_search_by_a_set_alone_is_finished_where_the_images_are() -> None:
    lines = answer(replace(ranking_of("convnet", 3), settings={"data": ALONE}, ahead_s={}))
    assert "Next         ftdnas finish demo --from SERVER  where the real images are" in lines
    assert "trust" not in "".join(lines)


def test_an_estimate_is_a_range() -> None:
    assert about(30) == "20 to 45 s"
    assert about(180) == "2 to 4 min"
    assert about(90) == "1 to 2 min"
    assert about(9000) == "2 to 4 h"
