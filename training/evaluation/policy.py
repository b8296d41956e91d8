"""Everything that held-back feedback says of one policy."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from engine.policy import Policy
from training.dataset import Dataset
from training.evaluation import ESTIMATORS
from training.evaluation.base import Float64, Int64, LoggedRows
from training.evaluation.diagnostics import Divergence, WeightTest, divergence, unsupported_mass, weight_test
from training.evaluation.estimate import Estimate, estimate
from training.evaluation.interval import IntervalMethod
from training.evaluation.student import Student
from training.evaluation.support import Range
from training.evaluation.target import pmf_of_prediction, policy_prediction
from training.evaluation.weight_tail import WeightTail, weight_tail


@dataclass(frozen=True)
class Feedback:
    """The feedback that policies are judged by.

    Parameters
    ----------
    dataset
        The rows; its ``probabilities`` are what weights are made of.
    q_hat : ndarray of float64, shape (m,), optional
        Cross-fitted expected rewards; without them the estimators that need a reward model are left out.
    estimated
        Whether the probabilities were estimated and not logged.
    cluster : ndarray of int64, shape (m,), optional
        Groups of actions, for ``mips``.
    """

    dataset: Dataset
    q_hat: Float64 | None = None
    estimated: bool = False
    cluster: Int64 | None = None

    def rows(self, target: Float64) -> LoggedRows:
        """Return the rows with the vectors of a policy."""
        data = self.dataset
        return LoggedRows(
            data.starts,
            data.chosen_flat,
            data.reward,
            data.probabilities,
            target,
            self.q_hat,
            self.cluster,
            self.estimated,
        )


@dataclass(frozen=True)
class Bounds:
    """How the intervals of estimates are made.

    Parameters
    ----------
    method
        Of the intervals.
    confidence
        Of each, two-sided.
    reward_range
        Of the decision point; ``None``: not known, and methods that need it have no bounds to give.
    estimators
        Names; all by default.
    """

    method: IntervalMethod = field(default_factory=Student)
    confidence: float = 0.95
    reward_range: Range | None = None
    estimators: Collection[str] = tuple(ESTIMATORS)


_DEFAULT = Bounds()


@dataclass(frozen=True, eq=False)
class PolicyEvaluation:
    """One policy, judged by feedback that it was not fitted on.

    Attributes
    ----------
    rows : LoggedRows
        The feedback with the policy's vectors and the reward model's predictions.
    estimates : mapping of str to Estimate
        By estimator, each with its two-sided interval.
    unsupported : float
        Mean probability that it gives to actions which could not have been drawn.
    weights : WeightTest
        The self-test of the logged propensities.
    tail : WeightTail
        Of the importance weights.
    divergence : Divergence
        Of the policy from those that acted.
    predicted : ndarray of float64, shape (n,), or None
        Its oracle's score of each action that was taken; ``None`` where the vectors did not come from an oracle.
    """

    rows: LoggedRows
    estimates: Mapping[str, Estimate]
    unsupported: float
    weights: WeightTest
    tail: WeightTail
    divergence: Divergence
    predicted: Float64 | None = None


def evaluate_policy(policy: Policy, feedback: Feedback, bounds: Bounds = _DEFAULT) -> PolicyEvaluation:
    """Evaluate a policy on feedback that it has not learned from; raises ``engine.policy.OracleFailure``."""
    dataset = feedback.dataset
    prediction = policy_prediction(policy, dataset)
    target = pmf_of_prediction(policy, dataset, prediction)
    return evaluate_rows(feedback.rows(target), prediction.mean[dataset.chosen_flat], bounds)


def evaluate_logging(feedback: Feedback, bounds: Bounds = _DEFAULT) -> PolicyEvaluation:
    """Evaluate the mixture of policies that acted: what stands for a champion whose file is gone."""
    return evaluate_rows(feedback.rows(feedback.dataset.probabilities), None, bounds)


def evaluate_rows(
    rows: LoggedRows,
    predicted: Float64 | None = None,
    bounds: Bounds = _DEFAULT,
) -> PolicyEvaluation:
    """Evaluate whatever policy the target vectors of the rows are those of."""
    estimates = {
        name: estimate(ESTIMATORS[name], rows, bounds.confidence, bounds.method, bounds.reward_range)
        for name in bounds.estimators
        if rows.q_hat is not None or not ESTIMATORS[name].needs_reward_model
    }
    return PolicyEvaluation(
        rows,
        estimates,
        unsupported_mass(rows),
        weight_test(rows),
        weight_tail(rows.weights),
        divergence(rows),
        predicted,
    )
