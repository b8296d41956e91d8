"""LinUCB of contextualbandits, deciding and learning one row at a time. Runs in an environment of its own.

Reads a job as JSON from standard input and writes one line of JSON for each (data set, seed).
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from contextualbandits.online import LinUCB  # type: ignore[import-not-found, unused-ignore]

from benchmarks._bandit_problem import Bandit


def run(job: dict[str, Any]) -> None:
    """Play every data set of a job with every seed."""
    for name in job["sets"]:
        for seed in job["seeds"]:
            bandit = Bandit(Path(job["folder"]) / f"{name}.npz", seed, job["rows"])
            # Single precision and rank-one updates are its defaults; a seed must be positive.
            policy = LinUCB(nchoices=bandit.actions, random_state=1 + seed, **job["configuration"])
            began = time.process_time()
            for number in range(len(bandit)):
                context = bandit.contexts[number : number + 1]
                # Before its first fit it draws at random.
                action = int(policy.predict(context)[0])
                policy.partial_fit(context, np.array([action]), np.array([bandit.act(action)]))
            line = {"set": name, "seed": seed, "reward": bandit.mean_reward(), "rows": len(bandit)}
            print(json.dumps({**line, "cpu_seconds": time.process_time() - began}), flush=True)


if __name__ == "__main__":
    run(json.load(sys.stdin))
