"""Intervals against published numbers, and confidence sequences that are looked at all the time."""

from __future__ import annotations

import numpy as np
import pytest

from tests.training.arrays import Bandit, like_logging
from training.evaluation import ESTIMATORS, INTERVALS, Support, difference, estimate
from training.evaluation.support import difference_support, support

SEEDS = 200
UNIT = (0.0, 1.0)
LOOKS = range(100, 1_501, 200)


def stream_b() -> tuple[np.ndarray, np.ndarray]:
    """Return weights and rewards of the 500 rows that a linear congruential generator makes."""
    state = 12_345

    def uniform() -> float:
        nonlocal state
        state = (1_103_515_245 * state + 12_345) % 2**31
        return state / 2**31

    logging, target, rates = np.array([0.1, 0.2, 0.3, 0.4]), np.array([0.05, 0.05, 0.1, 0.8]), [0.2, 0.3, 0.5, 0.6]
    weights, rewards = [], []
    for _ in range(500):
        context, draw = uniform(), uniform()
        action = min(int(np.searchsorted(logging.cumsum(), draw, side="right")), 3)
        rewards.append(float(uniform() < min(1.0, rates[action] * (0.5 + context))))
        weights.append(target[action] / logging[action])
    return np.array(weights), np.array(rewards)


def test_the_gamma_mixture_equals_the_published_confidence_sequence() -> None:
    """Values of vw-estimators 0.2.2: the upper bound there is 1 less the lower one for 1 - r."""
    even = np.arange(1_000) % 2 == 0
    streams = {
        "A": (np.where(even, 0.4, 1.6), even.astype(np.float64), (0.17572449763, 0.29635523325)),
        "B": (*stream_b(), (0.4828582776, 0.7010791875)),
    }
    known = Support(0.0, np.inf, 0.0, 1.0)
    for weights, rewards, expected in streams.values():
        low, flipped = (
            INTERVALS["gamma_mixture"].interval(weights * r, 0.975, known).low for r in (rewards, 1.0 - rewards)
        )
        assert (low, 1.0 - flipped) == pytest.approx(expected, abs=1e-9)


def test_the_normal_interval_of_a_published_stream() -> None:
    weights, rewards = stream_b()
    assert rewards.sum() == 248
    found = INTERVALS["normal"].interval(weights * rewards, 0.975, Support())
    assert (found.value, found.low, found.high) == pytest.approx((0.6293333333, 0.5534977823, 0.7051688844), abs=1e-9)


def test_empirical_bernstein_by_hand() -> None:
    values = np.array([0.0, 1.0, 1.0, 0.0] * 500)
    n, log = 2_000, np.log(2.0 / 0.025)
    reach = np.sqrt(2.0 * values.var(ddof=1) * log / n) + 7.0 * log / (3.0 * (n - 1))
    found = INTERVALS["empirical_bernstein"].interval(values, 0.975, Support(0.0, 1.0, 0.0, 1.0))
    assert (found.low, found.high) == pytest.approx((0.5 - reach, 0.5 + reach))


@pytest.mark.parametrize("name", [name for name, method in INTERVALS.items() if method.anytime])
def test_a_sequence_may_be_looked_at_every_day_where_a_normal_interval_may_not(name: str) -> None:
    """Weighted rewards of a heavy tail, in days of 200 rows: whether the truth was outside on any day."""
    missed = {name: 0, "normal": 0}
    for seed in range(SEEDS):
        rng = np.random.default_rng(seed)
        values = np.where(rng.random(1_500) < 0.05, 10.0, 0.2) * (rng.random(1_500) < 0.5)
        truth = 0.5 * (0.05 * 10.0 + 0.95 * 0.2)
        for method in missed:
            days = (INTERVALS[method].interval(values[:end], 0.975, Support(0.0, 10.0, 0.0, 1.0)) for end in LOOKS)
            missed[method] += any(not day.low <= truth <= day.high for day in days)
    assert missed[name] <= 20  # 5 % of 200 is 10; 99.9 % of binomial counts lie below 21
    assert missed["normal"] > 40


def test_the_bootstrap_knows_the_skew_that_the_normal_interval_does_not() -> None:
    values = np.where(np.arange(300) % 30 == 0, 8.0, 0.1)
    normal, bootstrap = (INTERVALS[name].interval(values, 0.975, Support()) for name in ("normal", "bootstrap"))
    assert bootstrap.low > normal.low
    assert bootstrap.high > normal.high
    again = INTERVALS["bootstrap"].interval(values, 0.975, Support())
    assert again == bootstrap


@pytest.mark.parametrize("name", [name for name in ESTIMATORS if name not in ("snips", "sndr")])
def test_no_term_lies_outside_the_range_that_is_known_beforehand(name: str) -> None:
    rows = Bandit(spread=0.8).sample(500, seed=2)
    low, high = support(ESTIMATORS[name], rows, UNIT)
    terms = ESTIMATORS[name].contributions(rows)
    assert low <= terms.min()
    assert terms.max() <= high
    wider = support(ESTIMATORS[name], rows, UNIT, max_weight=float(rows.every_weight.max()))
    assert wider[0] <= low + 1e-12
    assert wider[1] >= high - 1e-12
    other = like_logging(rows)
    low, high = difference_support(ESTIMATORS[name], rows, other, UNIT)
    apart = terms - ESTIMATORS[name].contributions(other)
    assert low <= apart.min() + 1e-12
    assert apart.max() <= high + 1e-12


def test_what_is_normalised_by_its_own_weights_has_no_range_and_no_guaranteed_interval() -> None:
    rows = Bandit().sample(500, seed=2)
    assert support(ESTIMATORS["snips"], rows, UNIT) == (-np.inf, np.inf)
    found = estimate(ESTIMATORS["snips"], rows, method=INTERVALS["betting"], reward_range=UNIT)
    assert (found.low, found.high) == UNIT  # the reward's own range: true, and no news


def test_a_guaranteed_interval_of_a_difference_covers_and_needs_more_rows() -> None:
    bandit = Bandit()
    rows = bandit.sample(5_000, seed=4)
    other = like_logging(rows)
    gain = bandit.truth - bandit.logging_truth
    normal = difference(ESTIMATORS["dr"], rows, other, 0.95)
    for name in ("empirical_bernstein", "betting", "predictable_plug_in", "gamma_mixture"):
        found = difference(ESTIMATORS["dr"], rows, other, 0.95, INTERVALS[name], UNIT)
        assert found.low <= gain <= found.high
        assert found.high - found.low > normal.high - normal.low
        assert found.value == normal.value
