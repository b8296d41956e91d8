"""Off-policy evaluation: what would this policy have earned on the feedback of another one?

Estimators, one a file. A new one is a file and a line in ``ESTIMATORS``, or in ``SLATE_ESTIMATORS`` if it is of lists.
"""

from __future__ import annotations

from training.evaluation.base import Estimator, LoggedRows
from training.evaluation.direct_method import DirectMethod
from training.evaluation.dr import DoublyRobust
from training.evaluation.interval import Estimate, Interval, difference, estimate, mean_interval
from training.evaluation.ips import IPS
from training.evaluation.slate_cascade import RewardInteractionIPS
from training.evaluation.slate_independent import IndependentIPS, IndependentSNIPS
from training.evaluation.slates import LoggedSlates, SlateEstimator
from training.evaluation.snips import SNIPS

__all__ = [
    "ESTIMATORS",
    "IPS",
    "SLATE_ESTIMATORS",
    "SNIPS",
    "DirectMethod",
    "DoublyRobust",
    "Estimate",
    "Estimator",
    "IndependentIPS",
    "IndependentSNIPS",
    "Interval",
    "LoggedRows",
    "LoggedSlates",
    "RewardInteractionIPS",
    "SlateEstimator",
    "difference",
    "estimate",
    "mean_interval",
]

ESTIMATORS: dict[str, Estimator] = {
    estimator.name: estimator for estimator in (IPS(), SNIPS(), DirectMethod(), DoublyRobust())
}

SLATE_ESTIMATORS: dict[str, SlateEstimator] = {
    estimator.name: estimator for estimator in (IndependentIPS(), IndependentSNIPS(), RewardInteractionIPS())
}
