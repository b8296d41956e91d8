"""An apprentice: the caller's choice acts, the policy looks on, learns to match it, and says how far it does."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import yaml
from click.testing import CliRunner
from prometheus_client import CollectorRegistry

from engine.agreement import agreement
from engine.api.leeway.v1.service_pb2 import Choice, DecideRequest
from engine.config import DecisionPoint
from engine.effort import Effort
from engine.errors import ConfigError
from engine.oracles import LinearOracle
from engine.records import MODE_APPRENTICE, Action, Decision, Features, Feedback
from engine.replay import mismatch, shadow_mismatch
from engine.sealed import SealedDecision
from engine.serving.service import DecisionService
from monitoring.metrics import ServingMetrics
from streaming.cli import main
from streaming.config import DecisionPointConfig, load_config
from streaming.log import Record
from streaming.opening import open_log
from streaming.point_learner import PointLearner
from streaming.serve import MetricsObserver
from streaming.wire import message_of
from tests.engine import samples
from tests.engine.samples import MemoryObserver, MemoryRecorder, make_policy

NAME = "page"
ACTIONS = ["a", "b", "c"]
POINT = DecisionPointConfig.model_validate(
    {
        "mode": "apprentice",
        "context": {"x": {"type": "vector", "size": 3}},
        "reward": {"range": [-2.0, 6.0]},
        "retraining": {"enabled": False},
    }
).engine()
RECORD = Record("feedback", 0, 0, 0, b"", b"")


def asked(number: int, *excluded: str) -> tuple[DecideRequest, int]:
    """Return a request, and what the caller's rule chooses: where x is greatest among the actions that are allowed."""
    x = np.random.default_rng(number).normal(size=3).astype("<f4")
    free = [index for index, name in enumerate(ACTIONS) if name not in excluded]
    chosen = max(free, key=lambda index: x[index])
    request = DecideRequest(
        decision_point=NAME,
        decision_id=f"d{number}",
        context=Features(packed=x.tobytes()),
        actions=[Action(id=name, excluded=name in excluded) for name in ACTIONS],
        choice=Choice(chosen=chosen),
    )
    return request, chosen


def served(point: DecisionPoint, count: int, *, batch: int = 50) -> Iterator[Decision]:
    """Yield decisions as they are made, by a policy that learns after each batch of them what came of them: nothing."""
    learner = PointLearner.fresh(NAME, point, now_ms=0)
    recorder = MemoryRecorder()
    service = DecisionService({NAME: point}, {NAME: learner.policy}, recorder, MemoryObserver(), 10)
    for number in range(count):
        request, chosen = asked(number, *(["a"] if number % 5 == 0 else []))
        answer = service.decide(request, 1_000 + number).result(timeout=5)
        assert answer.action_index == chosen
        assert answer.propensity == 1.0
        made = recorder.decisions[-1]
        assert mismatch(made, service.slots[NAME].policy) == ""
        assert shadow_mismatch(made, service.slots[NAME].policy) == ""
        yield made
        if number % batch == batch - 1:
            # The least reward, always: what is learned is the choice, not what came of it.
            entries = [(RECORD, Feedback(decision=one, reward=-2.0)) for one in recorder.decisions[-batch:]]
            assert learner.learn(entries) == batch
            policy = learner.update(10_000 * (number + 1))
            assert policy is not None
            learner.published(10_000 * (number + 1))
            service.swap(policy)


def test_it_learns_to_match_the_caller_whatever_the_rewards_are() -> None:
    found = [agreement(made) for made in served(POINT, 600)]
    # Nothing is known at first: 1 of 3, or of 2 where one is excluded, each exactly.
    assert found[:50] == [1 / 2 if number % 5 == 0 else 1 / 3 for number in range(50)]
    # A rule that is linear in what the policy sees; 100 decisions are within 0.05 of 0.95 and more.
    assert np.mean([share or 0.0 for share in found[-100:]]) > 0.9


def test_what_looks_on_changes_nothing_that_the_caller_sees() -> None:
    logging = {made.decision_id: made for made in served_once(POINT.model_copy(update={"mode": "logging_only"}))}
    for made in served_once(POINT):
        other = logging[made.decision_id]
        assert made.shadow_policy_version == made.policy_version
        assert not other.shadow_policy_version
        assert (made.chosen, made.probabilities, made.scores) == (other.chosen, other.probabilities, other.scores)


def served_once(point: DecisionPoint) -> list[Decision]:
    recorder = MemoryRecorder()
    learner = PointLearner.fresh(NAME, point, now_ms=0)
    service = DecisionService({NAME: point}, {NAME: learner.policy}, recorder, MemoryObserver(), 10)
    for number in range(5):
        service.decide(asked(number)[0], 1_000).result(timeout=5)
    return recorder.decisions


