"""What a retraining writes to its MLflow run; nothing in a dry run."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from typing import Self

import numpy as np

from engine.config import DecisionPoint
from engine.errors import RegistryError
from training import plots
from training.config import LightGBMConfig
from training.dataset import Float64
from training.evaluation.policy import PolicyEvaluation
from training.gate import Verdict
from training.gate_report import gate_report
from training.job import Outcome, RetrainJob
from training.registry import Registry
from training.resume import Plan
from training.stored import Feedbacks
from training.window_quality import WindowQuality

CHAMPION = "champion"


class RunLog:
    """The run of one retraining.

    Parameters
    ----------
    registry
        Where it is kept; ``None``: nothing is written.
    run_id
        Its id; ``None`` in a dry run.
    now_ms
        Time of its metrics.
    """

    def __init__(self, registry: Registry | None, run_id: str | None, now_ms: int) -> None:
        self._registry = registry
        self.run_id = run_id
        self._now_ms = now_ms

    @classmethod
    @contextmanager
    def open(
        cls, registry: Registry | None, job: RetrainJob, plan: Plan, rows: int, offsets: Mapping[int, int]
    ) -> Iterator[Self]:
        """Start the run, or go on with that of the plan, and end it with the block: as failed if an error leaves it.

        Parameters
        ----------
        registry, job, plan
            Where it is kept, and what it is of.
        rows
            Feedbacks in the window.
        offsets
            How far the log had been archived, by partition.
        """
        now_ms = plan.now_ms
        if registry is None:
            yield cls(None, None, now_ms)
            return
        if plan.run_id:
            run_id = plan.run_id
            registry.set_run_tags(run_id, {"resumed": True})
        else:
            run_id = registry.start_run(
                f"{job.name} {job.reason}",
                params=_parameters(job),
                tags={
                    "decision_point": job.name,
                    "reason": job.reason,
                    "window_start_ms": plan.start_ms,
                    "window_end_ms": plan.end_ms,
                    "rows": rows,
                    "data_digest": plan.digest,
                    "offsets": json.dumps({str(partition): offset for partition, offset in offsets.items()}),
                    "seed": job.config.seed,
                    "code_version": job.code_version,
                    "oscillating": plan.oscillating,
                    "damped": plan.damped,
                },
            )
        try:
            yield cls(registry, run_id, now_ms)
        except BaseException as error:
            # The registry may be what failed; its second error would hide the first.
            with contextlib.suppress(RegistryError):
                registry.set_run_tags(run_id, {"error": f"{type(error).__name__}: {error}"[:1_000]})
                registry.end_run(run_id, "FAILED")
            raise
        registry.end_run(run_id, "FINISHED")

    def data(self, dataset: Feedbacks, held_back: int, point: DecisionPoint) -> None:
        """Write what the feedback was like."""
        if self._registry is None or self.run_id is None or len(dataset) == 0:
            return
        middle = sum(point.reward.range) / 2
        entropy = sum(_entropy(block.probabilities) for block in dataset.blocks()) / len(dataset)
        reward = dataset.reward
        metrics = {
            "logged/rows": len(dataset),
            "logged/held_back": held_back,
            "logged/mean_reward": float(reward.mean()),
            "logged/reward_deviation": float(reward.std()),
            "logged/positives": float((reward > middle).mean()),
            "logged/defaulted": float(dataset.defaulted.mean()),
            "logged/action_entropy": entropy,
            "logged/min_propensity": float(dataset.propensity.min()),
        }
        self._registry.log_metrics(self.run_id, metrics, time_ms=self._now_ms)
        self._registry.log_figures(
            self.run_id,
            {
                "reward_over_time": plots.reward_over_time(dataset, held_back),
                "propensities": plots.propensities(dataset),
            },
        )

    def evaluations(self, evaluations: Mapping[str, PolicyEvaluation]) -> None:
        """Write every estimate with its bounds and diagnostics, by policy."""
        if self._registry is None or self.run_id is None:
            return
        metrics: dict[str, float] = {}
        for policy, evaluation in evaluations.items():
            for name, estimate in evaluation.estimates.items():
                metrics[f"{policy}/{name}"] = estimate.value
                metrics[f"{policy}/{name}_low"] = estimate.low
                metrics[f"{policy}/{name}_high"] = estimate.high
            shared = evaluation.estimates["dr"]
            metrics[f"{policy}/effective_sample_size"] = shared.effective_sample_size
            metrics[f"{policy}/max_weight"] = shared.max_weight
            metrics[f"{policy}/mean_weight"] = shared.mean_weight
            metrics[f"{policy}/unsupported"] = evaluation.unsupported
            metrics[f"{policy}/top_weight_share"] = evaluation.tail.share
            metrics[f"{policy}/total_variation"] = evaluation.divergence.total_variation
            metrics[f"{policy}/estimated_propensities"] = float(evaluation.rows.estimated)
        self._registry.log_metrics(self.run_id, metrics, time_ms=self._now_ms)
        predicted = {
            policy: evaluation.predicted
            for policy, evaluation in evaluations.items()
            if evaluation.predicted is not None
        }
        reward = next(iter(evaluations.values())).rows.reward
        overlaps = {
            f"overlap_{policy}": plots.overlap(found.rows, policy)
            for policy, found in evaluations.items()
            if policy != CHAMPION
        }
        self._registry.log_figures(
            self.run_id,
            {
                "calibration": plots.calibration(predicted, reward),
                "estimates": plots.estimates({policy: found.estimates for policy, found in evaluations.items()}),
                **overlaps,
            },
        )

    def verdicts(
        self,
        verdicts: Mapping[str, Verdict],
        evaluations: Mapping[str, PolicyEvaluation],
        window: WindowQuality,
        job: RetrainJob,
    ) -> None:
        """Write each check of each candidate with its bound, the difference to the champion, and the report of it."""
        if self._registry is None or self.run_id is None:
            return
        report = gate_report(f"{job.name}: {job.reason}", verdicts, evaluations, window)
        self._registry.log_texts(self.run_id, {"gate/report.html": report})
        metrics: dict[str, float] = {f"window/{name}": float(value) for name, value in asdict(window).items()}
        for candidate, verdict in verdicts.items():
            metrics[f"{candidate}/difference"] = verdict.difference.value
            metrics[f"{candidate}/difference_low"] = verdict.difference.low
            metrics[f"{candidate}/difference_high"] = verdict.difference.high
            metrics[f"{candidate}/confidence"] = verdict.confidence
            for check in verdict.checks:
                metrics[f"{candidate}/gate/{check.name}"] = check.value
                metrics[f"{candidate}/gate/{check.name}_bound"] = check.bound
                metrics[f"{candidate}/gate/{check.name}_holds"] = float(check.holds)
        self._registry.log_metrics(self.run_id, metrics, time_ms=self._now_ms)

    def step(self, name: str) -> None:
        """Say which step has begun: that of a run that was cut off is the one that did not end."""
        self.tags(step=name)

    def trial(self, tried: LightGBMConfig, loss: float) -> None:
        """Write one trial of a search as a run below this one."""
        if self._registry is None or self.run_id is None:
            return
        child = self._registry.start_run(
            f"search-{tried.trees}-{tried.leaves}-{tried.learning_rate}-{tried.min_child}",
            params=tried.model_dump(),
            tags={},
            parent=self.run_id,
        )
        self._registry.log_metrics(child, {"search/loss": loss}, time_ms=self._now_ms)
        self._registry.end_run(child, "FINISHED")

    def outcome(self, name: str, outcome: Outcome) -> None:
        """Name the run by what came of it, and say it."""
        if self._registry is not None and self.run_id is not None:
            self.tags(outcome=outcome.exit_code.name.lower(), words=outcome.words)
            self._registry.describe_run(self.run_id, f"{name} {outcome.short}", outcome.words)

    def tags(self, **tags: object) -> None:
        """Write tags."""
        if self._registry is not None and self.run_id is not None:
            self._registry.set_run_tags(self.run_id, tags)


def _entropy(p: Float64) -> float:
    return -float(np.sum(p * np.log(p, out=np.zeros_like(p), where=p > 0.0)))


def _parameters(job: RetrainJob) -> dict[str, object]:
    """Return everything that was set, one parameter a setting."""
    config = job.config
    return {
        "oracles": ",".join(config.oracles),
        "hold_back": config.hold_back,
        "min_events": config.min_events,
        "max_rows": config.max_rows,
        "seed": config.seed,
        "calibration_share": config.calibration_share,
        "cluster": config.cluster,
        **{f"damping.{key}": value for key, value in config.damping.model_dump().items()},
        **{f"search.{key}": value for key, value in config.search.model_dump().items()},
        **{f"gate.{key}": value for key, value in config.gate.model_dump().items()},
        **{f"lightgbm.{key}": value for key, value in config.lightgbm.model_dump().items()},
        **{
            f"{job.point.policy.oracle.kind}.{key}": value
            for key, value in job.point.policy.oracle.model_dump().items()
            if key != "kind"
        },
        **{f"exploration.{key}": value for key, value in job.point.policy.exploration.model_dump().items()},
    }
