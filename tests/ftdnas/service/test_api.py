"""What the service answers, and what it refuses: nothing written, nothing told."""

from __future__ import annotations

import errno
import pickle
import shutil
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from starlette.testclient import TestClient

from ftdnas.runtime.database import open_storage
from ftdnas.runtime.home import home
from ftdnas.service.app import make_app
from ftdnas.service.board import Board
from ftdnas.service.bounds import Bounds
from ftdnas.service.guard import Access
from ftdnas.service.queue import Queue
from ftdnas.service.requests import can_begin
from ftdnas.service.server import Server
from ftdnas.sets.library import Library

HEALTH = list(HealthCheck)
EITHER = pytest.mark.parametrize("inside", ["sqlite", "postgresql"], indirect=True)
UPLOAD = {"Content-Type": "application/octet-stream"}


def refused(answer: Any, *statuses: int) -> str:
    """What a refusal says: one problem of RFC 9457, without a path of the server."""
    assert answer.status_code in statuses, (answer.status_code, answer.text)
    assert answer.headers["content-type"] == "application/problem+json"
    told = answer.json()
    assert told["status"] == answer.status_code
    assert str(home()) not in answer.text
    assert "Traceback" not in answer.text
    detail: str = told["detail"]
    return detail


def files() -> set[Path]:
    return {path for path in home().rglob("*") if path.is_file() and "studies" not in path.name}


@EITHER
def test_a_job_is_queued_shown_cancelled_and_retried(inside: Any) -> None:
    made = inside.web.post("/api/v1/jobs/distill", json={"dataset": "digits", "ipc": 2})
    assert made.status_code == 202
    assert made.headers["location"] == f"/api/v1/jobs/{made.json()['id']}"
    assert made.json()["state"] == "queued"
    assert made.json()["request"] == {"dataset": "digits", "ipc": 2}
    second = inside.web.post("/api/v1/jobs/distill", json={}).json()
    assert second["before"] == 1
    assert second["starts_in_s"] is None  # nothing runs, so nobody can know
    cancelled = inside.web.post(f"/api/v1/jobs/{second['id']}/cancel")
    assert cancelled.json()["state"] == "cancelled"
    assert "there is nothing to cancel" in refused(inside.web.post(f"/api/v1/jobs/{second['id']}/cancel"), 409)
    assert inside.web.post(f"/api/v1/jobs/{second['id']}/retry").json()["state"] == "queued"
    assert "only what failed" in refused(inside.web.post(f"/api/v1/jobs/{second['id']}/retry"), 409)
    page = inside.web.get("/api/v1/jobs", params={"limit": 1, "offset": 1}).json()
    assert (page["total"], [job["id"] for job in page["jobs"]]) == (2, [made.json()["id"]])
    assert inside.web.get("/api/v1/jobs", params={"state": "running"}).json()["total"] == 0


@EITHER
def test_the_same_key_is_the_same_job(inside: Any) -> None:
    key = {"Idempotency-Key": "one"}
    first = inside.web.post("/api/v1/jobs/distill", json={"ipc": 1}, headers=key)
    again = inside.web.post("/api/v1/jobs/distill", json={"ipc": 1}, headers=key)
    assert (first.status_code, again.status_code) == (202, 200)
    assert first.json()["id"] == again.json()["id"]
    assert "key" in refused(inside.web.post("/api/v1/jobs/distill", json={"ipc": 2}, headers=key), 409).casefold()
    assert inside.web.get("/api/v1/jobs").json()["total"] == 1


