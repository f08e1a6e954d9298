"""A search: candidates of a space ranked by what they reach after training on a synthetic set.

The record is one JSON row per training; an Optuna study of the same name holds every screened candidate as one trial.
An interrupted search goes on when it is asked for again.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distill.datasets import ImageDataset
from distill.locks import locked
from distill.recipe import Recipe, TrainingRecipe
from distill.run import Progress, ignore
from distill.synthetic import SyntheticSet
from ftdnas.candidates import CostModel, Score, Training, images_seen, known_scores, train_candidates
from ftdnas.config import recipe_from_dict
from ftdnas.distillation import rough
from ftdnas.executors import LocalProcesses
from ftdnas.library import Library, home
from ftdnas.machine import pick_device
from ftdnas.materials import Material, Shelf, hand_over, held_out_material, random_material, set_material
from ftdnas.plan import Plan, make_plan, measure_cost, parse_restriction
from ftdnas.ranking import SCREENING, TRUTH, Facts, Ranking, rank, write_ranking
from ftdnas.rows import RowFile
from ftdnas.study import StudyFolder
from ftdnas.truth import TruthPool, truth_materials, truth_recipe
from search_spaces.architecture import hint
from search_spaces.base import (
    SPACES,
    Choice,
    Restriction,
    SearchSpace,
    flops,
    parameter_count,
    parse_architecture,
)

if TYPE_CHECKING:
    import optuna

Report = Callable[[Progress], None]

SCREENING_EPOCHS = 200  # the paper's; a recipe that judges sets by shorter trainings keeps to those
MINUTES = 30.0  # of a search without a GPU
RANDOM_DRAWS = {"cpu": 2, "cuda": 5}


@dataclass(frozen=True)
class Request:
    """What to rank and how thoroughly; None leaves the choice to the search, which says what it chose.

    `where`: texts such as "width=32,64", the choices of the space that are looked at. `epochs`: of training on the set.
    `truth_epochs`: of training on all real images, for the agreement; None does without. `random_draws`: random real
    subsets of the set's size that are compared with, when there is a truth.
    """

    space: str = "convnet"
    where: tuple[str, ...] = ()
    candidates: int | None = None
    minutes: float | None = None
    epochs: int | None = None
    truth_epochs: int | None = None
    random_draws: int | None = None
    seed: int = 0
    jobs: int | None = None
    device: str = "auto"
    study: str | None = None


def search(
    request: Request, synthetic: SyntheticSet, set_name: str, data: ImageDataset, report: Report = ignore
) -> Ranking:
    """Rank architectures with `synthetic`, which was made from `data`.

    Raises LookupError for an unknown space; ValueError for a request that cannot be met, a study name that is taken by
    other settings, and a study that another process is working on.
    """
    if request.space not in SPACES:
        raise LookupError(f"unknown search space {request.space!r}: {hint(request.space, SPACES)}")
    if (synthetic.image_shape, synthetic.num_classes) != (data.image_shape, data.num_classes):
        raise ValueError(
            f"the set has images {synthetic.image_shape} in {synthetic.num_classes} classes, "
            f"{data.name} has {data.image_shape} in {data.num_classes}"
        )
    device = pick_device(request.device).type
    jobs = request.jobs or (1 if device == "cuda" else len(os.sched_getaffinity(0)))
    space = SPACES[request.space]
    restrict = parse_restriction(space, request.where)
    folder, stages = _stages(request, restrict, synthetic, set_name, data, device)
    job = _Job(request, space, restrict, data, folder, stages, device, jobs, report)
    job.say(f"study {folder.name}; trainings run in {jobs} process{'es' if jobs > 1 else ''} on {device}")
    for number, stage in enumerate(stages):
        job.say(stage.describe("the same recipe" if number and stage.recipe == stages[0].recipe else ""))
    with folder.locked(), LocalProcesses(job.lay_out, jobs) as processes, open_study(folder.name) as study:
        try:
            plan, cost = job.plan(processes)
            facts = job.facts(plan)
            scores = job.evaluate(plan, cost, facts, processes, study)
        finally:
            shutil.rmtree(folder.materials, ignore_errors=True)
        notes = _origin_notes(synthetic, data)
        named = (folder.name, folder.path, folder.settings)
        ranking = rank(*named, plan, facts, scores, request.seed, data.num_classes, notes)
        write_ranking(ranking)
    return ranking


def choose_set(library: Library, name: str | None, spec: str) -> tuple[str, SyntheticSet]:
    """The set of that name, or else the newest sound one of the library, of the data set `spec` where that is given.

    Raises LookupError where there is none, and what `Library.load` raises.
    """
    if name is None:
        place = Path(spec.partition(":")[2]).expanduser().resolve()
        wanted = {place.name, place.stem} if ":" in spec else {spec}
        entries = [entry for entry in library.list() if not entry.problem]
        fitting = [entry for entry in entries if not spec or entry.facts["dataset"] in wanted]
        if not fitting:
            what = f"set of {spec}" if spec else "set"
            raise LookupError(f"the library has no {what} yet: ftdnas distill --dataset {spec or 'digits'} makes one")
        name = max(fitting, key=lambda entry: entry.path.stat().st_mtime).name
    path = library.path(name)
    return path.stem, library.load(path)


@dataclass(frozen=True, eq=False)
class Stage:
    """One training of every candidate: on what, scored on what, how, and where its rows are."""

    name: str
    material: Material
    held_out: Material
    recipe: TrainingRecipe
    rows: RowFile

    def training(self, architecture: str, seed: int) -> Training:
        return Training(architecture, self.material.label, self.held_out.label, self.recipe, seed)

    @property
    def load(self) -> float:
        """Images seen by one training of it."""
        return images_seen(self.training("", 0))

    def describe(self, recipe: str = "") -> str:
        """One line; `recipe` stands for it in words that are shorter than its own."""
        trained = f"{self.material.label.images:,} images, {recipe or describe_recipe(self.recipe)}"
        return f"{self.name}: {trained}; scored on {self.held_out.label.images:,} {self.held_out.label.name}"


def describe_recipe(recipe: TrainingRecipe) -> str:
    """In words."""
    return (
        f"{recipe.epochs} epochs, SGD at {recipe.lr:.4g} ({recipe.schedule}), momentum {recipe.momentum:g}, "
        f"weight decay {recipe.weight_decay:g}, batch {recipe.batch_size}, augmentation {recipe.augment}"
    )


def screening_recipe(synthetic: SyntheticSet, judged: TrainingRecipe, epochs: int | None = None) -> TrainingRecipe:
    """How candidates train on a set: as the set is judged, at its step size, but for at most 200 epochs unless told.

    The rate is the same for every norm, and batch norm keeps running statistics of the few images: METHOD 5 leaves both
    open.
    """
    if epochs is not None and epochs < 1:
        raise ValueError(f"{epochs} epochs of screening: take at least 1")
    chosen = epochs or min(judged.epochs, SCREENING_EPOCHS)
    return replace(judged, epochs=chosen, lr=judged.lr or synthetic.step_size)


@dataclass(frozen=True, eq=False)
class _Job:
    """A request with everything looked up."""

    request: Request
    space: SearchSpace
    restrict: Restriction
    data: ImageDataset
    folder: StudyFolder
    stages: Sequence[Stage]
    device: str
    jobs: int
    report: Report

    def say(self, message: str) -> None:
        self.report(Progress("search", 0, 0, message=message))

    def lay_out(self) -> Callable[[], Shelf]:
        materials = {m.label.fingerprint: m for stage in self.stages for m in (stage.material, stage.held_out)}
        return hand_over(list(materials.values()), self.folder.materials, self.device)

    def facts(self, plan: Plan) -> dict[str, Facts]:
        """Parameters and FLOPs of every candidate."""
        size = (self.data.image_shape, self.data.num_classes)
        architectures = {name: parse_architecture(name) for name in plan.candidates}
        return {name: Facts(parameter_count(a, *size), flops(a, *size)) for name, a in architectures.items()}

    def plan(self, processes: LocalProcesses[Shelf]) -> tuple[Plan, CostModel]:
        """The study's own plan, unless it has none or another number of candidates or minutes is asked for."""
        asked, stored = self.request, self.folder.plan()
        if stored is not None:
            plan = stored[0]
            kept = (
                asked.minutes in (None, plan.minutes) if asked.candidates is None else asked.candidates == plan.wanted
            )
        if stored is None or not kept:
            first = self.stages[0]
            self.say("timing a few architectures ...")
            cost = measure_cost(self.space, self.restrict, first.material, first.recipe, asked.seed, processes)
            plan = make_plan(
                self.space,
                self.restrict,
                self.data.image_shape,
                self.data.num_classes,
                asked.seed,
                cost=cost,
                loads=[stage.load for stage in self.stages],
                jobs=self.jobs,
                wanted=asked.candidates,
                minutes=MINUTES if asked.minutes is None and self.device == "cpu" else asked.minutes,
            )
            stored = plan, cost
            self.folder.keep(*stored)
        self.say(stored[0].describe(self.data.image_shape))
        return stored

    def evaluate(
        self,
        plan: Plan,
        cost: CostModel,
        facts: Mapping[str, Facts],
        processes: LocalProcesses[Shelf],
        study: optuna.Study,
    ) -> dict[str, list[Score]]:
        """Stage -> the scores of all candidates, in the plan's order. What has its row is not done again."""
        stage_of: dict[str, Stage] = {}
        scores: dict[str, Score] = {}
        todo: list[tuple[float, Training]] = []
        order: dict[str, list[str]] = {}
        for stage in self.stages:
            trainings = [stage.training(name, self.request.seed) for name in plan.candidates]
            order[stage.name] = [training.key for training in trainings]
            stage_of |= dict.fromkeys(order[stage.name], stage)
            known = known_scores(trainings, stage.rows)
            scores |= known
            missing = [training for training in trainings if training.key not in known]
            todo += [(cost.seconds(facts[t.architecture].flops, stage.load), t) for t in missing]
        import_scores(study, self.space, [scores[key] for key in order[SCREENING] if key in scores])
        done = {name: sum(key in scores for key in keys) for name, keys in order.items()}
        for name, keys in order.items():
            self.report(Progress(name, done[name], len(keys)))

        def finished(score: Score) -> None:
            stage = stage_of[score.key]
            if stage.name == SCREENING:
                study.add_trial(as_trial(self.space, score))
            done[stage.name] += 1
            values = {} if score.score is None else {"validation_accuracy": score.score}
            self.report(Progress(stage.name, done[stage.name], len(plan.candidates), values))

        if todo:
            # The dearest first: the last process then has not long to go when the others are done.
            todo.sort(key=lambda pair: pair[0], reverse=True)
            seconds = max(todo[0][0], sum(cost for cost, _ in todo) / self.jobs)
            self.say(f"{len(todo)} trainings to do, about {rough(seconds)}; Ctrl-C is safe, the same command goes on")
            pairs = [(training, stage_of[training.key].rows) for _, training in todo]
            scores |= train_candidates(pairs, processes, finished)
        return {name: [scores[key] for key in keys] for name, keys in order.items()}


