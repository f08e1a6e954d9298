"""The pages: what they load, show and lead to, and what they never tell."""

from __future__ import annotations

import re
from typing import Any

import pytest

from ftdnas.report.style import page_policy
from ftdnas.runtime.home import home
from ftdnas.service.guard import POLICY
from ftdnas.service.paths import without_places
from ftdnas.sets.library import Library


@pytest.mark.parametrize("page", ["/", "/new/distill", "/new/search", "/new/check", "/sets/digits"])
def test_pages_load_nothing_from_outside(inside: Any, digits_set: str, page: str) -> None:  # noqa: ARG001
    answer = inside.web.get(page)
    assert answer.status_code == 200
    assert not re.search(r"""(src|href)=["'](https?:)?//""", answer.text)
    assert not re.search(r"<script(?![^>]*src)|\son[a-z]+=|style=", answer.text)
    assert "default-src 'none'" in answer.headers["content-security-policy"]


def test_what_an_upload_gives_away_stands_above_its_button(inside: Any) -> None:
    form = inside.web.get("/").text.partition('<form id="upload">')[2].partition("<button")[0]
    assert "begin as real photos and stay near them" in form
    assert "teachers" in form


def test_a_report_is_shown_under_the_policy_that_it_states(inside: Any) -> None:
    folder = home() / "studies" / "mine"
    (folder / "report").mkdir(parents=True)
    (folder / "study.json").write_text("{}")
    assert inside.web.get("/api/v1/studies/mine/report").status_code == 404
    older = page_policy().replace("sha256-", "sha256-ab")  # its style has changed since
    for written, stated in ((page_policy(), page_policy()), (older, older), (None, page_policy())):
        head = f'<meta http-equiv="Content-Security-Policy" content="{written}">' if written else ""
        page = f"<html><head>{head}<title></title></head><script>alert(1)</script></html>"
        (folder / "report" / "report.html").write_text(page)
        answer = inside.web.get("/api/v1/studies/mine/report")
        assert answer.text == page
        assert answer.headers["content-security-policy"] == f"{stated}; frame-ancestors 'self'"
    own = inside.web.get("/").headers["content-security-policy"]
    assert own == POLICY
    assert own.split("; ")[:2] == page_policy().split("; ")[:2] == ["default-src 'none'", "base-uri 'none'"]


def test_a_study_without_a_report_leads_to_one_job_that_makes_it(inside: Any, keep_ranking: Any) -> None:
    (keep_ranking("mine", {"convnet:depth=1": 1.0}, "late loss") / "study.json").write_text("{}")
    page = inside.web.get("/studies/mine").text
    assert '<a href="/new/trust?study=mine">train the candidates for real</a>' in page
    form = inside.web.get("/new/trust?study=mine").text
    assert re.search(r'<option[^>]*value="mine"[^>]*selected|<option[^>]*selected[^>]*>mine', form)


def test_one_odd_thing_does_not_hide_the_others(inside: Any, make_set: Any) -> None:
    odd = {"validation_accuracy": [1], "dataset": {"a": 1}, "method": 3, "seed": "x"}
    Library().add(make_set(classes=10, provenance=odd), "odd")
    for name, content in (("bad", "{"), ("my study", "{}"), ("list", "[]")):
        folder = home() / "studies" / name
        folder.mkdir(parents=True)
        (folder / "study.json").write_text(content)
    for address in ("/", "/sets/odd", "/api/v1/sets", "/api/v1/studies", "/api/v1/sets/odd"):
        assert inside.web.get(address).status_code == 200, address
    told = {one["name"]: one["problem"] for one in inside.web.get("/api/v1/studies").json()["studies"]}
    assert set(told) == {"bad", "list"}
    assert all(told.values())
    assert str(home()) not in inside.web.get("/").text


def test_places_of_this_machine_are_not_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FTDNAS_HOME", "/srv/ftdnas")
    monkeypatch.setenv("HOME", "/")
    assert without_places("see /srv/ftdnas/sets/a.png, not a/b or /srv/ftdnas2") == (
        "see $FTDNAS_HOME/sets/a.png, not a/b or /srv/ftdnas2"
    )
    assert without_places("the database postgresql+psycopg://u:***@host:1/x is gone") == (
        "the database postgresql is gone"
    )
