"""A challenger against the champion while both are tried: a comparison that may be looked at at any time, and stopped.

A canary is compared by what both earned at the same time on units of their own. A shadow earns nothing: what it would
have earned more is estimated from the decisions of the champion by importance weights, ``(w - 1) (r - m)`` with the
middle ``m`` of the range of reward. Its mean is the difference wherever the champion could draw what the shadow would.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

from engine.config import Challenger
from engine.records import Feedback, policy_acted
from monitoring.confidence_sequence import TUNED_FOR, asymptotic_radius, radius

Verdict = Literal["better", "worse", "undecided"]


@dataclass
class _Sum:
    count: int = 0
    total: float = 0.0
    squares: float = 0.0

    def add(self, value: float) -> None:
        self.count += 1
        self.total += value
        self.squares += value * value

    @property
    def mean(self) -> float:
        return self.total / self.count if self.count else math.nan

    @property
    def variance(self) -> float:
        return max(0.0, self.squares / self.count - self.mean**2) if self.count else math.nan


@dataclass
class Comparison:
    """Runs over feedback and says how much better the challenger is.

    Parameters
    ----------
    terms
        How it is tried.
    reward_range
        Declared least and greatest reward.
    error
        Greatest probability, over all looks, that the interval ever misses the difference. For a canary it holds for
        rewards within their range, whatever they are; for a shadow in the limit of many feedbacks
        (``asymptotic_radius``), and not before ``LEAST_SHADOW`` of them.

    Examples
    --------
    >>> Comparison(Challenger(version="g2.0-00000000", mode="canary"), (0.0, 1.0)).verdict
    'undecided'
    """

    terms: Challenger
    reward_range: tuple[float, float]
    error: float = 0.05
    champion: _Sum = field(default_factory=_Sum)
    challenger: _Sum = field(default_factory=_Sum)
    differences: _Sum = field(default_factory=_Sum)

    def update(self, feedback: Feedback) -> None:
        """Take in one feedback; those from before the trial, and of shadows other than this one, do not count.

        Nor do those of decisions that a client made by itself, or in which the caller's own choice acted: neither
        policy had a part in them.
        """
        decision = feedback.decision
        if decision.time_ms < self.terms.started_ms or not policy_acted(decision):
            return
        if self.terms.mode == "canary":
            mine = decision.policy_version == self.terms.version
            (self.challenger if mine else self.champion).add(feedback.reward)
            return
        noted = len(decision.shadow_probabilities) == len(decision.probabilities)
        if decision.shadow_policy_version != self.terms.version or not noted:
            return
        p = decision.probabilities[decision.chosen]
        middle = sum(self.reward_range) / 2.0
        weight = decision.shadow_probabilities[decision.chosen] / p
        self.champion.add(feedback.reward)
        self.differences.add((weight - 1.0) * (feedback.reward - middle))

    @property
    def interval(self) -> tuple[float, float, float]:
        """Challenger less champion, and the bounds of the difference; infinite where nothing is known."""
        low, high = self.reward_range
        if self.terms.mode == "shadow":
            known = self.differences
            if known.count < LEAST_SHADOW:
                return known.mean, -math.inf, math.inf
            reach = asymptotic_radius(known.count, self.error, math.sqrt(known.variance))
            return known.mean, known.mean - reach, known.mean + reach
        difference = self.challenger.mean - self.champion.mean
        if not (self.challenger.count and self.champion.count):
            return math.nan, -math.inf, math.inf
        # Each mean has half of the error.
        reach = sum(radius(each.count, self.error / 2.0, high - low) for each in (self.challenger, self.champion))
        return difference, difference - reach, difference + reach

    @property
    def verdict(self) -> Verdict:
        """Whether the interval lies above or below 0: then the trial can be ended."""
        _, low, high = self.interval
        return "better" if low > 0.0 else ("worse" if high < 0.0 else "undecided")


#: Fewest feedbacks by which a shadow is judged: its interval rests on a central limit theorem.
LEAST_SHADOW = int(TUNED_FOR)
