"""What a search found: the candidates in order, how far to trust that order, what was left out, what it cost."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from distill.files import whole_file
from ftdnas.candidates import Score
from ftdnas.comparison import PROXY, REFERENCE, Column, Comparison, Table, compare
from ftdnas.plan import Plan

SCREENING, TRUTH = "screening", "truth"
SET_BY_LOSS, PARAMETERS = "the set, by late training loss", "the parameter count"


@dataclass(frozen=True)
class Facts:
    """What is known of an architecture without training it; FLOPs of one forward pass of one image."""

    parameters: int
    flops: int


@dataclass(frozen=True)
class Ranked:
    """One candidate. Accuracies are fractions on the half of validation that scores; None where training failed."""

    architecture: str
    parameters: int
    flops: int
    score: float | None
    late_loss: float | None
    error: str | None
    random_scores: tuple[float | None, ...]
    truth: float | None
    truth_error: str | None


@dataclass(frozen=True)
class Ranking:
    """The outcome of a search; `candidates` best first, those that failed last.

    `seconds`: of computation, stage by stage, whenever it was and in however many processes. `scored_images`: N of
    the images that scored.
    """

    study: str
    folder: Path
    settings: Mapping[str, Any]
    plan: Plan
    candidates: tuple[Ranked, ...]
    scored_images: int
    truth_recipe: Mapping[str, Any] | None
    seconds: Mapping[str, float]
    comparison: Comparison | None
    notes: tuple[str, ...]

    @property
    def failures(self) -> int:
        """Candidates that have no score."""
        return sum(candidate.score is None for candidate in self.candidates)

    def to_json(self) -> dict[str, Any]:
        return {
            "study": self.study,
            "folder": str(self.folder),
            "settings": dict(self.settings),
            "plan": self.plan.to_json(),
            "candidates": [asdict(candidate) for candidate in self.candidates],
            "scored_images": self.scored_images,
            "truth_recipe": self.truth_recipe,
            "seconds": dict(self.seconds),
            "failures": self.failures,
            "comparison": self.comparison.to_json() if self.comparison else None,
            "notes": list(self.notes),
        }


def rank(
    study: str,
    folder: Path,
    settings: Mapping[str, Any],
    plan: Plan,
    facts: Mapping[str, Facts],
    scores: Mapping[str, Sequence[Score]],
    seed: int,
    num_classes: int,
    notes: Sequence[str] = (),
) -> Ranking:
    """Join the scores of all stages, each in the plan's order, and order the candidates.

    By score; where that is equal, as few images make it often, by the lower late training loss.
    """
    random = [several for stage, several in scores.items() if stage not in (SCREENING, TRUTH)]
    truth: Sequence[Score | None] = scores.get(TRUTH, [None] * len(plan.candidates))
    candidates = [
        Ranked(
            architecture=name,
            parameters=facts[name].parameters,
            flops=facts[name].flops,
            score=screened.score,
            late_loss=screened.late_loss,
            error=screened.error,
            random_scores=tuple(several[row].score for several in random),
            truth=true.score if true else None,
            truth_error=true.error if true else None,
        )
        for row, (name, screened, true) in enumerate(zip(plan.candidates, scores[SCREENING], truth, strict=True))
    ]
    comparison = None
    if TRUTH in scores:
        by_loss = tuple(None if c.late_loss is None else -c.late_loss for c in candidates)
        columns = [
            Column("set", "the set", tuple(c.score for c in candidates), role=PROXY),
            Column("set.late_loss", SET_BY_LOSS, by_loss, role=REFERENCE),
            Column("params", PARAMETERS, tuple(float(c.parameters) for c in candidates)),
        ]
        for draw in range(len(random)):
            name = f"random subset {draw + 1}"
            columns.append(Column(name, name, tuple(c.random_scores[draw] for c in candidates)))
        table = Table(
            space=plan.candidates[0].partition(":")[0],
            candidates=tuple(plan.candidates),
            parameters=tuple(c.parameters for c in candidates),
            num_classes=num_classes,
            truth_name="real training",
            truth=tuple(c.truth for c in candidates),
            truth_images=scores[TRUTH][0].scored_on.images,
            columns=tuple(columns),
        )
        comparison = compare(table, seed)
    return Ranking(
        study=study,
        folder=folder,
        settings=settings,
        plan=plan,
        candidates=tuple(sorted(candidates, key=_order)),
        scored_images=scores[SCREENING][0].scored_on.images,
        truth_recipe=asdict(scores[TRUTH][0].recipe) if TRUTH in scores else None,
        seconds={stage: sum(score.seconds for score in several) for stage, several in scores.items()},
        comparison=comparison,
        notes=(*notes, *_notes(scores)),
    )


def write_ranking(ranking: Ranking) -> None:
    """ranking.csv and ranking.json in the study's folder."""
    table = io.StringIO()
    draws = len(ranking.candidates[0].random_scores)
    columns = [name for name in Ranked.__dataclass_fields__ if name != "random_scores"]
    names = [f"random_{draw + 1}" for draw in range(draws)]
    writer = csv.DictWriter(table, ["rank", *columns, *names], lineterminator="\n")
    writer.writeheader()
    for place, candidate in enumerate(ranking.candidates, start=1):
        row = {name: getattr(candidate, name) for name in columns}
        writer.writerow({"rank": place, **row, **dict(zip(names, candidate.random_scores, strict=True))})
    _write(ranking.folder / "ranking.csv", table.getvalue())
    _write(ranking.folder / "ranking.json", json.dumps(ranking.to_json(), indent=1, allow_nan=False) + "\n")


def _notes(scores: Mapping[str, Sequence[Score]]) -> list[str]:
    """What a reader must know to read the numbers."""
    screened = scores[SCREENING][0]
    images = screened.scored_on.images
    notes = [
        f"scores are accuracies on {images:,} validation images that chose nothing before (one image is "
        f"{100 / images:.2g} points); equal ones are ordered by training loss"
    ]
    if TRUTH in scores:
        epochs = scores[TRUTH][0].recipe.epochs
        random = [several[0] for stage, several in scores.items() if stage not in (SCREENING, TRUTH)]
        subsets = f"{len(random)} random subset{'s' if len(random) != 1 else ''}"
        notes += [
            f"the truth is accuracy after {epochs} epochs on all {scores[TRUTH][0].trained_on.images:,} training "
            "images, read on the same validation images; test images were not read",
            f"{subsets} of real images: as many of each class as the set, the same recipe and learning rate",
        ]
    return notes


def _order(candidate: Ranked) -> tuple[float, float, str]:
    if candidate.score is None:
        return 1.0, 0.0, candidate.architecture
    loss = candidate.late_loss if candidate.late_loss is not None else float("inf")
    return -candidate.score, loss, candidate.architecture


def _write(path: Path, content: str) -> None:
    with whole_file(path) as beside:
        beside.write_text(content, encoding="utf-8")
