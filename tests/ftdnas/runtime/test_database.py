"""Databases that are fine, damaged, foreign, missing or unreachable."""

from __future__ import annotations

import os
import random
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest
from sqlalchemy import text
from sqlalchemy.exc import OperationalError

from ftdnas.ranking.trials import Evaluated, open_study
from ftdnas.runtime.database import open_storage
from ftdnas.runtime.home import home
from ftdnas.runtime.leases import TABLE, DatabaseAway
from search_spaces.base import find_space


def filled(path: Path) -> None:
    with open_storage(f"sqlite:///{path}") as storage, open_study(storage, "one", find_space("convnet")) as study:
        study.add(Evaluated(one.name, (0.5,)) for one in find_space("convnet").architectures()[:40])


def trials(path: Path) -> int:
    with open_storage(f"sqlite:///{path}") as storage, open_study(storage, "one", find_space("convnet")) as study:
        return len(study.evaluated())


def test_by_default_it_lies_in_the_home_folder_with_a_write_ahead_log() -> None:
    with open_storage() as storage:
        with storage.leases("a") as leases:
            leases.finish("1", {"key": "1"})
        assert str(home() / "studies.db") in storage.url
    with sqlite3.connect(home() / "studies.db") as database:
        tables = {name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        assert tables == {TABLE}  # none of Optuna's before a study is opened
        assert database.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    database.close()
    assert not list(home().glob("studies.db-*"))  # what the log held is in the file


@pytest.mark.parametrize("name", ["what?", "what?mode=ro", "%41b", "50% done", "c#", "a b&c=d"])
def test_a_home_of_any_name_holds_its_own_database(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FTDNAS_HOME", str(tmp_path / name))
    for url in (None, str(tmp_path / name / "studies.db")):
        with open_storage(url) as storage, open_study(storage, "one", find_space("convnet")) as study:
            study.add([Evaluated("convnet:depth=1", (0.5,))])
            assert len(study.evaluated()) == 1
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert (tmp_path / name / "studies.db").stat().st_size > 0


def test_leases_need_no_optuna_tables(tmp_path: Path) -> None:
    with open_storage(str(tmp_path / "a.db")) as storage, storage.leases("a") as leases:
        leases.claim("1")
    with sqlite3.connect(tmp_path / "a.db") as database:
        assert database.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall() == [
            ("ftdnas_leases",)
        ]
    database.close()


def garbage(path: Path) -> None:
    path.write_bytes(random.Random(0).randbytes(5000))


def truncated(path: Path) -> None:
    filled(path)
    os.truncate(path, path.stat().st_size // 2 // 4096 * 4096)


def scribbled(path: Path) -> None:
    filled(path)
    content = bytearray(path.read_bytes())
    for page in range(2, len(content) // 4096):  # all but what says which tables there are
        content[page * 4096 : page * 4096 + 200] = random.Random(page).randbytes(200)
    path.write_bytes(content)


def foreign(path: Path) -> None:
    with sqlite3.connect(path) as database:
        database.execute("CREATE TABLE holiday_photos (name TEXT)")
    database.close()


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (garbage, "damaged or no SQLite file"),
        (truncated, "is damaged"),
        (scribbled, "is damaged"),
        (foreign, "another program's database .it holds holiday_photos.: take another --storage"),
    ],
)
def test_a_damaged_or_foreign_file_is_refused_in_one_line_and_left_alone(
    damage: Callable[[Path], None], words: str, tmp_path: Path
) -> None:
    path = tmp_path / "studies.db"
    damage(path)
    before = path.read_bytes()
    with pytest.raises(ValueError, match=words) as caught, open_storage(f"sqlite:///{path}"):
        pass
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)
    assert path.read_bytes() == before
    if damage is not foreign:
        assert "move it away and repeat the command" in str(caught.value)
        path.rename(tmp_path / "away.db")
        filled(path)  # the way out works
        assert trials(path) == 40


def test_an_empty_file_is_a_new_database_and_one_of_optuna_is_joined(tmp_path: Path) -> None:
    path = tmp_path / "studies.db"
    path.touch()
    filled(path)
    assert trials(path) == 40
    theirs = tmp_path / "theirs.db"
    storage = optuna.storages.RDBStorage(f"sqlite:///{theirs}")
    optuna.create_study(study_name="theirs", storage=storage)
    storage.remove_session()
    storage.engine.dispose()
    filled(theirs)
    assert trials(theirs) == 40


def test_a_url_that_leads_nowhere_is_one_line(tmp_path: Path) -> None:
    for url, words in (
        ("mysql://somewhere/studies", "--storage mysql"),
        ("nonsense://x", "write sqlite:///FILE or postgresql"),
        ("postgresql://someone:secret@127.0.0.1:1/studies", r"someone:\*\*\*@127.0.0.1:1/studies does not answer"),
        (f"sqlite:///{tmp_path}", "is a folder and no SQLite file"),
    ):
        with pytest.raises(ValueError, match=words) as caught, open_storage(url, patience_s=0.2):
            pass
        assert "\n" not in str(caught.value)
        assert "secret" not in str(caught.value)


def test_a_sound_file_that_cannot_be_read_or_written_is_not_called_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "studies.db"
    filled(path)
    with (
        open_storage(f"sqlite:///file:{path}?mode=ro&uri=true", patience_s=0.1) as storage,
        pytest.raises(DatabaseAway, match="is read-only, or its folder is"),
    ):
        storage.leases("a").claim("1")
    connect = sqlite3.connect
    nowhere = f"file:{tmp_path}/nowhere?mode=ro"
    with monkeypatch.context() as patch:
        patch.setattr(sqlite3, "connect", lambda *_, **__: connect(nowhere, uri=True))
        with pytest.raises(DatabaseAway, match=r"cannot be read.*cannot be opened") as caught, open_storage(str(path)):
            pass
    assert "move" not in str(caught.value)
    assert trials(path) == 40


def test_a_server_that_does_not_answer_is_given_up(postgresql: Any) -> None:
    with open_storage(postgresql.url, patience_s=0.1, answer_s=0.5) as storage:
        begun = time.monotonic()
        with pytest.raises(OperationalError), storage.engine.connect() as connection:
            connection.execute(text("SELECT pg_sleep(60)"))
        assert time.monotonic() - begun < 30
        with storage.engine.connect() as connection:
            assert connection.execute(text("SELECT 1")).scalar() == 1


def test_a_database_of_another_optuna_is_named(tmp_path: Path) -> None:
    path = tmp_path / "studies.db"
    filled(path)
    with sqlite3.connect(path) as database:
        database.execute("UPDATE version_info SET schema_version = 1")
        database.execute("UPDATE alembic_version SET version_num = 'v0.9.0.a'")
    database.close()
    with (
        open_storage(str(path)) as storage,
        pytest.raises(ValueError, match="is another Optuna version's"),
        open_study(storage, "one", find_space("convnet")),
    ):
        pass
