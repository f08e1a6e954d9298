"""The report: what stands in it, that it needs nothing from outside, and that nobody's name becomes a tag."""

from __future__ import annotations

import csv
import io
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from distill.images.datasets import METRICS
from ftdnas.agreement.bias import biases, pareto, percentiles
from ftdnas.agreement.comparison import PROXY, REFERENCE, Column, Comparison, Table, compare
from ftdnas.agreement.winner import Take
from ftdnas.report import views
from ftdnas.report.charts import Axis, around
from ftdnas.report.finished import finished
from ftdnas.report.folder import write_report
from ftdnas.report.ledger import EACH, ONCE, Stage
from ftdnas.report.page import Extras
from ftdnas.report.style import SCRIPT, STYLE, page_policy, stated_policy
from ftdnas.report.words import UNKNOWN
from ftdnas.runtime.home import write_json
from ftdnas.runtime.records import from_json, to_json

N = 40
HOSTILE = '<script>alert("1")</script> & $x_1$ 漢'
rng = np.random.default_rng(0)
TRUTH = np.sort(rng.uniform(0.3, 0.9, N))


def noisy(noise: float, seed: int) -> tuple[float, ...]:
    return tuple((TRUTH + np.random.default_rng(seed).normal(0, noise, N)).tolist())


TABLE = Table(
    space="convnet",
    candidates=(*(f"convnet:{row}" for row in range(N - 1)), HOSTILE),
    parameters=tuple(int(10 ** (4 + 2 * value)) for value in noisy(0.2, 1)),
    flops=tuple(int(10 ** (6 + 2 * value)) for value in noisy(0.2, 8)),
    latency_ms=tuple(float(row + 1) for row in range(N)),
    choices=tuple({"width": 32 * (1 + row % 3), "norm": "batch" if row < 8 else HOSTILE} for row in range(N)),
    num_classes=10,
    truth_name="ten epochs " + HOSTILE,
    truth=(0.1, *TRUTH[1:].tolist()),
    truth_by_seed=((0.1, *noisy(0.02, 2)[1:]), (0.1, *noisy(0.02, 3)[1:])),
    train_all_s=1e6,
    columns=(
        Column("set", "the set " + HOSTILE, (None, *noisy(0.1, 4)[1:]), ("died",) + (None,) * (N - 1), 60, 900, PROXY),
        Column("params", "parameters", noisy(0.3, 5)),
        Column("constant", "constant", (1.0,) * N, seconds=2.0),
        Column("random", "random images", noisy(0.3, 6), seconds=60.0),
        Column("table", "12 real epochs", noisy(0.05, 7), seconds=6e4, role=REFERENCE),
    ),
)
LEDGER = (Stage("experts", 800.0, "cpu", ONCE, 4), Stage("screening", 60.0, "cpu", EACH, N, HOSTILE))


