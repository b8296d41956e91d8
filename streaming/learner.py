"""The online learner: feedback in, versioned immutable policies out."""

from __future__ import annotations

import io
import json
import logging
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from google.protobuf.message import DecodeError

from engine.config import DecisionPoint
from engine.errors import InvalidRequest, SnapshotError
from engine.features import Encoder
from engine.oracles import LinearLearner, LinearOracle
from engine.policy import Policy, initial_policy
from engine.records import Alarm, Feedback, Generation, generation_of
from engine.store import PolicyStore, write_atomically
from streaming.log import Log, Record, TopicPartition
from streaming.topics import ALARMS, FEEDBACK, GENERATIONS, LEARNER
from training.learner_file import learner_path, read_learner

logger = logging.getLogger(__name__)

CHECKPOINT_FORMAT = 1

Arrays = dict[str, np.ndarray[tuple[int, ...], np.dtype[np.generic]]]


class PointLearner:
    """What is learned of one decision point, and the policy that comes of it.

    A generation with a linear oracle goes on learning; one with any other oracle serves as it was trained until
    the next generation. After an alarm that calls for retraining the policy explores uniformly with the share of the
    reward that was lost (at most ``policy.drift_exploration``): the oracle has been shown wrong, a new generation needs
    data on every action, and this costs at most what the drift itself costs. The next promotion ends it.

    Parameters
    ----------
    name, point
        The decision point.
    policy
        The one to go on from.
    learner
        Its statistics, if its oracle learns online.
    after_ms
        Feedback of decisions up to this time is part of the statistics already.
    exploring
        Feedbacks for which the exploration of an alarm still lasts.
    """

    def __init__(
        self,
        name: str,
        point: DecisionPoint,
        policy: Policy,
        learner: LinearLearner | None,
        after_ms: int = 0,
        exploring: int = 0,
    ) -> None:
        self.name = name
        self.point = point
        self.policy = policy
        self.learner = learner
        self.after_ms = after_ms
        self.exploring = exploring
        self._encoder = Encoder(point)
        self._dirty = False
        self._published_ms = policy.created_ms

    @classmethod
    def fresh(cls, name: str, point: DecisionPoint, now_ms: int, generation: int = 0) -> PointLearner:
        """Start with nothing learned."""
        oracle = point.policy.oracle
        learner = LinearLearner(
            Encoder(point).width, ridge=oracle.ridge, forgetting=oracle.forgetting, max_actions=oracle.max_actions
        )
        return cls(name, point, initial_policy(name, point, now_ms, generation), learner)

    def learn(self, batch: list[Feedback]) -> int:
        """Learn from feedback and return how many of it could be used."""
        if self.exploring:
            self.exploring = max(0, self.exploring - len(batch))
            self._dirty |= not self.exploring
        if self.learner is None:
            return 0
        X = np.zeros((len(batch), self._encoder.width), dtype=np.float32)
        actions: list[str] = []
        rewards: list[float] = []
        for feedback in batch:
            decision = feedback.decision
            if decision.time_ms <= self.after_ms:
                continue
            try:
                encoded = self._encoder.encode(decision.context, decision.actions, decision.packed_actions)
            except InvalidRequest as error:
                # It fitted the schema when it was decided: the schema has changed since.
                logger.warning("%s: feedback of decision %s is not learned: %s", self.name, decision.decision_id, error)
                continue
            X[len(actions)] = encoded.X[decision.chosen]
            actions.append(decision.actions[decision.chosen].id)
            rewards.append(feedback.reward)
        self.learner.partial_fit(X[: len(actions)], actions, np.array(rewards))
        self._dirty |= bool(actions)
        return len(actions)

    def alarm(self, alarm: Alarm) -> None:
        """Explore for a while, if the alarm calls for retraining and is younger than the generation."""
        if not alarm.calls_for_retraining or alarm.detected_ms <= self.after_ms:
            return
        gained = alarm.mean_before - self.point.reward.range[0]
        lost = (alarm.mean_before - alarm.mean_after) / gained if gained > 0.0 else 1.0
        share = min(lost, self.point.policy.drift_exploration)
        if share > 0.0:
            self.exploring = self.point.policy.drift_exploration_feedbacks
            self.policy = replace(self.policy, uniform_share=share)
            self._dirty = True
            self._published_ms = 0  # every decision until then is made by an oracle that is known to be wrong

    def update(self, now_ms: int) -> Policy | None:
        """Return a new policy if there is something new and the publishing interval has passed."""
        if not self._dirty or now_ms - self._published_ms < self.point.policy.publish_interval:
            return None
        self._dirty = False
        self._published_ms = now_ms
        learner = self.learner
        self.policy = replace(
            self.policy,
            point=self.point,
            vocabulary=self.policy.vocabulary if learner is None else tuple(learner.vocabulary),
            oracle=self.policy.oracle if learner is None else learner.oracle(),
            update=self.policy.update + 1,
            learned=self.policy.learned if learner is None else learner.learned,
            created_ms=now_ms,
            uniform_share=self.policy.uniform_share if self.exploring else 0.0,
        )
        return self.policy

    def promote(self, policy: Policy, learner: LinearLearner | None, after_ms: int, now_ms: int) -> None:
        """Go on from a promoted generation."""
        self.policy = policy
        self.learner = learner
        self.after_ms = after_ms
        self.exploring = 0
        # The statistics have seen the held-back feedback too, which the policy, as it was judged, has not.
        self._dirty = learner is not None and learner.learned != policy.learned
        self._published_ms = now_ms


