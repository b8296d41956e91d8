"""The join of decisions with outcomes once more: as a batch over all that is in the log, written from the rules alone.

No clock, no state, no order between the topics: it is right for records such as ``workload`` makes, where everything
that is in time is also read in time. It shares no code with ``streaming.join``.
"""

from __future__ import annotations

import json
import math
import statistics
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple

from google.protobuf.message import DecodeError

from engine.config import RewardConfig
from engine.records import (
    DEAD_LETTER_REASON_INVALID,
    DEAD_LETTER_REASON_UNKNOWN_DECISION,
    DEAD_LETTER_REASON_UNKNOWN_DECISION_POINT,
    DEAD_LETTER_REASON_UNREADABLE,
    DeadLetterReason,
    Decision,
    Outcome,
)
from streaming.log import Header, Record


class Row(NamedTuple):
    """What a feedback says."""

    partition: int
    decision_id: str
    decision: bytes
    reward: float
    defaulted: bool
    outcomes: int
    reward_time_ms: int


class Letter(NamedTuple):
    """What a dead letter says: where the record came from, why it is here, and the record itself."""

    reason: str
    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: tuple[Header, ...]


class Late(NamedTuple):
    """An outcome after its window, as it came."""

    partition: int
    key: bytes | None
    value: bytes | None
    headers: tuple[Header, ...]


#: Counts by which the join keeps its books.
Book = Counter[str]


@dataclass
class Answer:
    """All that a join has to say: each a multiset, so that what was said twice shows.

    ``books`` are by decision point; what cannot be told apart by it, whatever the order, is under ``""``.
    """

    feedback: Counter[Row] = field(default_factory=Counter)
    late: Counter[Late] = field(default_factory=Counter)
    letters: Counter[Letter] = field(default_factory=Counter)
    books: defaultdict[str, Book] = field(default_factory=lambda: defaultdict(Counter))


def join(
    decisions: Iterable[Record], outcomes: Iterable[Record], points: Mapping[str, RewardConfig], latest_ms: int
) -> Answer:
    """Return what has to come of these records; those of each partition in their order, all windows closed.

    What is dated after ``latest_ms`` is ahead of any clock.
    """
    batch = _Batch(points, latest_ms)
    for record in decisions:
        batch.take_decision(record)
    for record in outcomes:
        batch.take_outcome(record)
    batch.close_windows()
    return batch.answer


