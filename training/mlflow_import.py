"""MLflow, imported in one place and quietly. Others write ``from training.mlflow_import import mlflow``."""

from __future__ import annotations

import os
import warnings

# Defaults of MLflow that do not fit a service; whoever sets the variables otherwise keeps what they set. All of
# them are read when MLflow is imported or first used.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # a retraining sends nothing to third parties
os.environ.setdefault("MLFLOW_CONFIGURE_LOGGING", "false")  # the application decides where log lines go
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "3")  # the default of 7 takes minutes to say "not there"

with warnings.catch_warnings():
    # MLflow warns of type hints in classes of its own (mlflow/types/responses.py).
    warnings.filterwarnings("ignore", message=".*Any type hint is inferred as AnyType", category=UserWarning)
    import mlflow
    import mlflow.artifacts
    import mlflow.pyfunc

__all__ = ["mlflow"]
