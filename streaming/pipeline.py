"""The processes behind the log: ``leeway work``, which joins, learns, watches and retrains, and ``leeway join``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from prometheus_client import CollectorRegistry

from engine.errors import LogError
from engine.recommender.store import RecommenderStore
from engine.records import Alarm, Feedback, GenerationStatistics, JoinAccounting
from engine.store import PolicyStore
from monitoring.disk_metrics import DiskCollector
from monitoring.generation_metrics import GenerationCollector, LineageMetrics
from monitoring.metrics import PipelineMetrics
from monitoring.role_metrics import JoinCollector, JoinMemberCollector
from monitoring.watch_metrics import WatchMetrics
from streaming.archive import ArchiveRole
from streaming.auditing import PolicyAudit
from streaming.config import Config
from streaming.counting import JoinReward
from streaming.joiner import JoinerRole, read_accounting
from streaming.learner import LearnerRole
from streaming.lineage import Lineage
from streaming.list_publisher import ListPublisher
from streaming.log import Log
from streaming.loop import Role
from streaming.monitor import MonitorRole
from streaming.retrainer import RetrainerRole, launcher, tagger, undoer
from streaming.role_process import Housekeeper, RoleProcess
from streaming.serve import now_ms
from streaming.slate_reward import SlateReward
from training.archive import ArchiveReader

#: How long feedback waits at most before it is archived: a retraining after an alarm needs it soon.
ARCHIVE_AGE_MS = 2_000


class _Join:
    """Makes this process's member of the join, and shows what it tells of itself."""

    def __init__(self, config: Config, clock: Callable[[], int], registry: CollectorRegistry) -> None:
        self._points: dict[str, JoinReward] = {name: point.reward for name, point in config.points().items()}
        self._points |= {name: SlateReward(recommender) for name, recommender in config.lists().items()}
        self._clock = clock
        self._swap = config.data_dir / "join"
        self._member: JoinerRole | None = None
        registry.register(JoinMemberCollector(lambda: self._member, clock))

    def __call__(self, log: Log) -> Role:
        member = self._member = JoinerRole(log, self._points, self._clock, swap=self._swap)
        return member


class JoinProcess(RoleProcess):
    """A member of the join alone. Any number of them, on any number of machines, share the partitions of the log.

    Raises
    ------
    ConfigError
        The port for metrics cannot be had.
    LogError
        The directory of an embedded log cannot be used.
    """

    def __init__(self, config: Config, clock: Callable[[], int] = now_ms) -> None:
        registry = CollectorRegistry()
        makers: dict[str, Callable[[Log], Role]] = {
            "join": _Join(config, clock, registry),
            "housekeeper": lambda _log: Housekeeper(self.look_on),
        }
        super().__init__(config, makers, clock, registry, config.metrics.join_port)


