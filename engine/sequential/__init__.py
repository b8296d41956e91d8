"""Learning where the user goes through states: tabular UCRL2, restarted by change detectors."""

from __future__ import annotations

from engine.sequential.change_detector import ChangeDetector, DetectorFactory
from engine.sequential.evi import Plan, extended_value_iteration, optimal_gain
from engine.sequential.learner import UCRL2Learner
from engine.sequential.rbocpd_ucrl2 import RBOCPDUCRL2
from engine.sequential.ucrl2 import UCRL2

__all__ = [
    "RBOCPDUCRL2",
    "UCRL2",
    "ChangeDetector",
    "DetectorFactory",
    "Plan",
    "UCRL2Learner",
    "extended_value_iteration",
    "optimal_gain",
]