def _stages(
    request: Request,
    restrict: Restriction,
    synthetic: SyntheticSet,
    set_name: str,
    data: ImageDataset,
    device: str,
) -> tuple[StudyFolder, list[Stage]]:
    """The study's folder, and what every candidate goes through: screening first, truth last."""
    evaluation = _recipe(synthetic).evaluation
    recipe = screening_recipe(synthetic, evaluation.train, request.epochs)
    held_out = held_out_material(data, synthetic.preprocess)
    settings = {
        "space": request.space,
        "restrict": {key: sorted(values, key=str) for key, values in sorted(restrict.items())},
        "set": synthetic.identity,
        "data": data.fingerprint,
        "source": data.source,
        "scored on": held_out.label.fingerprint,
        "recipe": {"name": f"screening-{recipe.epochs}", **asdict(recipe)},
        "seed": request.seed,
    }
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()
    name = request.study or f"{set_name}-{request.space}-{digest[:6]}"
    if Path(name).name != name or name.startswith("."):
        raise ValueError(f"study name {name!r} cannot name a folder: leave out slashes and a leading dot")
    folder = StudyFolder(home() / "studies" / name, settings)
    stages = [Stage(SCREENING, set_material(synthetic, set_name), held_out, recipe, folder.rows)]
    if request.truth_epochs is not None:
        draws = RANDOM_DRAWS[device] if request.random_draws is None else request.random_draws
        for draw in range(draws):
            material = random_material(data, synthetic, request.seed, draw)
            stages.append(Stage(material.label.name, material, held_out, recipe, folder.rows))
        real = truth_recipe(evaluation.full, request.truth_epochs)
        images, scored = truth_materials(data)
        rows = TruthPool(home() / "truth").file(data.fingerprint)
        stages.append(Stage(TRUTH, images, scored, real, rows))
    return folder, stages


