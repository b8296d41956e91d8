"""LinUCB of Open Bandit Pipeline, deciding and learning one row at a time. Runs in an environment of its own.

Reads a job as JSON from standard input and writes one line of JSON for each (data set, seed).
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import sys
import time
import types
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks._bandit_problem import Bandit


def linucb() -> Any:
    """Return its class; the package's own start imports torch, which this class has no use for."""
    found = importlib.util.find_spec("obp")
    assert found is not None
    assert found.submodule_search_locations is not None
    root = Path(found.submodule_search_locations[0])
    for name, folder in (("obp", root), ("obp.policy", root / "policy")):
        package = types.ModuleType(name)
        package.__path__ = [str(folder)]
        sys.modules[name] = package
    return importlib.import_module("obp.policy.linear").LinUCB


def run(job: dict[str, Any]) -> None:
    """Play every data set of a job with every seed."""
    LinUCB = linucb()
    for name in job["sets"]:
        for seed in job["seeds"]:
            bandit = Bandit(Path(job["folder"]) / f"{name}.npz", seed, job["rows"])
            # It has no intercept of its own, and is the better for one.
            contexts = np.hstack([np.ones((len(bandit), 1)), bandit.contexts])
            policy = LinUCB(dim=contexts.shape[1], n_actions=bandit.actions, random_state=seed, **job["configuration"])
            began = time.process_time()
            for number in range(len(bandit)):
                context = contexts[number : number + 1]
                action = int(policy.select_action(context)[0])
                policy.update_params(action, bandit.act(action), context)
            line = {"set": name, "seed": seed, "reward": bandit.mean_reward(), "rows": len(bandit)}
            print(json.dumps({**line, "cpu_seconds": time.process_time() - began}), flush=True)


if __name__ == "__main__":
    run(json.load(sys.stdin))
