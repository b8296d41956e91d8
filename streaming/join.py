"""The join of decisions with their outcomes, as a pure state machine: no clock, no files, no sockets.

One :class:`Joiner` serves one partition. It is fed decisions and outcomes in any order, and told when a topic was
read to its end; it answers with feedback, exactly one for each decision. The rules:

- An outcome counts if its time is at most ``window`` after its decision's, and it comes before the window closes.
  One that is earlier than its decision (clocks differ) counts too.
- A window closes ``window + grace`` after the decision, in event time. The clock of event time is the smaller of two
  clocks: the greatest decision time, and the greatest time of an outcome *that counted*. A topic that
  was read to its end moves its clock to the time of the reading, so that an idle one holds nothing up. An outcome that
  does not count moves no clock: a client with a wrong clock cannot close the windows of others.
- Feedback is given when the window closes, whatever the aggregation: given with the outcome it would reach the learner
  and the monitors before that of decisions without one, and a selection of successes would look like a change.
- ``first`` takes the first outcome in the order of the log; later ones are surplus.
- An outcome before its decision waits for it as long as a window of its decision point (the longest one, if it names
  none) is open. So do later outcomes for the same decision: one deadline for all.
- Two outcomes of one id, or without id of one time and value, are one outcome, sent twice.
- After its window a decision is remembered for ``window + grace`` more, to tell late and duplicate outcomes from
  unknown ones.
"""

from __future__ import annotations

import copy
import heapq
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum, auto

from engine.config import RewardConfig
from engine.records import (
    DEAD_LETTER_REASON_INVALID,
    DEAD_LETTER_REASON_UNKNOWN_DECISION,
    DEAD_LETTER_REASON_UNKNOWN_DECISION_POINT,
    DeadLetterReason,
    Decision,
    Feedback,
    JoinAccounting,
    Numbers,
    Outcome,
    PendingJoin,
)

#: Keys of the state that are no decision ids. An id is UTF-8 text, in which the byte FF cannot occur.
RESERVED = b"\xff"
CLOCKS_KEY = RESERVED + b"clocks"
ACCOUNTING_PREFIX = RESERVED + b"accounting/"

_TIME_LIMIT_MS = 2**53  # 285,000 years: no sum of two such times overflows a record's field
_VALUE_LIMIT = 1e100  # no sum of such values overflows


class Source(Enum):
    """The two topics of the join, in the order in which their clocks are stored."""

    DECISIONS = 0
    OUTCOMES = 1


@dataclass(frozen=True, slots=True)
class Rejected:
    """A record that goes to dead letters: the very object that was handed in (or, after a restart, its equal)."""

    reason: DeadLetterReason.ValueType
    detail: str
    record: Decision | Outcome


@dataclass(slots=True)
class Effects:
    """What has to be written, in one transaction, for the inputs since the last :meth:`Joiner.drain`.

    Parameters
    ----------
    feedback, late, rejected
        New records, in the order in which they arose.
    changes
        State by key, serialised; ``None``: remove. :meth:`Joiner.restore` takes it back. Its last entries are the
        clocks and then **all** of the accounting, so that the end of the changelog holds a complete book.
    """

    feedback: list[Feedback] = field(default_factory=list)
    late: list[Outcome] = field(default_factory=list)
    rejected: list[Rejected] = field(default_factory=list)
    changes: dict[bytes, bytes | None] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.changes)


class _Stage(Enum):
    WAITING = auto()  # outcomes without their decision
    OPEN = auto()  # a decision without its feedback
    REMEMBERED = auto()  # feedback given, window closed


@dataclass(slots=True)
class _Entry:
    stage: _Stage
    due_ms: int
    point: str = ""
    decision: Decision | None = None
    outcomes: list[Outcome] = field(default_factory=list)
    seen: dict[str, None] = field(default_factory=dict)  # identities, in their order

    def record(self) -> PendingJoin:
        return PendingJoin(
            decision=self.decision,
            outcomes=self.outcomes,
            closed=self.stage is _Stage.REMEMBERED,
            due_ms=self.due_ms,
            outcome_ids=self.seen,
            decision_point=self.point,
        )

    @classmethod
    def of(cls, record: PendingJoin) -> _Entry:
        decision = record.decision if record.HasField("decision") else None
        undecided = _Stage.WAITING if decision is None else _Stage.OPEN
        stage = _Stage.REMEMBERED if record.closed else undecided
        seen = dict.fromkeys(record.outcome_ids)
        return cls(stage, record.due_ms, record.decision_point, decision, list(record.outcomes), seen)


