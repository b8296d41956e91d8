"""Consumer groups of Kafka: who may read which partition, and where each goes on."""

from __future__ import annotations

import threading
import time
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any

import kafka
from kafka import errors
from kafka.coordinator.assignors.range import RangePartitionAssignor

from engine.errors import LogError
from streaming.kafka.broker import KafkaBroker, records_of
from streaming.kafka.client import connect, give_back_parked, remember_joins
from streaming.log import Record, TopicPartition

if TYPE_CHECKING:
    from streaming.kafka.log import KafkaLog

#: A poll looks so often whether it was closed.
_SLICE_S = 0.5
#: So long the broker holds back the answer to a fetch where there is nothing; each one costs an idle process about a
#: millisecond. A record that comes is answered at once; what is assigned anew waits for the fetch before it.
_FETCH_WAIT_MS = 500
#: A transaction that is open longer is waited for in the next poll.
_ANSWER_MS = 500


class KafkaConsumer:
    """A member of a consumer group of Kafka; see :class:`streaming.log.Consumer`.

    The group balances: partition *n* of all its topics is with one member (range assignment). While members come and
    go, a partition that stays with its member goes on where it is, and one that comes anew begins at the committed
    offset. Where others may have had a partition in between, ``poll`` returns nothing once and ``assignment()`` is
    without it, also if it comes back in the next poll; so a member that is expelled, that misses a rebalance which
    another one follows at once, or cannot take part in one for ``request_timeout``, loses all, and notices.

    Partitions are shown by ``assignment()`` when all that their last owner did is decided: what it committed can be
    read, and what it did not never will.

    One thread uses a consumer; any may ask for ``lag``, ``position`` and ``assignment``, and ``close`` may come from
    another and ends a waiting ``poll``. A process with an ``instance_id`` does not leave the group by ``close``: it
    gets its partitions back if it returns within ``session_timeout``, and else others get them then.
    """

    def __init__(self, log: KafkaLog, broker: KafkaBroker, group: str, topics: Sequence[str]) -> None:
        self._log = log
        self._broker = broker
        self._group = group
        self._topics = {broker.name(topic): topic for topic in topics}
        self._positions: dict[TopicPartition, int] = {}
        self._paused: frozenset[TopicPartition] = frozenset()
        self._rebalance = _Rebalance()
        self._member: Any = None
        self.rebalances = 0
        self._guard = threading.RLock()
        self._closed = threading.Event()
        settings = broker.settings
        with broker.explained(f"join group {broker.name(group)!r}"):
            self._kafka = connect(
                kafka.KafkaConsumer,
                group_id=broker.name(group),
                group_instance_id=settings.instance_id and f"{group}-{settings.instance_id}",
                partition_assignment_strategy=(RangePartitionAssignor,),
                session_timeout_ms=settings.session_timeout,
                heartbeat_interval_ms=settings.heartbeat_interval,
                max_poll_interval_ms=settings.max_poll_interval,
                fetch_max_wait_ms=_FETCH_WAIT_MS,
                **settings.consumer(),
            )
            remember_joins(self._kafka)
            give_back_parked(self._kafka)
            self._rebalance.consumer = self._kafka
            self._kafka.subscribe(list(self._topics), listener=self._rebalance)
            for name in self._topics:
                self._kafka.partitions_for_topic(name)  # else the first assignment is made without knowing them

    def poll(self, max_records: int = 1_000, timeout_s: float = 0.0) -> list[Record]:
        """Return the next records.

        It may take longer than ``timeout_s``, for records that are there are waited for: an empty list means that
        there are none. Raises ``LogError`` if they cannot be had within ``request_timeout``.
        """
        started = time.monotonic()
        deadline = started + timeout_s
        latest = max(deadline, started + self._broker.settings.request_timeout / 1_000.0)
        while True:
            with self._guard:
                if self._closed.is_set():
                    return []
                left = min(max(deadline - time.monotonic(), 0.0), _SLICE_S)
                records, lost = self._fetch(max_records, left)
                now = time.monotonic()
                if records or lost or (now >= deadline and not self._behind()):
                    return records
                if now >= latest:
                    if self._rebalance.pending:  # others keep it waiting: they get what it has
                        self._positions = {}
                        return []
                    raise LogError(
                        f"Kafka at {self._broker.settings.where}: there are records for group {self._group!r}, but "
                        f"none has come for {now - started:.0f} s; see the log of the broker"
                    )

    def _fetch(self, max_records: int, timeout_s: float) -> tuple[list[Record], bool]:
        """Return what comes within the timeout, and whether partitions were lost meanwhile."""
        waiting = self._rebalance.assigned
        if waiting:
            self._take_over(timeout_s)
        with self._broker.explained(f"read as a member of group {self._broker.name(self._group)!r}"):
            try:
                found = self._kafka.poll(max(int(timeout_s * 1_000), 10), max_records)
            finally:
                lost = self._rebalanced()
        if lost:
            return [], True  # and nothing was found: what is assigned in here is paused until it is taken over
        if self._rebalance.assigned and self._rebalance.assigned is not waiting:
            self._take_over(timeout_s)
        records: list[Record] = []
        for their, batch in found.items():
            topic = self._topics[their.topic]
            records += records_of(batch, topic)
            self._positions[TopicPartition(topic, their.partition)] = batch[-1].offset + 1
        return records, False

    def _rebalanced(self) -> bool:
        """Go on with the partitions that have stayed; return whether some have not.

        Then the poll ends here: ``assignment()`` has to be without them once, also if they come back in the next one.
        """
        if self._rebalance.lost:
            self._rebalance.lost = False
            self._positions = {}
            return True
        if self._rebalance.new is None:
            return False
        assigned, self._rebalance.new = self._rebalance.new, None
        self.rebalances += 1
        member, before = self._rebalance.member, self._member
        # Each rebalance is one generation. If one was missed, it was without this member.
        stayed = before is not None and (
            member.member_id == before.member_id and member.generation_id - before.generation_id in (0, 1)
        )
        kept = {their for their in assigned if self._broker.ours(their) in self._positions} if stayed else set()
        lost = len(kept) < len(self._positions)
        self._member = member
        self._positions = {where: self._positions[where] for where in map(self._broker.ours, kept)}
        self._resume(kept)
        self._rebalance.assigned = assigned - kept
        return lost

    def _take_over(self, timeout_s: float) -> None:
        """Begin with the partitions that are new, once nothing of their last owner is open; else try later."""
        new = self._rebalance.assigned
        if not self._log.settle(self._group, max(timeout_s, _ANSWER_MS / 1_000.0)):
            return
        try:
            with self._broker.explained(f"read the offsets of group {self._broker.name(self._group)!r}"):
                positions = {self._broker.ours(their): self._begin(their) for their in new}
        except LogError as error:
            if isinstance(error.__cause__, errors.KafkaTimeoutError):
                return  # a transaction with these offsets is open still
            raise
        self._resume(new)
        self._positions |= positions
        self._rebalance.assigned = frozenset()

    def _resume(self, partitions: Collection[Any]) -> None:
        """Let go on what the listener has stopped, but for what our user wants to be left out."""
        self._kafka.resume(*(their for their in partitions if self._broker.ours(their) not in self._paused))

    def _begin(self, their: Any) -> int:
        """Go to the committed offset of a partition, or to its beginning; return it."""
        # Asked for here: kafka-python would go on where it stood, whoever had the partition in between.
        offset = self._kafka.committed(their, timeout_ms=_ANSWER_MS)
        if offset is None:
            self._kafka.seek_to_beginning(their)
            offset = self._kafka.position(their, timeout_ms=_ANSWER_MS)
            if offset is None:
                raise errors.KafkaTimeoutError(f"no beginning of {their} within {_ANSWER_MS} ms")
        else:
            self._kafka.seek(their, offset)
        return int(offset)

    def _behind(self) -> bool:
        """Return whether records are there that were not returned yet."""
        wanted = [where for where in self._positions if where not in self._paused]
        if not wanted:
            return False
        self._log.shown(wanted)
        # Not by this consumer's connection: there the question would wait for a fetch that the broker holds back.
        ends = self._broker.ends(wanted)
        with self._broker.explained("ask for positions"):
            for where in wanted:
                # Also past what is no record, such as the marks of transactions.
                position = self._kafka.position(self._broker.theirs(where), timeout_ms=_ANSWER_MS)
                if position is not None:
                    self._positions[where] = position
        return any(self._positions[where] < end for where, end in ends.items())

    def assignment(self) -> frozenset[TopicPartition]:
        """Return the partitions that belong to this member."""
        return frozenset(self._positions)

    def position(self) -> dict[TopicPartition, int]:
        """Return the next offset of each assigned partition."""
        return dict(self._positions)

    def member(self) -> Any:
        """Return by what the broker knows this member and its generation."""
        return self._member

    def seek(self, partition: TopicPartition, offset: int) -> None:
        """Go on reading at ``offset``; raises ``LogError`` for a partition that is not assigned."""
        with self._guard:
            if partition not in self._positions:
                raise LogError(
                    f"partition {partition.partition} of topic {partition.topic!r} is not assigned to this member of "
                    f"group {self._group!r}; poll first, and see assignment()"
                )
            self._kafka.seek(self._broker.theirs(partition), offset)
            self._positions[partition] = offset

    def pause(self, partitions: Collection[TopicPartition]) -> None:
        """Leave out these partitions in ``poll`` until the next call, and no others."""
        with self._guard:
            changed = self._paused ^ frozenset(partitions)
            self._paused = frozenset(partitions)
            # What is not taken over yet is with the listener.
            mine = {self._broker.theirs(where): where for where in changed if where in self._positions}
            for their in mine.keys() & self._kafka.assignment():
                (self._kafka.pause if mine[their] in self._paused else self._kafka.resume)(their)

    def lag(self) -> dict[TopicPartition, int]:
        """Return for each assigned partition how many offsets are still to be read; some may hold no record."""
        positions = self.position()
        ends = self._broker.ends(positions) if positions else {}
        return {where: max(0, ends[where] - position) for where, position in positions.items()}

    def commit(self) -> None:
        """Store the positions of this member; raises ``LogError`` if its partitions are with another one by now."""
        with self._guard, self._broker.explained(f"commit offsets of group {self._broker.name(self._group)!r}"):
            offsets = {self._broker.theirs(w): kafka.OffsetAndMetadata(o) for w, o in self._positions.items()}
            if offsets:
                self._kafka.commit(offsets, timeout_ms=self._broker.settings.request_timeout)

    def close(self) -> None:
        """Leave the group. Nothing is committed."""
        self._closed.set()
        with self._guard:
            self._positions = {}
            self._log.left(self._group, self)
            with self._broker.explained(f"leave group {self._broker.name(self._group)!r}"):
                self._kafka.close(autocommit=False, timeout_ms=self._broker.settings.request_timeout)


