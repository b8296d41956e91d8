"""The online learner: feedback in, versioned immutable policies out."""

from __future__ import annotations

import io
import json
import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from engine.atomic_file import write_atomically
from engine.config import DecisionPoint, UCRL2OracleConfig
from engine.errors import SnapshotError
from engine.features import same_columns
from engine.oracles import STORED, CalibratedOracle, Learner, LightGBMOracle, MixtureOracle
from engine.records import Alarm, Feedback, Generation, generation_of
from engine.sequential import UCRL2Learner
from engine.store import PolicyStore
from engine.stored_archive import stored
from streaming.background import BackgroundThread
from streaming.intake import feedback_of, parsed
from streaming.log import Log, Record, TopicPartition
from streaming.point_learner import PointLearner, new_learner
from streaming.topics import ALARMS, FEEDBACK, GENERATIONS, LEARNER
from training.learner_file import learner_path, read_learner

logger = logging.getLogger(__name__)

CHECKPOINT_FORMAT = 1
#: Oracles from training alone; all others are learned online.
_BATCH = (LightGBMOracle.kind, MixtureOracle.kind, CalibratedOracle.kind)

Arrays = dict[str, np.ndarray[tuple[int, ...], np.dtype[np.generic]]]


class LearnerRole:
    """Reads feedback and the ledger of generations, learns, publishes, and checkpoints.

    The checkpoint holds statistics **and** offsets in one file that is replaced atomically: after any crash the
    learner goes on as if nothing had happened, learning each feedback once. After an error while it learns it goes
    back to the checkpoint itself: part of a batch may be in the statistics, and its offsets are not.

    What an oracle fits now and then (``engine.oracles.BackgroundLearner``) is fitted by a thread, and feedback is read
    meanwhile. Between two steps the model takes over, or the error comes up as if the step had made it. A checkpoint
    holds the rows of a fit that is under way; who goes on from it fits them again.

    Parameters
    ----------
    log
        Where feedback and promoted generations come from.
    points
        The decision points.
    store
        Where policies are published.
    directory
        Where checkpoints lie.
    clock
        Milliseconds since 1970.

    Attributes
    ----------
    learned : Counter of str
        Feedbacks learned since the start, by decision point; those that an error made it learn again count again.
    last_learned_ms : dict of str to int
        When the last one was.
    """

    def __init__(
        self,
        log: Log,
        points: Mapping[str, DecisionPoint],
        store: PolicyStore,
        directory: Path,
        clock: Callable[[], int],
        checkpoint_interval_ms: int = 2_000,
    ) -> None:
        self._log = log
        self._configured = points
        self._store = store
        self._path = directory / "learner.npz"
        self._clock = clock
        self._interval_ms = checkpoint_interval_ms
        self._saved_ms = clock()
        self._unsaved = False
        self._offsets: dict[TopicPartition, int] = {}
        self.points: dict[str, PointLearner] = {}
        self.learned: Counter[str] = Counter()
        self.last_learned_ms: dict[str, int] = {}
        self._ahead = False
        self._background = BackgroundThread("fit")
        self._restore()
        self._consumer = log.consumer(LEARNER, [FEEDBACK, GENERATIONS, ALARMS])
        self._placed: set[TopicPartition] = set()
        for learner in self.points.values():
            # The initial policy, or the last one before a crash: at any time there is one to serve.
            store.publish(learner.policy)

    def step(self, max_records: int = 2_000, timeout_s: float = 0.0) -> int:
        """Learn what is new; publish and checkpoint when it is time. Returns the number of records read.

        Waits up to ``timeout_s`` for the first.
        """
        if self._ahead:
            self._restore()
        records = self._poll(max_records, timeout_s)
        try:
            self._take(records)
            settled = [learner.settle() for learner in self.points.values()]
        except BaseException:
            # Part of it is learned, and which part cannot be told: statistics and offsets begin again together.
            self._ahead = True
            self._placed = set()
            raise
        now_ms = self._clock()
        for learner in self.points.values():
            policy = learner.update(now_ms)
            if policy is not None:
                self._store.publish(policy)
                learner.published(now_ms)
        self._unsaved |= bool(records) or any(settled)
        if self._unsaved and now_ms - self._saved_ms >= self._interval_ms:
            self.checkpoint()
        return len(records)

    def checkpoint(self) -> None:
        """Write statistics and offsets; raises ``SnapshotError`` when the disk refuses (what was there stays)."""
        self._saved_ms = self._clock()
        arrays: Arrays = {}
        states: dict[str, object] = {}
        for name, learner in self.points.items():
            states[name] = {
                "version": learner.policy.version,
                "after_ms": learner.after_ms,
                "exploring": learner.exploring,
                "learner": None if learner.learner is None else learner.learner.kind,
            }
            self._store.save(learner.policy)
            if learner.learner is not None:
                arrays |= {f"{name}/{key}": np.asarray(array) for key, array in learner.learner.arrays().items()}
        manifest = {
            "format": CHECKPOINT_FORMAT,
            "points": states,
            "offsets": [[tp.topic, tp.partition, offset] for tp, offset in self._offsets.items()],
        }
        buffer = io.BytesIO()
        np.savez(buffer, allow_pickle=False, manifest=np.frombuffer(json.dumps(manifest).encode(), np.uint8), **arrays)
        try:
            write_atomically(self._path, buffer.getvalue())
        except OSError as error:
            raise SnapshotError(f"{self._path}: cannot be written ({error.strerror}); make room") from error
        self._unsaved = False
        self._consumer.commit()  # for those who look at the lag; the checkpoint alone says where to go on

    def close(self) -> None:
        """Checkpoint and leave the group."""
        if not self._ahead:
            self.checkpoint()
        self._background.close()
        self._consumer.close()

    def _poll(self, max_records: int, timeout_s: float) -> list[Record]:
        try:
            records = self._consumer.poll(max_records, timeout_s)
            assignment = self._consumer.assignment()
            if assignment <= self._placed:
                self._placed = set(assignment)
                return records
            # The checkpoint knows where to go on, not the log: what was read is read again from there.
            for partition in assignment:
                self._consumer.seek(partition, self._offsets.get(partition, 0))
            self._placed = set(assignment)
            return self._consumer.poll(max_records)
        except BaseException:
            self._placed = set()  # what was read and not handed over is read again
            raise

    def _take(self, records: Sequence[Record]) -> None:
        """Learn from records, heed alarms and generations among them, and move the offsets behind them all."""
        batches: dict[str, list[tuple[Record, Feedback]]] = {}
        for record in records:
            if record.topic == FEEDBACK:
                feedback = feedback_of(record)
                if feedback is not None and feedback.decision.decision_point in self.points:
                    batches.setdefault(feedback.decision.decision_point, []).append((record, feedback))
            else:
                # What was read before belongs to the time before.
                self._learn(batches)
                batches = {}
                self._hear(record)
        self._learn(batches)
        self._offsets |= {TopicPartition(record.topic, record.partition): record.offset + 1 for record in records}

    def _learn(self, batches: Mapping[str, Sequence[tuple[Record, Feedback]]]) -> None:
        for name, batch in batches.items():
            count = self.points[name].learn(batch)
            if count:
                self.learned[name] += count
                self.last_learned_ms[name] = self._clock()

    def _hear(self, record: Record) -> None:
        if record.topic == GENERATIONS:
            if (generation := parsed(record, Generation)) is not None:
                self._promote(generation)
        elif (alarm := parsed(record, Alarm)) is not None and alarm.decision_point in self.points:
            self.points[alarm.decision_point].alarm(alarm)

    def _promote(self, generation: Generation) -> None:
        learner = self.points.get(generation.decision_point)
        if learner is None or not generation.promoted or generation.generation <= learner.policy.generation:
            return
        if isinstance(learner.point.policy.oracle, UCRL2OracleConfig):
            logger.warning(
                "%s: generation %d is passed over: the decision point is planned for by ucrl2, which no training fits",
                learner.name, generation.generation,
            )  # fmt: skip
            return
        try:
            policy = self._store.load(learner.name, generation.policy_version)
            if not same_columns(policy.point, learner.point):
                raise SnapshotError(f"{policy.version} was trained for other features than are configured now")
            statistics = None
            path = learner_path(self._store, learner.name, policy.version)
            # What was fitted in batch alone, or calibrated or damped in training, stands still until the next one.
            still = policy.oracle.kind in _BATCH or policy.point.policy.exploration != learner.point.policy.exploration
            if path.exists() or not still:
                statistics = read_learner(path)
                if statistics.width != policy.encoder.width:
                    raise SnapshotError(f"{path}: has {statistics.width} columns, not {policy.encoder.width}")
        except SnapshotError as error:
            logger.error("%s: generation %d cannot be served: %s", learner.name, generation.generation, error)
            return
        learner.promote(policy, statistics, generation.window_end_ms, self._clock())
        self._store.publish(policy)
        logger.info("%s: generation %d serves: %s", learner.name, generation.generation, policy.version)

    def _restore(self) -> None:
        """Begin, or begin again, where the checkpoint says."""
        self._ahead = True  # also if this fails half-way
        self._background.drop()
        points = self._configured
        manifest, arrays = self._read_checkpoint()
        try:
            self.points = {
                name: self._restore_point(name, point, manifest["points"].get(name), arrays)
                for name, point in points.items()
            }
            self._offsets = {TopicPartition(topic, number): offset for topic, number, offset in manifest["offsets"]}
            ends = {topic: self._log.ends(topic) for topic in {where.topic for where in self._offsets}}
            if any(offset > ends[where.topic].get(where.partition, 0) for where, offset in self._offsets.items()):
                raise SnapshotError("it has read further than the log reaches: this is another log")
        except (SnapshotError, KeyError, ValueError) as error:
            # Statistics and offsets belong together: without the one the other is of no use.
            logger.error("%s: cannot go on from here (%s); learning again from the log's beginning", self._path, error)
            self.points = {name: self._fresh(name, point) for name, point in points.items()}
            self._offsets = {}
        self._ahead = False

    def _read_checkpoint(self) -> tuple[dict[str, Any], Arrays]:
        try:
            with self._path.open("rb") as file, np.load(stored(file), allow_pickle=False) as archive:
                arrays: Arrays = {key: archive[key] for key in archive.files}
            manifest: dict[str, Any] = json.loads(arrays.pop("manifest").tobytes())
            if manifest["format"] != CHECKPOINT_FORMAT:
                raise SnapshotError(f"format {manifest['format']} is not {CHECKPOINT_FORMAT}")
        except FileNotFoundError:
            pass
        except Exception as error:
            # Damaged bytes make the readers raise almost anything. Nothing is lost: all feedback is in the log.
            logger.error("%s: damaged checkpoint (%s); learning again from the log's beginning", self._path, error)
        else:
            return manifest, arrays
        return {"points": {}, "offsets": []}, {}

    def _restore_point(
        self, name: str, point: DecisionPoint, state: Mapping[str, Any] | None, arrays: Arrays
    ) -> PointLearner:
        if state is None:
            return self._fresh(name, point)
        version = state["version"]
        policy = self._store.load(name, version)
        # As JSON: equal mappings may differ in order, and the order of the features is that of the columns.
        features = {"context", "actions"}
        if policy.point.model_dump_json(include=features) != point.model_dump_json(include=features):
            logger.warning("%s: the schema has changed and what was learned does not fit it; starting afresh", name)
            # Generations are never counted backwards: the ledger and the registry go on from the one before.
            return self._fresh(name, point, generation_of(version))
        before, now = policy.point.policy.oracle, point.policy.oracle
        if UCRL2OracleConfig in (type(before), type(now)) and before != now:
            logger.warning("%s: policy.oracle has changed and what was learned does not fit it; starting afresh", name)
            return self._fresh(name, point, generation_of(version))
        mine = {key.removeprefix(f"{name}/"): array for key, array in arrays.items() if key.startswith(f"{name}/")}
        if policy.point.policy.oracle.kind != point.policy.oracle.kind:
            logger.warning(
                "%s: policy.oracle.kind is %s now, which cannot go on from what %s had learned; starting afresh",
                name, point.policy.oracle.kind, policy.point.policy.oracle.kind,
            )  # fmt: skip
            return self._fresh(name, point, generation_of(version))
        # A checkpoint that does not name the kind is from the time when there was one.
        learner = _restored(point, state.get("learner") or "linear", mine) if mine else None
        return PointLearner(
            name, point, policy, learner, state["after_ms"], state["exploring"], worker=self._background
        )

    def _fresh(self, name: str, point: DecisionPoint, generation: int = 0) -> PointLearner:
        return PointLearner.fresh(name, point, self._clock(), generation, self._background)


def _restored(point: DecisionPoint, kind: str, arrays: Arrays) -> Learner | UCRL2Learner:
    """Return a learner that goes on from what the checkpoint holds."""
    if kind != UCRL2Learner.kind:
        return STORED[kind].from_arrays(arrays)
    learner = new_learner(point)
    assert isinstance(learner, UCRL2Learner)
    learner.restore(arrays)
    return learner