class _Batch:
    """First all decisions, then all outcomes, then the feedback."""

    def __init__(self, points: Mapping[str, RewardConfig], latest_ms: int) -> None:
        self.answer = Answer()
        self._points = points
        self._latest_ms = latest_ms
        self._made: dict[str, tuple[Decision, Record]] = {}
        self._told: dict[str, set[object]] = defaultdict(set)
        self._counted: dict[str, list[Outcome]] = defaultdict(list)

    def take_decision(self, record: Record) -> None:
        decision = read_decision(record)
        if decision is None:
            self._reject(record, DEAD_LETTER_REASON_UNREADABLE)
        elif not self._is_time(decision.time_ms):
            self._reject(record, DEAD_LETTER_REASON_INVALID)
        elif decision.decision_point not in self._points:
            self._reject(record, DEAD_LETTER_REASON_UNKNOWN_DECISION_POINT)
        elif decision.decision_id in self._made:
            self.answer.books[decision.decision_point]["duplicate_decisions"] += 1
        else:
            self._made[decision.decision_id] = (decision, record)
            self.answer.books[decision.decision_point]["decisions"] += 1

    def take_outcome(self, record: Record) -> None:
        outcome = read_outcome(record)
        if outcome is None:
            self._reject(record, DEAD_LETTER_REASON_UNREADABLE)
            return
        told = self._told[outcome.decision_id]
        identity = outcome.outcome_id or (outcome.time_ms, outcome.value)
        if not self._is_time(outcome.time_ms) or not math.isfinite(outcome.value) or abs(outcome.value) > 1e100:
            self._reject(record, DEAD_LETTER_REASON_INVALID)
        elif identity in told:
            self.answer.books[""]["duplicate_outcomes"] += 1
        elif outcome.decision_id not in self._made:
            told.add(identity)
            self._reject(record, DEAD_LETTER_REASON_UNKNOWN_DECISION)
        else:
            decision, _ = self._made[outcome.decision_id]
            config = self._points[decision.decision_point]
            if config.aggregation != "sum" and not config.range[0] <= outcome.value <= config.range[1]:
                if (identity, outcome.value) in told:
                    self.answer.books[""]["duplicate_outcomes"] += 1
                else:
                    told.add((identity, outcome.value))
                    self._reject(record, DEAD_LETTER_REASON_INVALID)
            else:
                told.add(identity)
                self._give(decision, outcome, record)

    def close_windows(self) -> None:
        for name, (decision, record) in self._made.items():
            config = self._points[decision.decision_point]
            outcomes = self._counted.get(name, [])
            row = Row(
                partition=record.partition,
                decision_id=name,
                decision=record.value or b"",
                reward=reward(outcomes, config.aggregation) if outcomes else config.default,
                defaulted=not outcomes,
                outcomes=len(outcomes),
                reward_time_ms=max((o.time_ms for o in outcomes), default=decision.time_ms + config.window),
            )
            self.answer.feedback[row] += 1
            book = self.answer.books[decision.decision_point]
            book["feedback"] += 1
            book["defaulted"] += row.defaulted

    def _give(self, decision: Decision, outcome: Outcome, record: Record) -> None:
        """Give a new and sound outcome to its decision."""
        config = self._points[decision.decision_point]
        counted = self._counted[outcome.decision_id]
        book = self.answer.books[decision.decision_point]
        if outcome.time_ms > decision.time_ms + config.window:
            book["late_outcomes"] += 1
            self.answer.late[Late(record.partition, record.key, record.value, tuple(record.headers))] += 1
        elif config.aggregation == "first" and counted:
            book["surplus_outcomes"] += 1
        else:
            counted.append(outcome)

    def _reject(self, record: Record, reason: DeadLetterReason.ValueType) -> None:
        name = DeadLetterReason.Name(reason).removeprefix("DEAD_LETTER_REASON_").lower()
        where = (record.topic, record.partition, record.offset)
        self.answer.letters[Letter(name, *where, record.key, record.value, tuple(record.headers))] += 1
        self.answer.books[""]["dead_letters"] += 1

    def _is_time(self, time_ms: int) -> bool:
        return -(2**53) <= time_ms <= self._latest_ms


def read_decision(record: Record) -> Decision | None:
    """Return the decision in a record, if one can be read."""
    if record.value is None or form(record) != "application/protobuf":
        return None
    try:
        decision = Decision.FromString(record.value)
    except DecodeError:
        return None
    return decision if decision.decision_id.encode() == record.key else None


def read_outcome(record: Record) -> Outcome | None:
    """Return the outcome in a record, if one can be read."""
    if record.value is None:
        return None
    try:
        if form(record) == "application/protobuf":
            outcome = Outcome.FromString(record.value)
        elif form(record) == "application/json":
            entries = json.loads(record.value)
            if "time" in entries:
                entries["time_ms"] = round(datetime.fromisoformat(entries.pop("time")).timestamp() * 1_000)
            outcome = Outcome(**({"decision_id": (record.key or b"").decode()} | entries))
        else:
            return None
    except (DecodeError, ValueError, TypeError):
        return None
    return outcome if outcome.decision_id.encode() == record.key else None


def form(record: Record) -> str:
    """Return the content type of a record."""
    named = dict(record.headers).get("content-type", b"application/protobuf")
    return named.decode().split(";")[0]


def reward(outcomes: list[Outcome], aggregation: str) -> float:
    """Return the aggregate of outcomes in the order of the log."""
    values = [outcome.value for outcome in outcomes]
    if aggregation == "first":
        return values[0]
    if aggregation == "last":
        newest = max(outcome.time_ms for outcome in outcomes)
        return [outcome.value for outcome in outcomes if outcome.time_ms == newest][-1]
    if aggregation in ("min", "max"):
        return min(values) if aggregation == "min" else max(values)
    return math.fsum(values) if aggregation == "sum" else statistics.fmean(values)
