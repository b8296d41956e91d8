"""From feedback in the log to the alarm, what follows from it, and what a person sees and says of it."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from click.testing import CliRunner, Result

from engine.oracles import LinearLearner
from engine.records import (
    REACTION_DISCOUNT_LEARNER,
    REACTION_EXPLORE,
    REACTION_HOLD_PROMOTION,
    REACTION_RESET_LEARNER,
    Action,
    Alarm,
    Decision,
    Features,
    Feedback,
    Generation,
    Value,
)
from engine.store import PolicyStore
from monitoring.rows import Rows
from streaming.auditing import PolicyAudit
from streaming.cli import main
from streaming.config import Config, DecisionPointConfig, load_config
from streaming.embedded import EmbeddedLog
from streaming.feature_columns import ContextColumns
from streaming.feedback_window import training_window
from streaming.holds import acknowledge, read_alarms, read_holds
from streaming.log import Message
from streaming.monitor import MonitorRole
from streaming.opening import open_log
from streaming.point_learner import DISCOUNT, PointLearner
from streaming.retrainer import RetrainerRole
from streaming.topics import ALARMS, GENERATIONS
from tests.monitoring.traffic import POINT, START_MS, Changed, traffic
from tests.streaming.samples import NAME, Clock, append
from tests.streaming.samples import POINT as SAMPLE
from tests.streaming.test_retrainer import Archive, Jobs, alarm, run

OFFERS: dict[str, Any] = {
    "context": {"x": {"type": "number"}, "country": {"type": "text"}},
    "monitors": {
        "warm_up": 500,
        "settle": 200,
        "features": {"reactions": ["hold_promotion"]},
        "actions": {"reactions": ["reset_learner"]},
    },
}


@pytest.fixture
def config(tmp_path: Path) -> Config:
    path = tmp_path / "leeway.yaml"
    path.write_text(yaml.safe_dump({"version": 1, "data_dir": "data", "decision_points": {POINT: OFFERS}}))
    return load_config(path, {})


@pytest.fixture
def log(config: Config) -> Iterator[EmbeddedLog]:
    log = open_log(config)
    assert isinstance(log, EmbeddedLog)
    yield log
    log.close()


def watch(log: EmbeddedLog, config: Config, changed: Changed) -> list[Alarm]:
    """Let the role read 2 000 feedbacks without a change, and 1 000 with one."""
    clock = Clock()
    role = MonitorRole(log, config.decision_points, clock)
    append(log, *traffic(1, 0, 2_000), *traffic(1, 2_000, 1_000, changed))
    while role.step(500):
        clock.now_ms += 2_000
    role.close()
    return [alarm for alarm in read_alarms(log) if not alarm.explained]


def leeway(config: Config, *arguments: str) -> Result:
    path = config.data_dir.parent / "leeway.yaml"
    return CliRunner().invoke(main, ["drift", *arguments, "--config", str(path)], catch_exceptions=False)


def test_a_change_of_the_reward_calls_for_retraining_and_explores(log: EmbeddedLog, config: Config) -> None:
    alarms = watch(log, config, "reward")
    assert alarms[0].calls_for_retraining
    assert {alarm.monitor for alarm in alarms if not alarm.echo_of} == {"reward"}
    (listed,) = json.loads(leeway(config, "list", "--json").output)["alarms"]
    assert {"residual", "action_reward a"} <= set(listed["echoes"])
    assert "Seen in these streams too: " in leeway(config, "list").output
    everything = json.loads(leeway(config, "list", "--all", "--json").output)["alarms"]
    assert [entry["echo_of"] for entry in everything if entry["monitor"] == "residual"] == [listed["alarm_id"]]
    assert REACTION_EXPLORE in alarms[0].reactions
    assert read_holds(log).of(POINT) == []


def test_a_change_of_a_feature_holds_promotions_until_it_is_acknowledged(log: EmbeddedLog, config: Config) -> None:
    found = watch(log, config, "feature")
    assert {(alarm.monitor, alarm.stream) for alarm in found} == {("features", "x")}
    assert not any(alarm.calls_for_retraining for alarm in found)
    alarm = found[0]
    assert abs(alarm.change_ms - START_MS - 2_000_000) < 60_000

    listed = json.loads(leeway(config, "list", "--json").output)
    assert [entry["alarm_id"] for entry in listed["alarms"]] == [entry.alarm_id for entry in found]
    assert listed["alarms"][0]["reactions"] == ["hold_promotion"]
    assert alarm.alarm_id in listed["held"][POINT]
    assert "features:country" in listed["equilibria"][POINT]
    assert "offers features x" in leeway(config, "list").output

    done = leeway(config, "ack", alarm.alarm_id[:10], "--note", "a new unit")
    assert done.exit_code == 0, done.output
    assert [held.alarm_id for held in read_holds(log).of(POINT)] == [
        entry.alarm_id for entry in found[1:] if entry.reactions
    ]
    again = json.loads(leeway(config, "list", "--json").output)["alarms"][0]
    assert again["note"] == "a new unit"
    assert again["acknowledged_ms"] > 0
    assert "before" in leeway(config, "ack", alarm.alarm_id).output


def test_another_distribution_of_actions_than_logged_resets_the_learner(log: EmbeddedLog, config: Config) -> None:
    found = [alarm for alarm in watch(log, config, "actions") if alarm.monitor != "reward"]
    assert {alarm.monitor for alarm in found} == {"actions"}
    assert REACTION_RESET_LEARNER in found[0].reactions
    learner = PointLearner.fresh(POINT, config.points()[POINT], 0)
    assert isinstance(learner.learner, LinearLearner)
    learner.learner.partial_fit(np.ones((5, learner.learner.width), np.float32), ["a"] * 5, np.ones(5))
    learner.alarm(found[0])
    assert learner.learner.learned == 0
    policy = learner.update(10**6)
    assert policy is not None
    assert policy.learned == 0


def test_an_alarm_is_explained_with_a_plot(log: EmbeddedLog, config: Config, tmp_path: Path) -> None:
    (alarm, *_) = watch(log, config, "country")
    picture = tmp_path / "country.png"
    told = leeway(config, "explain", alarm.alarm_id, "--png", str(picture))
    assert told.exit_code == 0, told.output
    assert "NL" in told.output
    assert "independent enough" in told.output
    assert picture.read_bytes().startswith(b"\x89PNG")
    facts = json.loads(leeway(config, "explain", alarm.alarm_id, "--json").output)
    assert facts["categories"][0] == "NL"
    assert abs(facts["lag_one_before"]) < 0.1
    assert facts["counts_after"][0] / sum(facts["counts_after"]) < 0.35
    assert facts["equilibrium"]["course"] in ("unknown", "stable", "runaway", "wandering")
    nobody = leeway(config, "explain", "nobody")
    assert nobody.exit_code == 1


def test_the_budget_tells_what_each_stream_may_cost(log: EmbeddedLog, config: Config) -> None:
    watch(log, config, "nothing")
    found = json.loads(leeway(config, "budget", "--json").output)[POINT]
    assert sum(stream["false_alarms_per_month"] for stream in found["streams"]) == pytest.approx(1.0)
    assert found["feedbacks_per_month"] == pytest.approx(30 * 86_400, rel=0.02)
    assert all(stream["delay_observations"] is None or stream["delay_seconds"] > 0 for stream in found["streams"])
    words = leeway(config, "budget", "--moved", "0.3").output
    assert "features country" in words
    assert "1 false alarms a month of 1 allowed" in words


def test_while_an_alarm_holds_promotions_nothing_is_trained(tmp_path: Path, config: Config, log: EmbeddedLog) -> None:
    jobs, clock, archive = Jobs(), Clock(), Archive(tmp_path)
    archive.rows = 10_000
    role = RetrainerRole(log, {NAME: SAMPLE}, archive, jobs, clock)
    hold = Alarm(alarm_id="h", decision_point=NAME, monitor="propensity", reactions=[REACTION_HOLD_PROMOTION])
    log.append([Message(ALARMS, NAME.encode(), hold.SerializeToString(), 0)])
    alarm(log, 5_000)
    run(role, jobs, clock, 3)
    assert jobs.asked == []
    acknowledge(log, hold, "looked at")
    run(role, jobs, clock, 3)
    assert [request.point for request in jobs.asked] == [NAME]


def test_alarms_while_a_champion_acts_are_written_to_it_once(tmp_path: Path, config: Config, log: EmbeddedLog) -> None:
    jobs, tags, clock = Jobs(), Jobs(), Clock()
    role = RetrainerRole(log, {NAME: SAMPLE}, Archive(tmp_path), jobs, clock, lambda: tags(None))
    before = Alarm(alarm_id="x", decision_point=NAME, monitor="features", detected_ms=50)
    log.append([Message(ALARMS, NAME.encode(), before.SerializeToString(), 0)])
    run(role, jobs, clock, 3)
    assert tags.requests == []  # there is no champion
    entry = Generation(decision_point=NAME, generation=1, promoted=True, trained_ms=100)
    log.append([Message(GENERATIONS, NAME.encode(), entry.SerializeToString(), 0)])
    run(role, jobs, clock, 3)
    assert tags.requests == []  # it was not there yet
    later = Alarm(alarm_id="y", decision_point=NAME, monitor="features", detected_ms=150)
    log.append([Message(ALARMS, NAME.encode(), later.SerializeToString(), 0)])
    run(role, jobs, clock, 1)
    assert tags.last is not None
    tags.last.wait(30)
    run(role, jobs, clock, 60)
    assert len(tags.requests) == 1


def test_a_discounted_learner_knows_a_tenth_of_what_it_did(config: Config) -> None:
    learner = PointLearner.fresh(POINT, config.points()[POINT], 0)
    assert isinstance(learner.learner, LinearLearner)
    rows = np.ones((100, learner.learner.width), np.float32)
    learner.learner.partial_fit(rows, ["a"] * 100, np.ones(100))
    learner.alarm(Alarm(decision_point=POINT, monitor="features", detected_ms=1, reactions=[REACTION_DISCOUNT_LEARNER]))
    assert learner.learner.learned == round(100 * DISCOUNT)
    fresh = LinearLearner(learner.learner.width)
    fresh.partial_fit(rows[:10], ["a"] * 10, np.ones(10))
    assert np.allclose(learner.learner.oracle().theta, fresh.oracle().theta)


def test_a_changed_record_fails_its_audit_and_an_unknown_policy_none(tmp_path: Path, config: Config) -> None:
    from engine.policy import initial_policy
    from engine.replay import mismatch
    from engine.sampling import draw

    store = PolicyStore(tmp_path / "policies")
    policy = initial_policy(POINT, config.points()[POINT], 0)
    store.save(policy)
    decision = Decision(
        decision_id="d",
        decision_point=POINT,
        policy_version=policy.version,
        context=Features(named={"x": Value(number=1.0)}),
        actions=[Action(id="a"), Action(id="b")],
        probabilities=[0.5, 0.5],
        scores=[0.0, 0.0],
        chosen=draw("d", "leeway", [0.5, 0.5]),
        salt="leeway",
    )
    assert mismatch(decision, policy) == ""
    audit = PolicyAudit(store)
    assert audit(decision) == ""
    decision.probabilities[:] = [0.4, 0.6]
    assert "probabilities" in (audit(decision) or "")
    decision.policy_version = "g0.7-00000000"
    assert audit(decision) is None
    assert audit.results == {(POINT, "same"): 1, (POINT, "different"): 1}


def test_features_come_packed_or_by_name_and_long_vectors_are_projected() -> None:
    point = DecisionPointConfig.model_validate(
        {"context": {"a": {"type": "number"}, "t": {"type": "text"}, "v": {"type": "vector", "size": 3}}}
    )
    packed = Features(packed=struct.pack("<4f", 1, 2, 3, 4), named={"t": Value(text="NL")})
    named = Features(named={"a": Value(number=5)})
    other = Features(packed=b"1234", named={"a": Value(text="no number")})
    decisions = [Decision(context=context) for context in (packed, named, other)]
    columns = ContextColumns(point, 3)(decisions)
    assert list(columns) == ["a", "t", "v[0]", "v[1]", "v[2]"]
    assert np.array_equal(columns["a"], [1, 5, np.nan], equal_nan=True)
    assert columns["t"].tolist() == ["NL", None, None]
    assert np.array_equal(columns["v[2]"], [4, np.nan, np.nan], equal_nan=True)
    projected = ContextColumns(point, 2)(decisions)
    assert list(projected) == ["a", "t", "v~0", "v~1"]
    assert abs(abs(projected["v~0"][0]) * np.sqrt(3)) in (9, 5, 3, 1)


def test_features_of_actions_are_those_of_one_that_is_offered_whatever_is_chosen() -> None:
    point = DecisionPointConfig.model_validate(
        {"actions": {"features": {"price": {"type": "number"}, "kind": {"type": "text"}}}}
    )
    decisions = [
        Decision(
            decision_id=f"d{number}",
            policy_version="g0.1-00000000",
            actions=[
                Action(id="a", features={"price": Value(number=1), "kind": Value(text="A")}),
                Action(id="b", features={"price": Value(number=2), "kind": Value(text="B")}),
                Action(id="c", features={"price": Value(number=9)}, excluded=True),
            ],
        )
        for number in range(400)
    ]
    columns = ContextColumns(point, 3)(decisions)
    assert list(columns) == ["action price", "action kind"]
    ids = np.array([{1.0: "a", 2.0: "b"}[price] for price in columns["action price"].tolist()])
    assert 150 < (ids == "a").sum() < 250
    assert columns["action kind"].tolist() == [name.upper() for name in ids]
    assert Rows.of([Feedback(decision=decision) for decision in decisions], (0.0, 1.0)).offered().tolist() == list(ids)
    for decision in decisions:
        for action in decision.actions:
            action.features.clear()
        decision.packed_actions = struct.pack("<3f", 1, 2, 9)
    packed = ContextColumns(point, 3)(decisions)
    assert packed["action price"].tolist() == columns["action price"].tolist()
    assert set(packed["action kind"].tolist()) == {None}


def test_the_state_of_many_streams_is_written_in_parts(
    log: EmbeddedLog, config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("streaming.monitor._PART_BYTES", 1_000)
    clock = Clock()
    first = MonitorRole(log, config.decision_points, clock)
    entries: list[Feedback] = list(traffic(1, 0, 1_500))
    append(log, *entries)
    first.step()
    first.close()
    second = MonitorRole(log, config.decision_points, clock)
    assert second.monitors[POINT].save() == first.monitors[POINT].save()
    assert len(first.monitors[POINT].save()) > 5_000


def test_the_training_window_is_read_back_from_the_log(log: EmbeddedLog, config: Config) -> None:
    entries = list(traffic(1, 0, 300))
    append(log, *entries)
    start, end = entries[50].decision.time_ms, entries[249].decision.time_ms
    trained = Generation(decision_point=POINT, generation=1, promoted=True, window_start_ms=start, window_end_ms=end)
    log.append([Message(GENERATIONS, POINT.encode(), trained.SerializeToString(), 0)])
    newest = [entry.decision.decision_id for entry in training_window(log, POINT, 1, 100)]
    assert newest == [entry.decision.decision_id for entry in entries[149:249]]  # the window's end is not part of it
    whole = training_window(log, POINT, 1, 1_000)
    assert whole[0].decision.time_ms == start
    assert training_window(log, POINT, 2, 100) == []