class Joiner:
    """Joins the decisions and outcomes of one partition; the module's text has the rules.

    Every input costs O(log n) for n decisions that are open or remembered. What was decided for a sequence of inputs
    does not depend on where it is cut by :meth:`drain`, nor on restarts.

    Parameters
    ----------
    points
        How outcomes become rewards, by decision point.

    Examples
    --------
    >>> joiner = Joiner({"page": RewardConfig(window=1_000, grace=0, aggregation="max")})
    >>> joiner.on_decision(Decision(decision_id="d", decision_point="page", time_ms=5_000))
    >>> joiner.on_outcome(Outcome(decision_id="d", time_ms=5_400, value=0.25))
    >>> joiner.drain().feedback
    []
    >>> for source in Source:
    ...     joiner.on_end(source, 6_000)
    >>> [(feedback.reward, feedback.defaulted) for feedback in joiner.drain().feedback]
    [(0.25, False)]
    """

    def __init__(self, points: Mapping[str, RewardConfig]) -> None:
        self._points = dict(points)
        self._longest_ms = max((c.window + c.grace for c in self._points.values()), default=0)
        self._entries: dict[str, _Entry] = {}
        self._due: list[tuple[int, str]] = []  # heap; items whose entry has another due time are void
        self._clocks = dict.fromkeys(Source, -_TIME_LIMIT_MS)
        self._watermark = -_TIME_LIMIT_MS
        self._books: dict[str, JoinAccounting] = {}
        self._touched: dict[str, None] = {}
        self._changed = False
        self._effects = Effects()

    @property
    def watermark_ms(self) -> int:
        """Event time up to which windows are closed."""
        return self._watermark

    def accounting(self) -> dict[str, JoinAccounting]:
        """Return the book of each decision point; what belongs to none that is known is under ``""``."""
        return copy.deepcopy(self._books)

    def on_decision(self, decision: Decision) -> None:
        """Take the next decision."""
        config = self._points.get(decision.decision_point)
        entry = self._entries.get(decision.decision_id)
        if problem := _unusable(decision.decision_id, decision.time_ms):
            self._reject(DEAD_LETTER_REASON_INVALID, problem, decision, decision.decision_point)
        elif config is None:
            problem = self._unknown(decision.decision_point)
            self._reject(DEAD_LETTER_REASON_UNKNOWN_DECISION_POINT, problem, decision, decision.decision_point)
        elif entry is not None and entry.stage is not _Stage.WAITING:
            self._book(entry.point).duplicate_decisions += 1
        else:
            book = self._book(decision.decision_point)
            book.decisions += 1
            book.pending += 1
            waiting = entry.outcomes if entry else []
            entry = _Entry(_Stage.OPEN, 0, decision.decision_point, decision)
            self._schedule(decision.decision_id, entry, decision.time_ms + config.window + config.grace)
            for outcome in waiting:
                self._join(entry, outcome)
            self._move_clock(Source.DECISIONS, decision.time_ms)
            self._close_due()

    def on_outcome(self, outcome: Outcome) -> None:
        """Take the next outcome."""
        problem = _unusable(outcome.decision_id, outcome.time_ms)
        if not problem and not abs(outcome.value) <= _VALUE_LIMIT:
            problem = f"value {outcome.value} must be a finite number of at most {_VALUE_LIMIT} in magnitude"
        entry = self._entries.get(outcome.decision_id)
        identity = _identity(outcome)
        if problem:
            point = entry.point if entry else outcome.decision_point
            self._reject(DEAD_LETTER_REASON_INVALID, problem, outcome, point)
        elif entry is None:
            config = self._points.get(outcome.decision_point)
            patience = config.window + config.grace if config else self._longest_ms
            entry = _Entry(_Stage.WAITING, 0, outcomes=[outcome], seen={identity: None})
            # Not before the clock of the join: a client whose clock is slow must not lose an outcome that was only
            # read before its decision.
            self._schedule(outcome.decision_id, entry, max(outcome.time_ms, self._watermark) + patience)
        elif identity in entry.seen:
            self._book(entry.point or outcome.decision_point).duplicate_outcomes += 1
        elif entry.stage is _Stage.WAITING:
            entry.seen[identity] = None
            entry.outcomes.append(outcome)
            self._touch(outcome.decision_id)
        else:
            self._join(entry, outcome)
            self._close_due()

    def on_end(self, source: Source, now_ms: int) -> None:
        """Note that a topic was read to its end: all that was in it at ``now_ms`` has been handed in.

        Repeat it as long as the topic stays idle. On its own it changes no state that would have to be written,
        unless a window closes.
        """
        self._move_clock(source, now_ms)
        self._close_due()

    def on_unreadable(self) -> None:
        """Count a record that the caller could not read and puts into dead letters itself."""
        self._book("").dead_letters += 1

    def drain(self) -> Effects:
        """Return what has to be written since the last call; falsy if nothing has."""
        effects, self._effects = self._effects, Effects()
        if not self._changed:
            return effects
        for decision_id in self._touched:
            entry = self._entries.get(decision_id)
            effects.changes[decision_id.encode()] = entry.record().SerializeToString() if entry else None
        clocks = Numbers(values=[self._clocks[source] for source in Source])
        effects.changes[CLOCKS_KEY] = clocks.SerializeToString()
        for point, book in self._books.items():
            effects.changes[ACCOUNTING_PREFIX + point.encode()] = book.SerializeToString()
        self._touched = {}
        self._changed = False
        return effects

    def restore(self, key: bytes, value: bytes | None) -> None:
        """Take back one change of an earlier joiner; all of them, in their order, before the first input."""
        if value is None:
            self._entries.pop(key.decode(), None)
        elif key == CLOCKS_KEY:
            times = Numbers.FromString(value).values
            self._clocks = {source: int(time) for source, time in zip(Source, times, strict=True)}
            self._watermark = min(self._clocks.values())
        elif key.startswith(ACCOUNTING_PREFIX):
            self._books[key.removeprefix(ACCOUNTING_PREFIX).decode()] = JoinAccounting.FromString(value)
        else:
            entry = _Entry.of(PendingJoin.FromString(value))
            self._entries[key.decode()] = entry
            heapq.heappush(self._due, (entry.due_ms, key.decode()))

    def _join(self, entry: _Entry, outcome: Outcome) -> None:
        """Give an outcome, new and sound, to its decision."""
        config = self._points.get(entry.point)
        if config is None:  # it was configured when the decision came
            self._reject(DEAD_LETTER_REASON_UNKNOWN_DECISION_POINT, self._unknown(entry.point), outcome, entry.point)
            return
        low, high = config.range
        if config.aggregation != "sum" and not low <= outcome.value <= high:
            problem = f"value {outcome.value} lies outside the range [{low}, {high}] of decision point {entry.point!r}"
            self._reject(DEAD_LETTER_REASON_INVALID, problem, outcome, entry.point)
            return
        entry.seen[_identity(outcome)] = None
        self._touch(outcome.decision_id)
        decision = entry.decision
        if decision is None or outcome.time_ms > decision.time_ms + config.window:
            self._book(entry.point).late_outcomes += 1
            self._effects.late.append(outcome)
        elif config.aggregation == "first" and entry.outcomes:
            self._book(entry.point).surplus_outcomes += 1
        else:
            entry.outcomes.append(outcome)
            self._move_clock(Source.OUTCOMES, outcome.time_ms)

    def _answer(self, entry: _Entry, config: RewardConfig) -> None:
        """Give the feedback of a decision."""
        decision, outcomes = entry.decision, entry.outcomes
        assert decision is not None
        feedback = Feedback(decision=decision, outcomes=len(outcomes), defaulted=not outcomes)
        if outcomes:
            feedback.reward = _aggregate(outcomes, config)
            feedback.reward_time_ms = max(outcome.time_ms for outcome in outcomes)
        else:
            feedback.reward = config.default
            feedback.reward_time_ms = decision.time_ms + config.window
        self._effects.feedback.append(feedback)
        book = self._book(entry.point)
        book.feedback += 1
        book.defaulted += feedback.defaulted
        book.pending -= 1
        entry.outcomes = []

    def _move_clock(self, source: Source, time_ms: int) -> None:
        if time_ms > self._clocks[source]:
            self._clocks[source] = time_ms
            self._watermark = min(self._clocks.values())

    def _close_due(self) -> None:
        while self._due and self._due[0][0] <= self._watermark:
            due_ms, decision_id = heapq.heappop(self._due)
            entry = self._entries.get(decision_id)
            if entry is not None and entry.due_ms == due_ms:
                self._close(decision_id, entry)

    def _close(self, decision_id: str, entry: _Entry) -> None:
        if entry.stage is _Stage.REMEMBERED:
            self._forget(decision_id)
        elif entry.stage is _Stage.WAITING:
            self._forget(decision_id)
            for outcome in entry.outcomes:
                problem = f"no decision {decision_id!r} was seen until {entry.due_ms} ms, when its window had closed"
                self._reject(DEAD_LETTER_REASON_UNKNOWN_DECISION, problem, outcome, outcome.decision_point)
        elif (config := self._points.get(entry.point)) is not None:
            self._answer(entry, config)
            entry.decision = None
            entry.stage = _Stage.REMEMBERED
            self._schedule(decision_id, entry, self._watermark + config.window + config.grace)
        # else: its point is no longer configured; it stays pending until a restart with a configuration that has it

    def _schedule(self, decision_id: str, entry: _Entry, due_ms: int) -> None:
        entry.due_ms = due_ms
        self._entries[decision_id] = entry
        heapq.heappush(self._due, (due_ms, decision_id))
        self._touch(decision_id)

    def _touch(self, decision_id: str) -> None:
        self._touched[decision_id] = None
        self._changed = True

    def _forget(self, decision_id: str) -> None:
        del self._entries[decision_id]
        self._touch(decision_id)

    def _book(self, point: str) -> JoinAccounting:
        """Return the book to be changed."""
        if point not in self._points and point not in self._books:
            point = ""
        book = self._books.setdefault(point, JoinAccounting())
        book.watermark_ms = max(self._watermark, 0)
        self._changed = True
        return book

    def _reject(self, reason: DeadLetterReason.ValueType, detail: str, record: Decision | Outcome, point: str) -> None:
        self._book(point).dead_letters += 1
        self._effects.rejected.append(Rejected(reason, detail, record))

    def _unknown(self, point: str) -> str:
        return f"decision point {point!r} is not configured; known are: {', '.join(sorted(self._points)) or 'none'}"


def _unusable(decision_id: str, time_ms: int) -> str:
    if not decision_id:
        return "decision_id is empty; name the decision"
    if abs(time_ms) > _TIME_LIMIT_MS:
        return f"time_ms {time_ms} is no time in milliseconds since 1970"
    return ""


def _identity(outcome: Outcome) -> str:
    # NUL sets it apart from ids that clients give; + 0.0 makes one zero of -0.0 and 0.0.
    return outcome.outcome_id or f"\0{outcome.time_ms} {outcome.value + 0.0!r}"


def _aggregate(outcomes: list[Outcome], config: RewardConfig) -> float:
    values = [outcome.value for outcome in outcomes]
    match config.aggregation:
        case "first":
            return values[0]
        case "last":  # of equal times the later one in the log
            return max(enumerate(outcomes), key=lambda item: (item[1].time_ms, item[0]))[1].value
        case "sum":
            return math.fsum(values)
        case "min":
            return min(values)
        case "max":
            return max(values)
        case "mean":
            mean = math.fsum(values) / len(values)
            return min(max(mean, min(values)), max(values))  # rounding could leave the declared range
