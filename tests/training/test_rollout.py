from __future__ import annotations

import math

import numpy as np
import pytest

from engine.config import Challenger
from engine.records import FALLBACK_REASON_CLIENT, MODE_LOGGING_ONLY, Decision, Feedback
from training.rollout import LEAST_SHADOW, Comparison

CANARY = Challenger(version="g2.0-00000000", mode="canary", share=0.5, started_ms=1_000)
SHADOW = Challenger(version="g2.0-00000000", mode="shadow", started_ms=1_000)
P, Q = [0.8, 0.2], [0.3, 0.7]


def earned(rng: np.random.Generator, version: str, reward: float, time_ms: int = 2_000) -> Feedback:
    return Feedback(decision=Decision(policy_version=version, time_ms=time_ms), reward=float(rng.random() < reward))


def seen(rng: np.random.Generator, rewards: tuple[float, float]) -> Feedback:
    """Return a decision of the champion that a shadow looked on."""
    chosen = int(rng.random() < P[1])
    decision = Decision(
        policy_version="g1.0-00000000", time_ms=2_000, probabilities=P, chosen=chosen,
        shadow_policy_version=SHADOW.version, shadow_probabilities=Q,
    )  # fmt: skip
    return Feedback(decision=decision, reward=float(rng.random() < rewards[chosen]))


@pytest.mark.parametrize(("better", "verdict"), [(0.3, "better"), (-0.3, "worse"), (0.0, "undecided")])
def test_a_canary_is_decided_when_it_can_be(better: float, verdict: str) -> None:
    rng = np.random.default_rng(0)
    comparison = Comparison(CANARY, (0.0, 1.0))
    for number in range(4_000):
        mine = number % 2
        comparison.update(earned(rng, CANARY.version if mine else "g1.0-00000000", 0.5 + better * mine))
    assert comparison.verdict == verdict
    difference, low, high = comparison.interval
    assert low < better < high
    assert low < difference < high


@pytest.mark.parametrize("terms", [CANARY, SHADOW])
def test_equal_policies_are_told_apart_no_more_often_than_stated(terms: Challenger) -> None:
    rng = np.random.default_rng(1)
    wrong = 0
    for _ in range(40):
        comparison = Comparison(terms, (0.0, 1.0), error=0.1)
        decided = False
        for number in range(2_000):
            if terms is CANARY:
                comparison.update(earned(rng, CANARY.version if number % 2 else "g1.0-00000000", 0.7))
            else:
                comparison.update(seen(rng, (0.7, 0.7)))
            decided |= number % 25 == 0 and comparison.verdict != "undecided"
        wrong += decided
    assert wrong <= 9  # 99 % point of the binomial with 40 and 0.1


def test_a_shadow_is_judged_by_the_decisions_of_the_champion() -> None:
    rng = np.random.default_rng(2)
    comparison = Comparison(SHADOW, (0.0, 1.0))
    for _ in range(LEAST_SHADOW - 1):
        comparison.update(seen(rng, (0.2, 0.9)))
    assert comparison.interval[1:] == (-math.inf, math.inf)  # too few for a limit theorem
    for _ in range(2_000):
        comparison.update(seen(rng, (0.2, 0.9)))
    difference, low, high = comparison.interval
    assert low < 0.5 * (0.9 - 0.2) < high  # half of the probability moves from the bad to the good action
    assert difference == pytest.approx(0.35, abs=0.05)
    assert comparison.verdict == "better"


def test_what_came_before_the_trial_does_not_count() -> None:
    rng = np.random.default_rng(3)
    for terms in (CANARY, SHADOW):
        comparison = Comparison(terms, (0.0, 1.0))
        comparison.update(earned(rng, "g1.0-00000000", 1.0, time_ms=999))
        assert comparison.champion.count == 0
    comparison.update(earned(rng, "g1.0-00000000", 1.0))  # no shadow looked on
    assert comparison.champion.count == 0


@pytest.mark.parametrize("terms", [CANARY, SHADOW])
@pytest.mark.parametrize("acted", [{"fallback": FALLBACK_REASON_CLIENT}, {"mode": MODE_LOGGING_ONLY}])
def test_what_callers_decided_by_themselves_counts_for_neither(terms: Challenger, acted: dict[str, int]) -> None:
    comparison = Comparison(terms, (0.0, 1.0))
    entry = seen(np.random.default_rng(3), (0.5, 0.5))
    entry.decision.MergeFrom(Decision(**acted))  # type: ignore[arg-type]
    comparison.update(entry)
    assert (comparison.champion.count, comparison.challenger.count) == (0, 0)
