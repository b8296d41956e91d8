"""The committed dashboards are those of the code; each panel says what it shows, in units, from metrics that exist."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import CollectorRegistry

from monitoring.dashboards.boards import DASHBOARDS, FOLDER
from monitoring.dashboards.expressions import interpolated, of_dashboard, of_rules, operands, panels
from monitoring.dashboards.grafana import decoded, encoded
from monitoring.dashboards.model import Dashboard
from monitoring.metric_page import register_all, stored_name
from tests.prometheus import DEPLOY, RULES

FILES = sorted(FOLDER.glob("*.json"))
#: Of Prometheus itself, of its rules, and of the textfile collector.
OTHERS = {"up", "ALERTS", "leeway_retrain_last_success_timestamp_seconds"}
#: Counters whose value itself says something: they are restored from the log.
AS_THEY_STAND = {
    "leeway_join_decisions_total",
    "leeway_join_feedback_total",
    "leeway_join_unactivated_total",
    "leeway_trainings_total",
    "leeway_recent_generation_feedback_total",
}
METRIC = re.compile(r"\b(?:leeway_\w+|job:leeway_\w+:\w+|up|ALERTS)\b(?=[{\[ )/]|$)")


def names() -> set[str]:
    """Names of all samples that there can be."""
    registry = CollectorRegistry()
    register_all(registry)
    found = set(OTHERS)
    for metric in registry.collect():
        found.add(stored_name(metric))
        if metric.type == "histogram":
            found |= {f"{metric.name}_bucket", f"{metric.name}_count", f"{metric.name}_sum"}
    records = {source.place for path in RULES for source in of_rules(path) if ":" in source.place}
    return found | records


def board(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text())
    return found


@pytest.mark.parametrize("made", DASHBOARDS, ids=lambda made: made.uid)
def test_the_file_of_a_dashboard_is_that_of_its_code(made: Dashboard) -> None:
    text = (FOLDER / f"{made.uid}.json").read_text()
    assert text == encoded(made), f"{made.uid}.json is stale; run: python -m monitoring.dashboards"


def test_there_is_no_file_without_code() -> None:
    assert {path.stem for path in FILES} == {made.uid for made in DASHBOARDS}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_the_sdk_reads_and_writes_a_dashboard_without_loss(path: Path) -> None:
    """What Grafana's schema does not know is lost on the way."""
    text = path.read_text()
    assert decoded(text) == json.loads(text)
    spoilt = json.loads(text) | {"panles": []}
    assert decoded(json.dumps(spoilt)) != spoilt


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_dashboard_can_be_provisioned(path: Path) -> None:
    found = board(path)
    assert "__inputs" not in found
    assert found.get("id") is None
    assert found["editable"] is False
    assert found["uid"] == path.stem
    variables = {variable["name"]: variable["type"] for variable in found["templating"]["list"]}
    assert variables["datasource"] == "datasource"
    assert {"job", "instance", "decision_point"} <= variables.keys()
    numbers = [panel["id"] for panel in found["panels"]]
    assert len(set(numbers)) == len(numbers)
    assert {annotation["name"] for annotation in found["annotations"]["list"]} == {"Alarms", "Generations"}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_panel_says_what_it_shows(path: Path) -> None:
    for panel in panels(board(path)):
        title = panel["title"]
        assert title, panel
        assert panel["description"].endswith((".", "?")), title
        assert panel["fieldConfig"]["defaults"]["unit"], title
        assert panel["datasource"]["uid"] == "${datasource}", title
        assert panel["targets"], title
        for target in panel["targets"]:
            assert target["datasource"]["uid"] == "${datasource}", title
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24, title


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_expressions_keep_the_rules_of_promql(path: Path) -> None:
    for place, expr in ((source.place, source.expr) for source in of_dashboard(path)):
        whole_service = "ALERTS" in expr or "job:leeway" in expr
        assert whole_service or ('job=~"$job"' in expr and 'instance=~"$instance"' in expr), place
        ranges = re.findall(r"\[([^\]]+)\]", expr)
        assert set(ranges) <= ({"1m"} if "annotation" in place else {"$__rate_interval"}), place
        for counter in re.findall(r"(?<!rate\()(?<!increase\()\b(leeway_\w+_total)\b", expr):
            assert counter in AS_THEY_STAND, f"{place}: {counter} without rate or increase"


def test_every_metric_of_dashboards_and_rules_exists() -> None:
    sources = [source for path in FILES for source in of_dashboard(path)]
    sources += [source for path in RULES for source in of_rules(path)]
    known = names()
    used = {(source.place, name) for source in sources for name in METRIC.findall(source.expr)}
    assert {use for use in used if use[1] not in known} == set()
    assert len({name for _, name in used}) > 60


def test_every_panel_of_an_alert_leads_to_its_runbook_and_the_alert_leads_back() -> None:
    by_panel = {
        f"/d/{path.stem}?viewPanel={panel['id']}": {link["url"] for link in panel.get("links") or []}
        for path in FILES
        for panel in panels(board(path))
    }
    told = {rule["alert"]: rule for rule in alerts()}
    for name, rule in told.items():
        assert f"${{runbooks}}#{name.lower()}" in by_panel[rule["annotations"]["dashboard"]], name
    linked = {url.partition("#")[2] for urls in by_panel.values() for url in urls}
    assert linked == {name.lower() for name in told}


def alerts() -> list[dict[str, Any]]:
    groups = [group for path in RULES for group in yaml.safe_load(path.read_text())["groups"]]
    return [rule for group in groups for rule in group["rules"] if "alert" in rule]


def test_codes_that_count_are_the_same_in_panels_and_rules() -> None:
    codes = {found for path in RULES for found in re.findall(r'code=~"([^"]+)"', path.read_text())}
    codes |= {found for made in FILES for s in of_dashboard(made) for found in re.findall(r'code=~"([^"]+)"', s.expr)}
    assert len(codes) == 1


def test_provisioning_names_what_is_there() -> None:
    folder = DEPLOY / "grafana" / "provisioning"
    (source,) = yaml.safe_load((folder / "datasources" / "prometheus.yml").read_text())["datasources"]
    assert source["type"] == "prometheus"
    (provider,) = yaml.safe_load((folder / "dashboards" / "leeway.yml").read_text())["providers"]
    assert provider["disableDeletion"] is False
    scrape = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text())["global"]["scrape_interval"]
    assert source["jsonData"]["timeInterval"] == scrape


@pytest.mark.parametrize(
    ("expr", "parts"),
    [
        ("a > 1", ["a"]),
        ("a / b > 0.5 or predict_linear(a[30m], 4 * 3600) > b > 0", ["a / b", "predict_linear(a[30m], 4 * 3600)", "b"]),
        ("max by (x) (a > 1) == 1", ["max by (x) (a > 1)"]),
        ('a{code=~"A|B"} > bool 2 unless b', ['a{code=~"A|B"}', "b"]),
    ],
)
def test_an_alert_is_taken_apart_where_it_compares(expr: str, parts: list[str]) -> None:
    assert operands(expr) == parts


def test_variables_are_filled_in() -> None:
    filled = interpolated('rate(a{job=~"$job",p=~"$decision_point"}[$__rate_interval])', "15s", {"job": "leeway.*"})
    assert filled == 'rate(a{job=~"leeway.*",p=~".*"}[15s])'
