"""Oracles, one a file. A new one is a file, a line in ``ORACLES`` and, if it learns online, one in ``LEARNERS``."""

from __future__ import annotations

from engine.oracles.background import BackgroundLearner, Worker
from engine.oracles.base import (
    Arrays,
    DiscountingLearner,
    EnsembleOracle,
    Learner,
    Oracle,
    StoredOracle,
    UncertainOracle,
    predict,
)
from engine.oracles.columns import Columns
from engine.oracles.ensemble import EnsembleOfOracles
from engine.oracles.events import Events, learn_events
from engine.oracles.intercepts import InterceptOracle
from engine.oracles.learners import LEARNERS, STORED, learner_of, make_learner
from engine.oracles.lightgbm import LightGBMOracle
from engine.oracles.linear import LinearLearner, LinearOracle
from engine.oracles.online import (
    OnlineLinearLearner,
    OnlineLinearOracle,
    OnlineLogisticLearner,
    OnlineLogisticOracle,
)
from engine.oracles.recursive_ridge import RecursiveRidgeLearner, RecursiveRidgeOracle
from engine.oracles.sklearn import SklearnOracle
from engine.oracles.tabular import TabularOracle

__all__ = [
    "LEARNERS",
    "ORACLES",
    "STORED",
    "Arrays",
    "BackgroundLearner",
    "Columns",
    "DiscountingLearner",
    "EnsembleOfOracles",
    "EnsembleOracle",
    "Events",
    "InterceptOracle",
    "Learner",
    "LightGBMOracle",
    "LinearLearner",
    "LinearOracle",
    "OnlineLinearLearner",
    "OnlineLinearOracle",
    "OnlineLogisticLearner",
    "OnlineLogisticOracle",
    "Oracle",
    "RecursiveRidgeLearner",
    "RecursiveRidgeOracle",
    "SklearnOracle",
    "StoredOracle",
    "TabularOracle",
    "UncertainOracle",
    "Worker",
    "learn_events",
    "learner_of",
    "make_learner",
    "predict",
]

#: What policies in files may hold, by kind.
ORACLES: dict[str, type[StoredOracle]] = {
    oracle.kind: oracle
    for oracle in (
        LinearOracle,
        LightGBMOracle,
        OnlineLinearOracle,
        OnlineLogisticOracle,
        RecursiveRidgeOracle,
        SklearnOracle,
        EnsembleOfOracles,
        InterceptOracle,
        TabularOracle,
    )
}
