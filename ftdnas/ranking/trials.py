"""The Optuna study that shows a ranking: one trial per architecture, in the database that processes share."""

from __future__ import annotations

import contextlib
import math
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from ftdnas.ranking.optuna_brain import decided
from ftdnas.runtime.database import Storage, be_quick, engine_options, first_line, one_at_a_time
from ftdnas.runtime.leases import Leases, insist
from search_spaces.base import SearchSpace, parse_architecture

if TYPE_CHECKING:
    import optuna


@dataclass(frozen=True)
class Evaluated:
    """One candidate as a study shows it.

    `values`: its objectives in the study's order; None where it failed, with the `error`. `scores`: of each seed, which
    is text. `seconds`: of all its trainings. `more`: whatever else is worth showing, JSON.
    """

    architecture: str
    values: tuple[float, ...] | None
    scores: Mapping[str, float | None] = field(default_factory=dict)
    seconds: float = 0.0
    parameters: int | None = None
    flops: int | None = None
    error: str | None = None
    more: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if (self.values is None) != (self.error is not None):
            raise ValueError(f"{self.architecture} has values or an error, not {self.values} and {self.error!r}")
        if self.values is not None and not all(map(math.isfinite, self.values)):
            raise ValueError(f"{self.architecture} has objectives {self.values}, which are not all finite")

    @property
    def outcome(self) -> tuple[Any, ...]:
        """What makes it another result; a second run of the same takes other seconds."""
        return self.values, dict(self.scores), self.error


_SHOWN = {one.name for one in fields(Evaluated)} - {"values"}


class Study:
    """An Optuna study with one trial per architecture, which any number of processes fill together.

    Its trials' params are the architecture's decisions, and the user attribute "row" is what `Evaluated` holds. Trials
    are a view of the rows: they can be made again from those.
    """

    def __init__(self, study: optuna.Study, space: SearchSpace, leases: Leases, insisting: Callable[..., Any]) -> None:
        self.optuna = study
        self._space = space
        self._leases = leases
        self._insist = insisting

    def add(self, candidates: Iterable[Evaluated]) -> int:
        """Add those that no trial shows yet, and say how many; a candidate with another outcome gets a newer trial."""
        todo = list(candidates)
        if not todo:
            return 0
        with self._leases.alone("trials"):  # so that two processes never add the same one
            return int(self._insist(lambda: self._add(todo)))

    def evaluated(self) -> dict[str, Evaluated]:
        """Architecture -> what its newest trial shows, in the order of the trials; foreign trials are left out."""
        return self._insist(self._evaluated)  # type: ignore[no-any-return]

    def _evaluated(self) -> dict[str, Evaluated]:
        found: dict[str, Evaluated] = {}
        for trial in self.optuna.get_trials(deepcopy=False):
            row = trial.user_attrs.get("row")
            if trial.state.is_finished() and isinstance(row, Mapping) and set(row) == _SHOWN:
                values = None if trial.values is None else tuple(trial.values)
                found[row["architecture"]] = Evaluated(values=values, **row)
        return found

    def _add(self, candidates: Sequence[Evaluated]) -> int:
        there = self._evaluated()
        known = {
            name: distribution
            for trial in self.optuna.get_trials(deepcopy=False)
            for name, distribution in trial.distributions.items()
        }
        added = 0
        for one in candidates:
            if one.architecture in there and there[one.architecture].outcome == one.outcome:
                continue
            self.optuna.add_trial(_trial(self._space, one, known))
            there[one.architecture] = one
            added += 1
        return added


