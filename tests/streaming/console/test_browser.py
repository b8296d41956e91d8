"""The console in a real browser: nothing runs that is not its own, keys suffice, small screens do, axe is content."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import pytest
from playwright.sync_api import Browser, BrowserContext
from playwright.sync_api import Page as Tab

from tests.browser import PATIENCE_MS, SMALL, complaints, launched, out_of_reach, violations
from tests.streaming.console.world import EVIL, POINT, Page, filled, serving, written

VIEWS = {
    "health": "health",
    "live": f"live?point={POINT}",
    "decision": "decision?id=d0",
    "policies": f"policies?point={POINT}",
    "alarms": "alarms",
    "generations": f"generations?point={POINT}",
    "join": "join",
}


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with launched() as browser:
        yield browser


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    path = written(tmp_path_factory.mktemp("browser"))
    filled(path)
    with serving(path) as page:
        yield page


def opened(context: BrowserContext, served: Page, view: str) -> Tab:
    """Open a view, and wait until it is drawn."""
    page = context.new_page()
    page.set_default_timeout(PATIENCE_MS)
    page.goto(f"http://127.0.0.1:{served.port}/#/{VIEWS[view]}")
    page.wait_for_selector("main h1")
    page.wait_for_selector("main:not([aria-busy])")
    return page


def test_what_others_have_sent_is_shown_and_never_run(chromium: Browser, served: Page) -> None:
    context = chromium.new_context()
    said = complaints(context)  # a refusal by the policy of contents is among these
    for view in VIEWS:
        page = opened(context, served, view)
        page.wait_for_timeout(200)
        assert page.title().endswith("Leeway console"), view
        assert page.locator("main img, main script").count() == 0, view
        if view in ("decision", "alarms", "policies"):
            assert EVIL in page.inner_text("main"), view
    assert said == []
    context.close()


def test_an_alarm_is_acknowledged_with_keys_alone(chromium: Browser, served: Page) -> None:
    context = chromium.new_context()
    page = opened(context, served, "alarms")
    button = page.get_by_role("button", name=f"Acknowledge alarm {POINT}-alarm")
    for _ in range(40):
        page.keyboard.press("Tab")
        if button.evaluate("node => node === document.activeElement"):
            break
    page.keyboard.press("Enter")
    page.wait_for_selector("dialog[open]")
    assert page.evaluate("document.activeElement.closest('dialog') !== null")
    page.keyboard.press("Escape")  # and nothing is done
    page.wait_for_selector("dialog", state="detached")
    assert "Acknowledged" not in page.inner_text("main")
    page.keyboard.press("Enter")
    page.wait_for_selector("dialog[open]")
    page.keyboard.type("seen")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    page.wait_for_selector("main >> text=/Acknowledged .*: seen/")
    assert f"{POINT}-alarm is acknowledged" in page.inner_text("[role=status]")
    context.close()


def test_a_small_screen_needs_no_scrolling_sideways(chromium: Browser, served: Page) -> None:
    context = chromium.new_context(viewport=SMALL)
    for view in VIEWS:
        page = opened(context, served, view)
        assert page.evaluate("document.documentElement.scrollWidth") <= SMALL["width"], view
        assert out_of_reach(page) == [], view
        page.close()
    context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing(chromium: Browser, served: Page, scheme: Literal["light", "dark"]) -> None:
    # axe is a script of others: for it alone the policy is left out.
    context = chromium.new_context(color_scheme=scheme, bypass_csp=True)
    assert {view: violations(opened(context, served, view)) for view in VIEWS} == {view: [] for view in VIEWS}
    context.close()
