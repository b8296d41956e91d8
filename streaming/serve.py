"""The serving process: configuration in, a gRPC server on the log out."""

from __future__ import annotations

import logging
import signal
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING

from google.protobuf.message import DecodeError
from prometheus_client import CollectorRegistry

from engine.agreement import agreement
from engine.config import Recommender, ServingConfig
from engine.errors import SnapshotError
from engine.policy import Policy, initial_policy
from engine.recommender.policy import RecommenderPolicy, initial_recommender
from engine.recommender.store import RecommenderStore
from engine.records import MODE_ONLINE, Decision, fallback_name
from engine.sealed import SealedDecision
from engine.serving.admin import AdminServicer
from engine.serving.limits import Limits
from engine.serving.load import Load
from engine.serving.seams import Observer
from engine.serving.server import Server
from engine.serving.service import DecisionService
from engine.serving.servicer import LeewayServicer
from engine.serving.stages import BOUNDS, STAGES
from engine.serving.watcher import PolicyWatcher
from engine.store import PolicyStore
from monitoring.disk_metrics import DiskCollector
from monitoring.exposition import serve_metrics
from monitoring.metrics import ServingMetrics
from monitoring.stage_histogram import StageHistogram
from streaming.catalogues import catalogue_path, read_catalogue
from streaming.config import Config
from streaming.role_process import calm_collector
from streaming.serving_log import open_serving_log
from streaming.topics import DECISIONS

if TYPE_CHECKING:
    from engine.serving.http.server import HttpServer

logger = logging.getLogger(__name__)


def now_ms() -> int:
    """Return the time in milliseconds since 1970."""
    return time.time_ns() // 1_000_000


class MetricsObserver(Observer):
    """Counts what the server does.

    What every decision touches is looked up once: to find a series by its labels takes longer than to count.
    """

    def __init__(self, metrics: ServingMetrics) -> None:
        self._metrics = metrics
        self._requests = cache(metrics.requests.labels)
        self._refused = cache(metrics.requests_refused.labels)
        self._durations = cache(metrics.decision_duration.labels)
        self._propensities = cache(metrics.propensity.labels)
        self._decisions = cache(lambda point, reason: metrics.decisions.labels(point, fallback_name(reason)))

    def begin(self) -> None:
        """Count a call under way."""
        self._metrics.requests_in_flight.inc()

    def end(self, method: str, code: str) -> None:
        """Count a call that ended."""
        self._metrics.requests_in_flight.dec()
        self._requests(method, code).inc()

    def decided(self, point: str, seconds: float) -> None:
        """Take a waiting time into the histogram."""
        self._durations(point).observe(seconds)

    def decision(self, decision: Decision | SealedDecision) -> None:
        """Count a decision."""
        point = decision.decision_point
        self._decisions(point, decision.fallback).inc()
        if isinstance(decision, SealedDecision):
            self._propensities(point).observe(decision.propensity)
            return
        self._propensities(point).observe(decision.probabilities[decision.chosen])
        if decision.mode != MODE_ONLINE:
            self._metrics.callers_decisions.labels(point).inc()
            agreed = agreement(decision)
            if agreed is not None:
                self._metrics.apprentice_compared.labels(point).inc()
                self._metrics.apprentice_agreed.labels(point).inc(agreed)

    def sealed(self, point: str, made: Sequence[SealedDecision]) -> None:
        """Count decisions of one point."""
        self._decisions(point, made[0].fallback).inc(len(made))
        self._propensities(point).observe(*[decision.propensity for decision in made])

    def unrecorded(self, point: str) -> None:
        """Count a decision that is not in the log."""
        self._metrics.decisions_unrecorded.labels(point).inc()

    def outcome(self) -> None:
        """Count an outcome."""
        self._metrics.reports.inc()

    def swap(self, point: str, version: str, generation: int, learned: int, created_ms: int) -> None:
        """Show what serves now."""
        logger.debug("%s: policy %s serves", point, version)
        self._metrics.policy_swaps.labels(point).inc()
        self._metrics.policy_generation.labels(point).set(generation)
        self._metrics.policy_learned.labels(point).set(learned)
        self._metrics.policy_created.labels(point).set(created_ms / 1_000.0)

    def refused(self, method: str, reason: str) -> None:
        """Count a call that was refused."""
        self._refused(method, reason).inc()

    def turned_away(self, method: str, reason: str) -> None:
        """Count a call that was refused as it came."""
        self._requests(method, "RESOURCE_EXHAUSTED").inc()
        self._refused(method, reason).inc()

    def degraded(self, method: str, step: str) -> None:
        """Count a call that got less effort."""
        self._metrics.requests_degraded.labels(method, step).inc()

    def load_error(self, point: str) -> None:
        """Count a policy that could not be loaded."""
        self._metrics.policy_load_errors.labels(point).inc()


