"""Archive and learner on a real Kafka, killed with -9 again and again: each feedback once, none lost.

Both keep offsets beside what they made of the records, in one file that is replaced atomically, and go on where that
file says. Whatever the group has committed, or has not, plays no part.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

import numpy as np
import pytest

from engine.oracles import LinearLearner
from engine.records import Feedback
from streaming.insight import tail
from streaming.kafka import KafkaLog, KafkaSettings
from streaming.log import Message
from streaming.topics import FEEDBACK, JOIN
from tests.faults.feedback_member import declared
from tests.integration.service import ROOT
from tests.streaming import samples
from tests.training.feedback import POINT, feedbacks
from training.archive import ArchiveReader, ArchiveWriter

pytestmark = pytest.mark.kafka

#: Feedbacks that come before each life of the process.
PORTION = 240


class Member:
    """The process that is killed."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self._say, self._lines = process.stdin, process.stdout

    def _begin(self, expected: int) -> int:
        self._say.write(f"{expected}\n")
        self._say.flush()
        while (line := self._lines.readline()) == ".\n":
            pass  # of the one before, which was killed
        return int(line.removeprefix("> "))

    def kill_after(self, steps: int, pause_s: float) -> None:
        """Let it run for some steps and a moment, and kill it."""
        pid = self._begin(0)
        for _ in range(steps):
            assert self._lines.readline() == ".\n"
        time.sleep(pause_s)
        os.kill(pid, signal.SIGKILL)

    def finish(self, expected: int) -> None:
        """Let it take what there is, and close."""
        self._begin(expected)
        while (line := self._lines.readline()) != "end\n":
            assert line == ".\n", "it ended before it had closed"


@contextmanager
def member(role: str, settings: KafkaSettings, directory: Path) -> Iterator[Member]:
    directory.mkdir()
    command = [sys.executable, "-m", "tests.faults.feedback_member", role, settings.model_dump_json(), str(directory)]
    with subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        try:
            yield Member(process)
        finally:
            os.killpg(process.pid, signal.SIGKILL)  # and what it has forked


@pytest.fixture
def settings(kafka_bootstrap: str) -> KafkaSettings:
    """With the name of a member: what was killed gets its partitions back at once, not after its session has ended."""
    return KafkaSettings(
        bootstrap_servers=[kafka_bootstrap], topic_prefix=f"kill-{uuid.uuid4().hex[:8]}-", instance_id="only"
    )


@pytest.fixture
def log(settings: KafkaSettings) -> Iterator[KafkaLog]:
    with closing(declared(settings.model_copy(update={"instance_id": "test"}))) as log:
        yield log


def publish(log: KafkaLog, rows: Sequence[Feedback]) -> None:
    """Write feedback as the join does: in transactions, whose marks take offsets between the records."""
    for first in range(0, len(rows), 16):
        with log.transaction(JOIN) as transaction:
            for row in rows[first : first + 16]:
                key, time_ms = row.decision.decision_id.encode(), row.decision.time_ms
                transaction.send(Message(FEEDBACK, key, row.SerializeToString(deterministic=True), time_ms))


def killed(log: KafkaLog, member: Member, rows: Sequence[Feedback], kills: int, state: Callable[[], int]) -> list[int]:
    """Publish portion by portion, and kill the member at a random point of each; return its state after each kill."""
    rng = random.Random(20_260_103)
    states = []
    for number in range(kills):
        publish(log, rows[number * PORTION : (number + 1) * PORTION])
        # At least one portion is there to be read: six steps, of which any may be the last.
        member.kill_after(rng.randint(0, 5), rng.uniform(0.0, 0.04))
        states.append(state())
    publish(log, rows[kills * PORTION :])
    return states


def archive_survives(kills: int, log: KafkaLog, settings: KafkaSettings, directory: Path) -> None:
    rows = feedbacks((kills + 1) * PORTION, step_ms=30_000)  # on several days
    reader = ArchiveReader(directory / "archive")
    with member("archive", settings, directory / "archive") as archive:
        states = killed(log, archive, rows, kills, lambda: reader.count("offers", 0))
        assert states == sorted(states)
        assert len(set(states)) > kills / 2  # it was killed at work, not at rest
        archive.finish(len(rows))

    records = [Feedback.FromString(value) for value in tail(log, FEEDBACK, 2**40)]
    assert Counter(record.SerializeToString(deterministic=True) for record in records) == Counter(
        r.SerializeToString(deterministic=True) for r in rows
    )
    found = reader.read("offers", POINT, 0)
    assert Counter(found.decision_id) == Counter(record.decision.decision_id for record in records)
    # Every field of every row: what an archive holds that was written in one go.
    with closing(ArchiveWriter(directory / "reference", {"offers": POINT})) as reference:
        assert reference.append(records, {}) == []
    assert found.digest() == ArchiveReader(directory / "reference").read("offers", POINT, 0).digest()


def test_the_archive_has_each_feedback_once(log: KafkaLog, settings: KafkaSettings, tmp_path: Path) -> None:
    archive_survives(6, log, settings, tmp_path)


@pytest.mark.slow
def test_the_archive_has_each_feedback_once_after_20_kills(
    log: KafkaLog, settings: KafkaSettings, tmp_path: Path
) -> None:
    archive_survives(20, log, settings, tmp_path)


def test_the_learner_has_learned_each_feedback_once(log: KafkaLog, settings: KafkaSettings, tmp_path: Path) -> None:
    kills = 5
    rows = [samples.feedback(number, float(number % 3 == 0)) for number in range((kills + 1) * PORTION)]
    path = tmp_path / "learner" / "learner.npz"

    def learned() -> int:
        if not path.exists():
            return 0
        with np.load(path) as checkpoint:
            return int(checkpoint[f"{samples.NAME}/learned"])

    with member("learner", settings, tmp_path / "learner") as learner:
        states = killed(log, learner, rows, kills, learned)
        assert states == sorted(states)
        assert len(set(states)) > kills / 2
        learner.finish(len(rows))
    assert learned() == len(rows) == len(tail(log, FEEDBACK, 2**40))

    # One lost and another learned twice would give the same count, and other statistics.
    reference = LinearLearner(2)
    sides = np.array([row.decision.chosen for row in rows])
    reference.partial_fit(
        np.eye(2, dtype=np.float32)[sides], ["ab"[side] for side in sides], np.array([row.reward for row in rows])
    )
    with np.load(path) as checkpoint:
        restored = LinearLearner.from_arrays(
            {key: checkpoint[f"{samples.NAME}/{key}"] for key in ("A", "b", "learned", "vocabulary", "settings")}
        )
    codes = np.array([restored.vocabulary.index(action) + 1 for action in reference.vocabulary])
    x = np.eye(2, dtype=np.float32)
    np.testing.assert_allclose(
        restored.oracle().predict(x, codes), reference.oracle().predict(x, np.array([1, 2])), rtol=1e-9
    )
