"""A real browser for tests: a Chromium on the path, driven by Playwright, with axe-core for accessibility.

Nothing is downloaded: Playwright drives Debian's Chromium, and axe-core lies in the package axe-playwright-python.
``LEEWAY_CHROMIUM`` names the program where it is not on the path.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from functools import cache
from importlib.resources import files

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, ViewportSize, sync_playwright

#: For whatever a page waits for; generous, for a busy machine.
PATIENCE_MS = 120_000.0
SMALL: ViewportSize = {"width": 360, "height": 640}


def program() -> str:
    """Return the path of Chromium; without it the test is skipped, or fails where CI requires it."""
    found = os.environ.get("LEEWAY_CHROMIUM") or shutil.which("chromium")
    if found is None:
        words = "chromium is not on the path (Debian package chromium), and LEEWAY_CHROMIUM names none"
        if os.environ.get("LEEWAY_REQUIRE_BROWSER") == "1":
            pytest.fail(f"LEEWAY_REQUIRE_BROWSER=1, and {words}")
        pytest.skip(f"{words}; LEEWAY_REQUIRE_BROWSER=1 fails instead")
    return found


@contextlib.contextmanager
def launched() -> Iterator[Browser]:
    """Run Chromium for a block."""
    path = program()
    with sync_playwright() as playwright:
        # As root, in a container, Chromium has no sandbox.
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        try:
            yield browser
        finally:
            browser.close()


@cache
def _axe() -> str:
    return files("axe_playwright_python").joinpath("axe.min.js").read_text()


def violations(page: Page) -> list[tuple[str, list[str]]]:
    """Return the rules of axe that a page breaks, each with the elements; its context must bypass the page's CSP."""
    page.evaluate(_axe())
    found = page.evaluate("axe.run()")["violations"]
    return [(each["id"], [node["html"] for node in each["nodes"]]) for each in found]


def complaints(context: BrowserContext) -> list[str]:
    """Return a list that fills with what the pages of a context complain of: errors, and warnings of the browser."""
    said: list[str] = []
    context.on("console", lambda message: said.append(f"{message.type}: {message.text}"))
    context.on("weberror", lambda error: said.append(f"page error: {error.error}"))
    return said


def out_of_reach(page: Page) -> list[str]:
    """Return the controls of a page that lie beside the screen, and so cannot be reached without scrolling sideways.

    What stands in a table counts where that table can be scrolled with the keyboard.
    """
    found: list[str] = page.evaluate(
        """() => [...document.querySelectorAll('a, button, input, select, textarea, summary')]
        .filter(node => node.id !== 'skip' && !node.closest('.table[tabindex]'))
        .filter(node => { const box = node.getBoundingClientRect();
          return box.width === 0 || box.left < 0 || box.right > document.documentElement.clientWidth; })
        .map(node => node.outerHTML)"""
    )
    return found
