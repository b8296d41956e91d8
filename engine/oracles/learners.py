"""From the configuration of an oracle to what learns it."""

from __future__ import annotations

from typing import Any, Protocol

from engine.config import DecisionPoint
from engine.config.oracle import OracleConfig
from engine.oracles.base import Learner, StoredLearner
from engine.oracles.columns import Columns
from engine.oracles.cover import CoverLearner
from engine.oracles.ensemble import EnsembleLearner
from engine.oracles.intercepts import InterceptLearner
from engine.oracles.linear import LinearLearner
from engine.oracles.online import OnlineLinearLearner, OnlineLogisticLearner
from engine.oracles.recursive_ridge import RecursiveRidgeLearner
from engine.oracles.reduction import ReducedLearner
from engine.oracles.sklearn_learners import OnlineSklearnLearner, SklearnLearner
from engine.oracles.trees import TreesLearner
from engine.oracles.window import WindowLearner


class ConfiguredLearner(StoredLearner, Protocol):
    """A kind of learner that the configuration can name."""

    @classmethod
    def from_config(cls, config: Any, columns: Columns) -> Learner:
        """Build one that has learned nothing, from ``policy.oracle`` of its kind."""


#: By ``policy.oracle.kind``.
LEARNERS: dict[str, type[ConfiguredLearner]] = {
    learner.kind: learner
    for learner in (
        LinearLearner,
        OnlineLinearLearner,
        OnlineLogisticLearner,
        RecursiveRidgeLearner,
        TreesLearner,
        SklearnLearner,
        EnsembleLearner,
        CoverLearner,
        InterceptLearner,
    )
}

#: What files of statistics may hold: those, the other form of ``sklearn``, and the wrappers that ``policy.memory`` and
#: ``policy.learning`` ask for.
STORED: dict[str, type[StoredLearner]] = {
    **LEARNERS,
    OnlineSklearnLearner.kind: OnlineSklearnLearner,
    WindowLearner.kind: WindowLearner,
    ReducedLearner.kind: ReducedLearner,
}


def learner_of(config: OracleConfig, columns: Columns) -> Learner:
    """Return a learner that has learned nothing."""
    return LEARNERS[config.kind].from_config(config, columns)


def make_learner(point: DecisionPoint) -> Learner:
    """Return the learner of a decision point, that has learned nothing, with its memory and its use of propensities."""
    policy, columns = point.policy, Columns.of(point)
    learner: Learner
    if policy.memory is None:
        learner = learner_of(policy.oracle, columns)
    else:
        learner = WindowLearner(policy.oracle, columns, policy.memory)
    if policy.learning != "plain":
        learner = ReducedLearner(learner, policy.learning, floor=policy.propensity_floor, low=columns.low)
    return learner
