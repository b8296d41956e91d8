"""The books of generations whose rewards go up and down by themselves."""

from __future__ import annotations

import numpy as np

from engine.records import GenerationStatistics
from tests.training.world import NAME


def swinging(count: int, amplitude: float = 0.03) -> list[float]:
    rng = np.random.default_rng(0)
    return list(0.85 + amplitude * (-1.0) ** np.arange(count) + 0.003 * rng.normal(size=count))


def books(rewards: list[float], feedback: int = 10_000) -> list[GenerationStatistics]:
    """Return the books of generations from 0 on that earned these rewards."""
    return [
        GenerationStatistics(
            decision_point=NAME,
            generation=g,
            feedback=feedback,
            reward_sum=reward * feedback,
            reward_square_sum=reward * feedback,
            positives=int(reward * feedback),
            first_ms=1_000 * g,
            last_ms=1_000 * g + 999,
        )
        for g, reward in enumerate(rewards)
    ]