@pytest.mark.parametrize("how", ["broken", "busy"])
def test_a_policy_that_cannot_look_on_costs_no_decision(how: str) -> None:
    point = samples.POINT.model_copy(update={"mode": "apprentice"})
    theta = np.asarray(make_policy().oracle.arrays()["theta"], np.float64)
    policy = make_policy(oracle=LinearOracle(np.full_like(theta, np.nan) if how == "broken" else theta))
    recorder = MemoryRecorder()
    service = DecisionService({samples.NAME: point}, {samples.NAME: policy}, recorder, MemoryObserver(), 10)
    answer = service.decide(samples.request("d1"), 1_000, effort=Effort.ALONE if how == "busy" else Effort.FULL).result(
        timeout=5
    )
    assert (answer.action_index, answer.propensity) == (0, 1.0)
    (made,) = recorder.decisions
    assert not made.shadow_policy_version
    assert agreement(made) is None
    assert mismatch(made, policy) == ""


def test_online_again_what_was_imitated_is_the_start_and_rewards_are_learned() -> None:
    *_, last = served(POINT, 200)
    learner = PointLearner.fresh(NAME, POINT.model_copy(update={"mode": "online"}), now_ms=0)
    imitated = Decision()
    imitated.CopyFrom(last)
    rewarded = Decision()
    rewarded.CopyFrom(last)
    rewarded.ClearField("mode")
    assert (
        learner.learn([(RECORD, Feedback(decision=imitated)), (RECORD, Feedback(decision=rewarded, reward=1.0))]) == 2
    )
    policy = learner.update(10_000)
    assert policy is not None
    assert policy.learned == sum(not action.excluded for action in last.actions) + 1


def test_the_metrics_count_it() -> None:
    registry = CollectorRegistry()
    observer = MetricsObserver(ServingMetrics(registry, [NAME]))
    made = Decision(decision_point=NAME, mode=MODE_APPRENTICE, probabilities=[0.0, 1.0], chosen=1)
    observer.decision(made)
    made.shadow_probabilities.extend([0.5, 0.5])
    observer.decision(made)
    made.shadow_probabilities[0] = 0.2
    observer.decision(made)

    def value(name: str) -> float | None:
        return registry.get_sample_value(f"leeway_{name}_total", {"decision_point": NAME})

    assert (value("callers_decisions"), value("apprentice_compared"), value("apprentice_agreed")) == (3.0, 2.0, 1.5)


def test_decisions_that_are_told_together_are_counted_as_those_told_one_by_one() -> None:
    made = [SealedDecision(f"d{n}", NAME, 1, propensity, b"", b"") for n, propensity in enumerate([0.05, 0.25, 1.0])]
    together, each = CollectorRegistry(), CollectorRegistry()
    MetricsObserver(ServingMetrics(together, [NAME])).sealed(NAME, made)
    one_by_one = MetricsObserver(ServingMetrics(each, [NAME]))
    for decision in made:
        one_by_one.decision(decision)

    def counted(registry: CollectorRegistry) -> list[tuple[str, dict[str, str], float]]:
        samples = [sample for metric in registry.collect() for sample in metric.samples]
        return [(s.name, s.labels, s.value) for s in samples if not s.name.endswith("_created")]

    assert counted(together) == counted(each)
    assert ("leeway_decisions_total", {"decision_point": NAME, "fallback": "none"}, 3.0) in counted(together)


@pytest.mark.parametrize(
    "policy", [{"learning": "mtr"}, {"oracle": {"kind": "cover"}, "exploration": {"kind": "cover"}}]
)
def test_what_learns_from_whole_decisions_is_no_apprentice(tmp_path: Path, policy: dict[str, object]) -> None:
    path = tmp_path / "leeway.yaml"
    point = {"mode": "apprentice", "retraining": {"enabled": False}, "policy": policy}
    path.write_text(yaml.safe_dump({"version": 1, "decision_points": {"offers": point}}))
    with pytest.raises(ConfigError, match=r"mode apprentice fits a regression .* choose policy.learning plain"):
        load_config(path, {})


def test_the_command_reports_agreement(tmp_path: Path) -> None:
    path = tmp_path / "leeway.yaml"
    point = {"mode": "apprentice", "retraining": {"enabled": False}}
    path.write_text(yaml.safe_dump({"version": 1, "decision_points": {NAME: point, "other": {}}}))
    command = ["agreement", "--config", str(path), "--decision-point", NAME]
    with closing(open_log(load_config(path, {}))) as log:
        log.append([message_of(Decision(decision_id="o", decision_point="other", time_ms=1_000))])
        refused = CliRunner().invoke(main, command)
        assert refused.exit_code == 1
        assert "none is an apprentice's" in refused.output
        for number in range(200):
            made = Decision(decision_id=f"d{number}", decision_point=NAME, time_ms=1_000, mode=MODE_APPRENTICE)
            made.shadow_probabilities.extend([0.9, 0.1] if number % 4 else [0.1, 0.9])
            log.append([message_of(made)])
    said = CliRunner().invoke(main, [*command, "--json"])
    assert said.exit_code == 0, said.output
    report = json.loads(said.stdout)
    assert (report["decisions"], report["agreement"]) == (200, 0.75)
    assert 0.5 < report["low"] < 0.75 < report["high"] <= 1.0
    assert "agrees in 75.0%" in CliRunner().invoke(main, command).output
