"""The join of decisions with their outcomes, as a state machine: no clock, no log, no sockets.

One :class:`Joiner` serves one partition. It is fed decisions and outcomes in any order, and told when a topic was
read to its end; it answers with feedback, exactly one for each decision, but for those that were deferred and not
activated. The rules:

- An outcome counts if its time is at most ``window`` after its decision's, and it comes before the window closes.
  One that is earlier than its decision (clocks differ) counts too.
- A window closes ``window + grace`` after the decision, in event time. The clock of event time is the smaller of two
  clocks: the greatest decision time, and the greatest time of an outcome *that counted*. A topic that
  was read to its end moves its clock to the time of the reading, so that an idle one holds nothing up. An outcome that
  does not count moves no clock: a client with a wrong clock cannot close the windows of others. What is dated too far
  ahead of the clock on the wall is refused, and moves no clock.
- A decision that comes late, as from a server that was cut off for longer than the window, has its outcomes behind it:
  its window stays open for ``window + grace`` after it came, ten minutes at most, and ten seconds at least where it was
  over already. Late is also one whose window is over by the clock on the wall when it is read, unless event time closes
  it: the join may have been away too, and a topic at its end does not mean that the outcomes are there.
- Feedback is given when the window closes, whatever the aggregation: given with the outcome it would reach the learner
  and the monitors before that of decisions without one, and a selection of successes would look like a change.
- A deferred decision needs an activation: an outcome that says that it was acted on, and nothing of the reward. It
  counts if an outcome of its time and place in the log would. Without one the decision gets no feedback, whatever its
  outcomes, and the book counts it as unactivated. An activation of a decision that needs none is one sent twice.
- ``first`` takes the first outcome in the order of the log; later ones are surplus.
- An outcome before its decision waits for it as long as a window of its decision point (the longest one, if it names
  none) is open. So do later outcomes for the same decision: one deadline for all.
- Two outcomes of one id, or without id of one time and value, are one outcome, sent twice. One whose value is out of
  range is refused once, however often it is sent; another value with its id may come still, and counts.
- After its window a decision is remembered for ``window + grace`` more, and as long as its outcomes would have waited
  for it, to tell late and duplicate outcomes from unknown ones.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import Enum

from engine.records import (
    DEAD_LETTER_REASON_INVALID,
    DEAD_LETTER_REASON_UNKNOWN_DECISION,
    DEAD_LETTER_REASON_UNKNOWN_DECISION_POINT,
    DEAD_LETTER_REASON_UNREADABLE,
    JOIN_STAGE_OPEN,
    JOIN_STAGE_PARKED,
    JOIN_STAGE_REMEMBERED,
    JOIN_STAGE_WAITING,
    DeadLetterReason,
    Decision,
    JoinAccounting,
    JoinHead,
    Outcome,
)
from streaming.book import Book
from streaming.counting import JoinReward, copy_of, counted, feedback_of_entry, identity_of
from streaming.effects import Effects, Rejected
from streaming.entry import Entry
from streaming.join_state import JoinState
from streaming.log import Record
from streaming.patience import Overdue, patience_end
from streaming.pending import Pending
from streaming.wire import read_outcome

_TIME_LIMIT_MS = 2**53  # 285,000 years: no sum of two such times overflows a record's field
_VALUE_LIMIT = 1e100  # no sum of such values overflows
_PARKED_MS = 86_400_000


class Source(Enum):
    """The two topics of the join."""

    DECISIONS = 0
    OUTCOMES = 1


class Joiner:
    """Joins the decisions and outcomes of one partition; the module's text has the rules.

    An input costs about the same for any number of decisions that are open or remembered. What was decided for a
    sequence of inputs does not depend on where it is cut by :meth:`drain`, on restarts, or on what is in memory.

    Parameters
    ----------
    points
        How outcomes become rewards, by decision point.
    pending
        Where entries are kept; by default all in memory.
    partition
        Number of the partition.
    max_closings
        How many windows are closed and entries forgotten between two calls of :meth:`drain`, if more are due at once.

    Examples
    --------
    >>> def record(message: Decision | Outcome) -> Record:
    ...     return Record("", 0, 0, 0, message.decision_id.encode(), message.SerializeToString())
    >>> from engine.config import RewardConfig
    >>> from engine.records import Feedback
    >>> joiner = Joiner({"page": RewardConfig(window=1_000, grace=0, aggregation="max")})
    >>> decision = Decision(decision_id="d", decision_point="page", time_ms=5_000)
    >>> joiner.on_decision(decision, record(decision))
    >>> outcome = Outcome(decision_id="d", time_ms=5_400, value=0.25)
    >>> joiner.on_outcome(outcome, record(outcome))
    >>> joiner.drain().feedback
    []
    >>> for source in Source:
    ...     joiner.on_end(source, 6_000)
    >>> [Feedback.FromString(value).reward for _, _, _, value in joiner.drain().feedback]
    [0.25]
    """

    def __init__(
        self,
        points: Mapping[str, JoinReward],
        pending: Pending | None = None,
        *,
        partition: int = 0,
        max_closings: int = 10_000,
    ) -> None:
        self._points = dict(points)
        self._names = {name: name for name in self._points}  # one object for each name
        self._longest_ms = max((c.window + c.grace for c in self._points.values()), default=1)
        self.pending = Pending() if pending is None else pending
        self._hot = self.pending.hot
        self._state = JoinState(self.pending, partition)
        self._max_closings = max_closings
        self._closings = 0
        #: Whether as many windows were closed as fit into a step: drain it before the next input.
        self.full = False
        self._decided_ms = -_TIME_LIMIT_MS  # the two clocks
        self._reported_ms = -_TIME_LIMIT_MS
        self._watermark = -_TIME_LIMIT_MS
        self._now_ms = 0
        self._max_skew_ms = 0
        self._latest_ms = _TIME_LIMIT_MS
        self._overdue = Overdue()
        self._effects = Effects()

    @property
    def watermark_ms(self) -> int:
        """Event time up to which windows are closed."""
        return self._watermark

    @property
    def stored_bytes(self) -> int:
        """Bytes of the state in the changelog, what does not hold any more included."""
        return self._state.stored_bytes

    def accounting(self) -> dict[str, JoinAccounting]:
        """Return the book of each decision point; what belongs to none that is known is under ``""``."""
        return self._state.accounting(self._watermark)

    def undecided(self) -> int:
        """Return how many decisions have no feedback yet."""
        return sum(book.pending for book in self._state.books.copy().values())

    def on_time(self, now_ms: int, max_skew_ms: int) -> None:
        """Take the time on the wall; what is dated more than ``max_skew_ms`` after it is refused from here on."""
        self._now_ms = now_ms
        self._max_skew_ms = max_skew_ms
        self._latest_ms = min(now_ms + max_skew_ms, _TIME_LIMIT_MS)

    def on_decision(self, decision: Decision, record: Record) -> None:
        """Take the next decision, and the record that it was read from; the record's key is the decision id."""
        pending = self.pending
        if pending.earliest_ms <= self._watermark:
            self._close_due(finish=True)
        key = record.key or b""
        time_ms = decision.time_ms
        point = decision.decision_point
        config = self._points.get(point)
        if not key or not -_TIME_LIMIT_MS <= time_ms <= self._latest_ms:
            self._reject_unusable(key, time_ms, record, point)
            return
        if config is None:
            self._reject(DEAD_LETTER_REASON_UNKNOWN_DECISION_POINT, self._unknown(point), record, point)
            return
        entry = self._hot.get(key)
        if entry is None and pending.swaps:
            entry = pending.get(key)
        if entry is not None and entry.stage != JOIN_STAGE_WAITING:
            self._book(entry.point).duplicate_decisions += 1
            return
        book = self._state.books.get(point) or self._book(point)
        book.decisions += 1
        book.pending += 1
        span_ms = config.window + config.grace
        due_ms = time_ms + span_ms
        if due_ms < self._watermark + span_ms:
            due_ms = patience_end(due_ms, span_ms, self._watermark)
        opened = Entry(JOIN_STAGE_OPEN, due_ms, self._names[point], time_ms, record.value)
        opened.inactive = decision.deferred
        if due_ms <= self._now_ms:
            opened.overdue = True
            self._overdue.add(due_ms, key, self._watermark)
        self._state.add(key, opened, entry)
        if entry is not None:
            opened.not_before_ms = entry.due_ms
            for waiting in entry.waiting:
                outcome = read_outcome(waiting)
                self._join(key, opened, outcome, identity_of(outcome), waiting)
        if time_ms > self._decided_ms:
            self._decided_ms = time_ms
            reported_ms = self._reported_ms
            self._watermark = time_ms if time_ms < reported_ms else reported_ms
        if pending.earliest_ms <= self._watermark:
            self._close_due()

    def on_outcome(self, outcome: Outcome, record: Record) -> None:
        """Take the next outcome, and the record that it was read from; the record's key is the decision id."""
        if self.pending.earliest_ms <= self._watermark:
            self._close_due(finish=True)
        key = record.key or b""
        time_ms, value = outcome.time_ms, outcome.value
        entry = self._hot.get(key)
        if entry is None and self.pending.swaps:
            entry = self.pending.get(key)
        if not key or not -_TIME_LIMIT_MS <= time_ms <= self._latest_ms:
            self._reject_unusable(key, time_ms, record, entry.point if entry else outcome.decision_point)
            return
        if not abs(value) <= _VALUE_LIMIT:
            problem = f"value {value} must be a finite number of at most {_VALUE_LIMIT} in magnitude"
            self._reject(DEAD_LETTER_REASON_INVALID, problem, record, entry.point if entry else outcome.decision_point)
            return
        identity = identity_of(outcome)
        if entry is not None and entry.stage != JOIN_STAGE_WAITING:
            self._join(key, entry, outcome, identity, record)
            if self.pending.earliest_ms <= self._watermark:
                self._close_due()
            return
        # Only the decision tells whether the value is out of range: another one of this id has to wait too.
        copy = copy_of(outcome, identity)
        if entry is None:
            config = self._points.get(outcome.decision_point)
            patience = config.window + config.grace if config else self._longest_ms
            # Not before the clock of the join: a client whose clock is slow must not lose an outcome that was only
            # read before its decision.
            entry = Entry(JOIN_STAGE_WAITING, max(time_ms, self._watermark) + patience, "", 0, None)
            entry.see(copy)
            entry.wait(record)
            self._state.add(key, entry)
        elif copy in entry.seen:
            self._book(outcome.decision_point).duplicate_outcomes += 1
        else:
            entry.see(copy)
            entry.wait(record)
            self._state.touch(key, entry)

    def on_end(self, source: Source, now_ms: int) -> None:
        """Note that a topic was read to its end: all that was in it at ``now_ms`` has been handed in.

        Repeat it as long as the topic stays idle. On its own it changes no state that would have to be written,
        unless a window closes.
        """
        if source is Source.DECISIONS:
            self._decided_ms = max(self._decided_ms, now_ms)
        else:
            self._reported_ms = max(self._reported_ms, now_ms)
        passed_ms, self._watermark = self._watermark, min(self._decided_ms, self._reported_ms)
        if self._overdue:
            self._overdue.give_time(passed_ms, self._watermark, self._state, self._points)
        if self.pending.earliest_ms <= self._watermark:
            self._close_due()

    def on_unreadable(self, record: Record, problem: str) -> None:
        """Take a record that could not be read."""
        self._reject(DEAD_LETTER_REASON_UNREADABLE, problem, record, "")

    def go_on(self) -> bool:
        """Go on closing windows after :meth:`drain`; return whether some were due still."""
        if self.pending.earliest_ms <= self._watermark:
            self._close_due()
        return self._closings > 0

    def drain(self) -> Effects:
        """Return what has to be written since the last call; falsy if nothing has."""
        self._closings = 0
        self.full = False
        effects, self._effects = self._effects, Effects()
        if self._state.changed:
            effects.changes.extend(self._state.changes(self._decided_ms, self._reported_ms))
        return effects

    def restore(self, head: JoinHead, changes: Iterable[tuple[bytes, bytes | None]]) -> None:
        """Take back the state of an earlier joiner, before the first input.

        Parameters
        ----------
        head
            The last one in the changelog.
        changes
            Keys and values of the changelog, all of those that are left, in their order.

        Raises
        ------
        LogError
            If they are of another version, or damaged.
        """
        self._decided_ms, self._reported_ms = head.decisions_ms, head.outcomes_ms
        self._watermark = min(head.decisions_ms, head.outcomes_ms)
        self._state.restore(head, changes, self._names, self._revise)

    def _join(self, key: bytes, entry: Entry, outcome: Outcome, identity: str, record: Record) -> None:
        """Give a sound outcome to its decision, unless it has it."""
        if identity in entry.seen:
            self._book(entry.point).duplicate_outcomes += 1
            return
        config = self._points.get(entry.point)
        if config is None:  # it was configured when the decision came
            self._reject(DEAD_LETTER_REASON_UNKNOWN_DECISION_POINT, self._unknown(entry.point), record, entry.point)
            return
        counts = counted(entry, outcome, config)
        if isinstance(counts, str):
            copy = copy_of(outcome, identity)
            if copy in entry.seen:
                self._book(entry.point).duplicate_outcomes += 1
                return
            entry.see(copy)
            self._state.touch(key, entry)
            self._reject(DEAD_LETTER_REASON_INVALID, counts, record, entry.point)
            return
        entry.see(identity)
        self._state.touch(key, entry)
        time_ms = outcome.time_ms
        if entry.decision is None or time_ms > entry.time_ms + config.window:
            self._book(entry.point).late_outcomes += 1
            self._effects.late.append(record)
        elif outcome.activation and not entry.inactive:
            self._book(entry.point).duplicate_outcomes += 1
        elif (
            not outcome.activation
            and config.aggregation == "first"
            and any(counts[2:] == other[2:] for other in entry.outcomes)
        ):
            self._book(entry.point).surplus_outcomes += 1
        else:
            if outcome.activation:
                entry.inactive = False
            else:
                entry.count(counts)
            if time_ms > self._reported_ms:
                self._reported_ms = time_ms
                self._watermark = min(self._decided_ms, time_ms)

    def _close_due(self, *, finish: bool = False) -> None:
        """Close what is due, in the order of due time and id, up to the limit of a step unless told to finish."""
        limit, closings = self._max_closings, self._closings
        for key, entry in self.pending.due(self._watermark):
            closings += 1
            if entry.decision is not None:
                self._close(key, entry)
            else:
                if entry.waiting:
                    self._give_up(key, entry)
                self._state.forget(key, entry)
            # Not before: an entry that came due with the last input is the first one here, and has to be closed now.
            if closings >= limit and not finish:
                break
        self._closings = closings
        self.full = closings >= limit

    def _close(self, key: bytes, entry: Entry) -> None:
        """Close the window of a decision."""
        config = self._points.get(entry.point)
        if config is not None:
            assert entry.decision is not None
            book = self._state.books[entry.point]
            book.pending -= 1
            if entry.inactive:
                book.unactivated += 1
                entry.inactive = False
            else:
                value = feedback_of_entry(entry, entry.decision, config)
                self._effects.feedback.append((key, entry.point, entry.time_ms, value))
                book.feedback += 1
                if not entry.outcomes:
                    book.defaulted += 1
            entry.decision = None
            entry.outcomes = ()
            entry.stage = JOIN_STAGE_REMEMBERED
            entry.due_ms = max(self._watermark + config.window + config.grace, entry.not_before_ms)
        else:  # it stays pending until a restart with a configuration that has its point
            entry.stage = JOIN_STAGE_PARKED
            entry.due_ms = self._watermark + _PARKED_MS
        self.pending.add(key, entry)
        self._state.touch(key, entry)

    def _give_up(self, key: bytes, entry: Entry) -> None:
        """Put the outcomes of an unknown decision aside."""
        given_up = set()
        for record in entry.waiting:
            outcome = read_outcome(record)
            identity = identity_of(outcome)
            if identity in given_up:
                self._book(outcome.decision_point).duplicate_outcomes += 1
                continue
            given_up.add(identity)
            problem = f"no decision {key.decode()!r} was seen until {entry.due_ms} ms, when its window had closed"
            self._reject(DEAD_LETTER_REASON_UNKNOWN_DECISION, problem, record, outcome.decision_point)

    def _revise(self, key: bytes, entry: Entry) -> None:
        """Close the window of a decision that was parked soon, if its point is configured again."""
        if entry.overdue:
            self._overdue.add(entry.due_ms, key, self._watermark)
        if entry.stage == JOIN_STAGE_PARKED and (config := self._points.get(entry.point)) is not None:
            done_ms, done_id = self._state.done
            entry.stage = JOIN_STAGE_OPEN
            entry.not_before_ms = entry.due_ms  # older versions in the changelog are due then
            entry.due_ms = max(entry.time_ms + config.window + config.grace, done_ms + bool(done_id))

    def _book(self, point: str) -> Book:
        """Return the book to be changed."""
        state = self._state
        state.changed = True
        book = state.books.get(point)
        if book is None:
            known = point if point in self._points else ""
            book = state.books.setdefault(known, Book(JoinAccounting()))
        return book

    def _reject(self, reason: DeadLetterReason.ValueType, detail: str, record: Record, point: str) -> None:
        self._book(point).dead_letters += 1
        self._effects.rejected.append(Rejected(reason, detail, record))

    def _reject_unusable(self, key: bytes, time_ms: int, record: Record, point: str) -> None:
        if not key:
            problem = "decision_id is empty; name the decision"
        elif abs(time_ms) > _TIME_LIMIT_MS:
            problem = f"time_ms {time_ms} is no time in milliseconds since 1970"
        else:
            self._effects.skewed += 1
            problem = (
                f"time_ms {time_ms} is {time_ms - self._now_ms} ms ahead of the clock of the join ({self._now_ms}), "
                f"which is more than {self._max_skew_ms}; mend the clock that is wrong, then replay this letter"
            )
        self._reject(DEAD_LETTER_REASON_INVALID, problem, record, point)

    def _unknown(self, point: str) -> str:
        return f"decision point {point!r} is not configured; known are: {', '.join(sorted(self._points)) or 'none'}"
