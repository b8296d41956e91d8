"""From the false alarms that are allowed to the weight of R-BOCPD: what ``monitoring.calibrate`` measured."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from typing import Any, Literal

import numpy as np

from monitoring.weights import ShapedWeight

#: By how much the exponent of the default shape grows at its knee (docs/adr/0008).
LATE_EXPONENT = 3.0
#: The predictor that the table is measured with.
PREDICTOR: Literal["kt"] = "kt"
TABLE = "null_quantiles.json"


def shaped(categories: int, horizon: int, log_scale: float) -> ShapedWeight:
    """Return the default shape for a horizon, with this scale.

    The exponent turns the Bayes factor into a likelihood ratio; knee and ceiling were measured to serve small and large
    changes at one budget: 50 at 1 000 observations and in proportion to the root of the horizon, and 2 500 or 5 knees.
    """
    knee = 50.0 * math.sqrt(horizon / 1_000)
    return ShapedWeight(math.exp(log_scale), (categories - 1) / 2, knee, LATE_EXPONENT, max(2_500.0, 5.0 * knee))


@dataclass(frozen=True, slots=True)
class Budget:
    """How many stationary streams may raise a false alarm, and within how many observations.

    It counts from the start of a stream. In the long run, with long segments to compare with at all times, there are
    several times as many in each further horizon (docs/drift.md): choose the horizon as long as it matters.

    Parameters
    ----------
    rate
        Share of stationary streams with a false alarm by ``horizon``, in (0, 1).
    horizon
        Observations, at least 100.

    Examples
    --------
    >>> weight = Budget(rate=0.01, horizon=10_000).weight(categories=2)
    >>> weight.scale < Budget(rate=0.05, horizon=1_000).weight(categories=2).scale
    True
    """

    rate: float = 0.01
    horizon: int = 10_000

    def __post_init__(self) -> None:
        """Refuse what is no budget."""
        if not 0.0 < self.rate < 1.0:
            raise ValueError(f"rate must lie between 0 and 1, got {self.rate}")
        if self.horizon < 100:
            raise ValueError(f"horizon must be at least 100 observations, got {self.horizon}")

    def weight(self, categories: int) -> ShapedWeight:
        """Return the default weight for ``categories`` whose measured false alarms are ``rate`` by ``horizon``.

        The calibration is the greatest over several distributions of the categories, so that others raise fewer.
        Between the horizons, levels and numbers of categories of the table it is interpolated; beyond, its last slope
        goes on, which is an extrapolation.
        """
        return shaped(categories, self.horizon, -log_threshold(self.rate, self.horizon, categories))


def log_threshold(rate: float, horizon: int, categories: int) -> float:
    """Return the level that the statistic with ``scale`` 1 exceeds with chance ``rate`` by ``horizon``."""
    table = _table()
    ks = np.array([entry["categories"] for entry in table["entries"]])
    levels = [_in_entry(entry, rate, horizon) for entry in table["entries"]]
    return _line(categories, ks, np.array(levels))


def _in_entry(entry: dict[str, Any], rate: float, horizon: int) -> float:
    """Interpolate in log horizon, and in log of -log(1 - rate): that of a Gumbel variable is a line in it."""
    at = np.array([-math.log(-math.log1p(-level)) for level in entry["rates"]])
    order = np.argsort(at)
    wanted = -math.log(-math.log1p(-rate))
    by_horizon = [_line(wanted, at[order], np.array(row)[order]) for row in entry["quantiles"]]
    return _line(math.log(horizon), np.log(entry["horizons"]), np.array(by_horizon))


def _line(x: float, xs: np.ndarray[Any, Any], ys: np.ndarray[Any, Any]) -> float:
    """Piecewise linear through the points, the outer slopes going on."""
    if len(xs) == 1:
        return float(ys[0])
    right = int(np.clip(np.searchsorted(xs, x), 1, len(xs) - 1))
    share = (x - xs[right - 1]) / (xs[right] - xs[right - 1])
    return float(ys[right - 1] + share * (ys[right] - ys[right - 1]))


@lru_cache(maxsize=1)
def _table() -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(files("monitoring").joinpath(TABLE).read_text())
    return loaded
