"""The gamma-exponential mixture: a time-uniform off-policy confidence sequence.

Howard, Ramdas, McAuliffe and Sekhon, *Time-uniform, nonparametric, nonasymptotic confidence sequences*, Annals of
Statistics 2021, proposition 9, for the process of Karampatziakis, Mineiro and Ramdas, *Off-Policy Confidence
Sequences*, ICML 2021.
"""

from __future__ import annotations

import math
from typing import ClassVar

import numpy as np
from scipy.special import gammainc, gammaln

from training.evaluation.base import Float64
from training.evaluation.confidence_sequence import ConfidenceSequence, predictable_moments

_RHO = 1.0
_STEPS = 60


class GammaMixture(ConfidenceSequence):
    """All bets at once: the wealth is averaged over a gamma distribution of bets, so that none has to be chosen.

    Unlike the other two sequences the bound after n rows depends on three sums alone, and is not the best of all times:
    it can be kept up to date in constant memory, and is the widest where there are few rows.
    """

    name: ClassVar[str] = "gamma_mixture"

    def lower(self, x: Float64, alpha: float) -> float:
        """Return the bound; see ``ConfidenceSequence.lower``."""
        mean, _ = predictable_moments(x)
        n, total, spread = len(x), float(x.sum()), float(((x - mean) ** 2).sum())
        wanted = math.log(1.0 / alpha)
        low, high = 0.0, min(1.0, total / n)
        if _log_wealth(total - n * low, spread) < wanted:
            return 0.0
        for _ in range(_STEPS):
            middle = (low + high) / 2.0
            low, high = (middle, high) if _log_wealth(total - n * middle, spread) >= wanted else (low, middle)
        return low


def _log_wealth(s: float, v: float) -> float:
    """Return the log of the mixture for a sum s of deviations and their variation v."""
    return float(
        s
        + v
        + _RHO * math.log(_RHO)
        - (v + _RHO) * math.log(s + v + _RHO)
        + _log_lower_gamma(v + _RHO, s + v + _RHO)
        - _log_lower_gamma(_RHO, _RHO)
    )


def _log_lower_gamma(a: float, x: float) -> float:
    return float(gammaln(a) + np.log(gammainc(a, x)))
