"""The retraining role: turns alarms and the schedule into jobs, each a process of its own."""

from __future__ import annotations

import logging
import subprocess
import sys
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from engine.records import Alarm, Generation
from streaming.config import DecisionPointConfig
from streaming.intake import parsed
from streaming.log import Log
from streaming.topics import ALARMS, GENERATIONS
from training.archive import ArchiveReader
from training.job import ExitCode
from training.schedule import RetrainRequest, RetrainScheduler

logger = logging.getLogger(__name__)

#: Looking whether a job is due asks the log and counts rows in the archive: not at every step.
LOOK_EVERY_MS = 1_000
#: A job that could not be done (registry or disk away) is tried again after this long.
TRY_AGAIN_MS = 30_000

Launch = Callable[[RetrainRequest | None], subprocess.Popen[bytes]]


def launcher(config_path: Path) -> Launch:
    """Return what starts ``leeway retrain`` for a request; its messages go where ours go.

    Without a request it makes the registry ready: the first run on a new database takes seconds to set it up, which
    must not be added to the time that a drift costs.
    """

    def launch(request: RetrainRequest | None) -> subprocess.Popen[bytes]:
        arguments = ["retrain", "--config", str(config_path)]
        if request is None:
            arguments += ["--prepare"]
        else:
            arguments += ["--decision-point", request.point, "--reason", request.reason]
            if request.since_ms is not None:
                arguments += ["--since-ms", str(request.since_ms)]
        return subprocess.Popen([sys.executable, "-m", "streaming.cli", *arguments], stdout=subprocess.DEVNULL)

    return launch


class RetrainerRole:
    """Starts a retraining job when one is due, one at a time.

    What was asked for is rebuilt from the alarms and the generations in the log, so a restart forgets nothing.
    Training runs outside this process: neither joining nor serving waits for it, and its memory is given back.

    Parameters
    ----------
    log
        Where alarms and generations are.
    points
        The decision points with their retraining settings.
    archive
        Says how much feedback there is since a change.
    launch
        Starts a job.
    clock
        Milliseconds since 1970.
    """

    def __init__(
        self,
        log: Log,
        points: Mapping[str, DecisionPointConfig],
        archive: ArchiveReader,
        launch: Launch,
        clock: Callable[[], int],
    ) -> None:
        self._log = log
        self._archive = archive
        self._launch = launch
        self._clock = clock
        self._scheduler = RetrainScheduler({name: point.retraining for name, point in points.items()}, clock())
        self._points = [name for name, point in points.items() if point.retraining.enabled]
        self._read = {ALARMS: 0, GENERATIONS: 0}
        self._looked_ms = 0
        self._again: dict[str, tuple[int, RetrainRequest]] = {}
        self._job: tuple[RetrainRequest | None, subprocess.Popen[bytes]] | None = (
            (None, launch(None)) if self._points else None
        )

    def step(self, *, timeout_s: float = 0.0) -> int:
        """Look after the running job; each second read what is new and start what is due.

        Returns the number of records read; it waits for nothing.
        """
        looking = self._clock() - self._looked_ms >= LOOK_EVERY_MS
        count = self._follow() if looking else 0
        if self._job is not None:
            request, process = self._job
            code = process.poll()
            if code is None:
                return count
            count += self._follow()  # before the job is done with: should this fail, the next step comes here again
            self._job = None
            if request is not None:
                logger.info("%s: retraining (%s) ended with status %d", request.point, request.reason, code)
                if code == ExitCode.RETRYABLE or code < 0:
                    self._again[request.point] = (self._clock() + TRY_AGAIN_MS, request)
            elif code != 0:
                logger.error("the model registry is not ready; every retraining tries again")
        if looking:
            self._looked_ms = self._clock()
            self._start()
        return count

    def _start(self) -> None:
        """Start the job that is due, if any."""
        for at_ms, request in self._again.values():
            if self._clock() >= at_ms:
                self._begin(request)
                return
        for point in self._points:
            due = self._scheduler.due(point, self._clock(), partial(self._archive.count, point))
            if due is not None:
                logger.info("%s: retraining begins (%s)", point, due.reason)
                self._begin(due)
                return

    def _begin(self, request: RetrainRequest) -> None:
        # The scheduler takes it for attempted: should no process start, nobody else would ask for it again.
        self._again[request.point] = (self._clock() + TRY_AGAIN_MS, request)
        self._job = (request, self._launch(request))
        del self._again[request.point]

    def _follow(self) -> int:
        count = 0
        for topic, start in self._read.items():
            for record in self._log.read(topic, 0, start):
                if topic == ALARMS:
                    alarm = parsed(record, Alarm)
                    if alarm is not None:
                        self._scheduler.on_alarm(alarm)
                else:
                    generation = parsed(record, Generation)
                    if generation is not None:
                        self._scheduler.on_generation(generation)
                self._read[topic] = record.offset + 1
                count += 1
        return count

    def close(self) -> None:
        """End a running job; it is started again by the next process that finds it due."""
        if self._job is not None:
            self._job[1].terminate()
            self._job[1].wait()
