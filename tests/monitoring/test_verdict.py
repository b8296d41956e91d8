from __future__ import annotations

import math

import numpy as np
import pytest

from monitoring.verdict import Finding, Moments, judge, welch


def moments(*values: float) -> Moments:
    result = Moments()
    for value in values:
        result = result.add(value)
    return result


#: Residuals around 0 with standard deviation 0.3, and the same ones moved.
NOISE = np.random.default_rng(0).normal(0.0, 0.3, 400).tolist()
BEFORE = moments(*NOISE)


def moved(by: float, count: int) -> Moments:
    return moments(*(value + by for value in NOISE[:count]))


def test_moments_are_those_of_the_sample() -> None:
    assert BEFORE.mean == pytest.approx(np.mean(NOISE))
    assert BEFORE.variance == pytest.approx(np.var(NOISE, ddof=1))
    rest = BEFORE - moved(0.0, 100)
    assert rest.count == 300
    assert rest.variance == pytest.approx(np.var(NOISE[100:], ddof=1))
    assert math.isnan(Moments().mean)
    assert math.isnan(moments(1.0).variance)


def test_welch_statistic() -> None:
    before, after = moments(1.0, 2.0, 3.0), moments(0.0, 1.0)
    assert welch(before, after) == pytest.approx((0.5 - 2.0) / math.sqrt(1.0 / 3 + 0.5 / 2))
    assert welch(moments(1.0, 1.0), moments(0.0, 0.0)) == -math.inf
    assert welch(moments(1.0, 1.0), moments(1.0, 1.0)) == 0.0


@pytest.mark.parametrize(
    ("fall", "residual_move", "count", "expected"),
    [
        (-0.4, +0.3, 100, Finding.ROSE),
        (-0.4, -0.6, 100, Finding.ROSE),  # a rise never calls, whatever the predictions did
        (0.4, 0.0, 100, Finding.FALL_PREDICTED),
        (0.4, +0.2, 100, Finding.FALL_PREDICTED),
        (0.4, -0.4, 100, Finding.FALL_UNPREDICTED),
        (0.4, -0.4, 10, Finding.FALL_UNPREDICTED),
        (0.4, -0.21, 400, Finding.FALL_UNPREDICTED),
        (0.4, -0.19, 400, Finding.FALL_PREDICTED),  # the predictions explain more than half
        (0.06, -0.04, 400, Finding.FALL_PREDICTED),  # below the least effect
        (0.06, -0.1, 12, Finding.FALL_UNCERTAIN),
        (0.7, -0.2, 9, Finding.FALL_PREDICTED),
        (0.7, -0.7, 9, Finding.LARGE_FALL_UNSCORED),
        (0.1, -0.7, 9, Finding.SMALL_FALL_UNSCORED),
        (0.7, 0.0, 0, Finding.LARGE_FALL_UNSCORED),
    ],
)
def test_findings(fall: float, residual_move: float, count: int, expected: Finding) -> None:
    assert judge(fall, BEFORE, moved(residual_move, count), min_effect=0.05) is expected


def test_only_what_the_policy_did_not_predict_calls() -> None:
    assert {finding for finding in Finding if finding.calls_for_retraining} == {
        Finding.FALL_UNPREDICTED,
        Finding.LARGE_FALL_UNSCORED,
    }
