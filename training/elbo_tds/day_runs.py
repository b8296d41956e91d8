"""What daily training writes to MLflow: a run for the whole, and below it a run for each day, each once."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Self

from engine.errors import RegistryError
from training.elbo_tds.config import ElboTdsConfig
from training.elbo_tds.day_report import DayReport
from training.registry import Registry

_TRAINING = "recommender_training"
_DAY = "day"


class DayRuns:
    """The runs of one training.

    Parameters
    ----------
    registry
        Where they are kept; ``None``: nothing is written.
    run_id
        Of the whole; ``None`` without a registry.
    name
        Of the recommender.
    key
        Of this training, the same after a restart: what was written before is found by it.
    """

    def __init__(self, registry: Registry | None, run_id: str | None, name: str, key: str) -> None:
        self._registry = registry
        self.run_id = run_id
        self._name = name
        self._key = key

    @classmethod
    @contextmanager
    def open(cls, registry: Registry | None, name: str, key: str, config: ElboTdsConfig) -> Iterator[Self]:
        """Start the run of the whole, or go on with it; it ends with the block, as failed if an error leaves it."""
        if registry is None:
            yield cls(None, None, name, key)
            return
        run_id = registry.find_run({_TRAINING: key, _DAY: "all"})
        if run_id is None:
            params = _flat(config.model_dump(mode="json"))
            tags = {"recommender": name, "seed": config.seed, _TRAINING: key, _DAY: "all"}
            run_id = registry.start_run(f"{name}-training", params=params, tags=tags)
        try:
            yield cls(registry, run_id, name, key)
        except BaseException as error:
            # The registry may be what failed; its second error would hide the first.
            with contextlib.suppress(RegistryError):
                registry.set_run_tags(run_id, {"error": f"{type(error).__name__}: {error}"[:1_000]})
                registry.end_run(run_id, "FAILED")
            raise
        registry.end_run(run_id, "FINISHED")

    def write(self, report: DayReport, now_ms: int) -> None:
        """Write a day, unless that was done before."""
        if self._registry is None or self.run_id is None:
            return
        own = {_TRAINING: self._key, _DAY: str(report.day)}
        run_id = self._registry.find_run({**own, "written": "yes"})
        if run_id is not None:
            return
        run_id = self._registry.find_run(own) or self._registry.start_run(
            f"{self._name}-day-{report.day}",
            params={},
            tags={"mlflow.parentRunId": self.run_id, "recommender": self._name, **own},
        )
        self._registry.log_metrics(run_id, report.metrics(), time_ms=now_ms)
        self._registry.set_run_tags(run_id, {"written": "yes"})
        self._registry.end_run(run_id, "FINISHED")


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, object]:
    found: dict[str, object] = {}
    for key, value in values.items():
        found |= _flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {prefix + key: value}
    return found
