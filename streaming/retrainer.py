"""The retraining role: turns alarms and the schedule into jobs, each a process of its own."""

from __future__ import annotations

import logging
import subprocess
import sys
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from engine.records import Acknowledgement, Alarm, Generation
from streaming.config import Deciding
from streaming.holds import Holds
from streaming.intake import parsed
from streaming.log import Log
from streaming.monitor import read_statistics, reward_range
from streaming.topics import ACKNOWLEDGEMENTS, ALARMS, GENERATIONS
from training.archive import ArchiveReader
from training.disappointment import disappointment
from training.job import ExitCode
from training.schedule import RetrainRequest, RetrainScheduler

logger = logging.getLogger(__name__)

#: Looking whether a job is due asks the log and counts rows in the archive: not at every step.
LOOK_EVERY_MS = 1_000
#: A job that could not be done (registry or disk away) is tried again after this long.
TRY_AGAIN_MS = 30_000

Launch = Callable[[RetrainRequest | None], subprocess.Popen[bytes]]
Tag = Callable[[], subprocess.Popen[bytes]]
Undo = Callable[[str], subprocess.Popen[bytes]]


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


def tagger(config_path: Path) -> Tag:
    """Return what starts ``leeway drift tag``, which writes alarms to the champion in MLflow."""

    def tag() -> subprocess.Popen[bytes]:
        arguments = ["drift", "tag", "--config", str(config_path)]
        return subprocess.Popen([sys.executable, "-m", "streaming.cli", *arguments], stdout=subprocess.DEVNULL)

    return tag


def undoer(config_path: Path) -> Undo:
    """Return what starts ``leeway rollback --if-disappointing`` for a decision point."""

    def undo(point: str) -> subprocess.Popen[bytes]:
        arguments = ["rollback", "--if-disappointing", "--decision-point", point, "--config", str(config_path)]
        return subprocess.Popen([sys.executable, "-m", "streaming.cli", *arguments], stdout=subprocess.DEVNULL)

    return undo