def _origin_notes(synthetic: SyntheticSet, data: ImageDataset) -> list[str]:
    """Whether images that score candidates may have been distilled."""
    fingerprint = synthetic.provenance.get("data_fingerprint")
    if fingerprint == data.fingerprint:
        return []
    if fingerprint is None:
        return ["the set does not say what it was made from: the images that score may be among those"]
    return ["the set was made from other images than these: check that none of those that score are among them"]


def _recipe(synthetic: SyntheticSet) -> Recipe:
    """The recipe that the set was made by; the default one where it does not say, as sets from elsewhere."""
    stored = synthetic.provenance.get("recipe")
    return recipe_from_dict(stored, "the set's recipe") if isinstance(stored, Mapping) else Recipe()


@contextlib.contextmanager
def open_study(name: str) -> Iterator[optuna.Study]:
    """The Optuna study of that name in the library's storage, made where there is none; closed after the block."""
    import optuna
    from sqlalchemy import event

    def quicker(connection: Any, record: object) -> None:  # noqa: ARG001
        # A write-ahead log makes a trial ten times cheaper than SQLite's own journal, and as safe from a kill.
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=NORMAL")

    optuna.logging.set_verbosity(optuna.logging.WARNING)  # else it announces every study on stderr
    path = home() / "studies.db"
    path.parent.mkdir(parents=True, exist_ok=True)
    with locked(home() / "studies.lock"):  # two processes must not both make the tables
        storage = optuna.storages.RDBStorage(f"sqlite:///{path}", engine_kwargs={"connect_args": {"timeout": 60}})
        event.listen(storage.engine, "connect", quicker)
        storage.engine.dispose()  # the connections from before the listener
        study = optuna.create_study(study_name=name, storage=storage, direction="maximize", load_if_exists=True)
    try:
        yield study
    finally:
        storage.remove_session()
        storage.engine.dispose()


def import_scores(study: optuna.Study, space: SearchSpace, scores: Iterable[Score]) -> None:
    """Add those scores that no trial holds yet: a kill may have come between a row and its trial."""
    rows = [trial.user_attrs.get("row", {}) for trial in study.get_trials(deepcopy=False)]
    held = {(row.get("key"), row.get("score")) for row in rows}
    for score in scores:
        if (score.key, score.score) not in held:
            study.add_trial(as_trial(space, score))


def as_trial(space: SearchSpace, score: Score) -> optuna.trial.FrozenTrial:
    """A finished trial, failed where there is no score; the row is its attribute "row"."""
    import optuna

    values: dict[str, dict[Choice, None]] = {}
    for architecture in space.architectures():
        for key, value in architecture.choices.items():
            values.setdefault(key, {})[value] = None
    return optuna.trial.create_trial(
        state=optuna.trial.TrialState.FAIL if score.score is None else optuna.trial.TrialState.COMPLETE,
        value=score.score,
        params=dict(parse_architecture(score.architecture).choices),
        distributions={
            key: optuna.distributions.CategoricalDistribution(tuple(several)) for key, several in values.items()
        },
        user_attrs={"row": score.to_row()},
    )
