"""Off-policy evaluation: what would this policy have earned on the feedback of another one?

Estimators, one a file. A new one is a file and a line in ``ESTIMATORS``.
"""

from __future__ import annotations

from training.evaluation.base import Estimator, LoggedRows
from training.evaluation.direct_method import DirectMethod
from training.evaluation.dr import DoublyRobust
from training.evaluation.interval import Estimate, Interval, difference, estimate, mean_interval
from training.evaluation.ips import IPS
from training.evaluation.snips import SNIPS

__all__ = [
    "ESTIMATORS",
    "IPS",
    "SNIPS",
    "DirectMethod",
    "DoublyRobust",
    "Estimate",
    "Estimator",
    "Interval",
    "LoggedRows",
    "difference",
    "estimate",
    "mean_interval",
]

ESTIMATORS: dict[str, Estimator] = {
    estimator.name: estimator for estimator in (IPS(), SNIPS(), DirectMethod(), DoublyRobust())
}
