"""The measurements of the streaming benchmark: each on topics of its own, by processes of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

from benchmarks._streaming_cluster import MEASURED_CORE, Cluster, check_count, check_feedback, load
from benchmarks._streaming_peer import PROGRAM
from benchmarks._streaming_workload import GRACE_MS, START_MS, WINDOW_MS, Workload, decision_id, decisions
from streaming.kafka import KafkaLog
from streaming.log import partition_of

ROOT = Path(__file__).parents[1]
PARTITIONS = 4
#: Most events of one transaction, for everybody.
BATCH = 10_000
_WEEK_MS = 7 * 86_400_000

Figures = dict[str, float]


class Bench:
    """Measures on a running broker, and leaves nothing there.

    Parameters
    ----------
    cluster
        The broker.
    folder
        For what measured processes keep on disk.
    """

    def __init__(self, cluster: Cluster, folder: Path) -> None:
        self._cluster = cluster
        self._folder = folder
        self._runs = 0

    def bare(self, work: Workload) -> Figures:
        """Measure the bare limit."""
        return self._alone("bare", work, {}, lambda log: check_count(log, 2 * work.total))

    def joiner(self, work: Workload, client: str, profile: str | None = None) -> Figures:
        """Measure the joiner on a client library; write where its time goes, if a file is given."""
        options = {"client": client, "counts": _counts(work, PARTITIONS), "share": PARTITIONS, "profile": profile}
        return self._alone("joiner", work, options, lambda log: check_feedback(log, work))

    def quix(self, work: Workload, python: str) -> Figures:
        """Measure Quix Streams, in its environment."""
        with tempfile.TemporaryDirectory(dir=self._folder) as state:
            options = {"window_ms": WINDOW_MS, "grace_ms": GRACE_MS, "state": state}
            return self._alone("quix", work, options, lambda log: check_feedback(log, work), python)

    def together(self, work: Workload, partitions: int, instances: int) -> Figures:
        """Measure several joiners that share the partitions; they and the broker may use every core."""
        options = {"client": "kafka-python", "counts": _counts(work, partitions), "share": partitions // instances}
        with self._topics(partitions) as (prefix, log), ExitStack() as stack:
            load(log, work.warming())
            transaction = stack.enter_context(self._cluster.held_back(prefix, work.measured(), partitions))
            children = [
                stack.enter_context(self._child("joiner", prefix, None, _with(work, options))) for _ in range(instances)
            ]
            for child in children:
                child.ready()
            start = time.monotonic()
            transaction.commit_transaction()
            seconds = max(figures["end"] for figures in [child.figures() for child in children]) - start
            for child in children:
                child.end()
            check_feedback(log, work)
        return {"per_second": 2 * work.pairs / seconds, "seconds": seconds}

    def pending(self, count: int) -> dict[str, Figures]:
        """Measure memory and restarts with so many open windows: when they have been read, and when restored."""
        found: dict[str, Figures] = {}
        with self._topics(PARTITIONS) as (prefix, log), tempfile.TemporaryDirectory(dir=self._folder) as swap:
            made = decisions(0, count)
            while messages := list(islice(made, 20_000)):
                log.append(messages)
            for name, where in (
                ("read, default budget", swap),
                ("restored, default budget", swap),
                ("restored, all in memory", None),
            ):
                options = {
                    "window_ms": _WEEK_MS,
                    "now_ms": START_MS + count,
                    "partitions": PARTITIONS,
                    "pending": count,
                    "swap": where,
                }
                with self._child("pending", prefix, MEASURED_CORE, options) as child:
                    child.ready()
                    found[name] = child.figures()
                    child.end()
        return found

    def _alone(
        self,
        kind: str,
        work: Workload,
        options: Mapping[str, Any],
        check: Callable[[KafkaLog], None],
        python: str = sys.executable,
    ) -> Figures:
        """Measure one process on one core."""
        with self._topics(PARTITIONS) as (prefix, log), ExitStack() as stack:
            load(log, work.warming())
            transaction = stack.enter_context(self._cluster.held_back(prefix, work.measured(), PARTITIONS))
            child = stack.enter_context(self._child(kind, prefix, MEASURED_CORE, _with(work, options), python))
            child.ready()
            broker, start = self._cluster.cpu_seconds(), time.monotonic()
            transaction.commit_transaction()
            figures = child.figures()
            broker = self._cluster.cpu_seconds() - broker
            child.end()
            check(log)
        seconds = figures["end"] - start
        return {
            "per_second": figures["events"] / seconds,
            "cpu_us_per_pair": 2e6 * figures["cpu_seconds"] / figures["events"],
            "broker_cpu_us_per_pair": 2e6 * broker / figures["events"],
            "seconds": seconds,
        }

    @contextmanager
    def _topics(self, partitions: int) -> Iterator[tuple[str, KafkaLog]]:
        self._runs += 1
        prefix = f"run{self._runs}."
        log = self._cluster.log(prefix, partitions)
        try:
            yield prefix, log
        finally:
            log.close()
            self._cluster.forget(prefix)

    @contextmanager
    def _child(
        self, kind: str, prefix: str, core: int | None, options: Mapping[str, Any], python: str = sys.executable
    ) -> Iterator[_Child]:
        arguments = {"bootstrap": self._cluster.bootstrap, "prefix": prefix, "batch": BATCH, "core": core, **options}
        program = [str(PROGRAM)] if kind == "quix" else ["-m", "benchmarks._streaming_measured", kind]
        with subprocess.Popen(
            [python, *program, json.dumps(arguments)],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as process:
            try:
                yield _Child(kind, process)
            finally:
                process.kill()


class _Child:
    """A measured process, and what it says."""

    def __init__(self, kind: str, process: subprocess.Popen[str]) -> None:
        self._kind = kind
        self._process = process

    def ready(self) -> None:
        """Wait until it is ready."""
        line = self._line()
        if line != "ready\n":
            raise SystemExit(f"the measured process {self._kind!r} said {line!r} instead of that it is ready")

    def figures(self) -> Figures:
        """Wait until it is done, and return what it measured."""
        line = self._line()
        if not line:
            raise SystemExit(f"the measured process {self._kind!r} ended with code {self._process.wait()}")
        found: Figures = json.loads(line)
        return found

    def end(self) -> None:
        """Let it end."""
        self._process.communicate()

    def _line(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline()


def _with(work: Workload, options: Mapping[str, Any]) -> dict[str, Any]:
    return {"workload": work.as_arguments(), **options}


def _counts(work: Workload, partitions: int) -> list[int]:
    """Return how many decisions go to each partition."""
    found = Counter(partition_of(decision_id(number).encode(), partitions) for number in range(work.total))
    return [found[number] for number in range(partitions)]
