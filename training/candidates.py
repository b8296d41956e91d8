"""From a window of feedback to candidate policies: search, fit, calibrate, damp."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from engine.oracles.calibrated import CalibratedOracle
from engine.policy import Policy
from training.cluster import fit_on_cluster
from training.config import LOCAL, LightGBMConfig, OracleName
from training.damping import damped_point, mixed, offered, row_weights, weighing_of
from training.dataset import Float64
from training.evaluation.target import policy_prediction
from training.fit import FITTERS, Fitted, candidate
from training.job import RetrainJob
from training.resume import Plan
from training.run_log import RunLog
from training.search import search_lightgbm
from training.stored import Feedbacks, StoredDataset


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
    job: RetrainJob, plan: Plan, train: Feedbacks, acting: Policy | None, generation: int, log: RunLog
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
    parts: tuple[Feedbacks, Feedbacks | None],
    acting: Policy | None,
    generation: int,
    log: RunLog,
) -> tuple[Policy, Fitted]:
    fit_on, held = parts
    config, damping = job.config, job.config.damping
    settings = _searched(job, fit_on, log) if fitter == "lightgbm" and config.search.trials else config.lightgbm
    fitted = _fitted(job, plan, fitter, fit_on, settings)
    point = job.point
    if plan.damped:
        available = np.concatenate([offered(block) for block in fit_on.blocks()])
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


def _fitted(job: RetrainJob, plan: Plan, fitter: OracleName, rows: Feedbacks, settings: LightGBMConfig) -> Fitted:
    config, bounds = job.config, job.point.reward.range
    if fitter == "lightgbm" and config.cluster != LOCAL:
        assert isinstance(rows, StoredDataset)  # what is estimated, and so in memory, the configuration keeps from here
        weighing = weighing_of(rows, config.damping, bounds) if plan.damped else None
        oracle, vocabulary = fit_on_cluster(rows, job.point, settings, config.seed, weighing, config.cluster)
        return Fitted(oracle, vocabulary, len(rows))
    weights = row_weights(rows, config.damping, bounds) if plan.damped else None
    return FITTERS[fitter](rows, job.point, settings, config.seed, weights)


def _searched(job: RetrainJob, train: Feedbacks, log: RunLog) -> LightGBMConfig:
    config = job.config
    clock_ms = lambda: time.monotonic_ns() // 1_000_000  # noqa: E731
    return search_lightgbm(train, job.point, config.lightgbm, config.search, config.seed, clock_ms, log.trial)


def _split(train: Feedbacks, share: float) -> tuple[Feedbacks, Feedbacks | None]:
    if not share:
        return train, None
    split = len(train) - max(1, math.ceil(len(train) * share))
    return train.part(0, split), train.part(split, len(train))


def calibrated(policy: Policy, rows: Feedbacks) -> Policy:
    """Return the policy with its oracle on the scale of the rewards of feedback that it has not seen.

    Least squares of the rewards on the scores of the actions taken. A slope that is not positive would turn the order
    of the actions around, or undo it: such a policy stays as it is. So does one whose exploration needs more of the
    oracle than the mean.
    """
    if policy.exploration.needs - {"rows"}:
        return policy
    scores: Float64 = np.concatenate(
        [policy_prediction(policy, block).mean[block.chosen_flat] for block in rows.blocks()]
    )
    reward = rows.reward
    spread = float(((scores - scores.mean()) ** 2).sum())
    slope = float((scores - scores.mean()) @ reward) / spread if spread > 0.0 else 0.0
    if slope <= 0.0:
        return policy
    intercept = float(reward.mean() - slope * scores.mean())
    return replace(policy, oracle=CalibratedOracle(policy.oracle, intercept, slope))
