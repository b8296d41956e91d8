"""Capacity planning: what is derived follows from what is measured, and the page shows just that."""

from __future__ import annotations

import json
from dataclasses import fields

import pytest

from deploy.sizing import MOST_PARTITIONS, RATES, UNIT_COSTS, UnitCosts, needs, per_million, plan, read, rounded
from engine.errors import ConfigError
from streaming.config import load_config
from tests.deploy.conftest import ROOT

COSTS = UnitCosts(
    serve_us=600.0,
    join_us=60.0,
    work_us=300.0,
    broker_us=30.0,
    decision_bytes=1_000.0,
    outcome_bytes=400.0,
    feedback_bytes=1_100.0,
    archive_bytes=200.0,
    pending_bytes=1_500.0,
)


def test_a_rate_needs_what_its_decisions_cost() -> None:
    found = plan(100_000, COSTS)
    # 60 core-seconds a second, of which 0.6 are used
    assert (found.serve_cores, found.join_cores, found.broker_cores) == (100, 10, 5)
    assert found.installations == 50
    assert found.partitions == 8
    assert found.disk_tb_a_day == pytest.approx(100_000 * 2_500 * 3 * 86_400 / 1e12)
    assert found.archive_gb_a_day == pytest.approx(100_000 * 200 * 86_400 / 1e9)
    assert found.state_gb_a_minute == pytest.approx(100_000 * 60 * 1_500 / 1e9)
    assert found.broker_in_mb == pytest.approx(3 * 250)
    # join: decisions and outcomes; learner, monitors, archive: feedback each; and two copies
    assert found.broker_out_mb == pytest.approx(140 + 330 + 500)


def test_ten_times_the_rate_needs_ten_times_as_much() -> None:
    little, much = plan(10_000, COSTS), plan(100_000, COSTS)
    for name in ("disk_tb_a_day", "archive_gb_a_day", "broker_in_mb", "broker_out_mb"):
        assert getattr(much, name) == pytest.approx(10 * getattr(little, name))
    assert much.serve_cores == 10 * little.serve_cores


def test_partitions_are_enough_for_the_members_and_allowed() -> None:
    for rate in RATES:
        found = plan(rate, read())
        assert found.partitions * found.installations >= 2 * found.join_cores
        assert found.partitions <= MOST_PARTITIONS
    starter = (ROOT / "streaming" / "starter.yaml").absolute()
    load_config(starter, {"LEEWAY_LOG__PARTITIONS": str(MOST_PARTITIONS)})
    with pytest.raises(ConfigError):
        load_config(starter, {"LEEWAY_LOG__PARTITIONS": str(MOST_PARTITIONS + 1)})


def test_every_unit_cost_says_how_it_was_measured() -> None:
    stated = json.loads(UNIT_COSTS.read_text())
    assert set(stated) == {field.name for field in fields(UnitCosts)}
    for name, entry in stated.items():
        assert entry["value"] > 0, name
        assert entry["measured"].startswith("python -m "), name


def test_the_page_shows_what_is_derived() -> None:
    page = (ROOT / "docs" / "scaling.md").read_text()
    assert needs(read()) in page, "print the tables again: python -m deploy.sizing"
    assert per_million(read()) in page, "print the tables again: python -m deploy.sizing"
    for entry in json.loads(UNIT_COSTS.read_text()).values():
        assert f"| {rounded(entry['value'])} |" in page


def test_figures_have_two_digits_that_count() -> None:
    assert [rounded(value) for value in (0.0, 0.0449, 7, 36.3, 432, 12_345)] == [
        "0", "0.045", "7", "36", "430", "12,000",
    ]  # fmt: skip
