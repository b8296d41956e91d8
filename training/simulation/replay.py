"""A log instead of a world: what a policy that learns would have earned, by importance weights and rejection.

Li, Chu, Langford and Wang, *Unbiased Offline Evaluation of Contextual-bandit-based News Article Recommendation
Algorithms*, WSDM 2011, and Vowpal Wabbit's ``--explore_eval``: a logged decision with weight ``w = p / p_logged`` is
accepted with probability ``w * multiplier``; accepted ones are distributed as the policy's own, and it learns from
these alone, each with the probability that the policy gave. Every decision, accepted or not, counts for the estimate.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np

from engine.sampling import uniform
from training.dataset import Dataset
from training.evaluation import LoggedRows
from training.evaluation.target import pmf_of_prediction, policy_prediction
from training.simulation.play import Delay, Played
from training.simulation.student import Student
from training.simulation.world import Bool, Float64

#: A weight that is above 1 only by rounding breaks nothing.
_ROUNDING = 1e-6


@dataclass(frozen=True, eq=False)
class Replayed:
    """Logged decisions beside one policy.

    Attributes
    ----------
    accepted
        Those that the policy might have made, with its own vectors.
    rows
        All of them, with the policy's probabilities as the target.
    violations
        How many would have had to be accepted with more than certainty.
    """

    accepted: Played
    rows: LoggedRows
    violations: int


class Acceptance:
    """Decides which logged decisions are accepted.

    Parameters
    ----------
    seed
        Of the draws, each of which belongs to a decision id.
    multiplier
        Factor on the weights. ``None``: 1 to begin with, and then the inverse of the greatest weight seen, so that
        no weight is cut; the first few decisions are then accepted more readily than they should be.
    """

    def __init__(self, seed: int, multiplier: float | None = None) -> None:
        self._salt = f"acceptance-{seed}"
        self._fixed = multiplier
        self._greatest = 1.0

    def choose(self, rows: Dataset, weights: Float64) -> tuple[Bool, int]:
        """Return which rows are accepted, and how many have a probability above 1 for it."""
        if self._fixed is None:
            greatest = np.maximum.accumulate(np.maximum(weights, self._greatest))
            self._greatest = float(greatest[-1])
            probability: Float64 = weights / greatest
        else:
            probability = weights * self._fixed
        u = np.fromiter((uniform(identity, self._salt) for identity in rows.decision_id), np.float64, len(rows))
        return u < probability, int((probability > 1.0 + _ROUNDING).sum())


def replay(
    log: Dataset,
    student: Student,
    block: int,
    acceptance: Acceptance,
    delay: int = 0,
    progress: Callable[[int], None] = lambda _: None,
) -> Iterator[Replayed]:
    """Go through a log in its order; see ``training.simulation.play.play``.

    ``block`` and ``delay`` count logged decisions and accepted ones respectively.
    """
    held = Delay(delay)
    for begin in range(0, len(log), block):
        part = log.rows(slice(begin, begin + block))
        policy = student.policy
        prediction = policy_prediction(policy, part)
        target = pmf_of_prediction(policy, part, prediction)
        rows = LoggedRows(part.starts, part.chosen_flat, part.reward, part.probabilities, target)
        taken, violations = acceptance.choose(part, rows.weights)
        versions = np.full(len(part), policy.version, dtype=np.object_)
        feedback = replace(part, probabilities=target, policy_version=versions).rows(taken)
        scores = prediction.mean[np.repeat(taken, np.diff(part.starts))]
        yield Replayed(Played(policy, feedback, scores, np.full(len(feedback), np.nan)), rows, violations)
        due = held.pass_on(feedback) if len(feedback) else None
        if due is not None and begin + block < len(log):
            student.learn(due)
        progress(begin + len(part))
