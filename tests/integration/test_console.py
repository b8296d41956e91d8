"""The console of a running service in a real browser: every page, an alarm that comes, a promotion and a rollback."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial
from typing import Any, Literal

import pytest
from playwright.sync_api import Browser, Page

from engine.store import PolicyStore
from tests.browser import PATIENCE_MS, SMALL, complaints, launched, out_of_reach, violations
from tests.integration.operated import DECISIONS, POINT, acts, console, guarded, send, used
from tests.integration.service import Service, eventually
from training.registry import CHALLENGER, Registry

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1_500)]

#: What each page shows of this service, whose second generation the gate has refused.
SHOWN = {
    "health": "State:",
    f"live?point={POINT}": "Mean reward of the newest part",
    "decision?id=d3": "Replayed: ",
    f"policies?point={POINT}": "Not promoted. linear g2.0-",
    "alarms": "Alarms",
    f"generations?point={POINT}": "Mean reward of 2 generations",
    "join": "Balanced: ",
}


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with launched() as browser:
        yield browser


@pytest.fixture(scope="module")
def service(chromium: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with used(tmp_path_factory.mktemp("used")) as running:
        yield running


@pytest.fixture(scope="module")
def tokens(service: Service) -> tuple[Any, dict[str, str]]:
    return guarded(service, {"ann": "admin", "rea": "read"})


@pytest.fixture(scope="module")
def address(service: Service) -> Iterator[str]:
    """Of a console that anybody on this machine may use."""
    with console(service, service.path) as found:
        yield found


@pytest.fixture(scope="module")
def asking(service: Service, tokens: tuple[Any, dict[str, str]]) -> Iterator[str]:
    """Address of a console that asks for tokens."""
    with console(service, tokens[0]) as found:
        yield found


def drawn(page: Page) -> None:
    """Wait until a page is drawn."""
    page.wait_for_selector("main h1")
    page.wait_for_selector("main:not([aria-busy])")


def entered(page: Page, address: str, view: str, token: str) -> None:
    """Open a view of a console that asks for a token, and give it."""
    page.set_default_timeout(PATIENCE_MS)
    page.goto(f"{address}#/{view}")
    page.get_by_label("Token").fill(token)
    page.keyboard.press("Enter")


def welcomed(page: Page) -> None:
    """Wait until the console knows who asks, and shows what was asked for."""
    page.wait_for_selector("text=You are")
    drawn(page)


def visits(page: Page, address: str) -> Iterator[str]:
    """Open each page by its address, and give its name when it shows what it should."""
    page.set_default_timeout(PATIENCE_MS)
    for view, words in SHOWN.items():
        page.goto(f"{address}#/{view}")
        drawn(page)
        page.wait_for_function("words => document.querySelector('main').innerText.includes(words)", arg=words)
        yield view


def tab_to(page: Page, role: Literal["button", "link", "checkbox"], name: str) -> None:
    """Press Tab until a control has the focus."""
    target = page.get_by_role(role, name=name, exact=True)
    for _ in range(60):
        page.keyboard.press("Tab")
        if target.evaluate("node => node === document.activeElement"):
            return
    pytest.fail(f"Tab does not reach the {role} {name!r}")


def test_every_page_of_the_running_service_opens_without_an_error(chromium: Browser, address: str) -> None:
    context = chromium.new_context()
    said = complaints(context)
    page = context.new_page()
    assert list(visits(page, address)) == list(SHOWN)
    assert said == []
    context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing(chromium: Browser, address: str, scheme: Literal["light", "dark"]) -> None:
    context = chromium.new_context(color_scheme=scheme, bypass_csp=True)  # axe itself is a script of others
    page = context.new_page()
    assert {view: violations(page) for view in visits(page, address)} == {view: [] for view in SHOWN}
    context.close()


def test_a_small_screen_reaches_everything_without_scrolling_sideways(chromium: Browser, address: str) -> None:
    context = chromium.new_context(viewport=SMALL)
    page = context.new_page()
    for view in visits(page, address):
        assert page.evaluate("document.documentElement.scrollWidth") <= SMALL["width"], view
        assert out_of_reach(page) == [], view
    context.close()


def test_who_may_only_read_is_shown_no_change_and_refused_one(
    chromium: Browser, service: Service, asking: str, tokens: tuple[Any, dict[str, str]]
) -> None:
    context = chromium.new_context()
    page = context.new_page()
    entered(page, asking, f"policies?point={POINT}", "leeway_of-nobody")
    page.wait_for_selector("[role=alert] >> text=is not known here")
    assert page.locator("text=You are").count() == 0
    entered(page, asking, f"policies?point={POINT}", tokens[1]["rea"])
    welcomed(page)
    assert "takes a token with the scope admin" in page.inner_text("main")
    assert page.locator("main .actions button, main td button").count() == 0
    # As the page would send it, were there a button.
    answer = page.evaluate(
        """async form => { const { post } = await import('./api.js');
        return post('policies/move', form).then(() => 'done', error => `${error.status}: ${error.message}`); }""",
        {"point": POINT, "kind": "promote", "force": True},
    )
    assert answer.startswith("403: ")
    assert "admin" in answer
    *_, noted = map(json.loads, (service.path.parent / "audit.jsonl").read_text().splitlines())
    assert (noted["who"], noted["call"], noted["verdict"]) == ("token rea", "ConsoleMove", "PERMISSION_DENIED")
    context.close()


def test_an_alarm_comes_to_the_open_page_and_a_policy_is_promoted_and_rolled_back(
    chromium: Browser, service: Service, asking: str, tokens: tuple[Any, dict[str, str]]
) -> None:
    registry = Registry(service.config.tracking_uri)
    challenger = registry.aliased(POINT, CHALLENGER)
    champion = registry.champion(POINT)
    assert challenger is not None
    assert champion is not None
    context = chromium.new_context()
    said = complaints(context)
    page, policies = context.new_page(), context.new_page()
    entered(page, asking, "alarms", tokens[1]["ann"])
    entered(policies, asking, f"policies?point={POINT}", tokens[1]["ann"])
    welcomed(policies)
    page.bring_to_front()
    welcomed(page)
    page.evaluate("window.opened = true")  # is gone if the page is loaded again
    assert "features basket" not in page.inner_text("main")

    # The baskets change: the monitor of the running service tells of it, and so does the page, by itself.
    with service.client() as client:
        send(client, 2 * DECISIONS, 400, basket=2.0)
    page.wait_for_selector(f"main >> text={POINT}: features basket")
    assert f"New: {POINT}, features basket" in page.inner_text("[role=status]")
    assert "holds promotions" in page.inner_text("main")
    assert page.evaluate("window.opened")

    # What it holds is not promoted.
    policies.bring_to_front()
    policies.get_by_role("button", name="Promote the challenger").click()
    policies.wait_for_selector("[role=status] >> text=holds promotions")
    assert policies.locator("dialog").count() == 0

    # Acknowledged with keys alone, all of them.
    page.bring_to_front()
    button = page.get_by_role("button", name="Acknowledge alarm").first
    while button.count():
        name = button.get_attribute("aria-label")
        assert name is not None
        tab_to(page, "button", name)
        page.keyboard.press("Enter")
        page.wait_for_selector("dialog[open]")
        page.keyboard.type("a campaign")
        page.keyboard.press("Tab")
        page.keyboard.press("Enter")
        page.get_by_role("button", name=name, exact=True).wait_for(state="detached")
    assert "a campaign" in page.inner_text("main")
    assert "holds promotions" not in page.inner_text("main")

    # What the gate refused takes more than a click, and two steps.
    policies.bring_to_front()
    policies.get_by_role("button", name="Promote the challenger").click()
    policies.wait_for_selector("[role=status] >> text=refused")
    tab_to(policies, "checkbox", "also what the gate refused, or while an alarm holds promotions")
    policies.keyboard.press("Space")
    policies.get_by_role("button", name="Promote the challenger").click()
    policies.wait_for_selector("dialog[open] >> text=It would be so")
    assert _champion(registry) == champion.version  # nothing has happened yet
    policies.get_by_role("button", name="Promote", exact=True).click()
    eventually(lambda: _champion(registry) == challenger.version, "the alias champion to move")
    eventually(partial(_serves_current, service), "the promoted policy to act")
    policies.wait_for_selector("[role=status] >> text=promoted")

    # And back.
    policies.get_by_role("button", name="Roll back to the champion before").click()
    policies.wait_for_selector("dialog[open] >> text=Roll offers back?")
    policies.get_by_role("button", name="Roll back", exact=True).click()
    policies.wait_for_selector("[role=status] >> text=rolled back")
    assert _champion(registry) not in (None, challenger.version)  # it comes back as a generation of its own
    left = registry.version(POINT, challenger.version)
    assert left is not None
    assert "rolled_back" in left.tags
    eventually(partial(_serves_current, service), "the policy that came back to act")
    assert said == []
    noted = [json.loads(line) for line in (service.path.parent / "audit.jsonl").read_text().splitlines()]
    done = [(each["who"], each["call"]) for each in noted if each["verdict"] == "DONE"]
    assert done == [("token ann", "ConsoleMove")] * 2
    context.close()


def _champion(registry: Registry) -> str | None:
    found = registry.champion(POINT)
    return None if found is None else found.version


def _serves_current(service: Service) -> bool:
    """Whether the server decides by the policy that the store names."""
    version = PolicyStore(service.config.policy_dir).current(POINT)
    assert version is not None
    with service.client() as client:
        return acts(client, version)
