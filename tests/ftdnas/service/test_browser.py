"""The whole way in a real browser: distil, watch, look at the set, search, watch, report."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, expect, sync_playwright

from ftdnas.runtime.home import home
from ftdnas.service.client import Client

Start = Callable[..., Any]
SLOW_MS = 120_000


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("no Chromium is installed: make system-packages installs Debian's")
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-dev-shm-usage"])
        yield opened
        opened.close()


def is_error(said: ConsoleMessage) -> bool:
    """Chromium calls every refused request one, and some are meant to be refused."""
    return said.type == "error" and "422" not in said.text


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A page whose scripts must not fail, and which must ask nobody but the server."""
    context = browser.new_context(viewport={"width": 390, "height": 800}, color_scheme="dark")
    opened = context.new_page()
    complaints: list[str] = []
    opened.on("pageerror", lambda error: complaints.append(str(error)))
    opened.on("console", lambda said: complaints.append(said.text) if is_error(said) else None)
    asked: list[str] = []
    opened.on("request", lambda request: asked.append(request.url))
    yield opened
    context.close()
    assert not complaints
    assert all(re.match(r"http://127\.0\.0\.1:|data:|blob:", url) for url in asked)


def test_from_images_to_a_report(start: Start, page: Page) -> None:
    url = start("serve", "--port=0", "--workers=2").url
    page.goto(url)
    page.get_by_role("link", name="Distil the handwritten digits").click()
    expect(page.get_by_label("name", exact=True)).to_have_value("digits")
    page.get_by_text("More settings").click()
    page.get_by_label("settings of the recipe").fill(
        "backbone = convnet:width=32,depth=1\nexperts.num_experts = 1\nmatching.outer_steps = 6\n"
        "matching.syn_steps = 4\nmatching.max_start_epoch = 2\nmatching.expert_epochs = 1\n"
        "matching.validate_every = 3\nevaluation.validation.epochs = 4\nevaluation.train.epochs = 4"
    )
    page.get_by_label("ipc").fill("many")
    page.get_by_role("button", name="Start").click()
    expect(page.get_by_role("alert")).to_contain_text("many is no number")
    page.get_by_label("ipc").fill("1000000")
    page.get_by_role("button", name="Start").click()
    expect(page.get_by_role("alert")).to_contain_text("more than this server allows")
    page.get_by_label("ipc").fill("1")
    page.keyboard.press("Enter")  # nothing needs a mouse
    expect(page.get_by_role("heading", name="distill digits")).to_be_visible()
    expect(page.get_by_role("progressbar")).to_be_visible(timeout=SLOW_MS)
    page.get_by_role("link", name="Look at the set digits").click(timeout=SLOW_MS)
    sheet = page.get_by_alt_text("All images of the set, one class a row")
    expect(sheet).to_be_visible()
    assert sheet.evaluate("image => image.naturalWidth") > 50

    page.get_by_role("link", name="Search with it").click()
    expect(page.get_by_label("set", exact=True)).to_have_value("digits")
    page.get_by_label("study").fill("first")
    page.get_by_label("candidates").fill("6")
    page.get_by_text("More settings").click()
    page.get_by_label("where").fill("width=32 depth=1,2")
    page.get_by_label("epochs").fill("20")
    page.get_by_role("button", name="Start").click()
    expect(page.get_by_text("search first").first).to_be_visible()
    page.get_by_role("link", name="Look at the study first").click()
    rows = page.locator("#trials tbody tr")
    expect(rows).to_have_count(6, timeout=SLOW_MS)
    expect(page.get_by_text("How far this ranking can be trusted is not known")).to_be_visible(timeout=SLOW_MS)
    box = page.locator("#scatter").bounding_box()
    assert box is not None
    assert box["width"] <= 390
    assert page.evaluate("document.documentElement.scrollWidth") <= 390  # nothing is wider than a phone

    page.get_by_role("link", name="train the candidates for real").click()
    page.get_by_text("More settings").click()
    page.get_by_label("epochs").fill("1")
    page.get_by_role("button", name="Start").click()
    expect(page.locator(".state")).to_have_text("succeeded", timeout=SLOW_MS)
    expect(page.get_by_role("link", name="Open the report")).to_be_visible()
    page.goto(f"{url}/studies/first")
    expect(page.locator(".verdict")).to_contain_text(re.compile("Undecided|Use it|Do not use it"))
    page.get_by_role("link", name="Open the report").click()
    expect(page.locator("svg").first).to_be_visible()
    page.goto(f"{url}/sets/digits")
    expect(page.locator(".verdicts")).to_contain_text(re.compile("Undecided|Use it|Do not use it"))
    page.goto(url)
    expect(page.locator("#jobs tbody tr")).to_have_count(3)
    page.get_by_text("Add a set from a file").click()
    page.get_by_label("Its .safetensors file").set_input_files(home() / "sets" / "digits.safetensors")
    page.get_by_label("Its name here").fill("../digits")
    page.get_by_role("button", name="Add it").click()
    assert page.get_by_label("Its name here").evaluate("input => input.validity.patternMismatch")
    page.get_by_label("Its name here").fill("again")
    page.get_by_role("button", name="Add it").click()
    expect(page.get_by_role("heading", name="again")).to_be_visible()


def test_many_jobs_do_not_make_the_overview_reload(start: Start, page: Page) -> None:
    url = start("serve", "--port=0", "--workers=0").url
    with Client(url) as client:
        for number in range(25):
            client.submit("distill", dataset="digits", name=f"set{number}")
        loads: list[str] = []
        page.on("load", lambda loaded: loads.append(loaded.url))
        page.goto(url)
        expect(page.locator("#jobs tbody tr")).to_have_count(25)
        page.wait_for_timeout(2500)  # several events
        assert loads == [f"{url}/"]
        client.submit("distill", dataset="digits", name="one-more")
        expect(page.locator("#jobs tbody tr")).to_have_count(26)