def test_sets_are_uploaded_shown_downloaded_and_deleted(inside: Any, make_set: Any, tmp_path: Path) -> None:
    made = make_set(classes=10)
    made.save(tmp_path / "file.safetensors")
    body = (tmp_path / "file.safetensors").read_bytes()
    assert inside.web.put("/api/v1/sets/mine", content=body, headers=UPLOAD).status_code == 201
    assert inside.web.put("/api/v1/sets/mine", content=body, headers=UPLOAD).status_code == 200
    told = inside.web.get("/api/v1/sets/mine").json()
    assert (told["identity"], told["images"], told["studies"]) == (made.identity, 20, [])
    assert inside.web.get("/api/v1/sets/mine/file").content == body
    assert inside.web.get("/api/v1/sets/mine/sheet").content.startswith(b"\x89PNG")
    for other in (make_set(classes=3), replace(made, augment="none"), made.with_provenance(validation_accuracy=0.999)):
        other.save(tmp_path / "other.safetensors")
        content = (tmp_path / "other.safetensors").read_bytes()
        taken = inside.web.put("/api/v1/sets/mine", content=content, headers=UPLOAD)
        assert "has a set mine of other" in refused(taken, 409)
    assert inside.web.get("/api/v1/sets/mine/file").content == body
    assert inside.web.delete("/api/v1/sets/mine").status_code == 204
    refused(inside.web.get("/api/v1/sets/mine"), 404)
    assert not list((home() / "sets").glob("*"))


def test_spaces_recipes_and_data_sets_are_listed(inside: Any) -> None:
    spaces = {one["name"]: one["size"] for one in inside.web.get("/api/v1/spaces").json()["spaces"]}
    assert spaces["convnet"] == 720
    assert spaces["nasbench201"] == 15625
    assert inside.web.get("/api/v1/datasets").json() == {"datasets": ["digits"]}
    assert "quick" in [one["name"] for one in inside.web.get("/api/v1/recipes").json()["recipes"]]
    good = {"lr": {"_type": "choice", "_value": [1, 2]}}
    assert inside.web.post("/api/v1/spaces/validate", json=good).json()["valid"]
    bad = inside.web.post("/api/v1/spaces/validate", json={"lr": {"_type": "choise", "_value": [1]}}).json()
    assert not bad["valid"]
    assert "choise" in bad["problem"]


NAMES = ["..%2fsets", "..%2f..%2fetc%2fpasswd", "%2e%2e", "a/b", ".hidden", "a\x00b", "x" * 300, "C:\\x", "~root"]


@pytest.mark.parametrize("name", NAMES)
def test_no_name_leaves_its_folder(inside: Any, name: str) -> None:
    before = files()
    for path in ("sets/{}", "sets/{}/file", "sets/{}/sheet", "studies/{}", "studies/{}/report", "studies/{}/csv"):
        refused(inside.web.get(f"/api/v1/{path.format(name.replace(chr(0), '%00'))}"), 404, 422)
    for path in ("/static/{}", "/static/../templates/{}"):
        assert inside.web.get(path.format(name.replace(chr(0), "%00"))).status_code in (404, 405, 422)
    answer = inside.web.put(f"/api/v1/sets/{name.replace(chr(0), '%00')}", content=b"x", headers=UPLOAD)
    refused(answer, 404, 405, 422)
    for field in ({"name": name}, {"dataset": name}, {"recipe": name}):
        refused(inside.web.post("/api/v1/jobs/distill", json=field), 422)
    for field in ({"set": name}, {"space": name}, {"study": name}):
        refused(inside.web.post("/api/v1/jobs/search", json=field), 422)
    refused(inside.web.post("/api/v1/jobs/finish", json={"study": name}), 422)
    assert files() == before


