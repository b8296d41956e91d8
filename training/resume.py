"""What a retraining had set out to do: kept on disk until it is done, so that one that was cut off goes on with that.

Fitting, calibration and evaluation are functions of the window, the configuration and the seed: they are done again
and give the same, bit for bit. What is written is written once, in the order that ``training.pipeline`` gives.
"""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path

from engine.atomic_file import write_atomically
from engine.errors import SnapshotError
from training.job import RetrainJob

#: A retraining that was cut off longer ago is begun anew: its window is no longer what anybody wants.
STALE_MS = 6 * 3_600_000


@dataclass(frozen=True)
class Plan:
    """One retraining, as it was set out to do.

    Attributes
    ----------
    key
        Digest of decision point, configuration, code and what asked for it.
    now_ms
        When it began; all its times count from there.
    start_ms, end_ms
        Its window of decision times.
    oscillating
        Whether the ledger was declared to oscillate.
    damped
        Whether the policy is to be damped.
    calibration_error
        Of the generation that acted; ``None``: not known.
    digest
        Of the feedback in the window.
    run_id
        In MLflow.
    """

    key: str
    now_ms: int
    start_ms: int
    end_ms: int
    oscillating: bool = False
    damped: bool = False
    calibration_error: float | None = None
    digest: str = ""
    run_id: str = ""

    @property
    def calibration(self) -> float:
        """The calibration error; NaN where it is not known."""
        return math.nan if self.calibration_error is None else self.calibration_error


def plan_path(job: RetrainJob) -> Path:
    """Return where the plan of a decision point lies."""
    return job.data_dir / f"retrain-{job.name}.plan.json"


def key_of(job: RetrainJob) -> str:
    """Return what must be the same for a retraining to be gone on with."""
    parts = [job.name, job.point.model_dump(mode="json"), job.config.model_dump(mode="json"), job.code_version]
    asked = [job.reason, job.since_ms, job.until_ms]
    return hashlib.sha256(json.dumps([*parts, *asked], sort_keys=True).encode()).hexdigest()


def unfinished(job: RetrainJob, now_ms: int) -> Plan | None:
    """Return the plan of the same retraining that was cut off, if any; a damaged, old or other one counts as none."""
    try:
        plan = Plan(**json.loads(plan_path(job).read_text()))
    except (OSError, ValueError, TypeError):
        return None
    return plan if plan.key == key_of(job) and now_ms - plan.now_ms < STALE_MS else None


def keep(job: RetrainJob, plan: Plan) -> None:
    """Write the plan; raises ``SnapshotError`` when the disk refuses."""
    try:
        write_atomically(plan_path(job), json.dumps(asdict(plan)).encode())
    except OSError as error:
        raise SnapshotError(f"{plan_path(job)}: cannot be written ({error.strerror}); make room") from error


def done(job: RetrainJob) -> None:
    """Forget the plan."""
    plan_path(job).unlink(missing_ok=True)