class ServingProcess:
    """Everything that one serving process is made of, in the order in which it starts and stops.

    ``number`` says which of ``serving.processes`` it is, from 1.
    """

    def __init__(self, config: Config, clock: Callable[[], int] = now_ms, number: int = 1) -> None:
        self._config = config
        self._registry = CollectorRegistry()
        points = config.points()
        lists = config.lists()
        metrics = ServingMetrics(self._registry, [*points, *lists])
        self._registry.register(DiskCollector(config.data_dir))
        observer = MetricsObserver(metrics)
        self._log = open_serving_log(config, metrics, clock, number)
        metrics.log_queue.set_function(lambda: self._log.recorder.depth)
        self._store = PolicyStore(config.policy_dir)
        self.service = DecisionService(
            points,
            {name: self._first_policy(name, clock()) for name in points},
            self._log.recorder,
            observer,
            config.serving.idempotency_cache,
            answer_unrecorded=self._log.answers_unrecorded,
            recommenders={name: (lists[name], self._first_lists(name, lists[name], clock())) for name in lists},
            limits=Limits(config.serving.limits),
        )
        self._registry.register(StageHistogram(self.service.times, STAGES, BOUNDS))
        # A client whose answer was lost in a crash retries: it must get the answer that is in the log.
        self._log.recall(config.serving.idempotency_cache, self._remember)
        admin = AdminServicer(self.service, self._store, self._log.insight, clock())
        servicer = LeewayServicer(self.service, config.serving, observer, clock)
        metrics.requests_waiting.set_function(lambda: servicer.load.waiting)
        self._server = Server(config.serving, servicer, admin, [*points, *lists], observer, clock)
        processes = config.serving.processes
        # Not all at once: who swaps is busy with the new policy for a moment.
        turn = (number - 1) / processes if processes > 1 else None
        self._watcher = PolicyWatcher(self.service, self._store, observer, config.serving.swap_interval / 1_000.0, turn)
        self._http = _http_server(self.service, config.serving, observer, clock, self._server, servicer.load)
        self.port = self.admin_port = self.health_port = 0
        self.metrics_port = 0
        #: Of the HTTP server; ``None``: there is none.
        self.http_port: int | None = None

    def _first_policy(self, name: str, at_ms: int) -> Policy:
        """Return what serves until the watcher has looked: at least the policy that knows nothing."""
        policy = initial_policy(name, self._config.points()[name], at_ms)
        try:
            self._store.save(policy)  # decisions will name it, and replay must find it
        except SnapshotError as error:
            logger.error("%s", error)
        return policy

    def _first_lists(self, name: str, recommender: Recommender, at_ms: int) -> RecommenderPolicy:
        """Return what recommends until the watcher has looked: every list is as likely as any other."""
        policy = initial_recommender(name, recommender, at_ms)
        try:
            catalogue = read_catalogue(catalogue_path(self._config.catalogue_dir, name), recommender)
            policy = replace(policy, catalogue=catalogue)
            RecommenderStore(self._config.policy_dir).save(policy)
        except SnapshotError as error:
            logger.error("%s", error)
        return policy

    def _remember(self, value: bytes) -> None:
        try:
            self.service.remember(Decision.FromString(value))
        except DecodeError:
            logger.warning("a record of %s is no decision; the join puts it to the dead letters", DECISIONS)

    def start(self) -> None:
        """Serve; raises ``ConfigError`` where a port cannot be had."""
        self._watcher.start()
        metrics = self._config.metrics
        self._metrics_server = serve_metrics(self._registry, metrics.host, metrics.serving_port)
        self.metrics_port = self._metrics_server.port
        self.http_port = None if self._http is None else self._http.start()
        self.port = self._server.start()
        self.admin_port = self._server.admin_port or self.port
        self.health_port = self._server.health_port or self.port

    def stop(self, hurry: threading.Event) -> None:
        """Drain, write what waits, close; ``hurry``, set before or meanwhile, ends the drain's pause."""
        if self._http is not None:
            self._http.drain()
        self._server.stop(hurry)
        if self._http is not None:
            self._http.stop()
        self._watcher.stop()
        self._log.close(hurry)
        self._metrics_server.close()


def _http_server(
    service: DecisionService,
    config: ServingConfig,
    observer: Observer,
    clock: Callable[[], int],
    server: Server,
    load: Load,
) -> HttpServer | None:
    if config.http is None:
        return None
    # Only who wants it pays for its import.
    from engine.serving.http.app import HttpFace
    from engine.serving.http.server import HttpServer

    face = HttpFace(service, config, observer, clock, server.access, load, server.rates)
    return HttpServer(config.http, face, config.drain_grace / 1_000.0, shared=config.processes > 1)


def run(config: Config, ready: Callable[[ServingProcess], None], number: int = 1) -> None:
    """Serve until SIGTERM or SIGINT; a second signal leaves the drain's pause out."""
    stop, hurry = threading.Event(), threading.Event()

    def on_signal(_signum: int, _frame: object) -> None:
        (hurry if stop.is_set() else stop).set()

    # Before anything slow: a signal during start-up must not kill half-way.
    signal.signal(signal.SIGTERM, on_signal)
    signal.signal(signal.SIGINT, on_signal)
    process = ServingProcess(config, number=number)
    process.start()
    ready(process)
    calm_collector()
    while not stop.wait(1.0):
        pass
    logger.info("draining")
    process.stop(hurry)
