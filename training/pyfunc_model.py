"""The registered model: a policy file inside an MLflow pyfunc, as code and without pickle.

MLflow copies this file into the model and runs it when the model is loaded ("models from code").
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd  # type: ignore[import-untyped]  # publishes no types

from engine.config import TextFeature, VectorFeature
from engine.features import Encoded, FeatureBlock, Float32
from engine.hashing import text_bucket
from engine.policy import Policy
from engine.store import read_policy
from training.mlflow_import import mlflow

ACTION_ID = "action"


def encode_frame(policy: Policy, frame: pd.DataFrame) -> Encoded:
    """Encode a table of (context, action) pairs as ``engine.features.Encoder`` encodes a request.

    Parameters
    ----------
    policy
        The policy whose schema and vocabulary hold.
    frame
        One row for each pair: ``action`` with the action's id, and raw features under the names of the archive,
        ``context_<feature>`` and ``action_<feature>``; vectors as lists. What is missing counts as 0.
    """
    encoder = policy.encoder
    X = np.zeros((len(frame), encoder.width), dtype=np.float32)
    width = encoder.context.width
    _fill(X[:, :width], encoder.context, "context_", frame)
    _fill(X[:, width:], encoder.action, "action_", frame)
    X *= encoder.scale
    codes = np.fromiter((encoder.codes.get(str(a), 0) for a in frame[ACTION_ID]), np.int64, len(frame))
    return Encoded(X, codes, np.ones(len(frame), dtype=np.bool_))


def _fill(X: Float32, block: FeatureBlock, prefix: str, frame: pd.DataFrame) -> None:
    for name, column in block.columns.items():
        if prefix + name not in frame:
            continue
        values = frame[prefix + name]
        present = np.flatnonzero(values.notna().to_numpy())
        given = values.to_numpy()[present]
        if isinstance(column.feature, TextFeature):
            buckets = [text_bucket(name, str(text), column.feature.buckets) for text in given]
            X[present, column.start + np.array(buckets, dtype=np.intp)] = 1.0
        elif isinstance(column.feature, VectorFeature):
            for row, numbers in zip(present, given, strict=True):
                X[row, column.start : column.stop] = numbers
        else:
            X[present, column.start] = given.astype(np.float64)


class PolicyModel(mlflow.pyfunc.PythonModel):  # type: ignore[misc]  # MLflow publishes no types
    """Scores (context, action) pairs with the oracle of a policy."""

    def load_context(self, context: Any) -> None:
        """Read the policy file among the model's artefacts."""
        self.policy = read_policy(Path(context.artifacts["policy"]))

    def predict(self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:
        """Return the column ``score``: the expected reward of each row; see ``encode_frame``."""
        return pd.DataFrame({"score": self.policy.predict(encode_frame(self.policy, model_input)).mean})


mlflow.models.set_model(PolicyModel())
