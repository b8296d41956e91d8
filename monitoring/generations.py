"""The ledger of generations: what each trained policy of a decision point did while it acted.

A policy trained on the log of its predecessor can be worse for what the predecessor did well: fewer failures to
learn from, less support for other actions. The next one then sees more failures again, and so on. Whether
generations oscillate is judged on these sums (``monitoring.oscillation``), and what moved with it
(``monitoring.attribution``).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

from engine.records import Feedback, GenerationStatistics, entropy, generation_of

#: Parts of the range of reward that feedback is counted by.
TENTHS = 10


class GenerationLedger:
    """Running ``GenerationStatistics`` for each decision point and generation; pure.

    Parameters
    ----------
    reward_ranges
        Declared least and greatest reward of each decision point.

    Examples
    --------
    >>> from engine.records import Decision
    >>> ledger = GenerationLedger({"offers": (0.0, 1.0)})
    >>> decision = Decision(decision_point="offers", policy_version="g3.0-00000000", probabilities=[0.5, 0.5])
    >>> ledger.update(Feedback(decision=decision, reward=1.0)).positives
    1
    >>> [s.generation for s in ledger.statistics("offers")]
    [3]
    """

    def __init__(self, reward_ranges: Mapping[str, tuple[float, float]]) -> None:
        self._ranges = dict(reward_ranges)
        self._book: dict[tuple[str, int], GenerationStatistics] = {}

    def update(self, feedback: Feedback) -> GenerationStatistics:
        """Enter one feedback; return its generation's statistics (a copy).

        Raises ``KeyError`` for a decision point without a range, ``ValueError`` for a text that is no policy version.
        """
        decision, reward = feedback.decision, feedback.reward
        low, high = self._ranges[decision.decision_point]
        key = (decision.decision_point, generation_of(decision.policy_version))
        entry = self._book.get(key)
        if entry is None:
            entry = self._book[key] = GenerationStatistics(
                decision_point=key[0],
                generation=key[1],
                first_ms=decision.time_ms,
                last_ms=decision.time_ms,
            )
        if not entry.reward_counts:  # new, or from a time when it was not counted
            entry.reward_counts.extend([0] * TENTHS)
        entry.feedback += 1
        entry.reward_sum += reward
        entry.reward_square_sum += reward * reward
        entry.positives += reward > (low + high) / 2.0
        entry.reward_counts[_tenth(reward, low, high)] += 1
        available = sum(not action.excluded for action in decision.actions)
        if decision.probabilities[decision.chosen] > 0.0 and available:
            weight = 1.0 / (available * decision.probabilities[decision.chosen])
            entry.weight_sum += weight
            entry.weight_square_sum += weight * weight
        if decision.scores and math.isfinite(predicted := decision.scores[decision.chosen]):
            if not entry.predicted_counts:
                entry.predicted_counts.extend([0] * TENTHS)
                entry.predicted_sums.extend([0.0] * TENTHS)
                entry.earned_sums.extend([0.0] * TENTHS)
            tenth = _tenth(predicted, low, high)
            entry.predicted_counts[tenth] += 1
            entry.predicted_sums[tenth] += predicted
            entry.earned_sums[tenth] += reward
        entry.entropy_sum += entropy(decision.probabilities)
        entry.first_ms = min(entry.first_ms, decision.time_ms)
        entry.last_ms = max(entry.last_ms, decision.time_ms)
        return _copy(entry)

    def statistics(self, decision_point: str) -> list[GenerationStatistics]:
        """Return the statistics of a decision point by ascending generation (copies)."""
        return [_copy(self._book[key]) for key in sorted(self._book) if key[0] == decision_point]

    def save(self) -> list[GenerationStatistics]:
        """Return all statistics (copies), by decision point and generation."""
        return [_copy(self._book[key]) for key in sorted(self._book)]

    def restore(self, saved: Iterable[GenerationStatistics]) -> None:
        """Replace the book by what ``save`` returned."""
        self._book = {(entry.decision_point, entry.generation): _copy(entry) for entry in saved}


def _tenth(value: float, low: float, high: float) -> int:
    return min(TENTHS - 1, max(0, int(TENTHS * (value - low) / (high - low))))


def _copy(entry: GenerationStatistics) -> GenerationStatistics:
    copy = GenerationStatistics()
    copy.CopyFrom(entry)
    return copy


def mean_reward(entry: GenerationStatistics) -> float:
    """Mean reward while the generation acted; NaN without feedback."""
    return entry.reward_sum / entry.feedback if entry.feedback else math.nan


def standard_error(entry: GenerationStatistics) -> float:
    """Standard error of the mean reward, taking feedback as independent; NaN below two feedbacks."""
    n = entry.feedback
    if n < 2:
        return math.nan
    variance = max(0.0, entry.reward_square_sum - entry.reward_sum**2 / n) / (n - 1)
    return math.sqrt(variance / n)


def positive_share(entry: GenerationStatistics) -> float:
    """Share of feedback with a reward above the middle of its range; NaN without feedback."""
    return entry.positives / entry.feedback if entry.feedback else math.nan


def mean_entropy(entry: GenerationStatistics) -> float:
    """Mean entropy of the action probabilities, in nats; NaN without feedback. 0 is a policy without exploration."""
    return entry.entropy_sum / entry.feedback if entry.feedback else math.nan


def reward_distance(one: GenerationStatistics, other: GenerationStatistics) -> float:
    """Total variation distance of the rewards by tenths of the range, 0 to 1; NaN where they were not counted."""
    n, m = sum(one.reward_counts), sum(other.reward_counts)
    if not (n and m):
        return math.nan
    return 0.5 * math.fsum(abs(a / n - b / m) for a, b in zip(one.reward_counts, other.reward_counts, strict=True))


def support(entry: GenerationStatistics) -> float:
    """Effective sample size of its log for the uniform policy, as a share of its feedback; NaN where not kept."""
    if not (entry.weight_square_sum and entry.feedback):
        return math.nan
    return entry.weight_sum**2 / entry.weight_square_sum / entry.feedback


def calibration_error(entry: GenerationStatistics) -> float:
    """Root mean square distance of predicted from earned reward over tenths by prediction; NaN without predictions."""
    total = sum(entry.predicted_counts)
    if not total:
        return math.nan
    squares = (
        (predicted - earned) ** 2 / count
        for count, predicted, earned in zip(
            entry.predicted_counts, entry.predicted_sums, entry.earned_sums, strict=True
        )
        if count
    )
    return math.sqrt(math.fsum(squares) / total)
