"""The learner of gradient-boosted trees: LightGBM, fitted anew (or continued) from the latest feedback.

Ke et al., *LightGBM: A Highly Efficient Gradient Boosting Decision Tree*, NIPS 2017.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from engine.config.oracle import TreesConfig
from engine.features import Float32
from engine.oracles.base import Arrays, Float64, Int64, Oracle
from engine.oracles.columns import Columns
from engine.oracles.lightgbm import LightGBMOracle
from engine.oracles.nested import read_text, text
from engine.oracles.refitted import RefittedLearner


class TreesLearner(RefittedLearner):
    """Learns a ``LightGBMOracle``; the action's code is a category. The same rows give the same trees, bit for bit."""

    kind: ClassVar[str] = "trees"

    def __init__(self, columns: Columns, config: TreesConfig) -> None:
        super().__init__(columns, memory=config.memory, every=config.every, max_actions=config.max_actions)
        self.config = config

    @classmethod
    def from_config(cls, config: TreesConfig, columns: Columns) -> TreesLearner:
        """Build it from ``policy.oracle``."""
        return cls(columns, config)

    def fit(self, X: Float32, codes: Int64, rewards: Float64, weights: Float64, before: Oracle) -> LightGBMOracle:
        """Fit the trees to rows, or add some to those there are; see ``RefittedLearner.fit``."""
        import lightgbm

        c = self.config
        parameters: dict[str, object] = {
            "objective": "regression",
            "num_leaves": c.leaves,
            "learning_rate": c.learning_rate,
            "min_data_in_leaf": c.min_child,
            # As in ``training.fit``: the action is what scores are to tell apart.
            "min_data_per_group": c.min_child,
            "cat_l2": 1.0,
            "seed": c.seed,
            "deterministic": True,
            "force_row_wise": True,
            "num_threads": 1,
            "verbosity": -1,
            "feature_pre_filter": False,
        }
        rows = np.column_stack([X, codes.astype(np.float32)])
        data = lightgbm.Dataset(
            rows, label=rewards, weight=weights, categorical_feature=[rows.shape[1] - 1], params=parameters
        )
        start, rounds = None, c.trees
        if c.update == "continue" and isinstance(before, LightGBMOracle):
            start = lightgbm.Booster(model_str=before.text)
            rounds = max(1, c.trees // 10)
            if start.num_trees() + rounds > 2 * c.trees:
                start, rounds = None, c.trees
        booster = lightgbm.train(parameters, data, num_boost_round=rounds, init_model=start)
        return LightGBMOracle(booster.model_to_string())

    def arrays(self) -> Arrays:
        """Return the state, from which ``from_arrays`` goes on as if nothing had happened."""
        return {**super().arrays(), "config": text(self.config.model_dump_json())}

    @classmethod
    def from_arrays(cls, arrays: Arrays) -> TreesLearner:
        """Build it again from ``arrays``; raises ``ValueError`` where they do not fit each other."""
        config = TreesConfig.model_validate_json(read_text(arrays["config"]))
        learner = cls(Columns.from_array(arrays["columns"]), config)
        learner._restore(arrays)
        return learner
