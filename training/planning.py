"""What a retraining sets out to do: its window, and whether the policy is to be damped."""

from __future__ import annotations

import math
from collections.abc import Sequence

from engine.errors import SnapshotError
from engine.features import same_columns
from engine.policy import Policy
from engine.records import Generation, GenerationStatistics
from engine.store import PolicyStore
from monitoring.generations import calibration_error
from training.dataset import Dataset
from training.generations import Load, table
from training.job import RetrainJob
from training.resume import Plan, key_of


def loader(store: PolicyStore, job: RetrainJob) -> Load:
    """Return what loads the policy of a version; ``None`` for one that is gone, or was made for other features."""

    def load(version: str) -> Policy | None:
        try:
            policy = store.load(job.name, version)
        except SnapshotError:
            return None
        return policy if same_columns(policy.point, job.point) else None

    return load


def make_plan(
    job: RetrainJob,
    entries: Sequence[Generation],
    statistics: Sequence[GenerationStatistics],
    load: Load,
    reference: Dataset | None,
    now_ms: int,
) -> Plan:
    """Look at the ledger, and set the window.

    A damped policy is trained on what the newest ``damping.blend`` generations logged: the window begins with the first
    of them, unless it was asked for from a time on. What is older than a known change is of another world.
    """
    start_ms, end_ms = job.window(now_ms)
    damping = job.config.damping
    mine = sorted((each for each in statistics if each.decision_point == job.name), key=lambda entry: entry.generation)
    state = table(entries, mine, damping, load, reference).state
    damped = state.damped
    if damped and damping.blend > 1 and job.since_ms is None and mine:
        start_ms = min(start_ms, min(each.first_ms for each in mine[-damping.blend :]))
    error = calibration_error(mine[-1]) if mine else math.nan
    return Plan(
        key=key_of(job),
        now_ms=now_ms,
        start_ms=start_ms,
        end_ms=end_ms,
        oscillating=state.declared is not None,
        damped=damped,
        calibration_error=error if damped and math.isfinite(error) else None,
    )