@pytest.mark.parametrize(
    ("kind", "request_", "said"),
    [
        ("distill", {"ipc": 1_000_000}, "more than this server allows"),
        ("distill", {"settings": {"ipc": 1_000_000}}, "more than this server allows"),
        ("distill", {"settings": {"matching.outer_steps": 10**9}}, "more than this server allows"),
        ("distill", {"settings": {"experts.num_experts": 10**6}}, "more than this server allows"),
        ("distill", {"settings": {"evaluation.train.epochs": 10**7}}, "more than this server allows"),
        ("distill", {"settings": {"backbone": "evil.py:build:{}"}}, "unknown"),
        ("distill", {"settings": {"no.such": 1}}, "no.such"),
        ("distill", {"data_root": "/etc"}, "data_root"),
        ("distill", {"dataset": "cifar10"}, "unknown data set"),
        ("search", {"space": "evil.py:build"}, "space"),
        ("search", {"space": "space.json+evil.py:build"}, "space"),
        ("search", {"candidates": 10**9}, "more than this server allows"),
        ("search", {"epochs": 10**9}, "more than this server allows"),
        ("search", {"proxy": "no_such"}, "unknown proxy"),
        ("search", {"where": ["width=5"]}, "5"),
        ("search", {"sampler": "best"}, "unknown sampler"),
        ("search", {"proxy": "early:1000000000.accuracy"}, "more than this server allows"),
        ("search", {"proxy": "promote(params,real:1e9)"}, "more than this server allows"),
        ("search", {"proxy": "real:1E9"}, "not a positive number"),
        ("search", {"epochs": 3, "steps": 4}, "give one of them"),
        ("distill", {"settings": {"description": "a\0b"}}, "no printable text"),
        (
            "distill",
            {"settings": {"matching.lr_images_grid": [1.0] * 500, "matching.grid_steps": 20_000}},
            "more than this server allows",
        ),
        ("search", {"storage": "sqlite:////etc/passwd"}, "storage"),
        ("search", {"study": "--help"}, "study"),
        ("search", {"lr": "1; rm -rf"}, "lr"),
        ("check", {"candidates": 5}, "candidates"),
        ("report", {"study": "none", "truth": "/etc/passwd"}, "truth"),
        ("truth", {"study": "none"}, "none"),
    ],
)
def test_what_a_server_does_not_do_is_not_queued(
    inside: Any,
    digits_set: str,  # noqa: ARG001
    kind: str,
    request_: dict[str, Any],
    said: str,
) -> None:
    assert said in refused(inside.web.post(f"/api/v1/jobs/{kind}", json=request_), 422)
    assert inside.web.get("/api/v1/jobs").json()["total"] == 0


def test_uploads_that_are_no_set_leave_nothing(inside: Any, tmp_path: Path, make_set: Any) -> None:
    make_set(classes=10).save(tmp_path / "file.safetensors")
    body = (tmp_path / "file.safetensors").read_bytes()
    before = files()
    bad = {
        "pickle": pickle.dumps({"images": [1, 2, 3]}),
        "empty": b"",
        "half": body[: len(body) // 2],
        "changed": body[:-4] + b"\x00\x00\x80\x7f",
        "header": b"\xff\xff\xff\xff\xff\xff\xff\x7f" + body[8:],
        "text": b"<html>" * 100,
    }
    for name, content in bad.items():
        said = refused(inside.web.put(f"/api/v1/sets/{name}", content=content, headers=UPLOAD), 422)
        assert said.startswith("this is no synthetic set"), name
    refused(inside.web.put("/api/v1/sets/large", content=b"x" * (2 << 20), headers=UPLOAD), 413)
    chunks = (b"x" * 100_000 for _ in range(20))  # of a length that nobody told
    refused(inside.web.put("/api/v1/sets/large", content=chunks, headers=UPLOAD), 413)
    refused(inside.web.post("/api/v1/jobs/distill", json={"name": "x" * (2 << 20)}), 413)
    assert files() == before


def test_only_those_with_the_token_get_in(inside: Any) -> None:
    web = inside.another(Access("a-token-of-some-length", ()))
    for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "Basic a-token-of-some-length"}):
        for path in ("/", "/api/v1/jobs", "/api/v1/openapi.json", "/api/v1/ready"):
            assert "token" in refused(web.get(path, headers=headers), 401)
        refused(web.post("/api/v1/jobs/distill", json={}, headers=headers), 401)
    refused(web.get("/?token=wrong"), 401)
    refused(web.get("/", headers={"Cookie": 'ftdnas_token="'}), 401)
    assert web.get("/api/v1/health").status_code == 200
    given = {"Authorization": "Bearer a-token-of-some-length"}
    assert web.get("/api/v1/jobs", headers=given).status_code == 200
    entered = web.get("/?token=a-token-of-some-length", follow_redirects=False)
    assert entered.status_code == 303
    assert entered.headers["location"] == "/"
    cookie = entered.headers["set-cookie"].casefold()
    assert "httponly" in cookie
    assert "samesite=strict" in cookie
    assert web.get("/").status_code == 200  # the client keeps the cookie
    assert inside.server.queue.page()[1] == 0


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "evil.example:8765", "", "[", "@"])
def test_a_foreign_host_is_refused(inside: Any, host: str) -> None:
    refused(inside.web.get("/api/v1/jobs", headers={"Host": host}), 421)


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:9999"},
        {"Sec-Fetch-Site": "cross-site"},
    ],
)
def test_other_sites_cannot_submit(inside: Any, headers: dict[str, str]) -> None:
    refused(inside.web.post("/api/v1/jobs/distill", json={}, headers=headers), 403)
    refused(inside.web.delete("/api/v1/sets/x", headers=headers), 403)
    assert inside.web.get("/api/v1/jobs").json()["total"] == 0
    own = {"Origin": "http://127.0.0.1"}
    assert inside.web.post("/api/v1/jobs/distill", json={}, headers=own).status_code == 202


