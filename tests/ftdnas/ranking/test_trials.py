"""The Optuna study that shows a search: one trial per architecture, whoever adds it and however often."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import optuna
import pytest
from sqlalchemy import Engine, event

from ftdnas.ranking.trials import Evaluated, open_study
from ftdnas.runtime.database import Storage, open_storage
from search_spaces.base import SearchSpace, find_space, parameter_count

OBJECTIVES = {"score": "maximize", "parameters": "minimize"}


@pytest.fixture
def storage(tmp_path: Path) -> Iterator[Storage]:
    with open_storage(f"sqlite:///{tmp_path / 'studies.db'}") as opened:
        yield opened


def evaluated(architecture: str, score: float | None = 0.5, **more: object) -> Evaluated:
    values = None if score is None else (score, 1000.0)
    given: dict[str, object] = {"scores": {"0": score}, "seconds": 2.5, "parameters": 1000, "flops": 5000}
    error = {"error": "weights were not finite"} if score is None else {}
    return Evaluated(architecture, values, **(given | error | more))  # type: ignore[arg-type]


def test_a_trial_shows_the_architecture_its_objectives_and_the_row(storage: Storage) -> None:
    good, bad = evaluated("convnet:width=64", more={"late_loss": 1.5}), evaluated("convnet:width=32", None)
    with open_study(storage, "first", find_space("convnet"), OBJECTIVES) as study:
        assert study.add([good, bad]) == 2
        assert study.evaluated() == {good.architecture: good, bad.architecture: bad}
        first, second = study.optuna.get_trials()
    assert first.state == optuna.trial.TrialState.COMPLETE
    assert first.values == [0.5, 1000.0]
    assert first.params == {"width": 64, "depth": 3, "norm": "instance", "activation": "relu", "pooling": "avg"}
    assert first.distributions["width"] == optuna.distributions.CategoricalDistribution((32, 64, 128, 256))
    assert first.user_attrs["row"]["scores"] == {"0": 0.5}
    assert first.user_attrs["row"]["more"] == {"late_loss": 1.5}
    assert first.duration is not None
    assert first.duration.total_seconds() == pytest.approx(2.5)
    assert second.state == optuna.trial.TrialState.FAIL
    assert second.user_attrs["row"]["error"] == "weights were not finite"


def test_adding_again_adds_nothing_but_another_outcome(storage: Storage) -> None:
    with open_study(storage, "first", find_space("convnet"), OBJECTIVES) as study:
        crashed = evaluated("convnet:width=32", None, error="its process was killed")
        assert study.add([evaluated("convnet:width=64"), crashed]) == 2
        assert study.add([evaluated("convnet:width=64", seconds=9.0), crashed]) == 0  # time is no outcome
        assert study.add([evaluated("convnet:width=32")]) == 1
        assert study.evaluated()["convnet:width=32"].values == (0.5, 1000.0)
        assert study.add([]) == 0
    with open_study(storage, "first", find_space("convnet"), OBJECTIVES) as again:
        assert again.add([evaluated("convnet:width=64")]) == 0


def test_several_that_add_the_same_at_once_add_it_once(storage: Storage) -> None:
    names = [f"convnet:width={width},depth={depth}" for width in (32, 64, 128) for depth in (1, 2, 3)]

    def add() -> None:
        with open_study(storage, "shared", find_space("convnet"), OBJECTIVES) as study:
            for name in names:
                study.add([evaluated(name)])

    threads = [threading.Thread(target=add) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with open_study(storage, "shared", find_space("convnet"), OBJECTIVES) as study:
        rows = [trial.user_attrs["row"]["architecture"] for trial in study.optuna.get_trials()]
    assert sorted(rows) == sorted(names)


def test_decisions_of_any_kind_are_params(storage: Storage, tmp_path: Path) -> None:
    (tmp_path / "nets.py").write_text(
        "from torch import nn\n"
        "def build(trial):\n"
        "    width = trial.suggest_int('width', 4, 16, step=4)\n"
        "    kind = trial.suggest_categorical('kind', ['a', 'b'] if width > 8 else ['a'])\n"
        "    rate = trial.suggest_float('rate', 1e-3, 0.5, log=True)\n"
        "    return nn.Sequential(nn.Flatten(), nn.LazyLinear(width), nn.Dropout(rate), nn.LazyLinear(10))\n"
    )
    space = find_space(f"{tmp_path / 'nets.py'}:build")
    wide, narrow = (space.parse(f'{{"kind":"a","rate":0.1,"width":{width}}}').name for width in (12, 4))
    with open_study(storage, "mine", space, {"score": "maximize"}) as study:
        assert study.add([Evaluated(name, (0.5,)) for name in (wide, narrow)]) == 2
        first, second = study.optuna.get_trials()
        assert first.params == {"width": 12, "kind": "a", "rate": 0.1}
        assert first.distributions["width"] == optuna.distributions.IntDistribution(4, 16, step=4)
        assert first.distributions["rate"] == optuna.distributions.FloatDistribution(1e-3, 0.5, log=True)
        # Optuna allows a name one list of choices in all trials: the row has what the params cannot.
        assert second.params == {"width": 4, "rate": 0.1}
        assert list(study.evaluated()) == [wide, narrow]


def test_many_are_added_by_a_few_statements_each(storage: Storage) -> None:
    space: SearchSpace = find_space("convnet")
    rows = []
    for one in space.architectures()[:150]:
        count = parameter_count(one, (3, 32, 32), 10)
        rows.append(Evaluated(one.name, (float(count),), parameters=count))
    statements: list[str] = []

    def heard(connection: object, cursor: object, statement: str, *more: object) -> None:  # noqa: ARG001
        statements.append(statement)

    with open_study(storage, "all", space) as study:
        event.listen(Engine, "before_cursor_execute", heard)
        try:
            assert study.add(rows) == 150
        finally:
            event.remove(Engine, "before_cursor_execute", heard)
        assert len(statements) < 25 * 150  # nobody reads all trials again for each
        assert study.optuna.best_value == max(row.parameters or 0 for row in rows)
        assert study.add(rows) == 0


def test_what_does_not_belong_is_refused_or_left_out(storage: Storage) -> None:
    space = find_space("convnet")
    with open_study(storage, "first", space, OBJECTIVES) as study:
        study.optuna.add_trial(optuna.trial.create_trial(values=[1.0, 2.0], user_attrs={"row": {"architecture": "x"}}))
        study.optuna.ask()
        assert study.evaluated() == {}
        assert [one.name for one in study.optuna.directions] == ["MAXIMIZE", "MINIMIZE"]
        assert study.optuna.metric_names == ["score", "parameters"]
    for wanted in ({"score": "maximize"}, {"score": "maximize", "flops": "minimize"}):
        with (
            pytest.raises(ValueError, match="there is a study first for score, parameters, not for"),
            open_study(storage, "first", space, wanted),
        ):
            pass
    for values, error in ((None, None), ((1.0,), "why"), ((float("nan"),), None)):
        with pytest.raises(ValueError, match="convnet:width=32 has"):
            Evaluated("convnet:width=32", values, error=error)


def test_studies_lie_in_postgresql_as_well(postgresql: object) -> None:
    with (
        open_storage(postgresql.url) as storage,  # type: ignore[attr-defined]
        open_study(storage, "first", find_space("convnet"), OBJECTIVES) as study,
    ):
        one = evaluated("convnet:width=64", more={"name": "größer"})
        assert study.add([one]) == 1
        assert study.add([one]) == 0
        assert study.evaluated() == {one.architecture: one}
