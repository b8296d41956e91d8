"""One number of false alarms for a decision point, and the share of it that each stream gets.

False alarms add up: the expected number over all streams is the sum of the expected numbers of each, whatever the
dependence between them. So the budget is split: evenly over the monitors, so that a hundred features do not use up
what the reward needs, and evenly over the streams of a monitor. Each stream gets the calibrated weight for its share
within as many observations as it has in a month. Not the weight that is proved at any time with delta / S: that bounds
the false alarms of all time rather than those of a month, which nobody asked for, and pays for it with about three
times the delay.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

from monitoring.budget import AGAIN, Budget
from monitoring.weights import ShapedWeight

MONTH_MS = 30 * 86_400_000
#: The greatest share of streams with a false alarm that the calibration is asked for: more within a month is as much
#: within a shorter time.
_MOST_RATE = 0.5
_LEAST_HORIZON = 1_000


@dataclass(frozen=True, slots=True)
class Allocation:
    """What one stream may cost.

    Parameters
    ----------
    monitor, stream
        Which.
    per_month
        Expected false alarms a month.
    observations_per_month
        At the rate of the reference window.
    """

    monitor: str
    stream: str
    per_month: float
    observations_per_month: float

    @property
    def budget(self) -> Budget:
        """The same as a share of streams with an alarm within a number of observations; a first one is not the last."""
        first = self.per_month / AGAIN
        rate = min(-math.expm1(-first), _MOST_RATE)
        horizon = self.observations_per_month * -math.log1p(-rate) / first
        return Budget(rate, max(_LEAST_HORIZON, round(horizon)))

    def weight(self, categories: int, inflation: float = 1.0) -> ShapedWeight:
        """Return the calibrated weight, with its log threshold multiplied by ``inflation``."""
        calibrated = self.budget.weight(categories)
        return replace(calibrated, scale=calibrated.scale**inflation, fall=calibrated.fall**inflation)


def split(per_month: float, streams: Mapping[str, int]) -> dict[str, float]:
    """Return the false alarms a month of one stream of each monitor.

    Parameters
    ----------
    per_month
        Of all together.
    streams
        How many streams each monitor has.

    Examples
    --------
    >>> split(1.0, {"reward": 1, "features": 50})
    {'reward': 0.5, 'features': 0.01}
    """
    monitors = {name: count for name, count in streams.items() if count}
    return {name: per_month / len(monitors) / count for name, count in monitors.items()}
