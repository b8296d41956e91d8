"""From the false alarms that are allowed to the weight of R-BOCPD: what ``monitoring.calibrate`` measured."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from typing import Any, Literal

import numpy as np

from monitoring.detector import FloatArray
from monitoring.weights import ShapedWeight

#: The shape (docs/adr/0008): from where to where the late exponent counts, and how great it is at short and at long
#: horizons, between which it changes with their logarithm.
KNEE, CEILING = 50.0, 1_000.0
SHORT, LONG = (1_000, 3.0), (10_000, 2.0)
#: A segment of fewer observations is not yet one of the long run, whatever the horizon.
LEAST_SETTLED = 2_000
#: In the long run a false alarm is followed by others until the segment is a typical one again: alarms for each first.
AGAIN = 2.0
#: The predictor that the table is measured with.
PREDICTOR: Literal["kt"] = "kt"
TABLE = "null_quantiles.json"


def settled(horizon: float) -> float:
    """Return the length of a segment from which on the weight falls."""
    return max(float(LEAST_SETTLED), float(horizon))


def shaped(categories: int, horizon: int, log_scale: float, log_fall: float) -> ShapedWeight:
    """Return the default shape for a horizon, with this scale and fall.

    The exponent turns the Bayes factor into a likelihood ratio; what else there is was measured to serve small and
    large changes at one budget.
    """
    share = np.interp(math.log(horizon), np.log([SHORT[0], LONG[0]]), [0.0, 1.0])
    late = SHORT[1] + float(share) * (LONG[1] - SHORT[1])
    exponent = (categories - 1) / 2
    return ShapedWeight(math.exp(log_scale), exponent, KNEE, late, CEILING, math.exp(log_fall), settled(horizon))


def gumbel(rates: FloatArray) -> FloatArray:
    """Return where a standard Gumbel variable is exceeded with these chances."""
    where: FloatArray = -np.log(-np.log1p(-rates))
    return where


@dataclass(frozen=True, slots=True)
class Budget:
    """How many stationary streams may raise a false alarm, and within how many observations.

    It counts from the start of a stream. In the long run, from 8 horizons (at least 16 000 observations) on, as many
    false alarms come in each horizon on average as the rate says; between the first horizon and then there are up to
    five times as many (5 % by 1 000 observations; twice for 1 % by 10 000).

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
        first, later = log_thresholds(self.rate, self.horizon, categories)
        return shaped(categories, self.horizon, -first, math.log(AGAIN) + max(0.0, later - first))


def log_thresholds(rate: float, horizon: int, categories: int) -> tuple[float, float]:
    """Return the levels that the statistic with ``scale`` 1 and no fall exceeds with chance ``rate``.

    By ``horizon``, and within as many observations in the long run.
    """
    table = _table()
    ks = np.array([entry["categories"] for entry in table["entries"]])
    first, later = (
        _line(categories, ks, np.array([_in_entry(entry, which, rate, horizon) for entry in table["entries"]]))
        for which in ("quantiles", "later")
    )
    return first, later


def _in_entry(entry: dict[str, Any], which: str, rate: float, horizon: int) -> float:
    """Interpolate in log horizon, and in what makes the distribution of a maximum a line."""
    at = gumbel(np.array(entry["rates"]))
    order = np.argsort(at)
    wanted = float(gumbel(np.array(rate)))
    by_horizon = [_line(wanted, at[order], np.array(row)[order]) for row in entry[which]]
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