class Pipeline(RoleProcess):
    """Everything behind the log, on one machine.

    Parameters
    ----------
    config, config_path
        The configuration, and where it is: retraining jobs are processes that read it themselves.
    clock
        Milliseconds since 1970.
    join
        False where ``leeway join`` does that.

    Raises
    ------
    ConfigError
        The port for metrics cannot be had.
    LogError
        The directory of an embedded log cannot be used.
    """

    def __init__(
        self, config: Config, config_path: Path, clock: Callable[[], int] = now_ms, *, join: bool = True
    ) -> None:
        registry = CollectorRegistry()
        self._config = config
        self._points = config.points()
        self._clock = clock
        self.learner: LearnerRole | None = None
        self.monitor: MonitorRole | None = None
        self.archive: ArchiveRole | None = None
        self._audit = PolicyAudit(PolicyStore(config.policy_dir))
        self.retrainer: RetrainerRole | None = None
        self.observed = PipelineMetrics(registry, config.deciding)
        self._watched = WatchMetrics(registry, config.deciding)
        self._generations = GenerationCollector(list(config.deciding))
        registry.register(self._generations)
        registry.register(DiskCollector(config.data_dir))
        self._lineage_metrics = LineageMetrics(registry, _periods(config), clock() / 1_000.0)
        self._lineage = Lineage(config, self._lineage_metrics, self._statistics)
        self._book: Mapping[str, JoinAccounting] = {}
        makers: dict[str, Callable[[Log], Role]] = {
            "learner": self._learn,
            "monitor": self._monitor,
            "archive": self._archive,
            "retrainer": partial(self._retrain, config_path),
            "housekeeper": lambda _log: Housekeeper(self._observe, self.look_on),
        }
        if config.recommenders:
            makers["publisher"] = self._publish
        if join:
            makers = {"join": _Join(config, clock, registry), **makers}
        super().__init__(config, makers, clock, registry, config.metrics.pipeline_port)
        registry.register(JoinCollector(lambda: self._book))

    def _learn(self, log: Log) -> Role:
        store = PolicyStore(self._config.policy_dir)
        self.learner = LearnerRole(log, self._points, store, self._config.data_dir / "learner", self._clock)
        return self.learner

    def _publish(self, log: Log) -> Role:
        config = self._config
        store = RecommenderStore(config.policy_dir)
        return ListPublisher(log, config.lists(), store, config.catalogue_dir, self._clock)

    def _monitor(self, log: Log) -> Role:
        self.monitor = MonitorRole(
            log, self._config.deciding, self._clock, self._on_alarm, self._on_feedback, audit=self._audit
        )
        return self.monitor

    def _on_alarm(self, alarm: Alarm) -> None:
        self.observed.observe_alarm(alarm)
        self._watched.observe_alarm(alarm)

    def _on_feedback(self, feedback: Feedback) -> None:
        self.observed.observe_reward(feedback.decision.decision_point, feedback.reward)
        self._watched.observe_feedback(feedback)

    def _statistics(self, point: str) -> list[GenerationStatistics] | None:
        return None if self.monitor is None else self.monitor.ledger.statistics(point)

    def _archive(self, log: Log) -> Role:
        config = self._config
        # Feedback outlives the log where a retraining looks back further.
        kept_ms = max(config.log.retention, *(p.retraining.window for p in config.deciding.values()))
        self.archive = ArchiveRole(
            log,
            config.archive_dir,
            {**self._points, **config.lists()},
            self._clock,
            max_age_ms=ARCHIVE_AGE_MS,
            retention_ms=kept_ms,
        )
        return self.archive

    def _retrain(self, config_path: Path, log: Log) -> Role:
        archive = ArchiveReader(self._config.archive_dir)
        self.retrainer = RetrainerRole(
            log,
            self._config.deciding,
            archive,
            launcher(config_path),
            self._clock,
            tagger(config_path),
            undoer(config_path),
        )
        return self.retrainer

    def _observe(self) -> None:
        """Bring the metrics of the roles in this process up to date."""
        metrics = self.observed
        for point in self._config.deciding:
            if self.learner is not None:
                self.count(metrics.learned.labels(point), self.learner.learned[point])
                if point in self.learner.last_learned_ms:
                    metrics.last_learned.labels(point).set(self.learner.last_learned_ms[point] / 1_000.0)
            if self.archive is not None:
                self.count(metrics.archived.labels(point), self.archive.rows[point])
            if self.monitor is not None:
                if point in self.monitor.monitors:
                    watch = self.monitor.monitors[point]
                    metrics.run_length.labels(point).set(watch.run_length)
                    metrics.observe_divergences(point, watch.divergences())
                    self._watched.observe_run_lengths(point, watch.run_lengths())
                believed = self._watched.change_probability.labels(point)
                believed.set(self.monitor.change_probability.get(point, 0.0))
                for result in ("same", "different"):
                    self.count(metrics.audits.labels(point, result), self._audit.results[point, result])
                statistics = self.monitor.ledger.statistics(point)
                if statistics:
                    metrics.observe_generation(statistics[-1])
                    self._generations.observe(point, statistics)
            if self.retrainer is not None:
                self._lineage_metrics.held.labels(point).set(self.retrainer.held(point))

    def look(self, onlooker: Log, now_ms: int) -> None:
        """Read the book of the join too, of every decision point, also of those that nothing was joined of yet.

        A scrape must not wait for the log. Where the book cannot be read there is none; ``leeway_role_up`` tells why.
        """
        try:
            self._book = {point: JoinAccounting() for point in self._config.deciding} | read_accounting(onlooker)
        except LogError:
            self._book = {}
            raise
        super().look(onlooker, now_ms)
        self._lineage.follow(onlooker)


def _periods(config: Config) -> dict[str, float | None]:
    """Return the seconds between the scheduled trainings of each decision point; ``None`` where none is scheduled."""
    return {
        name: point.retraining.every / 1_000.0
        if point.retraining.enabled and point.retraining.every is not None
        else None
        for name, point in config.deciding.items()
    }