@contextlib.contextmanager
def open_study(
    storage: Storage, name: str, space: SearchSpace, objectives: Mapping[str, str] | None = None
) -> Iterator[Study]:
    """The study of that name, made where there is none. `objectives`: name -> "maximize" or "minimize".

    Raises ValueError where it is there with other objectives, and where the database is another Optuna version's.
    """
    import optuna

    wanted = dict(objectives or {"score": "maximize"})
    directions = [optuna.study.StudyDirection[direction.upper()] for direction in wanted.values()]

    def insisting(attempt: Callable[[], Any]) -> Any:
        return insist(attempt, storage.engine, storage.patience_s)

    def make() -> optuna.Study:
        study = optuna.create_study(study_name=name, storage=opened, directions=directions, load_if_exists=True)
        if not study.user_attrs.get("objectives"):
            study.set_user_attr("objectives", list(wanted))
            with warnings.catch_warnings():  # the dashboard shows them, and Optuna calls them experimental
                warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
                study.set_metric_names(list(wanted))
        return study

    with _opened(storage) as opened, storage.leases(f"trials/{name}") as leases:
        study = insisting(make)
        _check_objectives(study, name, wanted)
        yield Study(study, space, leases, insisting)


def forget_study(storage: Storage, name: str) -> None:
    """Delete the study's trials and claims, where there are any. Raises ValueError where a living process has one."""
    import optuna

    scopes = (f"rows/{name}", f"trials/{name}")
    with contextlib.ExitStack() as stack:
        claims = [stack.enter_context(storage.leases(scope)) for scope in scopes]
        if any(leases.held() for leases in claims):
            raise ValueError(f"another process is working on study {name}: nothing was removed")
        with _opened(storage) as opened, contextlib.suppress(KeyError):
            insist(lambda: optuna.delete_study(study_name=name, storage=opened), storage.engine, storage.patience_s)
        for leases in claims:
            leases.forget()


@contextlib.contextmanager
def _opened(storage: Storage) -> Iterator[optuna.storages.RDBStorage]:
    """Optuna's storage in a database, whose tables are made when they are first asked for."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)  # else it announces every study on stderr
    url = storage.engine.url.render_as_string(hide_password=False)

    def connect() -> optuna.storages.RDBStorage:
        return optuna.storages.RDBStorage(url, engine_kwargs=engine_options(url))

    with one_at_a_time(storage.engine):
        try:
            opened = insist(connect, storage.engine, storage.patience_s)
        except RuntimeError as error:
            raise ValueError(f"{storage.url} is another Optuna version's: {first_line(error)}") from error
        be_quick(opened.engine)
    try:
        yield opened
    finally:
        opened.remove_session()
        opened.engine.dispose()


def _check_objectives(study: optuna.Study, name: str, wanted: Mapping[str, str]) -> None:
    directions = (direction.name.lower() for direction in study.directions)
    stored = dict(zip(study.user_attrs["objectives"], directions, strict=False))
    if stored != wanted:
        raise ValueError(
            f"there is a study {name} for {', '.join(stored)}, not for {', '.join(wanted)}: "
            "give this one another name (--study)"
        )


def _trial(
    space: SearchSpace, one: Evaluated, known: dict[str, optuna.distributions.BaseDistribution]
) -> optuna.trial.FrozenTrial:
    """A finished trial, failed where there are no values. `known` gains the distributions of new params."""
    import optuna

    params, distributions = decided(space.suggest, parse_architecture(one.architecture).choices)
    for name in list(params):
        try:
            # Optuna wants a name to mean one distribution in all trials; where it does not, the row alone has it.
            optuna.distributions.check_distribution_compatibility(
                known.setdefault(name, distributions[name]), distributions[name]
            )
        except ValueError:
            del params[name], distributions[name]
    row = {key: value for key, value in asdict(one).items() if key in _SHOWN}
    trial = optuna.trial.create_trial(
        state=optuna.trial.TrialState.FAIL if one.values is None else optuna.trial.TrialState.COMPLETE,
        values=None if one.values is None else list(one.values),
        params=params,
        distributions=distributions,
        user_attrs={"row": row},
    )
    trial.datetime_complete = datetime.now()
    trial.datetime_start = trial.datetime_complete - timedelta(seconds=one.seconds)
    return trial
