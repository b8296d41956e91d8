"""The role that joins: moves decisions and outcomes from the log through the join, and its effects back.

What the join decides is in ``streaming.join``; here is what makes it durable. Each partition has a joiner of its own,
whose state is the compacted topic ``join_state``. A step writes feedback, late outcomes, dead letters, changes of state
and the offsets of what it read in one transaction, so that it has happened once or not at all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping

from google.protobuf.message import DecodeError

from engine.config import RewardConfig
from engine.records import (
    DEAD_LETTER_REASON_UNREADABLE,
    DeadLetter,
    Decision,
    Feedback,
    JoinAccounting,
    Outcome,
)
from streaming.join import ACCOUNTING_PREFIX, CLOCKS_KEY, Effects, Joiner, Rejected, Source
from streaming.log import Log, Message, Record, TopicPartition, Transaction
from streaming.topics import DEAD_LETTERS, DECISIONS, FEEDBACK, JOIN, JOIN_STATE, LATE, OUTCOMES

_SOURCES = {DECISIONS: Source.DECISIONS, OUTCOMES: Source.OUTCOMES}
_BOOK_SPAN = 64

#: The record from which a message was read, by the id of the message. The message is kept too, or its id could be
#: given to another object.
Originals = dict[int, tuple[Decision | Outcome, Record]]


class JoinerRole:
    """One member of the group that joins; one thread uses it.

    Parameters
    ----------
    log
        With the topics of ``streaming.topics`` created.
    points
        How outcomes become rewards, by decision point.
    clock
        Gives the time in milliseconds since 1970. It closes the windows of idle topics.
    batch
        How many records a step takes at most.
    """

    def __init__(
        self, log: Log, points: Mapping[str, RewardConfig], clock: Callable[[], int], *, batch: int = 2_000
    ) -> None:
        self._log = log
        self._points = points
        self._clock = clock
        self._batch = batch
        self._consumer = log.consumer(JOIN, [DECISIONS, OUTCOMES])
        self._joiners: dict[int, Joiner] = {}

    def step(self, timeout_s: float = 0.0) -> int:
        """Take what the log has next, and write what follows from it; return how many records were taken.

        Waits up to ``timeout_s`` for the first record. Call it again at once if it took any, and from time to time in
        any case: windows of idle topics are closed here.

        Raises
        ------
        LogError
            If the log could not be read or written. Nothing has happened then; the next step does it again.
        """
        try:
            self._resume()
            now_ms = self._clock()  # before the poll: what comes later is not promised to have been read
            records = self._consumer.poll(self._batch, timeout_s)
            self._follow()
            letters, originals = self._feed(records)
            for where, lag in self._consumer.lag().items():
                if lag == 0:
                    self._joiners[where.partition].on_end(_SOURCES[where.topic], now_ms)
            self._write(letters, originals, now_ms)
        except BaseException:
            self._joiners.clear()  # they may be ahead of the log: the next step begins again with what is in it
            raise
        return len(records)

    def accounting(self) -> dict[str, JoinAccounting]:
        """Return the book of each decision point over the partitions of this member."""
        return _sum(joiner.accounting() for joiner in self._joiners.values())

    def lag(self) -> dict[TopicPartition, int]:
        """Return for each partition of this member how many records are still to be read; any thread may ask."""
        return self._consumer.lag()

    def close(self) -> None:
        """Leave the group."""
        self._consumer.close()

    def _resume(self) -> None:
        """Go back to what is committed where the last step failed."""
        lost = [where for where in self._consumer.assignment() if where.partition not in self._joiners]
        if lost:
            committed = self._log.committed(JOIN)
            for where in lost:
                self._consumer.seek(where, committed.get(where, 0))
            self._follow()

    def _follow(self) -> None:
        """Keep a joiner for each partition that is assigned now."""
        assigned = {where.partition for where in self._consumer.assignment()}
        for number in assigned - self._joiners.keys():
            joiner = Joiner(self._points)
            for record in _scan(self._log, number):
                joiner.restore(record.key or b"", record.value)
            self._joiners[number] = joiner
        for number in self._joiners.keys() - assigned:
            del self._joiners[number]

    def _feed(self, records: list[Record]) -> tuple[list[DeadLetter], Originals]:
        """Hand records to their joiners; return dead letters of the unreadable ones, and where the others came from."""
        letters: list[DeadLetter] = []
        originals: Originals = {}
        for record in records:
            joiner = self._joiners[record.partition]
            try:
                if record.value is None:
                    raise DecodeError("the record has no value")
                if record.topic == DECISIONS:
                    decision = Decision.FromString(record.value)
                    originals[id(decision)] = (decision, record)
                    joiner.on_decision(decision)
                else:
                    outcome = Outcome.FromString(record.value)
                    originals[id(outcome)] = (outcome, record)
                    joiner.on_outcome(outcome)
            except DecodeError as error:
                joiner.on_unreadable()
                letter = _as_it_came(record)
                letter.reason = DEAD_LETTER_REASON_UNREADABLE
                letter.detail = f"offset {record.offset} of {record.topic}/{record.partition}: {error}"
                letters.append(letter)
        return letters, originals

    def _write(self, letters: list[DeadLetter], originals: Originals, now_ms: int) -> None:
        """Write what the joiners have decided, and where to go on, in one transaction."""
        effects = {number: joiner.drain() for number, joiner in self._joiners.items()}
        if not any(effects.values()):  # each record that was read changes the accounting at least
            return
        with self._log.transaction(JOIN) as transaction:
            for number, effect in effects.items():
                _send(transaction, number, effect, now_ms)
                letters += (_letter(number, rejected, originals) for rejected in effect.rejected)
            for letter in letters:
                transaction.send(_message(DEAD_LETTERS, letter.partition, letter.key, letter, letter.timestamp_ms))
            transaction.commit_offsets(self._consumer.position())


def read_accounting(log: Log) -> dict[str, JoinAccounting]:
    """Return the book of each decision point over all partitions, as it is in the log.

    Any process may call it. What belongs to no decision point that is configured is counted under ``""``. The
    watermark is the greatest one of all partitions.
    """
    return _sum(_read_book(log, partition, end) for partition, end in log.ends(JOIN_STATE).items())


def _read_book(log: Log, partition: int, end: int) -> dict[str, JoinAccounting]:
    # Each step ends with the clocks and all of the accounting: look for them from the end, not through all state.
    span = _BOOK_SPAN
    while True:
        book: dict[str, JoinAccounting] = {}
        complete = end <= span
        for record in _scan(log, partition, max(0, end - span)):
            key = record.key or b""
            if key == CLOCKS_KEY:
                complete = True
                book = {}
            elif key.startswith(ACCOUNTING_PREFIX) and record.value is not None:
                book[key.removeprefix(ACCOUNTING_PREFIX).decode()] = JoinAccounting.FromString(record.value)
        if complete:
            return book
        span *= 8


def _scan(log: Log, partition: int, start: int = 0) -> Iterator[Record]:
    while records := log.read(JOIN_STATE, partition, start):
        yield from records
        start = records[-1].offset + 1


def _sum(books: Iterable[Mapping[str, JoinAccounting]]) -> dict[str, JoinAccounting]:
    total: dict[str, JoinAccounting] = {}
    for book in books:
        for point, accounting in book.items():
            into = total.setdefault(point, JoinAccounting())
            watermark_ms = max(into.watermark_ms, accounting.watermark_ms)
            for field, value in accounting.ListFields():
                setattr(into, field.name, getattr(into, field.name) + value)
            into.watermark_ms = watermark_ms
    return total


def _send(transaction: Transaction, number: int, effects: Effects, now_ms: int) -> None:
    for feedback in effects.feedback:
        decision = feedback.decision
        transaction.send(_message(FEEDBACK, number, decision.decision_id.encode(), feedback, decision.time_ms))
    for outcome in effects.late:
        transaction.send(_message(LATE, number, outcome.decision_id.encode(), outcome, outcome.time_ms))
    for key, state in effects.changes.items():
        transaction.send(Message(JOIN_STATE, key, state, now_ms, partition=number))


def _message(topic: str, number: int, key: bytes, record: Feedback | Outcome | DeadLetter, time_ms: int) -> Message:
    return Message(topic, key, record.SerializeToString(), time_ms, partition=number)


def _letter(number: int, rejected: Rejected, originals: Originals) -> DeadLetter:
    message = rejected.record
    if id(message) in originals:
        letter = _as_it_came(originals[id(message)][1])
    else:  # an outcome that waited since an earlier step: its place in the log is not known any more
        letter = DeadLetter(
            topic=OUTCOMES,
            partition=number,
            offset=-1,
            timestamp_ms=message.time_ms,
            key=message.decision_id.encode(),
            value=message.SerializeToString(),
        )
    letter.reason = rejected.reason
    letter.detail = rejected.detail
    return letter


def _as_it_came(record: Record) -> DeadLetter:
    return DeadLetter(
        topic=record.topic,
        partition=record.partition,
        offset=record.offset,
        timestamp_ms=record.timestamp_ms,
        key=record.key or b"",
        value=record.value or b"",
    )
