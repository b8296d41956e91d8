"""Open Bandit Pipeline beside ours: the same logs, the same estimators, one run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
import venv
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from benchmarks._evaluation_world import WORLDS
from benchmarks._harness import goal
from training.evaluation import ESTIMATORS, LoggedRows, estimate

ROOT = Path(__file__).resolve().parents[1]
REQUIREMENT = "obp==0.5.7"
#: What its estimators import of what it declares; numpy is the newest that it works with.
NEEDS = ("numpy==1.26.4", "scipy==1.11.4", "scikit-learn==1.4.2", "pandas==2.2.3")
#: Ours, by theirs: the class and its hyper-parameter, which is our default.
PEERS: dict[str, tuple[str, float | None]] = {
    "ips": ("InverseProbabilityWeighting", None),
    "clipped_ips": ("InverseProbabilityWeighting", 10.0),
    "sg_ips": ("SubGaussianInverseProbabilityWeighting", 0.01),
    "snips": ("SelfNormalizedInverseProbabilityWeighting", None),
    "dm": ("DirectMethod", None),
    "dr": ("DoublyRobust", None),
    "clipped_dr": ("DoublyRobust", 10.0),
    "switch_dr": ("SwitchDoublyRobust", 10.0),
    "dros": ("DoublyRobustWithShrinkage", 100.0),
    "sg_dr": ("SubGaussianDoublyRobust", 0.01),
    "sndr": ("SelfNormalizedDoublyRobust", None),
}
TOLERANCE = 1e-9
FASTER = 5.0
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")


def python() -> tuple[str | None, str]:
    """Return the interpreter of its environment, made if need be; or none, and why."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "leeway-benchmarks"
    folder = cache / f"obp-0.5.7-estimators-py{sys.version_info.major}{sys.version_info.minor}"
    interpreter, done = folder / "bin" / "python", folder / "complete"
    if done.exists():
        return str(interpreter), ""
    pip = [str(interpreter), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    try:
        venv.create(folder, with_pip=True)
        # It declares Python below 3.11; the estimators run on 3.11 with this numpy, and give its published numbers.
        for command in ([*pip, *NEEDS], [*pip, "--no-deps", "--ignore-requires-python", REQUIREMENT]):
            subprocess.run(command, check=True, stderr=subprocess.PIPE, text=True)
    except (OSError, subprocess.CalledProcessError) as error:
        return None, f"{REQUIREMENT} cannot be installed: {getattr(error, 'stderr', None) or error}"
    done.touch()
    return str(interpreter), ""


def ask(interpreter: str, file: Path, repeats: int) -> dict[str, Any]:
    """Let it do a job; 0 repeats: say the values, not the time."""
    job = {"file": str(file), "estimators": PEERS, "repeats": repeats}
    answer = subprocess.run(
        [interpreter, "-m", "benchmarks.peers.obp_estimators"],
        input=json.dumps(job),
        env={**os.environ, **ONE_THREAD, "PYTHONPATH": str(ROOT)},
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    found: dict[str, Any] = json.loads(answer.stdout)
    return found


def tables(samples: int, rows: int, interpreter: str | None) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return bias and root mean squared error of each estimator, ours and theirs, and how far they are apart."""
    found: dict[str, Any] = {}
    furthest = 0.0
    for name, world in WORLDS.items():
        drawn = [world.sample(rows, seed) for seed in range(samples)]
        logged = [world.rows(sample) for sample in drawn]
        ours = {key: np.array([estimate(ESTIMATORS[key], each).value for each in logged]) for key in ESTIMATORS}
        theirs: dict[str, Any] = {}
        if interpreter is not None:
            with tempfile.TemporaryDirectory() as folder:
                file = Path(folder) / "samples.npz"
                np.savez(
                    file,
                    kind=[sample.kind for sample in drawn],
                    action=[sample.action for sample in drawn],
                    reward=[sample.reward for sample in drawn],
                    logging=world.logging,
                    target=world.target,
                    q_hat=world.q_hat,
                )
                theirs = {key: np.array(values) for key, values in ask(interpreter, file, 0)["values"].items()}
            furthest = max(furthest, *(float(np.abs(ours[key] - theirs[key]).max()) for key in theirs))
        found[name] = {
            key: {"ours": _errors(ours[key], world.truth)}
            | ({"obp": _errors(theirs[key], world.truth)} if key in theirs else {})
            for key in ours
        }
    if interpreter is None:
        return found, []
    words = f"greatest difference to obp over {samples} logs of {len(WORLDS)} worlds"
    return found, [goal(words, furthest, f"<= {TOLERANCE:g}", furthest <= TOLERANCE)]


def _errors(values: np.ndarray[Any, np.dtype[np.float64]], truth: float) -> dict[str, float]:
    return {
        "bias": round(float(values.mean() - truth), 5),
        "rmse": round(float(np.sqrt(((values - truth) ** 2).mean())), 5),
        "mse": round(float(((values - truth) ** 2).mean()), 7),
    }


def speed(
    rows: int, actions: int, repeats: int, interpreter: str | None
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return CPU seconds for a million rows: values alone for obp; values, standard errors, intervals for ours.

    Ours are made and checked once for all estimators; obp checks its arrays in every call.
    """
    rng = np.random.default_rng(3)
    logging, target = (rng.dirichlet(np.ones(actions), size=rows) for _ in range(2))
    logging = 0.9 * logging + 0.1 / actions
    action = (logging.cumsum(axis=1) < rng.random((rows, 1))).sum(axis=1).clip(max=actions - 1)
    reward = (rng.random(rows) < 0.3).astype(np.float64)
    q_hat = rng.random((rows, actions))

    def ours() -> dict[str, float]:
        began = time.process_time()
        logged = LoggedRows(
            np.arange(rows + 1) * actions,
            np.arange(rows) * actions + action,
            reward,
            logging.ravel(),
            target.ravel(),
            q_hat.ravel(),
        )
        spent = {"rows made and checked": time.process_time() - began}
        for name in PEERS:
            began = time.process_time()
            estimate(ESTIMATORS[name], logged)
            spent[name] = time.process_time() - began
        return spent

    with threadpool_limits(1):  # as for obp: threads that wait would count as CPU time
        each = [ours() for _ in range(repeats)]
    scale = 1e6 / rows
    found: dict[str, Any] = {
        "rows": rows,
        "actions": actions,
        "ours": {name: round(scale * median(run[name] for run in each), 4) for name in each[0]},
    }
    found["ours"]["all"] = round(scale * median(sum(run.values()) for run in each), 4)
    if interpreter is None:
        return found, []
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "log.npz"
        pscore = logging[np.arange(rows), action]
        np.savez(file, action=action, reward=reward, pscore=pscore, action_dist=target, q_hat=q_hat)
        seconds = ask(interpreter, file, repeats)["seconds"]
    found["obp"] = {name: round(scale * median(values), 4) for name, values in seconds.items()}
    found["obp"]["all"] = round(scale * sum(median(values) for values in seconds.values()), 4)
    ratio = found["obp"]["all"] / found["ours"]["all"]
    words = f"CPU time of obp over ours, {len(PEERS)} estimators on {rows:,} rows of {actions} actions"
    return found, [goal(words, round(ratio, 2), f">= {FASTER:g}", ratio >= FASTER)]
