"""The pipeline process: join, learner, archive, monitors and retraining, each a loop in a thread of its own."""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol

from prometheus_client import CollectorRegistry, Counter

from engine.errors import LeewayError, LogError
from engine.records import JoinAccounting
from engine.store import PolicyStore
from monitoring.exposition import serve_metrics
from monitoring.metrics import PipelineMetrics
from streaming.archive import ArchiveRole
from streaming.config import Config
from streaming.joiner import JoinerRole, read_accounting
from streaming.lag import READ_BY, lag
from streaming.learner import LearnerRole
from streaming.log import Log
from streaming.monitor import MonitorRole
from streaming.retrainer import RetrainerRole, launcher
from streaming.serve import now_ms, open_log
from training.archive import ArchiveReader

logger = logging.getLogger(__name__)

ROLES = ("join", "learner", "monitor", "archive", "retrainer", "housekeeper")
#: How long feedback waits at most before it is archived: a retraining after an alarm needs it soon.
ARCHIVE_AGE_MS = 2_000
#: Seconds a role rests when there was nothing to do.
IDLE_S = 0.05
#: Most seconds between two attempts of a role that fails.
MAX_BACKOFF_S = 10.0


class Role(Protocol):
    """A piece of work that goes on for ever in small steps."""

    def step(self) -> int:
        """Do what there is to do now; return how many records it was."""

    def close(self) -> None:
        """Bring what is under way to a safe end."""


@dataclass
class Loop:
    """Makes one role and runs it until told to stop.

    What fails, the making or a step, is tried again after a pause that doubles up to ten seconds: a full disk or a
    damaged file stops one role, which says so, and not the others.
    """

    name: str
    make: Callable[[], Role]
    stop: threading.Event
    metrics: PipelineMetrics

    def run(self) -> None:
        """Step until stopped, then close."""
        role: Role | None = None
        backoff = 0.0
        while not self.stop.wait(backoff):
            try:
                if role is None:
                    role = self.make()
                    self.metrics.role_up.labels(self.name).set(1)
                count = role.step()
            except Exception as error:
                backoff = min(max(2 * backoff, 0.2), MAX_BACKOFF_S)
                self.metrics.role_errors.labels(self.name).inc()
                self.metrics.role_up.labels(self.name).set(0)
                # An error of ours says all there is to say; any other needs its trace.
                logger.error(
                    "%s failed, trying again in %.1f s: %s", self.name, backoff, error,
                    exc_info=None if isinstance(error, LeewayError) else error,
                )  # fmt: skip
                continue
            if backoff > IDLE_S:
                logger.info("%s works again", self.name)
                self.metrics.role_up.labels(self.name).set(1)
            backoff = 0.0 if count else IDLE_S
        try:
            if role is not None:
                role.close()
        except Exception as error:
            logger.error("%s could not be closed in order: %s", self.name, error)


class Housekeeper:
    """Deletes what has outlived the log's retention, and refreshes the metrics that are read from elsewhere."""

    def __init__(self, pipeline: Pipeline, clock: Callable[[], int]) -> None:
        self._pipeline = pipeline
        self._clock = clock
        self._expired_ms = 0

    def step(self) -> int:
        """Do both."""
        if self._clock() - self._expired_ms > 60_000:
            self._expired_ms = self._clock()
            self._pipeline.expire(self._expired_ms)
        self._pipeline.observe()
        return 0

    def close(self) -> None:
        """Nothing is under way."""


