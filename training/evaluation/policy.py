"""Everything that held-back feedback says of one policy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from engine.policy import Policy
from training.dataset import Dataset
from training.evaluation import ESTIMATORS
from training.evaluation.base import Float64, LoggedRows
from training.evaluation.diagnostics import WeightTest, unsupported_mass, weight_test
from training.evaluation.estimate import Estimate, estimate
from training.evaluation.target import pmf_of_prediction, policy_prediction


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
    predicted : ndarray of float64, shape (n,), or None
        Its oracle's score of each action that was taken; ``None`` where the vectors did not come from an oracle.
    """

    rows: LoggedRows
    estimates: Mapping[str, Estimate]
    unsupported: float
    weights: WeightTest
    predicted: Float64 | None = None


def evaluate_policy(policy: Policy, dataset: Dataset, q_hat: Float64) -> PolicyEvaluation:
    """Evaluate a policy on feedback that it has not learned from; raises ``engine.policy.OracleFailure``."""
    prediction = policy_prediction(policy, dataset)
    target = pmf_of_prediction(policy, dataset, prediction)
    return _evaluate(_logged(dataset, target, q_hat), prediction.mean[dataset.chosen_flat])


def evaluate_logging(dataset: Dataset, q_hat: Float64) -> PolicyEvaluation:
    """Evaluate the mixture of policies that acted: what stands for a champion whose file is gone."""
    return _evaluate(_logged(dataset, dataset.probabilities, q_hat), None)


def _logged(dataset: Dataset, target: Float64, q_hat: Float64) -> LoggedRows:
    return LoggedRows(dataset.starts, dataset.chosen_flat, dataset.reward, dataset.probabilities, target, q_hat)


def _evaluate(rows: LoggedRows, predicted: Float64 | None) -> PolicyEvaluation:
    estimates = {name: estimate(estimator, rows) for name, estimator in ESTIMATORS.items()}
    return PolicyEvaluation(rows, estimates, unsupported_mass(rows), weight_test(rows), predicted)
