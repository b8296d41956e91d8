"""One measurement in a process of its own: ``retrain`` a configuration, or fit ``bare`` LightGBM on its rows.

Prints one JSON object a line: what was done, and the seconds of clock and of processor since it began.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import lightgbm
import numpy as np

import training.pipeline  # noqa: F401  (what is imported before the clock starts)
from benchmarks._scale_archive import NAME
from streaming.config import Config, load_config
from streaming.retraining import open_registry, retrain_point
from training.archive import ArchiveReader
from training.fit import tree_parameters
from training.mlflow_import import mlflow  # noqa: F401

#: As ``training.fit`` has it.
THREADS = 2


def _begin() -> tuple[float, float]:
    return time.perf_counter(), time.process_time()


def _say(begun: tuple[float, float], words: str, **more: object) -> None:
    facts = {"words": words, "wall": time.perf_counter() - begun[0], "cpu": time.process_time() - begun[1], **more}
    print(json.dumps(facts), flush=True)


def retrain(config: Config) -> None:
    open_registry(config).champion(NAME)  # MLflow's database is made once in the life of an installation
    begun = _begin()
    outcome = retrain_point(
        config, NAME, reason="manual", since_ms=0, dry_run=False, progress=lambda words: _say(begun, words)
    )
    _say(begun, "done", outcome=int(outcome.exit_code), rows=outcome.rows, held_back=outcome.held_back)


def bare(config: Config, scratch: Path) -> None:
    """Fit the trees that a retraining fits, on its matrix, which is in memory when the clock starts."""
    point = config.decision_points[NAME]
    settings = point.retraining
    window = ArchiveReader(config.archive_dir).store(NAME, point.engine(), 0, directory=scratch)
    train = window.part(0, len(window) - int(np.ceil(len(window) * settings.hold_back)))
    _, codes = train.chosen_codes()
    matrix = np.empty((len(train), train.width + 1), np.float32)
    matrix[:, :-1], matrix[:, -1] = train.chosen_matrix(), codes
    reward = train.reward
    parameters = tree_parameters(reward, point.engine(), settings.lightgbm, settings.seed) | {"num_threads": THREADS}
    begun = _begin()
    data = lightgbm.Dataset(matrix, label=reward, categorical_feature=[train.width], params=parameters)
    lightgbm.train(parameters, data, num_boost_round=settings.lightgbm.trees)
    _say(begun, "bare", rows=len(train))


if __name__ == "__main__":
    role, path = sys.argv[1], Path(sys.argv[2])
    if role == "retrain":
        retrain(load_config(path))
    else:
        bare(load_config(path), path.parent / "bare")
