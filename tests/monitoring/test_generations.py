from __future__ import annotations

import math

import numpy as np
import pytest

from engine.records import Action, Decision, Feedback, GenerationStatistics
from monitoring.generations import (
    GenerationLedger,
    calibration_error,
    mean_entropy,
    mean_reward,
    positive_share,
    reward_distance,
    standard_error,
    support,
)

RANGES = {"offers": (0.0, 10.0), "layout": (0.0, 1.0)}


def feedback(
    point: str, version: str, reward: float, time_ms: int, probabilities: tuple[float, ...] = (0.5, 0.5)
) -> Feedback:
    decision = Decision(
        decision_point=point, policy_version=version, time_ms=time_ms, probabilities=list(probabilities)
    )
    return Feedback(decision=decision, reward=reward)


def filled() -> GenerationLedger:
    ledger = GenerationLedger(RANGES)
    ledger.update(feedback("offers", "g1.0-00000000", 6.0, 50))
    ledger.update(feedback("offers", "g0.9-00000000", 5.0, 30))
    ledger.update(feedback("layout", "g0.0-00000000", 1.0, 20))
    ledger.update(feedback("offers", "g1.7-ffffffff", 9.0, 40, (1.0, 0.0)))
    return ledger


def test_statistics_by_generation() -> None:
    zero, one = filled().statistics("offers")
    assert (zero.generation, zero.feedback, zero.positives) == (0, 1, 0)  # the middle itself is not above it
    assert one == GenerationStatistics(
        decision_point="offers",
        generation=1,
        feedback=2,
        reward_sum=15.0,
        reward_square_sum=117.0,
        positives=2,
        entropy_sum=math.log(2),
        first_ms=40,
        last_ms=50,
        reward_counts=[0, 0, 0, 0, 0, 0, 1, 0, 0, 1],
    )
    assert filled().statistics("unseen") == []


def test_figures_of_a_generation() -> None:
    rng = np.random.default_rng(0)
    rewards = rng.uniform(0.0, 10.0, 500)
    ledger = GenerationLedger(RANGES)
    for n, reward in enumerate(rewards):
        latest = ledger.update(feedback("offers", "g2.0-00000000", reward, n))
    assert mean_reward(latest) == pytest.approx(rewards.mean())
    assert standard_error(latest) == pytest.approx(rewards.std(ddof=1) / math.sqrt(500))
    assert positive_share(latest) == pytest.approx((rewards > 5.0).mean())
    assert mean_entropy(latest) == pytest.approx(math.log(2))


def test_figures_of_nothing_are_nan() -> None:
    empty = GenerationStatistics()
    for figure in (mean_reward, standard_error, positive_share, mean_entropy):
        assert math.isnan(figure(empty))


def test_what_is_saved_and_restored_goes_on() -> None:
    ledger, restored = filled(), GenerationLedger(RANGES)
    saved = [GenerationStatistics.FromString(entry.SerializeToString()) for entry in ledger.save()]
    restored.restore(saved)
    for book in (ledger, restored):
        book.update(feedback("offers", "g1.8-00000000", 2.0, 60))
    assert restored.save() == ledger.save()


def test_what_is_given_out_is_a_copy() -> None:
    ledger = filled()
    ledger.statistics("offers")[0].feedback = 99
    ledger.save()[0].feedback = 99
    ledger.update(feedback("offers", "g0.0-00000000", 1.0, 1)).feedback = 99
    assert [entry.feedback for entry in ledger.statistics("offers")] == [2, 2]


def test_what_cannot_be_entered_is_refused() -> None:
    with pytest.raises(ValueError, match="policy version"):
        filled().update(feedback("offers", "latest", 1.0, 1))
    with pytest.raises(KeyError, match="unseen"):
        filled().update(feedback("unseen", "g0.0-00000000", 1.0, 1))


def test_what_a_generation_leaves_to_learn_from() -> None:
    """Two of three actions can be drawn, with 0.8 and 0.2; predictions are 2 too high."""
    ledger = GenerationLedger(RANGES)
    for n in range(10):
        chosen = 0 if n < 8 else 2
        decision = Decision(
            decision_point="offers",
            policy_version="g2.0-00000000",
            actions=[Action(id="a"), Action(id="b", excluded=True), Action(id="c")],
            probabilities=[0.8, 0.0, 0.2],
            chosen=chosen,
            scores=[7.0, 9.0, 4.0],
        )
        latest = ledger.update(Feedback(decision=decision, reward=5.0 if chosen == 0 else 2.0))
    weights = np.array([1 / 1.6] * 8 + [1 / 0.4] * 2)
    assert support(latest) == pytest.approx(weights.sum() ** 2 / (weights**2).sum() / 10)
    assert calibration_error(latest) == pytest.approx(2.0)
    other = ledger.update(feedback("offers", "g3.0-00000000", 5.0, 0))
    assert reward_distance(latest, other) == pytest.approx(0.2)
    assert math.isnan(reward_distance(latest, GenerationStatistics()))
    assert math.isnan(calibration_error(other))
    assert math.isnan(support(GenerationStatistics()))
