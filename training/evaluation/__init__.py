"""Off-policy evaluation: what would this policy have earned on the feedback of another one?

Estimators, one a file. A new one is a file and a line in ``ESTIMATORS``, or in ``SLATE_ESTIMATORS`` if it is of lists;
likewise for intervals and ``INTERVALS``.
"""

from __future__ import annotations

from training.evaluation.base import Estimator, LoggedRows
from training.evaluation.clipped_dr import ClippedDoublyRobust
from training.evaluation.clipped_ips import ClippedIPS
from training.evaluation.direct_method import DirectMethod
from training.evaluation.dr import DoublyRobust
from training.evaluation.dros import DRos
from training.evaluation.estimate import Estimate, difference, estimate
from training.evaluation.interval import Interval, IntervalMethod, Support
from training.evaluation.intervals import ANYTIME, INTERVALS
from training.evaluation.ips import IPS
from training.evaluation.mips import MIPS
from training.evaluation.slate_cascade import RewardInteractionIPS
from training.evaluation.slate_independent import IndependentIPS, IndependentSNIPS
from training.evaluation.slates import LoggedSlates, SlateEstimator
from training.evaluation.sndr import SelfNormalizedDR
from training.evaluation.snips import SNIPS
from training.evaluation.student import Student
from training.evaluation.sub_gaussian_dr import SubGaussianDR
from training.evaluation.sub_gaussian_ips import SubGaussianIPS
from training.evaluation.switch_dr import SwitchDR

__all__ = [
    "ANYTIME",
    "ESTIMATORS",
    "INTERVALS",
    "IPS",
    "MIPS",
    "SLATE_ESTIMATORS",
    "SNIPS",
    "ClippedDoublyRobust",
    "ClippedIPS",
    "DRos",
    "DirectMethod",
    "DoublyRobust",
    "Estimate",
    "Estimator",
    "IndependentIPS",
    "IndependentSNIPS",
    "Interval",
    "IntervalMethod",
    "LoggedRows",
    "LoggedSlates",
    "RewardInteractionIPS",
    "SelfNormalizedDR",
    "SlateEstimator",
    "Student",
    "SubGaussianDR",
    "SubGaussianIPS",
    "Support",
    "SwitchDR",
    "difference",
    "estimate",
]

ESTIMATORS: dict[str, Estimator] = {
    estimator.name: estimator
    for estimator in (
        IPS(),
        ClippedIPS(),
        SubGaussianIPS(),
        SNIPS(),
        MIPS(),
        DirectMethod(),
        DoublyRobust(),
        ClippedDoublyRobust(),
        SwitchDR(),
        DRos(),
        SubGaussianDR(),
        SelfNormalizedDR(),
    )
}

SLATE_ESTIMATORS: dict[str, SlateEstimator] = {
    estimator.name: estimator for estimator in (IndependentIPS(), IndependentSNIPS(), RewardInteractionIPS())
}
