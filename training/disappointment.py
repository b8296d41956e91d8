"""Whether a promoted policy earns what was estimated of it: a test that may be made after every feedback."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist

from engine.records import Generation, GenerationStatistics
from monitoring.confidence_sequence import radius
from monitoring.generations import mean_reward
from training.config import RollbackConfig


def disappointment(
    entries: Sequence[Generation],
    statistics: Sequence[GenerationStatistics],
    config: RollbackConfig,
    reward_range: tuple[float, float],
) -> str | None:
    """Say that the acting generation does not earn what was estimated; ``None``: nothing shows that it does not.

    Its mean reward is held against the lower 95 % bound of its estimate, less ``bound``. The test may be made after
    every feedback: of the promotions that earn at least that in expectation, a share of ``error`` at most is ever found
    wanting. Rewards must lie in the declared range. A generation that came by a rollback is not judged: there would be
    no end to it.

    Parameters
    ----------
    entries, statistics
        The ledger of one decision point, and the books of its generations.
    config
        ``bound`` and ``error``.
    reward_range
        Declared least and greatest reward.
    """
    acting = max((entry for entry in entries if entry.promoted), key=lambda entry: entry.generation, default=None)
    if acting is None or acting.reason == "rollback" or not acting.estimate_error > 0.0:
        return None
    book = next((each for each in statistics if each.generation == acting.generation), None)
    if book is None or not book.feedback:
        return None
    expected = acting.estimate - NormalDist().inv_cdf(0.95) * acting.estimate_error - config.bound
    earned = mean_reward(book)
    high = earned + radius(book.feedback, config.error, reward_range[1] - reward_range[0])
    if not (math.isfinite(high) and high < expected):
        return None
    return (
        f"generation {acting.generation} earned {earned:.4f} over {book.feedback} feedbacks, at most {high:.4f} in "
        f"expectation, where at least {expected:.4f} was estimated (error {config.error:g} over all looks)"
    )
