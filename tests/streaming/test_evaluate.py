"""``leeway evaluate``: estimates of policies from the archive, with their exit statuses and their page."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from engine.policy import Policy
from engine.records import Alarm
from engine.store import PolicyStore
from streaming.cli import main
from streaming.config import load_config
from streaming.holds import changes_within
from tests.training.world import NAME, POINT, World, archive_of, trained

ROWS = 300


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "leeway.yaml"
    point = json.loads(POINT.model_dump_json(exclude={"reward"}))
    path.write_text(
        json.dumps({"version": 1, "decision_points": {NAME: point}}).replace('"publish_interval": 1000, ', "")
    )
    return path


@pytest.fixture
def champion(config: Path) -> Policy:
    """The policy that serves, and acted in what is archived."""
    settings = load_config(config)
    world = World(seed=4)
    policy = trained(world, 500)
    archive_of(world.stream(policy, ROWS), settings.archive_dir)
    PolicyStore(settings.policy_dir).publish(policy)
    return policy


def evaluate(config: Path, *arguments: object) -> Result:
    return CliRunner().invoke(main, ["evaluate", "--config", str(config), "--since-ms", "0", *map(str, arguments)])


def told(config: Path, *arguments: object) -> dict[str, Any]:
    result = evaluate(config, *arguments, "--json")
    assert result.exit_code == 0, result.output
    facts: dict[str, Any] = json.loads(result.stdout)
    return facts


def test_the_acting_policy_is_worth_what_it_earned(config: Path, champion: Policy) -> None:
    facts = told(config)
    assert facts["rows"] == ROWS
    assert list(facts["policies"]) == ["logging", "current"]
    current = facts["policies"]["current"]
    assert current["policy_version"] == champion.version
    assert current["estimates"]["ips"]["value"] == pytest.approx(
        facts["policies"]["logging"]["estimates"]["ips"]["value"]
    )
    assert current["divergence"]["total_variation"] == pytest.approx(0.0, abs=1e-9)
    assert current["weight_tail"]["hill"] is None  # all weights are 1: no tail, and JSON has no word for infinity
    assert facts["warnings"] == []


def test_a_policy_by_its_version_with_chosen_estimators_and_interval(config: Path, champion: Policy) -> None:
    other = trained(World(seed=9, shift=1), 400, generation=2)
    PolicyStore(load_config(config).policy_dir).save(other)
    arguments = ("--policy", other.version, "--estimator", "dr", "--estimator", "snips")
    plain = told(config, *arguments)["policies"][other.version]["estimates"]
    assert list(plain) == ["dr", "snips"]
    anytime = told(config, *arguments, "--interval", "betting", "--last", 250)
    assert anytime["rows"] == 250
    found = anytime["policies"][other.version]["estimates"]["dr"]
    assert found["interval"] == "betting"
    assert found["high"] - found["low"] > plain["dr"]["high"] - plain["dr"]["low"]


def test_estimated_propensities_and_groups_of_actions(config: Path, champion: Policy) -> None:
    facts = told(config, "--policy", "current", "--propensities", "logistic", "--clusters", 1, "--estimator", "mips")
    assert facts["policies"]["current"]["estimated_propensities"]
    assert "estimated, not logged" in facts["warnings"][0]
    reward = told(config, "--policy", "logging", "--estimator", "ips")["policies"]["logging"]["estimates"]["ips"][
        "value"
    ]
    # One group of all actions: every weight is 1.
    assert facts["policies"]["current"]["estimates"]["mips"]["value"] == pytest.approx(reward)


def test_a_policy_that_may_have_learned_from_the_rows_is_warned_of(config: Path, champion: Policy) -> None:
    late = trained(World(seed=9), 300, generation=3)
    late = Policy(NAME, POINT, late.vocabulary, late.oracle, 3, 1, 300, created_ms=2_000_000_000_000)
    PolicyStore(load_config(config).policy_dir).save(late)
    assert "may have learned" in told(config, "--policy", late.version, "--estimator", "ips")["warnings"][0]


def test_the_page_and_the_plots(config: Path, champion: Policy, tmp_path: Path) -> None:
    result = evaluate(config, "--report", tmp_path / "out", "--estimator", "dr")
    assert result.exit_code == 0, result.output
    assert "dr" in result.stdout
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {"report.html", "evaluation.json", "estimates.png", "overlap_current.png", "calibration.png"}
    page = (tmp_path / "out" / "report.html").read_text()
    assert f"off-policy estimates on {ROWS} feedbacks" in page
    assert "http" not in page


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (("--min-rows", ROWS + 1), 3, "wait for more, or widen the window"),
        (("--until-ms", 1), 3, "0 feedbacks of offers"),
        (("--estimator", "magic"), 2, "choose of: ips,"),
        (("--policy", "challenger"), 2, "train one with: leeway retrain"),
        (("--policy", "g7.0-00000000"), 2, "neither in"),
        (("--clusters", 99), 2, "choose from 1 to 4"),
        (("--decision-point", "other"), 2, "known are: offers"),
        (("--interval", "magic"), 2, "is not one of"),
    ],
)
def test_what_cannot_be_done_ends_with_its_status_and_what_to_do(
    config: Path, champion: Policy, arguments: tuple[object, ...], status: int, words: str
) -> None:
    result = evaluate(config, *arguments)
    assert result.exit_code == status, result.output
    assert words in result.stderr
    assert not list(config.parent.rglob("mlflow.db"))  # nothing was made by asking


def test_changes_inside_a_window_are_counted_once_an_incident() -> None:
    def alarm(alarm_id: str, change_ms: int, incident: str = "", explained: bool = False, point: str = NAME) -> Alarm:
        return Alarm(
            alarm_id=alarm_id, decision_point=point, change_ms=change_ms, incident=incident, explained=explained
        )

    alarms = [
        alarm("a", 100, "a"),  # the change that the window begins at
        alarm("b", 130, "a"),  # of the same incident
        alarm("c", 500, "c"),
        alarm("d", 510, "c"),
        alarm("e", 700, explained=True),
        alarm("f", 800, point="other"),
        alarm("g", 2_000, "g"),
    ]
    assert changes_within(alarms, NAME, 100, 1_000) == 1
    assert changes_within(alarms, NAME, 0, 3_000) == 3