class Pipeline:
    """Everything behind the log, on one machine."""

    def __init__(self, config: Config, config_path: Path, clock: Callable[[], int] = now_ms) -> None:
        registry = CollectorRegistry()
        self._config = config
        # Whoever reads a damaged file of the log says so, and goes on when it is mended; the others work meanwhile.
        self._log = open_log(config, needed=())
        self._points = config.points()
        self._clock = clock
        self.metrics = PipelineMetrics(
            registry, self._points, ROLES, accounting=partial(_books, self._log, tuple(self._points))
        )
        self.learner: LearnerRole | None = None
        self.monitor: MonitorRole | None = None
        self.archive: ArchiveRole | None = None
        self._stop = threading.Event()
        self._counted: dict[Counter, int] = {}
        roles: Mapping[str, Callable[[], Role]] = {
            "join": self._join,
            "learner": self._learn,
            "monitor": self._monitor,
            "archive": self._archive,
            "retrainer": partial(self._retrain, config_path),
            "housekeeper": partial(Housekeeper, self, clock),
        }
        self._threads = [
            threading.Thread(target=Loop(name, make, self._stop, self.metrics).run, name=name)
            for name, make in roles.items()
        ]
        self._metrics_server = serve_metrics(registry, config.metrics.host, config.metrics.pipeline_port)
        self.metrics_port = self._metrics_server.port

    def _join(self) -> Role:
        return JoinerRole(self._log, {name: point.reward for name, point in self._points.items()}, self._clock)

    def _learn(self) -> Role:
        store = PolicyStore(self._config.policy_dir)
        self.learner = LearnerRole(self._log, self._points, store, self._config.data_dir / "learner", self._clock)
        return self.learner

    def _monitor(self) -> Role:
        metrics = self.metrics
        self.monitor = MonitorRole(
            self._log, self._config.decision_points, self._clock, metrics.observe_alarm, metrics.observe_reward
        )
        return self.monitor

    def _archive(self) -> Role:
        config = self._config
        # Feedback outlives the log where a retraining looks back further.
        kept_ms = max(config.log.retention, *(p.retraining.window for p in config.decision_points.values()))
        self.archive = ArchiveRole(
            self._log, config.archive_dir, self._points, self._clock, max_age_ms=ARCHIVE_AGE_MS, retention_ms=kept_ms
        )
        return self.archive

    def _retrain(self, config_path: Path) -> Role:
        archive = ArchiveReader(self._config.archive_dir)
        return RetrainerRole(self._log, self._config.decision_points, archive, launcher(config_path), self._clock)

    def start(self) -> None:
        """Start every role."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Let every role finish its step and close."""
        self._stop.set()
        for thread in self._threads:
            thread.join()
        self._metrics_server.close()
        self._log.close()

    def observe(self) -> None:
        """Bring the gauges up to date."""
        metrics = self.metrics
        for group, topics in READ_BY.items():
            for topic, behind in lag(self._log, group, topics).items():
                metrics.lag.labels(group, topic).set(behind)
        for point in self._points:
            if self.learner is not None:
                self._count(metrics.learned.labels(point), self.learner.learned[point])
                if point in self.learner.last_learned_ms:
                    metrics.last_learned.labels(point).set(self.learner.last_learned_ms[point] / 1_000.0)
            if self.archive is not None:
                self._count(metrics.archived.labels(point), self.archive.rows[point])
            if self.monitor is not None:
                if point in self.monitor.monitors:
                    metrics.run_length.labels(point).set(self.monitor.monitors[point].run_length)
                statistics = self.monitor.ledger.statistics(point)
                if statistics:
                    metrics.observe_generation(statistics[-1])

    def _count(self, counter: Counter, total: int) -> None:
        """Bring a counter up to a total that is counted elsewhere."""
        counter.inc(total - self._counted.get(counter, 0))
        self._counted[counter] = total

    def expire(self, at_ms: int) -> None:
        """Delete what has outlived retention."""
        while self._log.expire(at_ms):
            pass


def _books(log: Log, points: tuple[str, ...]) -> dict[str, JoinAccounting]:
    """Return the book of every decision point, also of those that nothing was joined of yet.

    Where it cannot be read there is none: `leeway_role_up` tells of that, and must not fail with it.
    """
    try:
        return {point: JoinAccounting() for point in points} | read_accounting(log)
    except LogError as error:
        logger.error("the book of the join cannot be read: %s", error)
        return {}


def run(config: Config, config_path: Path, ready: Callable[[int], None]) -> None:
    """Work until SIGTERM or SIGINT."""
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    signal.signal(signal.SIGINT, lambda *_: stop.set())
    pipeline = Pipeline(config, config_path)
    pipeline.start()
    ready(pipeline.metrics_port)
    while not stop.wait(1.0):
        pass
    pipeline.stop()