class LearnerRole:
    """Reads feedback and the ledger of generations, learns, publishes, and checkpoints.

    The checkpoint holds statistics **and** offsets in one file that is replaced atomically: after any crash the
    learner goes on as if nothing had happened, learning each feedback once.

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
        Feedbacks learned since the start, by decision point.
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
        self._restore(points, log)
        self._consumer = log.consumer(LEARNER, [FEEDBACK, GENERATIONS, ALARMS])
        self._placed: set[TopicPartition] = set()
        for learner in self.points.values():
            # The initial policy, or the last one before a crash: at any time there is one to serve.
            store.publish(learner.policy)

    def step(self, max_records: int = 2_000, timeout_s: float = 0.0) -> int:
        """Learn what is new; publish and checkpoint when it is time. Returns the number of records read.

        Waits up to ``timeout_s`` for the first.
        """
        records = self._poll(max_records, timeout_s)
        batches: dict[str, list[Feedback]] = {}
        for record in records:
            if record.topic == FEEDBACK:
                feedback = _parse(record)
                if feedback is not None and feedback.decision.decision_point in self.points:
                    batches.setdefault(feedback.decision.decision_point, []).append(feedback)
            else:
                # What was read before belongs to the time before.
                self._learn(batches)
                batches = {}
                self._hear(record)
            self._offsets[TopicPartition(record.topic, record.partition)] = record.offset + 1
        self._learn(batches)
        now_ms = self._clock()
        for learner in self.points.values():
            policy = learner.update(now_ms)
            if policy is not None:
                self._store.publish(policy)
        self._unsaved |= bool(records)
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
        self.checkpoint()
        self._consumer.close()

    def _poll(self, max_records: int, timeout_s: float) -> list[Record]:
        records = self._consumer.poll(max_records, timeout_s)
        assignment = self._consumer.assignment()
        self._placed &= assignment
        new = assignment - self._placed
        if not new:
            return records
        # The checkpoint knows where to go on, not the log: records read from elsewhere are dropped unread.
        for partition in new:
            self._consumer.seek(partition, self._offsets.get(partition, 0))
        self._placed |= new
        return self._consumer.poll(max_records)

    def _learn(self, batches: Mapping[str, list[Feedback]]) -> None:
        for name, batch in batches.items():
            count = self.points[name].learn(batch)
            if count:
                self.learned[name] += count
                self.last_learned_ms[name] = self._clock()

    def _hear(self, record: Record) -> None:
        if record.topic == GENERATIONS:
            self._promote(Generation.FromString(record.value or b""))
            return
        alarm = Alarm.FromString(record.value or b"")
        if alarm.decision_point in self.points:
            self.points[alarm.decision_point].alarm(alarm)

    def _promote(self, generation: Generation) -> None:
        learner = self.points.get(generation.decision_point)
        if learner is None or not generation.promoted or generation.generation <= learner.policy.generation:
            return
        try:
            policy = self._store.load(learner.name, generation.policy_version)
            statistics = None
            if policy.oracle.kind == LinearOracle.kind:
                statistics = read_learner(learner_path(self._store, learner.name, policy.version))
        except SnapshotError as error:
            logger.error("%s: generation %d cannot be served: %s", learner.name, generation.generation, error)
            return
        learner.promote(policy, statistics, generation.window_end_ms, self._clock())
        self._store.publish(policy)
        logger.info("%s: generation %d serves: %s", learner.name, generation.generation, policy.version)

    def _restore(self, points: Mapping[str, DecisionPoint], log: Log) -> None:
        manifest, arrays = self._read_checkpoint()
        try:
            self.points = {
                name: self._restore_point(name, point, manifest["points"].get(name), arrays)
                for name, point in points.items()
            }
            self._offsets = {TopicPartition(topic, number): offset for topic, number, offset in manifest["offsets"]}
            ends = {topic: log.ends(topic) for topic in {where.topic for where in self._offsets}}
            if any(offset > ends[where.topic].get(where.partition, 0) for where, offset in self._offsets.items()):
                raise SnapshotError("it has read further than the log reaches: this is another log")
        except (SnapshotError, KeyError, ValueError) as error:
            # Statistics and offsets belong together: without the one the other is of no use.
            logger.error("%s: cannot go on from here (%s); learning again from the log's beginning", self._path, error)
            self.points = {name: PointLearner.fresh(name, point, self._clock()) for name, point in points.items()}
            self._offsets = {}

    def _read_checkpoint(self) -> tuple[dict[str, Any], Arrays]:
        try:
            with self._path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
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
            return PointLearner.fresh(name, point, self._clock())
        version = state["version"]
        policy = self._store.load(name, version)
        # As JSON: equal mappings may differ in order, and the order of the features is that of the columns.
        features = {"context", "actions"}
        if policy.point.model_dump_json(include=features) != point.model_dump_json(include=features):
            logger.warning("%s: the schema has changed and what was learned does not fit it; starting afresh", name)
            # Generations are never counted backwards: the ledger and the registry go on from the one before.
            return PointLearner.fresh(name, point, self._clock(), generation_of(version))
        mine = {key.removeprefix(f"{name}/"): array for key, array in arrays.items() if key.startswith(f"{name}/")}
        learner = LinearLearner.from_arrays(mine) if mine else None
        return PointLearner(name, point, policy, learner, state["after_ms"], state["exploring"])


def _parse(record: Record) -> Feedback | None:
    try:
        return Feedback.FromString(record.value or b"")
    except DecodeError:
        logger.error("%s/%d@%d is no feedback; skipped", record.topic, record.partition, record.offset)
        return None
