"""Confidence sequences by betting: the hedged capital process.

Waudby-Smith and Ramdas, *Estimating means of bounded random variables by betting*, Journal of the Royal Statistical
Society B 2024, section 4.
"""

from __future__ import annotations

import math
from typing import ClassVar

import numpy as np

from training.evaluation.base import Float64
from training.evaluation.confidence_sequence import ConfidenceSequence, bets, predictable_moments

#: No bet risks more than this share of the capital, as in the paper.
_MOST = 0.5
_STEPS = 40


class Betting(ConfidenceSequence):
    """Who bets against a mean that is too low grows rich: means that have made anyone rich at any time are excluded.

    For each mean m the capital ``prod_i (1 + min(lambda_i, c / m) (x_i - m))`` has expectation 1 if m is the true one,
    and reaches ``1 / alpha`` at any time with probability alpha at most (Ville). It falls in m, so bisection finds the
    bound, over the greatest capital of all times. Capital stays positive for every x that is not negative: the
    lower bound asks for no upper end. The tightest of the sequences here, and the gate's ``anytime``.

    The paper bets half of alpha on each side; here each bound has an alpha of its own.
    """

    name: ClassVar[str] = "betting"

    def lower(self, x: Float64, alpha: float) -> float:
        """Return the bound; see ``ConfidenceSequence.lower``."""
        _, variance = predictable_moments(x)
        bet = bets(variance, alpha)
        rich = math.log(1.0 / alpha)

        def excluded(m: float) -> bool:
            stake = np.minimum(bet, _MOST / m)
            return float(np.cumsum(np.log1p(stake * (x - m))).max()) >= rich

        low, high = 0.0, 1.0
        for _ in range(_STEPS):
            middle = (low + high) / 2.0
            low, high = (middle, high) if excluded(middle) else (low, middle)
        return low
