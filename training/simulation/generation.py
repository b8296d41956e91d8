"""What is said of one generation: what it earned, and what it left to learn from."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from training.simulation.play import Played

_BINS = 10
#: An action is starved where its probability is below 1 / (STARVED K).
STARVED = 20.0


@dataclass(frozen=True)
class GenerationFacts:
    """One generation, as it served.

    Attributes
    ----------
    generation : int
        0 explores uniformly: it has learned nothing.
    decisions : int
        How many it made.
    reward : float
        Mean reward.
    positives : float
        Share of rewards above the middle of the declared range.
    shortfall : float
        Mean of what the best available action would have earned more, in expectation; NaN where nobody knows.
    ess_uniform : float
        Effective sample size of its log for the uniform policy, ``(sum w)^2 / sum w^2``: the support that it leaves.
    starved : float
        Share of the available actions with a probability below 1/(20 K).
    calibration : float
        Mean distance of predicted and earned reward of the actions drawn, over tenths by prediction.
    gap : float
        Median distance of an available action's score to the best one.
    """

    generation: int
    decisions: int
    reward: float
    positives: float
    shortfall: float
    ess_uniform: float
    starved: float
    calibration: float
    gap: float


def generation_facts(played: Played) -> GenerationFacts:
    """Return the facts of the decisions that one generation made."""
    feedback = played.feedback
    low, high = played.policy.point.reward.range
    available = feedback.available
    count = np.add.reduceat(available.astype(np.float64), feedback.starts[:-1])
    weights = 1.0 / (count * feedback.propensity)
    scores = np.where(available, played.scores, -np.inf)
    best = np.maximum.reduceat(scores, feedback.starts[:-1])
    sizes = np.diff(feedback.starts)
    gaps = (np.repeat(best, sizes) - played.scores)[available]
    least = np.repeat(1.0 / (STARVED * count), sizes)
    predicted = played.scores[feedback.chosen_flat]
    tenths = np.array_split(np.argsort(predicted, kind="stable"), min(_BINS, len(feedback)))
    calibration = sum(
        len(tenth) * abs(float(predicted[tenth].mean() - feedback.reward[tenth].mean())) for tenth in tenths
    )
    return GenerationFacts(
        generation=played.policy.generation,
        decisions=len(feedback),
        reward=float(feedback.reward.mean()),
        positives=float((feedback.reward > (low + high) / 2.0).mean()),
        shortfall=float(played.shortfall.mean()),
        ess_uniform=float(weights.sum() ** 2 / (weights**2).sum()),
        starved=float((feedback.probabilities < least)[available].mean()),
        calibration=calibration / len(feedback),
        gap=float(np.median(gaps)),
    )


def alternation(rewards: list[float]) -> float:
    """Return by how much odd generations earn more than even ones: the mark of an oscillation of period two.

    Generation 0, which explores uniformly, is left out.

    >>> round(alternation([0.7, 0.88, 0.84, 0.87, 0.83]), 3)
    0.04
    """
    odd, even = rewards[1::2], rewards[2::2]
    return float(np.mean(odd) - np.mean(even)) if odd and even else float("nan")
