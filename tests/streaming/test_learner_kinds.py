"""The learner role with oracles of other kinds than the default: what it serves, and a restart in mid-stream."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine.config import DecisionPoint, PolicyConfig
from engine.store import PolicyStore
from streaming.embedded import EmbeddedLog
from streaming.learner import LearnerRole
from tests.streaming.samples import NAME, POINT, Clock, append, feedback, opened

POLICIES: dict[str, dict[str, Any]] = {
    "online_linear": {"oracle": {"kind": "online_linear", "bits": 10}},
    "recursive_ridge": {"oracle": {"kind": "recursive_ridge"}, "exploration": {"kind": "linucb"}},
    "trees": {"oracle": {"kind": "trees", "every": 25, "trees": 5, "min_child": 2}},
    "cover": {"oracle": {"kind": "cover", "policies": 2}, "exploration": {"kind": "cover"}},
    "ensemble": {"oracle": {"kind": "ensemble", "members": 3}, "exploration": {"kind": "bag"}},
    "doubly robust": {"oracle": {"kind": "linear"}, "learning": "dr"},
    "with a memory": {"oracle": {"kind": "linear"}, "memory": 20},
}


def point_of(policy: dict[str, Any]) -> DecisionPoint:
    return POINT.engine().model_copy(update={"policy": PolicyConfig.model_validate(policy)})


def taught(role: LearnerRole, log: EmbeddedLog, clock: Clock) -> None:
    """Let a role learn forty feedbacks in four steps."""
    for start in range(0, 40, 10):
        append(log, *(feedback(number, float(number % 3 == 0)) for number in range(start, start + 10)))
        clock.now_ms += 3_000
        assert role.step() == 10


def bits(role: LearnerRole) -> dict[str, bytes]:
    learner = role.points[NAME].learner
    assert learner is not None
    return {key: np.asarray(array).tobytes() for key, array in learner.arrays().items()}


@pytest.mark.parametrize("name", POLICIES)
def test_it_learns_serves_and_goes_on_after_a_restart_to_the_bit(name: str, tmp_path: Path) -> None:
    point, clock, store = point_of(POLICIES[name]), Clock(), PolicyStore(tmp_path / "policies")
    with opened(tmp_path) as log:
        role = LearnerRole(log, {NAME: point}, store, tmp_path / "learner", clock)
        taught(role, log, clock)
        role.close()
        version = store.current(NAME)
        assert version is not None
        policy = store.load(NAME, version)
        assert (policy.learned, policy.digest()) == (40, role.points[NAME].policy.digest())
        decision = feedback(0, 0.0).decision
        encoded = policy.encoder.encode(decision.context, decision.actions, decision.packed_actions)
        assert policy.pmf(policy.predict(encoded), encoded.available).sum() == pytest.approx(1.0)
        again = LearnerRole(log, {NAME: point}, store, tmp_path / "learner", clock)
        assert bits(again) == bits(role)
        assert again.points[NAME].policy.version == version
        again.close()


def test_another_kind_of_oracle_starts_afresh_and_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    clock, store = Clock(), PolicyStore(tmp_path / "policies")
    with opened(tmp_path) as log, caplog.at_level(logging.WARNING):
        role = LearnerRole(log, {NAME: point_of(POLICIES["doubly robust"])}, store, tmp_path / "learner", clock)
        taught(role, log, clock)
        role.close()
        role = LearnerRole(log, {NAME: point_of(POLICIES["online_linear"])}, store, tmp_path / "learner", clock)
        role.close()
    assert "policy.oracle.kind is online_linear now" in caplog.text
    version = store.current(NAME)
    assert version is not None
    assert store.load(NAME, version).oracle.kind == "online_linear"
