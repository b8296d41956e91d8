"""The registered model of a recommender: its policy file inside an MLflow pyfunc, as code and without pickle.

MLflow copies this file into the model and runs it when the model is loaded ("models from code").
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd  # type: ignore[import-untyped]  # publishes no types

from engine.config import RecommenderField
from engine.recommender.columns import empty_column
from engine.recommender.store import read_recommender
from training.mlflow_import import mlflow


def columns_of(frame: pd.DataFrame, fields: Mapping[str, RecommenderField], prefix: str) -> dict[str, Any]:
    """Return the columns of one side of a table of (user, item) pairs.

    Parameters
    ----------
    frame
        One row for each pair, with raw values under the names of the archive: ``user_<field>`` and ``item_<field>``;
        histories and vectors as lists. What is missing counts as missing.
    fields, prefix
        Of the side.
    """
    columns = {}
    for name, field in fields.items():
        column = empty_column(field, len(frame))
        if prefix + name in frame:
            values = frame[prefix + name]
            for row in np.flatnonzero(values.notna().to_numpy()):
                column[row] = values.iloc[row]
        columns[name] = column
    return columns


class RecommenderModel(mlflow.pyfunc.PythonModel):  # type: ignore[misc]  # MLflow publishes no types
    """Scores (user, item) pairs with the model of a recommender's policy."""

    def load_context(self, context: Any) -> None:
        """Read the policy file among the model's artefacts."""
        self.policy = read_recommender(Path(context.artifacts["policy"]))

    def predict(self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:
        """Return the column ``score``: the expected reward of each pair; see ``columns_of``."""
        policy = self.policy
        if policy.model is None:
            return pd.DataFrame({"score": np.zeros(len(model_input))})
        users = policy.model.user_vectors(
            policy.space.encode("user", columns_of(model_input, policy.recommender.user, "user_"))
        )
        items = policy.item_vectors(columns_of(model_input, policy.recommender.item, "item_"))
        scores = [float(policy.expected(user, item[None])[0]) for user, item in zip(users, items, strict=True)]
        return pd.DataFrame({"score": scores})


mlflow.models.set_model(RecommenderModel())
