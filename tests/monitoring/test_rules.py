"""The rules for Prometheus: clean, tested where they fire and where they do not, and explained to who is called."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.prometheus import DEPLOY, RULES, binary

TESTS = sorted((DEPLOY / "prometheus" / "tests").glob("*.yml"))
RUNBOOKS = Path(__file__).parents[2] / "docs" / "runbooks.md"
SEVERITIES = {"critical", "warning", "info"}


def alerts() -> list[dict[str, Any]]:
    groups = [group for path in RULES for group in yaml.safe_load(path.read_text())["groups"]]
    return [rule for group in groups for rule in group["rules"] if "alert" in rule]


def test_promtool_finds_nothing_in_rules_and_configuration() -> None:
    promtool = binary("promtool")
    for what, *files in (["rules", *RULES], ["config", DEPLOY / "prometheus" / "prometheus.yml"]):
        command = [promtool, "check", str(what), "--lint=all", "--lint-fatal", *map(str, files)]
        checked = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert checked.returncode == 0, checked.stdout + checked.stderr


def test_promtool_finds_that_alerts_fire_when_they_should() -> None:
    command = [binary("promtool"), "test", "rules", *map(str, TESTS)]
    tested = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert tested.returncode == 0, tested.stdout + tested.stderr


def test_every_alert_is_tested_firing_and_not_firing() -> None:
    cases: dict[str, set[bool]] = {}
    for path in TESTS:
        for group in yaml.safe_load(path.read_text())["tests"]:
            for case in group.get("alert_rule_test", []):
                cases.setdefault(case["alertname"], set()).add(bool(case["exp_alerts"]))
    assert cases == {rule["alert"]: {True, False} for rule in alerts()}


def test_every_alert_has_what_who_is_called_needs() -> None:
    for rule in alerts():
        name = rule["alert"]
        assert name.startswith("Leeway"), name
        assert "for" in rule, name
        assert rule["labels"]["severity"] in SEVERITIES, name
        assert rule["annotations"]["summary"], name
        assert rule["annotations"]["runbook_url"] == f"docs/runbooks.md#{name.lower()}"
        assert rule["annotations"]["dashboard"].startswith("/d/leeway-"), name


def test_every_alert_has_a_runbook_that_says_three_things() -> None:
    sections = re.split(r"^## ", RUNBOOKS.read_text(), flags=re.MULTILINE)[1:]
    found = {section.splitlines()[0]: section for section in sections}
    assert set(found) == {rule["alert"] for rule in alerts()}
    for name, section in found.items():
        for said in ("**Means**", "**Look at**", "**Do**"):
            assert said in section, f"{name} does not say {said}"


@pytest.mark.parametrize("rule", alerts(), ids=lambda rule: f"{rule['alert']}-{rule['labels']['severity']}")
def test_an_alert_keeps_the_labels_that_its_summary_names(rule: dict[str, Any]) -> None:
    """A label that was summed away would be an empty place in the message."""
    named = set(re.findall(r"\$labels\.(\w+)", rule["annotations"]["summary"]))
    kept = set(re.findall(r"\w+", " ".join(re.findall(r"by \(([^)]*)\)", rule["expr"]))))
    if kept:
        assert named <= kept
