"""The console in a real browser: nothing runs that is not its own, keys suffice, small screens do, axe finds nothing.

They need the package playwright and a Chromium; ``LEEWAY_CHROMIUM`` names its program where it is not on the path, and
``LEEWAY_AXE`` the file ``axe.min.js`` of the npm package axe-core. With ``LEEWAY_SCREENSHOTS`` the pages are drawn into
that directory.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.streaming.console.world import EVIL, POINT, Page, filled, serving, written

pytestmark = pytest.mark.slow

VIEWS = {
    "health": "health",
    "live": f"live?point={POINT}",
    "decision": "decision?id=d0",
    "policies": f"policies?point={POINT}",
    "alarms": "alarms",
    "generations": f"generations?point={POINT}",
    "join": "join",
}
#: Long enough for what is imported at the first look.
PATIENCE_MS = 120_000


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api", reason="no playwright: pip install playwright")
    program = os.environ.get("LEEWAY_CHROMIUM") or shutil.which("chromium")
    if program is None:
        pytest.skip("no Chromium: apt-get install chromium, or name it in LEEWAY_CHROMIUM")
    with playwright.sync_playwright() as running:
        # As root, in a container, Chromium has no sandbox.
        browser = running.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    path = written(tmp_path_factory.mktemp("browser"))
    filled(path)
    with serving(path) as page:
        yield page


def opened(context: Any, served: Page, view: str) -> Any:
    """Open a view, and wait until it is drawn."""
    page = context.new_page()
    page.set_default_timeout(PATIENCE_MS)
    page.goto(f"http://127.0.0.1:{served.port}/#/{VIEWS[view]}")
    page.wait_for_selector("main h1")
    page.wait_for_selector("main:not([aria-busy])")
    return page


def test_what_others_have_sent_is_shown_and_never_run(chromium: Any, served: Page) -> None:
    context = chromium.new_context()
    said: list[str] = []  # a refusal by the policy of contents is among these
    context.on("console", lambda message: said.append(message.text))
    context.on("weberror", lambda error: said.append(str(error.error)))
    for view in VIEWS:
        page = opened(context, served, view)
        page.wait_for_timeout(200)
        assert page.title().endswith("Leeway console"), view
        assert page.locator("main img, main script").count() == 0, view
        if view in ("decision", "alarms", "policies"):
            assert EVIL in page.inner_text("main"), view
    assert said == []
    context.close()


def test_an_alarm_is_acknowledged_with_keys_alone(chromium: Any, served: Page) -> None:
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


@pytest.mark.parametrize("view", VIEWS)
def test_a_small_screen_needs_no_scrolling_sideways(chromium: Any, served: Page, view: str) -> None:
    context = chromium.new_context(viewport={"width": 360, "height": 640})
    page = opened(context, served, view)
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing(chromium: Any, served: Page, scheme: str) -> None:
    file = os.environ.get("LEEWAY_AXE")
    if file is None:
        pytest.skip("no axe-core: npm install axe-core, and name axe.min.js in LEEWAY_AXE")
    # axe is a script of others: for it alone the policy is left out.
    context = chromium.new_context(color_scheme=scheme, bypass_csp=True)
    found = {}
    for view in VIEWS:
        page = opened(context, served, view)
        page.evaluate(Path(file).read_text())
        answer = page.evaluate("axe.run()")
        found[view] = [(each["id"], [node["html"] for node in each["nodes"]]) for each in answer["violations"]]
    assert found == {view: [] for view in VIEWS}
    context.close()


def test_the_pages_can_be_drawn(chromium: Any, tmp_path: Path) -> None:
    directory = os.environ.get("LEEWAY_SCREENSHOTS")
    if directory is None:
        pytest.skip("LEEWAY_SCREENSHOTS names no directory")
    path = written(tmp_path)
    filled(path, sent="the share of NL doubled", rewarded=lambda n: n * 37 % 100 < (30 if n < 50 else 65))
    screen = {"width": 1_000, "height": 700}
    kinds: dict[str, dict[str, Any]] = {
        "": {"viewport": screen},
        "-dark": {"viewport": screen, "color_scheme": "dark"},
        "-small": {"viewport": {"width": 360, "height": 640}},
    }
    with serving(path) as served:
        for name, options in kinds.items():
            context = chromium.new_context(**options)
            for view in VIEWS:
                file = Path(directory) / f"console-{view}{name}.png"
                opened(context, served, view).screenshot(path=str(file))
                assert file.stat().st_size > 1_000
            context.close()
