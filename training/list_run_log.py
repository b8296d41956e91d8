"""What a retraining of a recommender writes to its MLflow run; nothing in a dry run."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Self

from engine.errors import RegistryError
from training.archive.list_sessions import DAY_MS
from training.day_trainer import DayScore
from training.evaluation.lists import ListEvaluation
from training.job import Outcome
from training.registry import Registry


class ListRunLog:
    """The run of one retraining.

    Parameters
    ----------
    registry
        Where it is kept; ``None``: nothing is written.
    run_id
        Its id; ``None`` in a dry run.
    now_ms
        Time of its metrics, but for those of days.
    """

    def __init__(self, registry: Registry | None, run_id: str | None, now_ms: int) -> None:
        self._registry = registry
        self.run_id = run_id
        self._now_ms = now_ms

    @classmethod
    @contextmanager
    def open(
        cls, registry: Registry | None, name: str, params: Mapping[str, object], tags: dict[str, object], now_ms: int
    ) -> Iterator[Self]:
        """Start the run, and end it with the block: as failed if an error leaves it."""
        if registry is None:
            yield cls(None, None, now_ms)
            return
        run_id = registry.start_run(name, params=params, tags=tags)
        try:
            yield cls(registry, run_id, now_ms)
        except BaseException as error:
            # The registry may be what failed; its second error would hide the first.
            with contextlib.suppress(RegistryError):
                registry.set_run_tags(run_id, {"error": f"{type(error).__name__}: {error}"[:1_000]})
                registry.end_run(run_id, "FAILED")
            raise
        registry.end_run(run_id, "FINISHED")

    def day(self, score: DayScore) -> None:
        """Write how well a day was predicted before it was learned, at the day's own time."""
        if self._registry is not None and self.run_id is not None:
            metrics = {f"auc/{task}": auc for task, auc in score.auc.items() if not math.isnan(auc)}
            self._registry.log_metrics(self.run_id, {"rows": score.rows, **metrics}, time_ms=score.day * DAY_MS)

    def evaluation(self, name: str, evaluation: ListEvaluation) -> None:
        """Write every estimate of a policy with its bounds and diagnostics."""
        if self._registry is None or self.run_id is None:
            return
        metrics = {
            f"{name}/observed": evaluation.observed,
            f"{name}/predicted": evaluation.predicted,
            f"{name}/unsupported": evaluation.unsupported,
            f"{name}/covered": evaluation.covered,
        }
        for estimator, estimate in evaluation.estimates.items():
            metrics[f"{name}/{estimator}"] = estimate.value
            metrics[f"{name}/{estimator}_low"] = estimate.low
            metrics[f"{name}/{estimator}_high"] = estimate.high
            metrics[f"{name}/{estimator}_effective_sample_size"] = estimate.effective_sample_size
        self._registry.log_metrics(self.run_id, metrics, time_ms=self._now_ms)

    def outcome(self, name: str, outcome: Outcome) -> None:
        """Name the run by what came of it, and say it."""
        if self._registry is not None and self.run_id is not None:
            self.tags(outcome=outcome.exit_code.name.lower(), words=outcome.words)
            self._registry.describe_run(self.run_id, f"{name} {outcome.short}", outcome.words)

    def tags(self, **tags: object) -> None:
        """Write tags."""
        if self._registry is not None and self.run_id is not None:
            self._registry.set_run_tags(self.run_id, tags)