@EITHER
def test_readiness_says_what_is_wrong(inside: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    assert inside.web.get("/api/v1/ready").json()["ready"]
    monkeypatch.setattr("ftdnas.service.machine.SPARE_BYTES", 1 << 60)
    answer = inside.web.get("/api/v1/ready")
    assert answer.status_code == 503
    assert "of disk are free" in answer.json()["problems"][0]
    assert inside.web.post("/api/v1/jobs/distill", json={}).status_code == 202  # it waits, and nothing of it is lost


def gone(_: pytest.MonkeyPatch) -> None:
    shutil.rmtree(home())


def moved(_: pytest.MonkeyPatch) -> None:
    home().rename(home().with_name(f"{home().name}-moved"))
    (home() / "sets").mkdir(parents=True)  # as a command makes it that writes there


def read_only(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(**options: Any) -> None:
        raise OSError(errno.EROFS, "Read-only file system", str(options["dir"]))

    monkeypatch.setattr("ftdnas.runtime.trouble.tempfile.TemporaryFile", refuse)


@EITHER
@pytest.mark.parametrize(
    ("damage", "words"),
    [(gone, "has gone"), (moved, "is not the folder that this began with"), (read_only, "read-only")],
)
def test_a_home_that_went_takes_no_jobs(
    inside: Any, damage: Any, words: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    damage(monkeypatch)
    ready = inside.web.get("/api/v1/ready")
    assert ready.status_code == 503
    assert words in ready.json()["problems"][0]
    assert words in refused(inside.web.post("/api/v1/jobs/distill", json={}), 503)
    assert words in refused(inside.web.put("/api/v1/sets/mine", content=b"", headers=UPLOAD), 503)
    assert inside.web.get("/api/v1/health").status_code == 200
    assert str(tmp_path) not in ready.text


def test_nothing_that_fits_the_description_is_a_server_error(inside: Any, digits_set: str) -> None:  # noqa: ARG001
    web: TestClient = inside.another(Access(hosts=()))
    schema = schemathesis.openapi.from_asgi("/api/v1/openapi.json", web.app)
    seen = set()
    for result in schema.get_all_operations():
        operation: Any = result.ok()  # type: ignore[union-attr]  # an Err would raise here
        if operation.path.endswith("/events"):  # a stream does not end
            continue
        seen.add((operation.method, operation.path))

        @settings(max_examples=12, deadline=None, database=None, derandomize=True, suppress_health_check=HEALTH)
        @given(case=operation.as_strategy())
        def asked(case: Any) -> None:
            answer = case.call(base_url="http://127.0.0.1")
            assert answer.status_code < 500, (case, answer.text)

        asked()
    assert len(seen) > 25


def test_a_set_that_names_files_of_the_server_forgets_them(inside: Any, make_set: Any, tmp_path: Path) -> None:
    for place, (told, kept) in enumerate(
        [
            ({"spec": "folder:/etc", "split_file": None}, {}),
            ({"spec": "digits", "split_file": "/etc/passwd"}, {}),
            ({"spec": "digits", "validation": 0.2, "image_size": "x"}, {"spec": "digits", "validation": 0.2}),
            ("digits", {}),
        ]
    ):
        make_set(classes=10, provenance={"data": told}).save(tmp_path / "file.safetensors")
        body = (tmp_path / "file.safetensors").read_bytes()
        assert inside.web.put(f"/api/v1/sets/set{place}", content=body, headers=UPLOAD).status_code == 201
        assert Library().load(f"set{place}").provenance["data"] == kept
    make_set(classes=10, backbone="/tmp/evil.py:build").save(tmp_path / "file.safetensors")
    body = (tmp_path / "file.safetensors").read_bytes()
    assert "unknown network" in refused(inside.web.put("/api/v1/sets/evil", content=body, headers=UPLOAD), 422)


def test_a_set_in_use_is_not_deleted_by_accident(inside: Any, digits_set: str) -> None:
    job = inside.web.post("/api/v1/jobs/search", json={"set": digits_set, "study": "one"}).json()
    assert f"job {job['id']} need the set" in refused(inside.web.delete(f"/api/v1/sets/{digits_set}"), 409)
    assert inside.web.delete(f"/api/v1/sets/{digits_set}?force=true").status_code == 204


@EITHER
def test_a_search_may_wait_for_its_set(inside: Any) -> None:
    queue = inside.server.queue
    assert "there is none yet" in refused(inside.web.post("/api/v1/jobs/search", json={"set": "later"}), 422)
    assert "no synthetic set yet" in refused(inside.web.post("/api/v1/jobs/search", json={}), 422)
    inside.web.post("/api/v1/jobs/distill", json={"name": "later"})
    assert inside.web.post("/api/v1/jobs/search", json={"set": "later"}).status_code == 202
    with open_storage(inside.storage) as storage, storage.leases("jobs") as leases:
        first = queue.take(leases, set(), "here", can_begin)
        assert first.kind == "distill"
        assert queue.take(leases, {first.id}, "here", can_begin) is None
        queue.end(first, "failed", error="it was not to be")
        assert queue.take(leases, {first.id}, "here", can_begin).kind == "search"


def test_a_search_may_go_the_whole_way(inside: Any) -> None:
    asked = {"dataset": "digits", "budget": "30m"}
    job = inside.web.post("/api/v1/jobs/search", json=asked).json()
    assert job["request"]["study"].startswith("digits-whole-")
    assert "no synthetic set yet" in refused(
        inside.web.post("/api/v1/jobs/search", json={"dataset": "digits", "proxy": "set.late_loss"}), 422
    )


def test_so_many_jobs_wait_and_no_more(inside: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ftdnas.service.queue.MOST_OPEN", 2)
    for _ in range(2):
        assert inside.web.post("/api/v1/jobs/distill", json={}).status_code == 202
    assert "2 jobs wait already" in refused(inside.web.post("/api/v1/jobs/distill", json={}), 429)


def test_a_stream_of_what_nobody_has_is_refused(inside: Any) -> None:
    refused(inside.web.get(f"/api/v1/jobs/{'0' * 32}/events"), 404)


def test_without_its_database_a_server_says_so_at_once(postgresql: Any, database: str) -> None:
    with open_storage(database) as storage:
        queue = Queue(replace(storage, patience_s=0.2))
        server = Server(queue, Board(queue, 1), Bounds(), 0)
        web = TestClient(make_app(server, Access()), base_url="http://127.0.0.1")
        known = web.post("/api/v1/jobs/distill", json={}).json()["id"]
        postgresql.stop()
        try:
            for answer in (
                web.post("/api/v1/jobs/distill", json={}),
                web.get(f"/api/v1/jobs/{known}"),
                web.get("/api/v1/jobs"),
                web.get(f"/api/v1/jobs/{known}/events"),
            ):
                assert "the database does not answer" in refused(answer, 503)
            assert web.get("/").status_code == 503
            assert web.get("/api/v1/health").status_code == 200
            ready = web.get("/api/v1/ready")
            assert ready.status_code == 503
            assert ready.json()["problems"] == ["the database does not answer"]
        finally:
            postgresql.start()
        time.sleep(0.6)
        assert web.get(f"/api/v1/jobs/{known}").json()["state"] == "queued"
        assert web.get("/api/v1/ready").status_code == 200
