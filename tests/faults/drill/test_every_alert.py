"""Every alert has a drill, and a row in docs/drills.md with how long it takes to fire by the rules as they are."""

from __future__ import annotations

import importlib
import pkgutil
from pathlib import Path

import yaml

from engine.config import parse_duration
from tests.faults import drill
from tests.faults.drill.alarm import BOUNDS, DRILLED, EVERY_S, FOR_S, WINDOW_S, alerts, shortened
from tests.prometheus import DEPLOY

PAGE = DEPLOY.parent / "docs" / "drills.md"


def rows() -> dict[str, list[str]]:
    """Return the rows of the page's table by alert."""
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in PAGE.read_text().splitlines()]
    return {row[0]: row[1:] for row in cells if len(row) == 4 and row[0].startswith("Leeway")}


def within() -> dict[str, str]:
    """Return how long each alert takes at most from when its condition holds: a scrape, a look, and its `for`."""
    every = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text())["global"]
    found: dict[str, list[str]] = {}
    for rule, group in alerts():
        parts = (every["scrape_interval"], group.get("interval", every["evaluation_interval"]), rule["for"])
        found.setdefault(rule["alert"], []).append(words(sum(parse_duration(part) for part in parts) // 1_000))
    return {name: ", ".join(times) for name, times in found.items()}


def words(seconds: int) -> str:
    """Return a time as people say it.

    >>> words(3_645)
    '1 h 45 s'
    """
    parts = ((seconds // 3_600, "h"), (seconds // 60 % 60, "min"), (seconds % 60, "s"))
    return " ".join(f"{value} {unit}" for value, unit in parts if value)


def test_every_alert_has_a_drill_and_a_row() -> None:
    for module in pkgutil.iter_modules(drill.__path__):
        importlib.import_module(f"{drill.__name__}.{module.name}")
    names = {rule["alert"] for rule, _ in alerts()}
    assert DRILLED.keys() == names
    assert rows().keys() == names


def test_the_page_says_how_long_each_takes_with_the_rules_as_they_are() -> None:
    assert {name: row[1] for name, row in rows().items()} == within()


def test_the_page_says_what_is_shorter_in_the_drills(tmp_path: Path) -> None:
    shortened(tmp_path)
    text = PAGE.read_text()
    for part in (f"windows of {WINDOW_S} s", f"`for` of {FOR_S} s", f"every {EVERY_S} s"):
        assert part in text
    for name, (was, now) in BOUNDS.items():
        assert f"{name} (`{was}` becomes `{now}`)" in text