class _Rebalance(kafka.ConsumerRebalanceListener):  # type: ignore[misc]  # no type information
    """Notes what kafka-python says of a rebalance, within ``poll`` and on another thread: it must not ask back.

    Attributes
    ----------
    pending : bool
        A rebalance has begun and has not ended.
    lost : bool
        The group has gone on without this member.
    new : frozenset or None
        What was assigned in the last poll.
    assigned : frozenset
        What was assigned and is not taken over yet.
    member : ConsumerGroupMetadata
        Who this member is since the last rebalance. It is taken here, on the thread that hears when the member is
        expelled: kafka-python then forgets the generation, and an offset without a generation is never refused.
    """

    def __init__(self) -> None:
        self.consumer: Any = None
        self.pending = False
        self.lost = False
        self.new: frozenset[Any] | None = None
        self.assigned: frozenset[Any] = frozenset()
        self.member: Any = None

    def on_partitions_revoked(self, revoked: Any) -> None:
        self.pending = True
        self.assigned = frozenset()

    def on_partitions_lost(self, lost: Any) -> None:
        self.on_partitions_revoked(lost)
        self.lost = True

    def on_partitions_assigned(self, assigned: Any) -> None:
        self.consumer.pause(*assigned)
        self.new = frozenset(assigned)
        self.member = self.consumer.group_metadata()
        self.pending = False
