"""Oracles, one a file. A new one is a file and a line in ``ORACLES``."""

from __future__ import annotations

from engine.oracles.base import Arrays, EnsembleOracle, Learner, Oracle, UncertainOracle, predict
from engine.oracles.lightgbm import LightGBMOracle
from engine.oracles.linear import LinearLearner, LinearOracle
from engine.oracles.tabular import TabularOracle

__all__ = [
    "ORACLES",
    "Arrays",
    "EnsembleOracle",
    "Learner",
    "LightGBMOracle",
    "LinearLearner",
    "LinearOracle",
    "Oracle",
    "TabularOracle",
    "UncertainOracle",
    "predict",
]

ORACLES: dict[str, type[Oracle]] = {
    LinearOracle.kind: LinearOracle,
    LightGBMOracle.kind: LightGBMOracle,
    TabularOracle.kind: TabularOracle,
}
