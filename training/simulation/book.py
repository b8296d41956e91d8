"""The book of one simulated generation, as ``monitoring.generations`` keeps it of a served one."""

from __future__ import annotations

import numpy as np

from engine.records import GenerationStatistics
from monitoring.generations import TENTHS
from training.dataset import Dataset, Float64, Int64


def statistics_of(
    feedback: Dataset, generation: int, reward_range: tuple[float, float], predicted: Float64 | None
) -> GenerationStatistics:
    """Return the sums of the feedback of one generation.

    ``predicted`` is what its oracle expected of each action drawn, shape (n,); ``None`` where it had learned nothing.
    """
    low, high = reward_range
    reward, p = feedback.reward, feedback.probabilities
    available = np.add.reduceat(feedback.available.astype(np.float64), feedback.starts[:-1])
    weights = 1.0 / (available * feedback.propensity)
    entry = GenerationStatistics(
        generation=generation,
        feedback=len(feedback),
        reward_sum=float(reward.sum()),
        reward_square_sum=float(reward @ reward),
        positives=int((reward > (low + high) / 2.0).sum()),
        entropy_sum=-float(np.sum(p * np.log(p, out=np.zeros_like(p), where=p > 0.0))),
        first_ms=int(feedback.time_ms[0]),
        last_ms=int(feedback.time_ms[-1]),
        reward_counts=np.bincount(_tenths(reward, low, high), minlength=TENTHS).tolist(),
        weight_sum=float(weights.sum()),
        weight_square_sum=float(weights @ weights),
    )
    if predicted is not None:
        tenths = _tenths(predicted, low, high)
        entry.predicted_counts.extend(np.bincount(tenths, minlength=TENTHS).tolist())
        entry.predicted_sums.extend(np.bincount(tenths, predicted, TENTHS).tolist())
        entry.earned_sums.extend(np.bincount(tenths, reward, TENTHS).tolist())
    return entry


def _tenths(values: Float64, low: float, high: float) -> Int64:
    found: Int64 = np.clip((TENTHS * (values - low) / (high - low)).astype(np.int64), 0, TENTHS - 1)
    return found
