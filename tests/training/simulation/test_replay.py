"""Logs instead of worlds: estimates that are true within their intervals, and learning from what was accepted alone."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from engine.config import DecisionPoint, PolicyConfig
from training.dataset import Dataset
from training.evaluation.target import policy_pmf
from training.simulation.generator import PROBLEMS
from training.simulation.play import play
from training.simulation.replay import Acceptance
from training.simulation.replay import replay as replayed
from training.simulation.run import Settings, run_log, run_world
from training.simulation.student import OnlineStudent
from training.simulation.world import Offer

WORLD = PROBLEMS["linear"]


def point(**exploration: object) -> DecisionPoint:
    return WORLD.point.model_copy(update={"policy": PolicyConfig.model_validate({"exploration": exploration})})


def uniform_log(count: int, seed: int = 0) -> Dataset:
    student = OnlineStudent(point(kind="uniform"))
    [played] = play(WORLD.visits(seed, count, Offer()), student, block=count)
    return played.feedback


def test_the_estimate_of_a_learning_policy_is_what_it_earns_live() -> None:
    """Of 12,000 uniform decisions a fifth is accepted: as many as the live run makes."""
    tried = point(kind="squarecb", gamma_scale=20.0)
    log = uniform_log(12_000)
    found = run_log(log, tried, Settings(publish=50), 0)
    live = run_world(WORLD, tried, Settings(publish=10, decisions=found.replayed["accepted"]), 1)
    ips = found.replayed["estimates"]["ips"]
    assert 2_000 < found.replayed["accepted"] < 2_900
    assert found.replayed["violations"] == 0
    assert ips["low"] - 0.02 < live.value.mean() < ips["high"] + 0.02
    assert abs(found.replayed["accepted_reward"] - live.value.mean()) < 0.04
    assert abs(found.replayed["log_reward"] - 0.5) < 0.02
    assert ips["value"] > found.replayed["log_reward"] + 0.05


def test_a_log_replayed_by_its_own_policy_is_accepted_whole() -> None:
    log = uniform_log(500)
    found = run_log(log, point(kind="uniform"), Settings(), 0)
    assert found.replayed["accepted"] == 500
    for name in ("ips", "snips"):
        assert found.replayed["estimates"][name]["value"] == pytest.approx(float(log.reward.mean()))


def test_it_learns_from_accepted_decisions_with_its_own_vectors() -> None:
    log, student = uniform_log(600), OnlineStudent(point(kind="squarecb", gamma_scale=50.0))
    accepted = 0
    for step in replayed(log, student, block=20, acceptance=Acceptance(0)):
        feedback = step.accepted.feedback
        assert step.accepted.policy.learned == accepted
        accepted += len(feedback)
        at = np.isin(log.decision_id, feedback.decision_id)
        assert np.array_equal(feedback.reward, log.reward[at])
        if len(feedback):
            at = np.repeat(np.isin(log.decision_id, feedback.decision_id), 5)
            own = policy_pmf(step.accepted.policy, log)[at]
            assert feedback.probabilities.tolist() == own.tolist()
    assert 0 < accepted < 600


def test_acceptance_follows_the_weights_and_counts_what_is_too_sure() -> None:
    log = uniform_log(4_000)
    weights = np.tile([0.5, 1.0, 2.0, 0.0], 1_000)
    taken, violations = Acceptance(0, multiplier=0.5).choose(log, weights)
    shares = taken.reshape(-1, 4).mean(axis=0)
    assert shares == pytest.approx([0.25, 0.5, 1.0, 0.0], abs=0.05)
    assert violations == 0
    _, violations = Acceptance(0, multiplier=1.0).choose(log, weights)
    assert violations == 1_000
    again, _ = Acceptance(0, multiplier=0.5).choose(log, weights)
    other, _ = Acceptance(1, multiplier=0.5).choose(log, weights)
    assert np.array_equal(taken, again)
    assert not np.array_equal(taken, other)


def test_a_log_of_impossible_propensities_is_refused() -> None:
    log = uniform_log(50)
    with pytest.raises(ValueError, match="not positive"):
        run_log(replace(log, probabilities=np.zeros(250)), WORLD.point, Settings(), 0)
