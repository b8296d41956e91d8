from __future__ import annotations

import math

import numpy as np
import pytest

from monitoring.log_factorial import TABLE_LIMIT, log_factorial
from monitoring.rbocpd import RBOCPD


def test_table_and_series_agree_with_lgamma() -> None:
    n = np.array([0, 1, 2, 170, 4096, TABLE_LIMIT - 1, TABLE_LIMIT, TABLE_LIMIT + 1, 10_000_000])
    expected = [math.lgamma(k + 1.0) for k in n.tolist()]
    np.testing.assert_allclose(log_factorial(n, int(n.max())), expected, rtol=1e-14)
    np.testing.assert_allclose(log_factorial(n[:5], 4096), expected[:5], rtol=0, atol=0)


def test_detector_goes_on_beyond_the_table() -> None:
    """A segment longer than the table, restored from its state so that the test need not live through it."""
    detector = RBOCPD(max_candidates=8)
    for x in [1, 1, 0, 1] * 10:
        detector.update(x)
    detector._total_ones += 3 * TABLE_LIMIT  # white box: as if this had gone on for a long time
    detector._total_zeros += TABLE_LIMIT
    detector._seen += 4 * TABLE_LIMIT
    assert math.isfinite(detector.statistic())
    found = [c for c in (detector.update(0) for _ in range(60)) if c is not None]
    assert len(found) == 1
    assert found[0].mean_before == pytest.approx(0.75, abs=1e-3)
