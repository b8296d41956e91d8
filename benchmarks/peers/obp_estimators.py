"""The estimators of Open Bandit Pipeline on logs of others. Runs in an environment of its own.

Reads a job as JSON from standard input: a file of arrays, which estimators, and how often to time them. Writes JSON.
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


def estimators() -> Any:
    """Return the module; the package's own start imports torch and a plotting library, which estimators do not use."""
    found = importlib.util.find_spec("obp")
    assert found is not None
    assert found.submodule_search_locations is not None
    root = Path(found.submodule_search_locations[0])
    for name, folder in (("obp", root), ("obp.ope", root / "ope")):
        package = types.ModuleType(name)
        package.__path__ = [str(folder)]
        sys.modules[name] = package
    torch = types.ModuleType("torch")
    torch.tensor = torch.Tensor = np.ndarray  # type: ignore[attr-defined]  # named in signatures alone
    sys.modules["torch"] = torch
    return importlib.import_module("obp.ope.estimators")


def estimate(estimator: Any, data: dict[str, Any]) -> float:
    return float(
        estimator.estimate_policy_value(
            reward=data["reward"],
            action=data["action"],
            pscore=data["pscore"],
            action_dist=data["action_dist"],
            estimated_rewards_by_reg_model=data["q_hat"],
        )
    )


def of_tables(file: Any, number: int) -> dict[str, Any]:
    """Return one sample of a world of tables, in the form that the library asks for."""
    kind, action = file["kind"][number], file["action"][number]
    return {
        "reward": file["reward"][number],
        "action": action,
        "pscore": file["logging"][kind, action],
        "action_dist": file["target"][kind][:, :, None],
        "q_hat": file["q_hat"][kind][:, :, None],
    }


def run(job: dict[str, Any]) -> dict[str, Any]:
    module = estimators()
    made = {
        name: getattr(module, kind)(**({} if setting is None else {"lambda_": setting}))
        for name, (kind, setting) in job["estimators"].items()
    }
    with np.load(job["file"], allow_pickle=False) as file:
        arrays = {name: file[name] for name in file.files}
    if job["repeats"] == 0:
        samples = [of_tables(arrays, number) for number in range(len(arrays["reward"]))]
        return {"values": {name: [estimate(each, sample) for sample in samples] for name, each in made.items()}}
    data = {**arrays, "action_dist": arrays["action_dist"][:, :, None], "q_hat": arrays["q_hat"][:, :, None]}
    seconds: dict[str, list[float]] = {name: [] for name in made}
    for _ in range(job["repeats"]):
        for name, each in made.items():
            began = time.process_time()
            estimate(each, data)
            seconds[name].append(time.process_time() - began)
    return {"seconds": seconds}


if __name__ == "__main__":
    print(json.dumps(run(json.load(sys.stdin))))
