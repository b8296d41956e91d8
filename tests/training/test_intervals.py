"""Intervals against published numbers, and confidence sequences that are looked at all the time."""

from __future__ import annotations

from statistics import NormalDist

import numpy as np
import pytest
from scipy import stats

from tests.training.arrays import Bandit, like_logging
from training.evaluation import ESTIMATORS, INTERVALS, IntervalMethod, Support, difference, estimate
from training.evaluation.bootstrap import Bootstrap
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


def test_the_standard_error_of_a_published_stream() -> None:
    """The normal interval of vw-estimators is 1.96 of ours; ours is wider by Student's quantile and the skewness."""
    weights, rewards = stream_b()
    assert rewards.sum() == 248
    found = INTERVALS["student"].interval(weights * rewards, 0.975, Support())
    reach = NormalDist().inv_cdf(0.975) * found.standard_error
    published = (0.6293333333, 0.5534977823, 0.7051688844)
    assert (found.value, found.value - reach, found.value + reach) == pytest.approx(published, abs=1e-9)
    assert found.low < published[1]
    assert found.high > published[2]


def test_students_interval_by_hand() -> None:
    even = np.array([0.0, 1.0] * 10)  # no skew, and a tail lighter than the normal one: the t interval of textbooks
    found = INTERVALS["student"].interval(even, 0.975, Support())
    assert (found.low, found.high) == pytest.approx(stats.t.interval(0.95, 19, 0.5, even.std(ddof=1) / np.sqrt(20)))

    n = 100
    rare = np.zeros(n)
    rare[::20] = 1.0  # one in twenty
    p = 0.05
    skewness, kurtosis = (1 - 2 * p) / np.sqrt(p * (1 - p)), (1 - 6 * p * (1 - p)) / (p * (1 - p))
    t = stats.t.ppf(0.95, 2 / (kurtosis / n + 2 / (n - 1)))
    error = np.sqrt(p * (1 - p) / (n - 1))
    found = INTERVALS["student"].interval(rare, 0.95, Support())
    assert found.low == pytest.approx(p - error * t)
    assert found.high == pytest.approx(p + error * (t + skewness * (2 * t**2 + 1) / (6 * np.sqrt(n))))


def decisive(rng: np.random.Generator, part: str) -> tuple[np.ndarray, float]:
    """Return 1,000 terms of which two in a hundred decide, and their true mean: weighted rewards, or residuals."""
    weight = np.where(rng.random(1_000) < (0.01 if part == "rewards" else 0.02), 20.0, 0.8)
    if part == "rewards":
        return weight * (rng.random(1_000) < 0.3), 0.3 * (0.01 * 20.0 + 0.99 * 0.8)
    return weight * ((rng.random(1_000) < 0.85) - 0.85), 0.0


@pytest.mark.parametrize("part", ["rewards", "residuals"])
@pytest.mark.parametrize(("method", "seeds"), [(INTERVALS["student"], 1_000), (Bootstrap(500), 200)])
def test_few_rows_that_decide_cost_no_coverage(method: IntervalMethod, seeds: int, part: str) -> None:
    """The residuals are skewed to the left, but a sample that lacks the rare ones is not."""
    inside = normal = 0
    for seed in range(seeds):
        values, truth = decisive(np.random.default_rng(seed), part)
        found = method.interval(values, 0.975, Support())
        inside += found.low <= truth <= found.high
        normal += abs(truth - found.value) <= 1.96 * found.standard_error
    assert inside / seeds >= 0.95 - 3.0 * np.sqrt(0.95 * 0.05 / seeds)
    assert normal < inside - 0.02 * seeds


def test_empirical_bernstein_by_hand() -> None:
    values = np.array([0.0, 1.0, 1.0, 0.0] * 500)
    n, log = 2_000, np.log(2.0 / 0.025)
    reach = np.sqrt(2.0 * values.var(ddof=1) * log / n) + 7.0 * log / (3.0 * (n - 1))
    found = INTERVALS["empirical_bernstein"].interval(values, 0.975, Support(0.0, 1.0, 0.0, 1.0))
    assert (found.low, found.high) == pytest.approx((0.5 - reach, 0.5 + reach))


@pytest.mark.parametrize("name", [name for name, method in INTERVALS.items() if method.anytime])
def test_a_sequence_may_be_looked_at_every_day_where_students_may_not(name: str) -> None:
    """Weighted rewards of a heavy tail, in days of 200 rows: whether the truth was outside on any day."""
    missed = {name: 0, "student": 0}
    for seed in range(SEEDS):
        rng = np.random.default_rng(seed)
        values = np.where(rng.random(1_500) < 0.05, 10.0, 0.2) * (rng.random(1_500) < 0.5)
        truth = 0.5 * (0.05 * 10.0 + 0.95 * 0.2)
        for method in missed:
            days = (INTERVALS[method].interval(values[:end], 0.975, Support(0.0, 10.0, 0.0, 1.0)) for end in LOOKS)
            missed[method] += any(not day.low <= truth <= day.high for day in days)
    assert missed[name] <= 20 < missed["student"]  # 5 % of 200 is 10; 99.9 % of binomial counts lie below 21


@pytest.mark.parametrize("name", ["student", "bootstrap"])
def test_skew_moves_the_bound_on_its_side_outwards_and_the_other_one_not_inwards(name: str) -> None:
    values = np.where(np.arange(300) % 30 == 0, 8.0, 0.1)
    found = INTERVALS[name].interval(values, 0.975, Support())
    assert found.high - found.value > 1.15 * (found.value - found.low)
    if name == "student":
        assert found.value - found.low >= stats.t.ppf(0.975, 299) * found.standard_error
    assert INTERVALS[name].interval(values, 0.975, Support()) == found


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
    student = difference(ESTIMATORS["dr"], rows, other, 0.95)
    for name in ("empirical_bernstein", "betting", "predictable_plug_in", "gamma_mixture"):
        found = difference(ESTIMATORS["dr"], rows, other, 0.95, INTERVALS[name], UNIT)
        assert found.low <= gain <= found.high
        assert found.high - found.low > student.high - student.low
        assert found.value == student.value
