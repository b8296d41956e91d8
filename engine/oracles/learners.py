"""From the configuration of an oracle to what learns it."""

from __future__ import annotations

from typing import Any, Protocol

from engine.config import DecisionPoint
from engine.config.oracle import OracleConfig
from engine.oracles.base import Learner
from engine.oracles.columns import Columns
from engine.oracles.linear import LinearLearner
from engine.oracles.online import OnlineLinearLearner, OnlineLogisticLearner
from engine.oracles.recursive_ridge import RecursiveRidgeLearner


class ConfiguredLearner(Learner, Protocol):
    """A kind of learner that the configuration can name."""

    @classmethod
    def from_config(cls, config: Any, columns: Columns) -> Learner:
        """Build one that has learned nothing, from ``policy.oracle`` of its kind."""


#: By ``policy.oracle.kind``.
LEARNERS: dict[str, type[ConfiguredLearner]] = {
    learner.kind: learner
    for learner in (LinearLearner, OnlineLinearLearner, OnlineLogisticLearner, RecursiveRidgeLearner)
}


def learner_of(config: OracleConfig, columns: Columns) -> Learner:
    """Return a learner that has learned nothing."""
    return LEARNERS[config.kind].from_config(config, columns)


def make_learner(point: DecisionPoint) -> Learner:
    """Return the learner of a decision point, that has learned nothing."""
    return learner_of(point.policy.oracle, Columns.of(point))


