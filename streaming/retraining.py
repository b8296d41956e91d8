"""A retraining with everything that this installation has: its archive, policies, registry and ledger."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from engine import __version__
from engine.atomic_file import write_atomically
from engine.config import UCRL2OracleConfig
from engine.errors import ConfigError, LeewayError
from engine.policy import Policy
from engine.recommender.policy import RecommenderPolicy
from engine.recommender.store import RecommenderStore
from engine.records import Generation
from engine.store import PolicyStore
from streaming.catalogues import catalogue_path, read_catalogue
from streaming.config import Config
from streaming.holds import changes_within, read_alarms, read_holds
from streaming.lineage import lineage_table
from streaming.log import Log, Message
from streaming.monitor import read_statistics
from streaming.opening import open_existing, open_log
from streaming.serve import now_ms
from streaming.topics import GENERATIONS
from training.archive import ArchiveReader
from training.generations import GenerationTable
from training.job import ExitCode, Outcome, RetrainJob
from training.learner_file import learner_path
from training.pipeline import retrain
from training.promotion import Floor
from training.registry import Registry

#: What asks for a training; an entry of the ledger with another reason is a promotion by hand or a rollback.
REASONS = ("drift", "schedule", "manual")


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


def since_last_window(log: Log, name: str) -> int | None:
    """Return the end of the last window that was trained on, promoted or not; ``None`` before the first."""
    entries = [entry for entry in LogLedger(log).generations(name) if entry.reason in REASONS]
    return max((entry.window_end_ms for entry in entries), default=None)


def unanswered_drift(log: Log, name: str) -> int | None:
    """Return the time of the newest change that calls for retraining and was not trained on, if there is one."""
    changes = [
        alarm.change_ms for alarm in read_alarms(log) if alarm.decision_point == name and alarm.calls_for_retraining
    ]
    answered = [entry.window_start_ms for entry in LogLedger(log).generations(name) if entry.promoted]
    newest = max(changes, default=None)
    return None if newest is None or max(answered, default=-1) >= newest else newest


@dataclass(frozen=True)
class Begin:
    """Where a retraining begins: a time, or the configured window; or ``nothing``, which is its outcome."""

    since_ms: int | None = None
    nothing: Outcome | None = None


def begin_of(config: Config, name: str, *, since_ms: int | None, since_last: bool, if_drift: bool) -> Begin:
    """Return where a retraining begins by what was asked for."""
    if not (since_last or if_drift):
        return Begin(since_ms)
    log = open_existing(config)
    try:
        if since_last:
            return Begin(since_last_window(log, name))
        change_ms = unanswered_drift(log, name)
    finally:
        log.close()
    if change_ms is None:
        words = f"nothing to do: no alarm of {name} calls for a retraining that was not done"
        return Begin(nothing=Outcome(ExitCode.PROMOTED, words, done_before=True))
    return Begin(change_ms)


#: What counts as well: a gate that does not hold has done its work.
_WELL = (ExitCode.PROMOTED, ExitCode.REFUSED, ExitCode.NOT_ENOUGH_DATA)


def record_success(path: Path, name: str, outcome: Outcome) -> None:
    """Write the time of a retraining that ended well, as Prometheus' textfile collector reads it; others leave it.

    Raises ``LeewayError`` where the file cannot be written.
    """
    if outcome.exit_code not in _WELL:
        return
    metric = "leeway_retrain_last_success_timestamp_seconds"
    text = (
        f"# HELP {metric} When a retraining last ended well: promoted, refused by the gate, or too little feedback.\n"
        f"# TYPE {metric} gauge\n"
        f'{metric}{{decision_point="{name}"}} {now_ms() / 1_000:.3f}\n'
    )
    try:
        write_atomically(path, text.encode())
    except OSError as error:
        raise LeewayError(f"{path}: cannot be written ({error.strerror}); name another file with --textfile") from error


def promotion_floor(config: Config, name: str, log: Log) -> Floor[Policy]:
    """Return where the policies of a decision point are kept."""
    store, registry = PolicyStore(config.policy_dir), open_registry(config)
    return Floor(
        name, config.data_dir, store, registry, LogLedger(log), lambda version: learner_path(store, name, version)
    )


def floor_of(config: Config, name: str, log: Log) -> Floor[Policy] | Floor[RecommenderPolicy]:
    """Return where the policies of a decision point, or of a recommender, are kept."""
    if name not in config.recommenders:
        return promotion_floor(config, name, log)
    # It brings what trains recommenders, which a decision point does not need.
    from training.day_trainer import trainer_path

    store, registry = RecommenderStore(config.policy_dir), open_registry(config)
    return Floor(
        name, config.data_dir, store, registry, LogLedger(log), lambda version: trainer_path(store.root / name, version)
    )


def generation_table(config: Config, name: str, log: Log) -> GenerationTable:
    """Put the ledger of a decision point together from the log and the policies on disk."""
    statistics = [entry for entry in read_statistics(log) if entry.decision_point == name]
    return lineage_table(config, name, LogLedger(log).generations(name), statistics)


def retrain_point(
    config: Config,
    name: str,
    *,
    reason: Literal["drift", "schedule", "manual"],
    since_ms: int | None,
    dry_run: bool,
    progress: Callable[[str], None],
) -> Outcome:
    """Retrain one decision point, or recommender, now; see ``training.pipeline.retrain``."""
    if name in config.recommenders:
        return _retrain_lists(config, name, reason=reason, since_ms=since_ms, dry_run=dry_run, progress=progress)
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
            statistics=[entry for entry in read_statistics(log) if entry.decision_point == name],
            drifts=lambda start_ms, end_ms: changes_within(read_alarms(log), name, start_ms, end_ms),
        )
    finally:
        log.close()


def _retrain_lists(
    config: Config,
    name: str,
    *,
    reason: Literal["drift", "schedule", "manual"],
    since_ms: int | None,
    dry_run: bool,
    progress: Callable[[str], None],
) -> Outcome:
    # Training brings JAX, which a decision point does not need.
    from training.day_pass import elbo_tds_pass
    from training.list_pipeline import ListRetrainJob, retrain_lists

    settings = config.recommenders[name]
    recommender = settings.engine()
    log = open_log(config)
    try:
        return retrain_lists(
            ListRetrainJob(
                name=name,
                recommender=recommender,
                config=settings.retraining,
                data_dir=config.data_dir,
                catalogue=read_catalogue(catalogue_path(config.catalogue_dir, name), recommender),
                reason=reason,
                since_ms=since_ms,
                dry_run=dry_run,
                code_version=__version__,
            ),
            archive=ArchiveReader(config.archive_dir),
            store=RecommenderStore(config.policy_dir),
            registry=open_registry(config),
            ledger=LogLedger(log),
            trainer=elbo_tds_pass,
            now_ms=now_ms(),
            progress=progress,
            hold=lambda: read_holds(log).words(name),
        )
    finally:
        log.close()
