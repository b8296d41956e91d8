"""A retraining with everything that this installation has: its archive, policies, registry and ledger."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from engine import __version__
from engine.config import UCRL2OracleConfig
from engine.errors import ConfigError
from engine.records import Generation
from engine.store import PolicyStore
from streaming.config import Config
from streaming.holds import changes_within, read_alarms, read_holds
from streaming.log import Log, Message
from streaming.opening import open_log
from streaming.serve import now_ms
from streaming.topics import GENERATIONS
from training.archive import ArchiveReader
from training.job import Outcome, RetrainJob
from training.pipeline import retrain
from training.registry import Registry


class LogLedger:
    """The generations in the log."""

    def __init__(self, log: Log) -> None:
        self._log = log

    def generations(self, point: str) -> list[Generation]:
        """Return what was written for a decision point, oldest first."""
        return [entry for entry in read_generations(self._log) if entry.decision_point == point]

    def append(self, generation: Generation) -> None:
        """Write one entry durably."""
        key = generation.decision_point.encode()
        self._log.append([Message(GENERATIONS, key, generation.SerializeToString(), generation.trained_ms)])


def read_generations(log: Log) -> list[Generation]:
    """Return the whole ledger, oldest first."""
    entries: list[Generation] = []
    start = 0
    while records := log.read(GENERATIONS, 0, start):
        entries += [Generation.FromString(record.value or b"") for record in records]
        start = records[-1].offset + 1
    return entries


def open_registry(config: Config) -> Registry:
    """Return the registry that the configuration names."""
    return Registry(config.tracking_uri, config.registry.experiment, config.registry.model_prefix)


def retrain_point(
    config: Config,
    name: str,
    *,
    reason: Literal["drift", "schedule", "manual"],
    since_ms: int | None,
    dry_run: bool,
    progress: Callable[[str], None],
) -> Outcome:
    """Retrain one decision point now; see ``training.pipeline.retrain``."""
    point = config.decision_points[name]
    if isinstance(point.policy.oracle, UCRL2OracleConfig):
        raise ConfigError(
            f"decision_points.{name}.policy.oracle is of kind ucrl2: it is learned online, and nothing is retrained"
        )
    log = open_log(config)
    try:
        return retrain(
            RetrainJob(
                name=name,
                point=point.engine(),
                config=point.retraining,
                data_dir=config.data_dir,
                reason=reason,
                since_ms=since_ms,
                dry_run=dry_run,
                code_version=__version__,
            ),
            archive=ArchiveReader(config.archive_dir),
            store=PolicyStore(config.policy_dir),
            registry=open_registry(config),
            ledger=LogLedger(log),
            now_ms=now_ms(),
            progress=progress,
            hold=lambda: read_holds(log).words(name),
            drifts=lambda start_ms, end_ms: changes_within(read_alarms(log), name, start_ms, end_ms),
        )
    finally:
        log.close()