class RetrainerRole:
    """Starts a retraining job when one is due, one at a time.

    What was asked for is rebuilt from the alarms and the generations in the log, so a restart forgets nothing. While an
    alarm holds the promotions of a decision point nothing is trained for it. Alarms while a trained generation acts
    become tags of the champion, by a job too, which runs when there is nothing to train.
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
    tag
        Starts the job that tags the champions; ``None``: they are not tagged.
    undo
        Starts the job that rolls a decision point back if its champion earns less than was estimated of it, where
        ``retraining.rollback`` is enabled; ``None``: nothing is rolled back. Whether it does is looked at here, every
        ``TRY_AGAIN_MS``: the job is started where it has something to do.
    """

    def __init__(
        self,
        log: Log,
        points: Mapping[str, Deciding],
        archive: ArchiveReader,
        launch: Launch,
        clock: Callable[[], int],
        tag: Tag | None = None,
        undo: Undo | None = None,
    ) -> None:
        self._log = log
        self._archive = archive
        self._launch = launch
        self._clock = clock
        self._scheduler = RetrainScheduler({name: point.retraining for name, point in points.items()}, clock())
        self._points = [name for name, point in points.items() if point.retraining.enabled]
        self._read = {ALARMS: 0, GENERATIONS: 0, ACKNOWLEDGEMENTS: 0}
        self._looked_ms = 0
        self._tag = tag
        self._holds = Holds()
        self._told: dict[str, str] = {}  # why nothing is trained, by decision point
        self._champions: dict[str, int] = {}  # when the acting generation was trained
        self._alarmed: dict[str, int] = {}  # when the newest alarm was
        self._tagging: tuple[dict[str, int], subprocess.Popen[bytes]] | None = None
        self._tagged: dict[str, int] = {}
        self._tag_again_ms = 0
        self._undo = undo
        self._undoing: tuple[str, subprocess.Popen[bytes]] | None = None
        self._watched = {name: point for name, point in points.items() if point.retraining.rollback.enabled}
        self._judged_ms = 0
        self._entries: dict[str, list[Generation]] = {}
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
        self._look_after_tags()
        if self._job is not None:
            request, process = self._job
            code = process.poll()
            if code is None:
                return count
            count += self._follow()  # before the job is done with: should this fail, the next step comes here again
            self._job = None
            if request is not None:
                logger.info("%s: retraining (%s) ended with status %d", request.point, request.reason, code)
                if code in (ExitCode.RETRYABLE, ExitCode.HELD) or code < 0:
                    self._again[request.point] = (self._clock() + TRY_AGAIN_MS, request)
            elif code != 0:
                logger.error("the model registry is not ready; every retraining tries again")
        if looking:
            self._looked_ms = self._clock()
            self._look_after_rollback()
            self._start()
            if self._job is None:
                self._start_tagging()
        return count

    def _start(self) -> None:
        """Start the job that is due, if any."""
        for at_ms, request in self._again.values():
            if self._clock() >= at_ms and not self._held(request.point):
                self._begin(request)
                return
        for point in self._points:
            if self._held(point):
                continue
            due = self._scheduler.due(point, self._clock(), partial(self._archive.count, point))
            if due is not None:
                logger.info("%s: retraining begins (%s)", point, due.reason)
                self._begin(due)
                return

    def _look_after_rollback(self) -> None:
        """Start the rollback of a champion that disappoints: one at a time, and not beside a training."""
        if self._undoing is not None:
            name, process = self._undoing
            code = process.poll()
            if code is None:
                return
            logger.log(logging.ERROR if code else logging.INFO, "%s: rollback ended with status %d", name, code)
            self._undoing = None
        due = self._clock() - self._judged_ms >= TRY_AGAIN_MS
        if self._undo is None or self._job is not None or not self._watched or not due:
            return
        self._judged_ms = self._clock()
        books = read_statistics(self._log)
        for name, point in self._watched.items():
            mine = [book for book in books if book.decision_point == name]
            entries = self._entries.get(name, [])
            words = disappointment(entries, mine, point.retraining.rollback, reward_range(point))
            if words is not None:
                logger.warning("%s: rolling back: %s", name, words)
                self._undoing = (name, self._undo(name))
                return

    def _held(self, point: str) -> bool:
        """Whether an alarm holds the promotions of a decision point; said once."""
        words = self._holds.words(point)
        if words is not None and self._told.get(point) != words:
            logger.warning("%s: nothing is trained: %s", point, words)
        self._told[point] = words or ""
        return words is not None

    def held(self, point: str) -> bool:
        """Whether an alarm holds the promotions of a decision point, as of the last look."""
        return self._holds.words(point) is not None

    def _start_tagging(self) -> None:
        """Start the job that tags champions, if there are alarms since they were promoted that it has not seen."""
        new = {
            point: at_ms
            for point, at_ms in self._alarmed.items()
            if point in self._champions and at_ms > max(self._champions[point], self._tagged.get(point, 0))
        }
        if self._tag is not None and new and self._tagging is None and self._clock() >= self._tag_again_ms:
            self._tag_again_ms = self._clock() + TRY_AGAIN_MS
            self._tagging = (new, self._tag())

    def _look_after_tags(self) -> None:
        if self._tagging is None or (code := self._tagging[1].poll()) is None:
            return
        if code == 0:
            self._tagged |= self._tagging[0]
        else:
            logger.error("alarms could not be written to the registry (status %d); that is tried again", code)
        self._tagging = None

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
                        self._hear(alarm)
                elif topic == ACKNOWLEDGEMENTS:
                    acknowledgement = parsed(record, Acknowledgement)
                    if acknowledgement is not None:
                        self._holds.on_acknowledgement(acknowledgement)
                else:
                    generation = parsed(record, Generation)
                    if generation is not None:
                        self._scheduler.on_generation(generation)
                        if generation.decision_point in self._watched:
                            self._entries.setdefault(generation.decision_point, []).append(generation)
                        if generation.promoted:
                            self._champions[generation.decision_point] = generation.trained_ms
                self._read[topic] = record.offset + 1
                count += 1
        return count

    def _hear(self, alarm: Alarm) -> None:
        self._scheduler.on_alarm(alarm)
        self._holds.on_alarm(alarm)
        if not alarm.explained:
            point = alarm.decision_point
            self._alarmed[point] = max(self._alarmed.get(point, 0), alarm.detected_ms)

    def close(self) -> None:
        """End a running job; it is started again by the next process that finds it due."""
        if self._tagging is not None:
            self._tagging[1].terminate()
            self._tagging[1].wait()
        if self._undoing is not None:
            self._undoing[1].wait()  # it takes seconds, and leaves nothing half done
        if self._job is not None:
            self._job[1].terminate()
            self._job[1].wait()
