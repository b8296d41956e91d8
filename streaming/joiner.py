"""The role that joins: moves decisions and outcomes from the log through the join, and its effects back.

What the join decides is in ``streaming.join``; here is what makes it durable. Each partition has a joiner of its own,
whose state is the compacted topic ``join_state``. A step writes feedback, late outcomes, dead letters, changes of state
and the offsets of what it read in one transaction, so that it has happened once or not at all. Where there is more to
read, that transaction is committed while the next records are read and joined (``streaming.commits``): most of a commit
is waiting for the broker.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import groupby
from operator import itemgetter
from pathlib import Path

from engine.records import JoinAccounting, JoinHead
from streaming.book import total
from streaming.changelog import HEAD_KEY, TOPIC, block_of, head_of, is_ours
from streaming.cold import ColdTable
from streaming.commits import Commits
from streaming.counting import JoinReward
from streaming.dead_letters import dead_letter
from streaming.effects import Effects
from streaming.join import Joiner, Source
from streaming.log import Log, Message, Record, TopicPartition, Transaction
from streaming.pending import Pending
from streaming.topics import DECISIONS, FEEDBACK, JOIN, JOIN_STATE, LATE, OUTCOMES
from streaming.wire import UnreadableError, feedback_headers, read_decision, read_outcome

logger = logging.getLogger(__name__)

_SOURCES = {DECISIONS: Source.DECISIONS, OUTCOMES: Source.OUTCOMES}
#: How long a step goes on polling, if there is more to read: a transaction costs about as much as hundreds of records.
_GATHER_MS = 100
#: About how much of the state is read at a time.
_READ_BYTES = 8_388_608
#: From so many outcomes of a partition in hand no more are read until their decisions have come ...
_HELD = 20_000
#: ... and so many are left.
_HELD_AGAIN = 5_000
#: So long an outcome is held at most, whatever the log says of decisions that are still to be read.
_HELD_MS = 5_000
_HEAD_SPAN = 4
_TELL_AFTER = 250_000


class JoinerRole:
    """One member of the group that joins; one thread uses it, any may ask for its figures.

    Parameters
    ----------
    log
        With the topics of ``streaming.topics`` created.
    points
        How outcomes become rewards, by decision point.
    clock
        Gives the time in milliseconds since 1970. It closes the windows of idle topics.
    batch
        How many records a step takes at most, and how many windows are closed in one transaction if more are due.
    max_skew_ms
        What is dated so much later than the clock goes to dead letters.
    swap
        Directory on a local disk for the part of the state that does not fit in memory; ``None``: all stays in memory.
    max_hot
        How many decisions this member keeps in memory, where there is ``swap``. One takes its own bytes and about
        half a KiB.

    Attributes
    ----------
    commits : int
        Transactions so far.
    restores : int
        How often the state of a partition was read from the log.
    skewed : int
        Records that were refused for their time, so far.
    """

    def __init__(
        self,
        log: Log,
        points: Mapping[str, JoinReward],
        clock: Callable[[], int],
        *,
        batch: int = 10_000,
        max_skew_ms: int = 300_000,
        swap: Path | None = None,
        max_hot: int = 200_000,
    ) -> None:
        self._log = log
        self._points = points
        self._clock = clock
        self._batch = batch
        self._max_skew_ms = max_skew_ms
        self._swap = None if swap is None else partial(ColdTable, swap)
        self._max_hot = max_hot
        self._consumer = log.consumer(JOIN, [DECISIONS, OUTCOMES])
        self._commits = Commits(overlap=log.fences)
        self._joiners: dict[int, Joiner] = {}
        self._held: dict[int, list[Record]] = {}  # outcomes that are ahead of the decisions, by partition
        self._decided_ms: dict[int, int] = {}
        self._held_since_ms: dict[int, int] = {}
        self._paused: set[int] = set()
        self._watermarks: dict[int, int] = {}
        self.commits = 0
        self.restores = 0
        self.skewed = 0

    def step(self, timeout_s: float = 0.0) -> int:
        """Take what the log has next, and write what follows from it; return how many records were taken.

        Waits up to ``timeout_s`` for the first record. Call it again at once if it took any, and from time to time in
        any case: windows of idle topics are closed here. Where nothing came or is left to be read, all is committed
        when it returns; else the last transaction may be under way, and the next step raises its error.

        Raises
        ------
        LogError
            If the log could not be read or written, or the state does not fit on the disk. What was not committed
            has not happened then; the next step begins again with what is committed.
        """
        try:
            self._resume()
            now_ms = self._clock()  # before the poll: what comes later is not promised to have been read
            records, lag = self._gather(now_ms, timeout_s)
            self._follow(records)
            ready = self._in_time(records, lag, now_ms)
            self._feed(ready, now_ms)
            for where, behind in lag.items():
                if behind == 0 and not (where.topic == OUTCOMES and self._held.get(where.partition)):
                    self._joiners[where.partition].on_end(_SOURCES[where.topic], now_ms)
            self._write(())
            if not (records and any(lag.values())):
                self._commits.finish()
            self._watermarks = {number: joiner.watermark_ms for number, joiner in self._joiners.items()}
        except BaseException:
            self._commits.abandon()  # what is committed must be certain before it is asked for
            self._forget()  # it may be ahead of the log: the next step begins again with what is in it
            raise
        return max(len(records), len(ready))

    def accounting(self) -> dict[str, JoinAccounting]:
        """Return the book of each decision point over the partitions of this member."""
        return total(joiner.accounting() for joiner in self._members().values())

    def lag(self) -> dict[TopicPartition, int]:
        """Return for each partition of this member how many records are still to be taken."""
        held = {TopicPartition(OUTCOMES, number): len(records) for number, records in self._held.copy().items()}
        return {where: behind + held.get(where, 0) for where, behind in self._consumer.lag().items()}

    def watermarks(self) -> dict[int, int]:
        """Return for each partition of this member the event time up to which windows are closed, in milliseconds.

        As of the last step that succeeded: while nothing can be written they stand still, though more was read.
        """
        return self._watermarks

    def pending(self) -> int:
        """Return how many decisions of this member have no feedback yet."""
        return sum(joiner.undecided() for joiner in self._members().values())

    def close(self) -> None:
        """Wait for what is under way, and leave the group; raises ``LogError`` if that failed."""
        try:
            self._commits.finish()
        finally:
            self._consumer.close()
            self._forget()

    def _members(self) -> dict[int, Joiner]:
        return self._joiners.copy()  # in one piece, whatever the role's thread does

    def _forget(self) -> None:
        for joiner in self._joiners.values():
            joiner.pending.close()
        self._joiners.clear()
        self._held.clear()
        self._held_since_ms.clear()
        self._decided_ms.clear()

    def _resume(self) -> None:
        """Go back to what is committed where the last step failed."""
        lost = [where for where in self._consumer.assignment() if where.partition not in self._joiners]
        if lost:
            committed = self._log.committed(JOIN)
            for where in lost:
                self._consumer.seek(where, committed.get(where, 0))
            self._follow([])

    def _gather(self, now_ms: int, timeout_s: float) -> tuple[list[Record], dict[TopicPartition, int]]:
        """Return the next records, and what is left to be read after them."""
        consumer = self._consumer
        records = consumer.poll(self._batch, timeout_s)
        assigned, lag = consumer.assignment(), consumer.lag()
        for number in self._joiners.keys() - {where.partition for where in assigned}:
            self._leave(number)  # now: it may come back in the next poll
        while records and len(records) < self._batch and any(lag.values()) and self._clock() - now_ms < _GATHER_MS:
            more = consumer.poll(self._batch - len(records))
            records += more
            lost = assigned - consumer.assignment()
            assigned, lag = consumer.assignment(), consumer.lag()
            if lost:  # they may come back, and then begin with what their owner in between has committed
                records = [record for record in records if TopicPartition(record.topic, record.partition) not in lost]
                for number in {where.partition for where in lost}:
                    self._leave(number)
            if not more:
                break
        return records, lag

    def _in_time(self, records: Sequence[Record], lag: Mapping[TopicPartition, int], now_ms: int) -> list[Record]:
        """Return what is to be handed in now: decisions, then outcomes up to the time of the decisions.

        An outcome that comes before its decision has to wait for it, which is more work. Where there is a lot to read,
        clients give as many bytes of the small outcomes as of the large decisions: outcomes would run far ahead. So
        they are held here until the decisions of their time have come, or all of them, or nothing comes. What is held
        is not committed.
        """
        ready = []
        for (topic, number), group in groupby(records, itemgetter(0, 1)):  # clients give runs of one partition
            if topic == DECISIONS:
                decisions = list(group)
                ready += decisions
                latest_ms = max(record.timestamp_ms for record in decisions)
                self._decided_ms[number] = max(self._decided_ms.get(number, 0), latest_ms)
            else:
                self._held.setdefault(number, []).extend(group)
        for number, held in self._held.items():
            until_ms = self._decided_ms.get(number, 0)
            count = len(held)
            if records and lag.get(TopicPartition(DECISIONS, number), 0):
                ahead = next((at for at, record in enumerate(held) if record.timestamp_ms > until_ms), count)
                if ahead or now_ms - self._held_since_ms.setdefault(number, now_ms) < _HELD_MS:
                    count = ahead
            if count:
                ready += held[:count]
                del held[:count]
                self._held_since_ms.pop(number, None)
        self._pause()
        return ready

    def _pause(self) -> None:
        """Read no more outcomes of the partitions of which enough are held."""
        bound = {number: _HELD_AGAIN if number in self._paused else _HELD for number in self._held}
        paused = {number for number, held in self._held.items() if len(held) >= bound[number]}
        if paused != self._paused:
            self._paused = paused
            self._consumer.pause([TopicPartition(OUTCOMES, number) for number in paused])

    def _leave(self, number: int) -> None:
        self._held.pop(number, None)
        self._held_since_ms.pop(number, None)
        self._decided_ms.pop(number, None)
        joiner = self._joiners.pop(number, None)
        if joiner is not None:
            joiner.pending.close()

    def _follow(self, records: Sequence[Record]) -> None:
        """Keep a joiner for each partition that is assigned now."""
        assigned = {where.partition for where in self._consumer.assignment()}
        for number in self._joiners.keys() - assigned:
            self._leave(number)
        for number in sorted(assigned - self._joiners.keys()):
            self._joiners[number] = self._restored(number)
        for joiner in self._joiners.values():
            joiner.pending.max_hot = self._max_hot // len(self._joiners)

    def _restored(self, number: int) -> Joiner:
        pending = Pending(self._max_hot, self._swap)
        joiner = Joiner(self._points, pending, partition=number, max_closings=self._batch)
        try:
            head = _last_head(self._log, number, self._log.ends(JOIN_STATE)[number])
            own = _own(_scan(self._log, number), number)
            if head is not None:
                joiner.restore(head, _told(own, pending, number))
            else:
                deque(own, maxlen=0)  # nothing is ours, but what is there has to be told
        except BaseException:
            pending.close()
            raise
        self.restores += 1
        return joiner

    def _feed(self, records: Sequence[Record], now_ms: int) -> None:
        """Hand records to their joiners; write before the end where more windows close than fit in a transaction."""
        for number, joiner in self._joiners.items():
            joiner.on_time(now_ms, self._max_skew_ms)
            if joiner.pending.swapped:
                joiner.pending.expect(record.key or b"" for record in records if record.partition == number)
        if any(joiner.go_on() for joiner in self._joiners.values()):  # what the last owner had left
            self._write(records)
        joiners = self._joiners
        for index, record in enumerate(records):
            joiner = joiners[record.partition]
            if joiner.full:
                self._write(records[index:])
            try:
                if record.topic == DECISIONS:
                    joiner.on_decision(read_decision(record), record)
                else:
                    joiner.on_outcome(read_outcome(record), record)
            except UnreadableError as error:
                joiner.on_unreadable(record, str(error))

    def _write(self, left: Sequence[Record]) -> None:
        """Write what the joiners have decided, and where to go on; ``left`` are records that were not handed in yet.

        Where too much is due at once, it takes more than one transaction.
        """
        again = True
        while again:
            effects = {number: joiner.drain() for number, joiner in self._joiners.items()}
            if any(effects.values()):  # each record that was read changes the accounting at least
                transaction = self._log.transaction(JOIN)
                transaction.commit_offsets(self._offsets(left))  # here, where the partitions are certainly its own
                self._commits.begin(partial(self._commit, transaction, effects, self._clock()))
            again = any(joiner.go_on() for joiner in self._joiners.values())

    def _commit(self, transaction: Transaction, effects: Mapping[int, Effects], now_ms: int) -> None:
        with transaction:
            for number, effect in effects.items():
                _send(transaction, number, effect, now_ms)
        self.commits += 1
        self.skewed += sum(effect.skewed for effect in effects.values())

    def _offsets(self, left: Sequence[Record]) -> dict[TopicPartition, int]:
        held = [records[0] for records in self._held.values() if records]
        first = {(record.topic, record.partition): record.offset for record in reversed([*left, *held])}
        offsets = self._consumer.position()
        return offsets | {TopicPartition(*where): offset for where, offset in first.items()}


def read_accounting(log: Log) -> dict[str, JoinAccounting]:
    """Return the book of each decision point over all partitions, as it is in the log.

    Any process may call it. What belongs to no decision point that is configured is counted under ``""``. The
    watermark is the greatest one of all partitions.
    """
    heads = (_last_head(log, partition, end) for partition, end in log.ends(JOIN_STATE).items())
    return total(head.books for head in heads if head is not None)


def _last_head(log: Log, partition: int, end: int) -> JoinHead | None:
    """Return what ended the last step of a partition; ``None`` if there was none yet."""
    # Each step ends with it: look for it from the end, not through all state.
    span = _HEAD_SPAN
    while end > 0:
        found = None
        for record in _scan(log, partition, max(0, end - span)):
            if record.key == HEAD_KEY and record.value is not None:
                found = record.value
            elif span >= end and is_ours(record.key):
                block_of(record.key or b"")  # of another version?
        if found is not None:
            return head_of(found)
        if span >= end:
            break
        span *= 8
    return None


def _scan(log: Log, partition: int, start: int = 0) -> Iterator[Record]:
    """Read the state of a partition, little of it at a time."""
    count = 16
    while records := log.read(JOIN_STATE, partition, start, count):
        yield from records
        start = records[-1].offset + 1
        size = sum(len(record.value or b"") for record in records) // len(records)
        count = max(4, min(1_000, _READ_BYTES // (size + 1)))


def _own(records: Iterable[Record], number: int) -> Iterator[Record]:
    """Pass on what is part of the state. What anybody else has written there must not stop the join; it is told."""
    first, count = -1, 0
    for record in records:
        if is_ours(record.key):
            yield record
        else:
            first = first if count else record.offset
            count += 1
    if count:
        logger.error(
            "%s: partition %d has %d records of somebody else, the first one at offset %d. They are ignored; find out "
            "who writes there, and allow it to the join alone",
            TOPIC, number, count, first,
        )  # fmt: skip


def _told(records: Iterable[Record], pending: Pending, number: int) -> Iterator[tuple[bytes, bytes | None]]:
    """Pass on keys and values of the state, and tell how far it is if it takes long."""
    told = 0
    for record in records:
        yield record.key or b"", record.value
        if len(pending) - told >= _TELL_AFTER:
            told = len(pending)
            logger.info("partition %d: %d entries of the join's state are read", number, told)
    if told:
        logger.info("partition %d: all %d entries of the join's state are read", number, len(pending))


def _send(transaction: Transaction, number: int, effects: Effects, now_ms: int) -> None:
    for key, point, time_ms, value in effects.feedback:
        headers = feedback_headers(point, key.decode(), time_ms)
        transaction.send(Message(FEEDBACK, key, value, time_ms, headers, number))
    for record in effects.late:
        # Other clients of Kafka may send headers without a value; the log's messages do not.
        headers = tuple((name, content or b"") for name, content in record.headers)
        transaction.send(Message(LATE, record.key, record.value, record.timestamp_ms, headers, number))
    for rejected in effects.rejected:
        transaction.send(dead_letter(rejected.record, rejected.reason, rejected.detail))
    for key, state in effects.changes:
        transaction.send(Message(JOIN_STATE, key, state, now_ms, partition=number))
