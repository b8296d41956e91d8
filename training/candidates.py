"""From a window of feedback to candidate policies: search, fit, calibrate, damp."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from engine.oracles.calibrated import CalibratedOracle
from engine.policy import Policy
from training.config import LightGBMConfig, OracleName
from training.damping import damped_point, mixed, row_weights
from training.dataset import Dataset, Float64
from training.evaluation.target import policy_prediction
from training.fit import FITTERS, Fitted, candidate
from training.job import RetrainJob
from training.resume import Plan
from training.run_log import RunLog
from training.search import search_lightgbm


@dataclass(frozen=True)
class Trained:
    """A policy as it would serve, and what it was made of.

    Attributes
    ----------
    name
        Of the oracle.
    policy
        The policy.
    fitted
        What was fitted. It keeps the statistics for online learning only where the policy serves them as they are: one
        that is calibrated or damped stands still until the next generation.
    """

    name: str
    policy: Policy
    fitted: Fitted


def train_candidates(
    job: RetrainJob, plan: Plan, train: Dataset, acting: Policy | None, generation: int, log: RunLog
) -> Iterator[Trained]:
    """Yield the candidates, one for each oracle that is configured.

    Parameters
    ----------
    job, plan
        What to do.
    train
        The feedback to fit on.
    acting
        The policy before them, for the mixture; ``None``: there is none, or it is gone.
    generation
        Theirs.
    log
        Is told of the trials of a search.
    """
    config = job.config
    configured = job.point.policy.oracle.kind
    names: set[str] = set()
    fit_on, held = _split(train, config.calibration_share)
    for fitter in config.oracles:
        name = configured if fitter == "configured" else fitter
        if name in names:
            continue  # the configured one, by its own name
        names.add(name)
        yield Trained(name, *_one(job, plan, fitter, (fit_on, held), acting, generation, log))


def _one(
    job: RetrainJob,
    plan: Plan,
    fitter: OracleName,
    parts: tuple[Dataset, Dataset | None],
    acting: Policy | None,
    generation: int,
    log: RunLog,
) -> tuple[Policy, Fitted]:
    fit_on, held = parts
    config, damping = job.config, job.config.damping
    weights = row_weights(fit_on, damping, job.point.reward.range) if plan.damped else None
    settings = _searched(job, fit_on, log) if fitter == "lightgbm" and config.search.trials else config.lightgbm
    fitted = FITTERS[fitter](fit_on, job.point, settings, config.seed, weights)
    point = job.point
    if plan.damped:
        available = np.add.reduceat(fit_on.available.astype(np.float64), fit_on.starts[:-1])
        point = damped_point(
            point,
            damping,
            learned=fitted.rows,
            actions=float(available.mean()),
            calibration_error=plan.calibration,
        )
    policy = candidate(job.name, point, fitted, generation=generation, created_ms=plan.now_ms)
    if held is not None:
        policy = calibrated(policy, held)
    if plan.damped:
        policy = mixed(policy, acting, damping)
    still = policy.oracle is not fitted.oracle or point is not job.point
    return policy, replace(fitted, learner=None) if still else fitted


def _searched(job: RetrainJob, train: Dataset, log: RunLog) -> LightGBMConfig:
    config = job.config
    clock_ms = lambda: time.monotonic_ns() // 1_000_000  # noqa: E731
    return search_lightgbm(train, job.point, config.lightgbm, config.search, config.seed, clock_ms, log.trial)


def _split(train: Dataset, share: float) -> tuple[Dataset, Dataset | None]:
    if not share:
        return train, None
    split = len(train) - max(1, math.ceil(len(train) * share))
    return train.rows(slice(split)), train.rows(slice(split, None))


def calibrated(policy: Policy, rows: Dataset) -> Policy:
    """Return the policy with its oracle on the scale of the rewards of feedback that it has not seen.

    Least squares of the rewards on the scores of the actions taken. A slope that is not positive would turn the order
    of the actions around, or undo it: such a policy stays as it is. So does one whose exploration needs more of the
    oracle than the mean.
    """
    if policy.exploration.needs - {"rows"}:
        return policy
    scores: Float64 = policy_prediction(policy, rows).mean[rows.chosen_flat]
    spread = float(((scores - scores.mean()) ** 2).sum())
    slope = float((scores - scores.mean()) @ rows.reward) / spread if spread > 0.0 else 0.0
    if slope <= 0.0:
        return policy
    intercept = float(rows.reward.mean() - slope * scores.mean())
    return replace(policy, oracle=CalibratedOracle(policy.oracle, intercept, slope))
