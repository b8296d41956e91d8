"""``leeway rollout`` over a log on disk and a registry."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import yaml
from click.testing import CliRunner, Result

from engine.config import DecisionPoint
from engine.oracles import LinearOracle
from engine.policy import Policy, initial_policy
from engine.records import Action, Decision, Feedback
from engine.store import PolicyStore
from streaming.cli import main
from streaming.config import Config, load_config
from streaming.log import Message
from streaming.opening import open_log
from streaming.retraining import LogLedger, open_registry
from streaming.topics import FEEDBACK
from streaming.wire import feedback_headers
from training.registry import CHALLENGER


def run(path: Path, *arguments: str) -> Result:
    return CliRunner().invoke(main, ["rollout", arguments[0], "--config", str(path), *arguments[1:]])


def registered(config: Config, point: DecisionPoint, gate: str) -> Policy:
    """Register a policy as the challenger."""
    width = initial_policy("offers", point, 0).encoder.width
    policy = Policy("offers", point, ("a",), LinearOracle(np.full((2, 1 + width), 0.5)), 1, 0, 10, created_ms=5)
    registry = open_registry(config)
    run_id = registry.start_run("r", params={}, tags={})
    tags = {"generation": 1, "policy_version": policy.version, "gate": gate, "verdict": "no better"}
    registry.challenge("offers", registry.register(policy, run_id, tags).version)
    return policy


def feedback(config: Config, version: str, reward: float, count: int, first: int) -> None:
    messages = []
    for number in range(first, first + count):
        at_ms = 4_000_000_000_000 + number
        made = Decision(
            decision_id=f"d{number}", decision_point="offers", policy_version=version, time_ms=at_ms,
            actions=[Action(id="a")], probabilities=[1.0],
        )  # fmt: skip
        value = Feedback(decision=made, reward=reward).SerializeToString()
        key = made.decision_id.encode()
        messages.append(Message(FEEDBACK, key, value, at_ms, feedback_headers("offers", made.decision_id, at_ms)))
    log = open_log(config)
    log.append(messages)
    log.close()


def test_a_canary_is_begun_looked_at_and_decided(tmp_path: Path) -> None:
    path = tmp_path / "leeway.yaml"
    point = {"context": {"taste": {"type": "number"}, "segment": {"type": "text"}}}
    settings = {"version": 1, "data_dir": str(tmp_path / "data"), "decision_points": {"offers": point}}
    path.write_text(yaml.safe_dump(settings))
    config = load_config(path, {})
    open_log(config).close()
    store = PolicyStore(config.policy_dir)

    nothing = run(path, "status")
    assert (nothing.exit_code, "leeway rollout start" in nothing.output) == (1, True)
    wrong = run(path, "start", "--mode", "canary", "--unit", "taste")
    assert (wrong.exit_code, "no context feature of type text" in wrong.output) == (2, True)
    assert run(path, "start", "--mode", "canary").exit_code == 3  # the registry has none

    policy = registered(config, config.points()["offers"], "refused")
    refused = run(path, "start", "--mode", "canary")
    assert (refused.exit_code, "--force" in refused.output) == (4, True)
    assert store.challenger("offers") is None
    assert run(path, "start", "--mode", "shadow").exit_code == 0  # a shadow acts on nothing
    assert run(path, "stop").exit_code == 0
    assert store.challenger("offers") is None
    assert run(path, "start", "--mode", "canary", "--share", "0.2", "--unit", "segment", "--force").exit_code == 0
    terms = store.challenger("offers")
    assert terms is not None
    assert (terms.version, terms.mode, terms.share, terms.unit) == (policy.version, "canary", 0.2, "segment")
    assert store.load("offers", policy.version).digest() == policy.digest()

    undecided = json.loads(run(path, "status", "--decide", "--json").stdout)
    assert (undecided["verdict"], undecided["difference"]) == ("undecided", None)
    feedback(config, "g0.0-00000000", 0.1, 400, 0)
    feedback(config, policy.version, 0.9, 400, 400)
    looked = json.loads(run(path, "status", "--json").stdout)
    assert looked["verdict"] == "better"
    assert looked["feedback"] == {"champion": 400, "challenger": 400}
    assert 0.0 < looked["low"] < 0.8 < looked["high"]
    assert store.challenger("offers") == terms  # looking ends nothing

    decided = run(path, "status", "--decide")
    assert decided.exit_code == 0, decided.output
    assert store.challenger("offers") is None
    champion = open_registry(config).champion("offers")
    assert champion is not None
    assert champion.tags["policy_version"] == policy.version
    log = open_log(config)
    [entry] = LogLedger(log).generations("offers")
    log.close()
    assert (entry.generation, entry.promoted, entry.reason) == (1, True, "promote")
    assert open_registry(config).aliased("offers", CHALLENGER) is not None
