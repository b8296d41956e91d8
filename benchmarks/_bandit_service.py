"""Leeway's side of the bandits benchmark: the parts of a policy, deciding and learning one row at a time.

Reads a job as JSON from standard input and writes one line of JSON for each (data set, seed).
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import TypeAdapter

from benchmarks._bandit_problem import Bandit
from engine.config.exploration import ExplorationConfig
from engine.config.oracle import OracleConfig
from engine.exploration import Exploration, Falcon, make_exploration
from engine.oracles import LEARNERS, Columns, Learner, predict
from engine.sampling import draw


def parts(configuration: dict[str, Any], width: int) -> tuple[Learner, Exploration]:
    """Return learner and exploration of a configuration, written as a decision point's ``policy`` is."""
    oracle: OracleConfig = TypeAdapter(OracleConfig).validate_python(configuration["oracle"])
    exploration: ExplorationConfig = TypeAdapter(ExplorationConfig).validate_python(configuration["exploration"])
    return LEARNERS[oracle.kind].from_config(oracle, Columns(width)), make_exploration(exploration, (0.0, 1.0))


def play(bandit: Bandit, learner: Learner, exploration: Exploration, salt: str) -> float:
    """Decide and learn row by row; return the least probability that any action had in any decision."""
    ids = [str(action) for action in range(bandit.actions)]
    codes = np.zeros(bandit.actions, dtype=np.int64)
    rows = np.empty((bandit.actions, bandit.contexts.shape[1]), dtype=np.float32)
    # An exploration in epochs wants an oracle that stays as it is within one; any other gets one that follows.
    epochs = isinstance(exploration, Falcon)
    oracle = learner.oracle() if epochs else learner.live()
    known, served = codes.copy() if epochs else codes, 0
    least = 1.0
    for number, context in enumerate(bandit.contexts):
        rows[:] = context
        p = exploration.pmf(predict(oracle, rows, known, exploration.needs), served).tolist()
        least = min(least, *p)
        action = draw(str(number), salt, p)
        reward = bandit.act(action)
        learner.partial_fit(rows[action : action + 1], [ids[action]], np.array([reward]))
        if not codes[action]:
            codes[action] = learner.vocabulary.index(ids[action]) + 1
        if not epochs:
            served = learner.learned
        elif exploration.due(served, learner.learned):
            oracle, known, served = learner.oracle(), codes.copy(), learner.learned
    return least


def run(job: dict[str, Any]) -> None:
    """Play every data set of a job with every seed."""
    for name in job["sets"]:
        for seed in job["seeds"]:
            bandit = Bandit(Path(job["folder"]) / f"{name}.npz", seed, job["rows"])
            learner, exploration = parts(job["configuration"], bandit.contexts.shape[1])
            began = time.process_time()
            least = play(bandit, learner, exploration, salt=f"seed {seed}")
            line = {
                "set": name,
                "seed": seed,
                "reward": bandit.mean_reward(),
                "rows": len(bandit),
                "cpu_seconds": time.process_time() - began,
                "least_probability_times_k": least * bandit.actions,
            }
            print(json.dumps(line), flush=True)


if __name__ == "__main__":
    run(json.load(sys.stdin))