class Page(HTMLParser):
    """Tags with their attributes, and the text."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.open: list[str] = []
        self.feed(source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "img", "line", "circle", "path", "polyline", "polygon"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if tag not in ("circle", "path", "polyline"):
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture(scope="module")
def compared() -> Comparison:
    return compare(TABLE, seed=0, resamples=300)


@pytest.fixture(scope="module")
def folder(compared: Comparison, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    study = tmp_path_factory.mktemp("study")
    by_class = {"images": [100, 20, 0], "right": [50, 1, 0], "confused": [[0, 1, 50], [1, 0, 19]]}
    by_class |= {"worst": [{"photo": "a.jpg", "label": "cat", "said": HOSTILE, "probability": 0.99}]}
    card = {
        "architecture": HOSTILE,
        "choices": {},
        "class_names": ["cat", HOSTILE, "no photos"],
        "data": {"name": "digits"},
    }
    card |= {"test": {"accuracy": 0.09, "images": 110, "interval": [0.05, 0.16], "by_class": by_class}}
    card["test"]["metric"] = METRICS[1]
    write_json(study / "finish" / "a" / "card.json", card)
    Image.new("RGB", (8, 8), "red").save(folder / "sheet.png")
    extras = Extras(
        title="A report " + HOSTILE,
        take=Take(HOSTILE, "convnet:38", (HOSTILE, "convnet:38"), 0.88, 0.89, 0.01, 0.05, (1, 1), N, 500, None),
        finished=finished(study),
        images={"the set " + HOSTILE: folder / "sheet.png"},
        provenance={"set": HOSTILE, "recipe": {"lr": 0.1, "bad": float("nan")}},
        notes=(HOSTILE,),
        failures=(("truth", HOSTILE, "diverged"),),
        ledger=LEDGER,
        break_even=("Distilling pays from 10 candidates on.",),
    )
    assert write_report(folder, TABLE, compared, extras, png=True) == folder / "report.html"
    return folder


@pytest.fixture(scope="module")
def page(folder: Path) -> Page:
    page = Page((folder / "report.html").read_text(encoding="utf-8"))
    assert page.open == []
    return page


def test_the_verdict_is_the_first_sentence(page: Page, compared: Comparison) -> None:
    body = page.text[page.text.index("@media print") :]  # the title and the style come before
    heading = body.index("A report " + HOSTILE)
    verdict = body.index(compared.verdict.sentence)
    assert heading < body.index("Take this one: width 32, norm " + HOSTILE) < verdict < body.index("Agreement")
    assert "5 images of 500 more, at most 5.0 points ahead. 2 cannot be told apart." in body
    assert "Over the better half by truth" in body


def test_the_finished_network_is_told_class_by_class(page: Page, tmp_path: Path) -> None:
    assert finished(tmp_path) is None
    assert (
        "9.0 % of 110 test images of digits, every class counted the same (95 % interval 5.0 to 16.0). "
        "finish/a/card.md in the study's folder has all."
    ) in page.text
    rows = page.text[page.text.index("Classes, the hardest first") :]
    assert rows.index(HOSTILE + "205.0 %") < rows.index("cat10050.0 %")  # photos, those that were right
    assert "no photos" not in rows
    assert f"cat{HOSTILE}50" in rows[rows.index("What was taken for what") :]
    assert f"a.jpgcat{HOSTILE}99.0 %" in rows[rows.index("Wrong, and most sure of it") :]


def test_every_section_is_there_with_its_figures(page: Page, compared: Comparison) -> None:
    sections = {section["id"] for section in page.all("section")}
    assert sections == {
        *(
            "finished",
            "agreement",
            "ways",
            "cost",
            "bias",
            "front",
            "ledger",
            "candidates",
            "failures",
            "images",
            "provenance",
        )
    }
    assert len(page.all("svg")) == 7  # ranks, regret, cost, bias, three fronts
    for line in compared.lines:
        assert line.title in page.text
        assert str(line.headline.spearman) in page.text
    assert page.text.count("undefined") >= 4  # the constant column
    assert "Distilling pays from 10 candidates on." in page.text
    assert "In all 860 s of one process, of which 800 s are paid once." in page.text
    assert "died" in page.text
    marks = [str(attributes.get("data-t")) for tag, attributes in page.tags if tag in ("circle", "path")]
    assert sum("real rank" in mark for mark in marks) == N
    assert any("rank by proxy" in mark and "failed: died" in mark for mark in marks)


def test_nothing_comes_from_outside_and_nobody_else_can_run_a_script(page: Page, folder: Path) -> None:
    for _, attributes in page.tags:
        for name, value in attributes.items():
            assert not name.startswith("on")
            assert name != "style"  # the policy would refuse it
            if name in ("src", "href", "action", "data"):
                assert (value or "").startswith(("data:image/png;base64,", "#"))
    assert len(page.all("script")) == len(page.all("style")) == 1
    assert [meta["content"] for meta in page.all("meta") if "http-equiv" in meta] == [page_policy()]
    source = (folder / "report.html").read_text(encoding="utf-8")
    assert stated_policy(source) == page_policy()
    assert f"<script>{SCRIPT}</script>" in source
    assert f"<style>{STYLE}</style>" in source
    assert not re.search(r"https?://|@import|url\(", source)


def test_tables_are_reached_by_keyboard_and_links_lead_somewhere(page: Page) -> None:
    regions = [one for one in page.all("div") if one.get("class") == "scroll"]
    assert len(regions) == len(page.all("table"))
    assert all(one["tabindex"] == "0" and one["role"] == "region" and one["aria-label"] for one in regions)
    assert all(svg["role"] == "img" and svg["aria-label"] for svg in page.all("svg"))
    assert all(image["alt"] for image in page.all("img"))
    targets = {f"#{section['id']}" for section in page.all("section")}
    assert {link["href"] for link in page.all("a")} == targets


def test_the_csv_has_a_row_per_candidate_and_every_column(folder: Path) -> None:
    rows = list(csv.DictReader(io.StringIO((folder / "report.csv").read_text(encoding="utf-8"))))
    assert len(rows) == N
    by_name = {row["architecture"]: row for row in rows}
    assert set(by_name) == set(TABLE.candidates)
    last = by_name[HOSTILE]
    assert float(last["truth"]) == TABLE.truth[-1]
    assert float(last["params"]) == TABLE.columns[1].values[-1]
    assert (last["choice_norm"], last["truth_seed_2"]) == (HOSTILE, str(TABLE.truth_by_seed[1][-1]))
    assert (by_name["convnet:0"]["set"], by_name["convnet:0"]["set_error"]) == ("", "died")
    assert [float(row["rank"]) for row in rows] == list(range(1, N + 1))


def test_the_json_reads_back(folder: Path, compared: Comparison) -> None:
    record = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    assert from_json(Comparison, record["comparison"]) == compared
    assert record["table"] == to_json(TABLE) == to_json(from_json(Table, record["table"]))
    assert (record["schema"], record["take"]["name"], record["take"]["choices"][0]["width"]) == (2, HOSTILE, 32)
    assert record["verdict"] == compared.verdict.sentence
    assert record["provenance"]["recipe"]["bad"] is None
    assert record["ledger"][0]["seconds"] == 800.0


def test_every_chart_is_a_png_too(folder: Path) -> None:
    names = {path.stem for path in folder.glob("*.png")} - {"sheet"}
    assert names == {"ranks", "regret", "cost", "bias", "front-parameters", "front-flops", "front-latency"}
    for name in names:
        with Image.open(folder / f"{name}.png") as image:
            assert min(image.size) > 200
            assert len(image.convert("L").getcolors() or ()) > 20


def test_without_a_truth_the_page_says_so_first(tmp_path: Path) -> None:
    screened = replace(TABLE, truth=(), truth_by_seed=())
    path = write_report(tmp_path, screened, None, Extras(title="Screening", ledger=LEDGER))
    page = Page(path.read_text(encoding="utf-8"))
    assert page.text.index(UNKNOWN) < page.text.index("Pareto front")
    assert {section["id"] for section in page.all("section")} == {
        *("front", "ledger", "candidates", "failures", "provenance")
    }
    record = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    assert (record["comparison"], record["verdict"]) == (None, UNKNOWN)
    assert "score: the set" in page.text


def test_a_handful_of_candidates_is_drawn_too(tmp_path: Path) -> None:
    few = Table(
        space="convnet",
        candidates=("a", "b", "c"),
        parameters=(1, 1, 1),
        num_classes=2,
        truth=(0.6, 0.8, None),
        columns=(Column("set", "set", (None, 3.0, 2.0), role=PROXY),),
    )
    comparison = compare(few, seed=0)
    assert write_report(tmp_path, few, comparison, Extras(title="few")).is_file()
    assert views.charts(few, comparison)["bias"] == []


# ---- what is drawn


def test_the_scatter_marks_the_best_ten_and_what_failed() -> None:
    chart = views.scatter(TABLE)
    tones = [dot.tone for dot in chart.dots]
    assert (tones.count("marked"), tones.count("failed")) == (10, 1)
    first = chart.dots[0]
    assert (first.x, first.y) == (N, N)
    best = next(dot for dot in chart.dots if dot.title.startswith(HOSTILE))
    assert best.x == views.ranks(TABLE.truth)[-1]


def test_the_regret_of_all_but_one_is_near_zero_and_the_band_holds_the_line(compared: Comparison) -> None:
    chart = views.regret(TABLE, compared.seed)
    assert chart is not None
    *_, proxy = chart.curves
    assert len(proxy.low) == len(proxy.y) == len(proxy.high)
    assert all(low <= high for low, high in zip(proxy.low, proxy.high, strict=True))
    assert list(proxy.y) == sorted(proxy.y, reverse=True)
    blind = next(curve for curve in chart.curves if curve.label == "blind choice")
    assert blind.y[0] == pytest.approx(100 * (TRUTH[-1] - np.mean([0.1, *TRUTH[1:]])))


def test_the_cost_chart_holds_every_defined_way(compared: Comparison) -> None:
    chart = views.cost(compared, TABLE)
    assert len(chart.legend) == 4  # the constant column has no correlation
    rings = [dot for dot in chart.dots if dot.open]
    assert [ring.x for ring in rings] == [960.0]
    assert chart.x.low < min(dot.x for dot in chart.dots)
    assert chart.x.high > 1e6
    places = sorted(dot.x for dot in chart.dots if not dot.open)
    assert len(set(places)) == 4


def test_who_is_flattered_by_hand() -> None:
    choices: list[dict[str, str | int | float]] = [{"norm": name, "same": 1} for name in "aaabbb"]
    found = biases(choices, [4.0, 5.0, 6.0, 1.0, 2.0, 3.0], [1.0, 2.0, 3.0, 4.0, 5.0, 6.0])
    assert [(one.choice, one.value, one.n) for one in found] == [("norm", "a", 3), ("norm", "b", 3)]
    assert [one.mean for one in found] == pytest.approx([60.0, -60.0])
    assert (found[0].low, found[0].high) == (None, None)  # all differences are equal
    perfect = biases(choices, [1.0, 2.0, 3.0, 4.0, 5.0, 6.0], [1.0, 2.0, 3.0, 4.0, 5.0, 6.0])
    assert [one.mean for one in perfect] == [0.0, 0.0]
    assert biases(choices, [1.0] * 6, [None] * 6) == []
    assert list(percentiles([None, 2.0, 2.0, 3.0])) == pytest.approx([0.0, 50.0, 50.0, 100.0])


def test_a_number_with_many_values_is_cut_into_three() -> None:
    choices = [{"width": width} for width in range(30)]
    values = [float(width) for width in range(30)]
    found = biases(choices, [-v for v in values], values)
    assert [(one.value, one.n) for one in found] == [("up to 9.667", 10), ("9.667 to 19.33", 10), ("above 19.33", 10)]
    assert found[0].mean > 0 > found[2].mean
    assert found[0].low is not None


def test_the_front_by_hand() -> None:
    assert pareto([3, 1, 2, 2, None, 5], [0.9, 0.5, 0.4, 0.7, 1.0, 0.9]) == [1, 3, 0]
    assert pareto([], []) == []


@pytest.mark.parametrize("axis", [Axis("", 0.0, 1.0), Axis("", -7.3, 12.0), Axis("", 0.0, 3e6)])
def test_ticks_are_few_round_and_inside(axis: Axis) -> None:
    values = [value for value, _ in axis.ticks()]
    assert 3 <= len(values) <= 9
    assert all(axis.low - 1e-9 <= value <= axis.high + 1e-9 for value in values)


@pytest.mark.parametrize("values", [[1.0, 1e6], [2.0, 3.0], [5.0, 5.0], [1e-3, 1e-2], [1e9, 3e11]])
def test_log_ticks_are_few_and_inside(values: list[float]) -> None:
    axis = around(values, "", log=True)
    ticks = axis.ticks()
    assert 1 <= len(ticks) <= 7
    assert all(axis.low <= value <= axis.high for value, _ in ticks)
    assert len({told for _, told in ticks}) == len(ticks)
