"""Members of consumer groups on librdkafka: who may read which partition, and where each goes on."""

from __future__ import annotations

import struct
import threading
import time
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import confluent_kafka
from confluent_kafka import KafkaError, KafkaException

from engine.errors import LogError
from streaming.kafka.broker import KafkaBroker
from streaming.kafka.librdkafka_errors import Voice
from streaming.kafka.librdkafka_options import member_options
from streaming.kafka.librdkafka_records import sort
from streaming.log import Record, TopicPartition

if TYPE_CHECKING:
    from streaming.kafka.log import KafkaLog

#: Mark and generation at the beginning of the metadata of a member (rd_kafka_consumer_group_metadata_write).
_METADATA = struct.Struct("=7si")
#: A poll looks so often whether it was closed.
_SLICE_S = 0.2
#: Records that are there come so soon, or the next look is for them.
_PAUSE_S = 0.01
#: A transaction that is open longer is waited for in the next poll.
_ANSWER_S = 0.5
#: Answers that mean: a transaction with these offsets is open still.
_LATER = frozenset({KafkaError._TIMED_OUT, KafkaError.UNSTABLE_OFFSET_COMMIT, KafkaError.REQUEST_TIMED_OUT})


class LibrdkafkaConsumer:
    """A member of a consumer group; it promises what :class:`streaming.kafka.consumer.KafkaConsumer` promises.

    What the library assigns is taken down here and read from when this class says so: each partition is given to it
    with the offset to begin at, so that nothing depends on what the library remembers of a partition.
    """

    def __init__(self, log: KafkaLog, broker: KafkaBroker, group: str, topics: Sequence[str]) -> None:
        self._log = log
        self._broker = broker
        self._group = group
        self._topics = {broker.name(topic): topic for topic in topics}
        self._positions: dict[TopicPartition, int] = {}
        self._paused: frozenset[TopicPartition] = frozenset()
        self._moved = False
        self._rebalance = _Rebalance()
        self._new: frozenset[TopicPartition] = frozenset()
        self._member: _Membership | None = None
        self._former: str | None = None
        self._error: KafkaError | None = None
        self.rebalances = 0
        self._guard = threading.RLock()
        self._closed = threading.Event()
        self._voice = Voice(broker)
        settings = broker.settings
        self._dynamic = settings.instance_id is None
        instance = settings.instance_id and f"{group}-{settings.instance_id}"
        with self._voice.explained(f"join group {broker.name(group)!r}"):
            options = member_options(settings, broker.name(group), instance)
            self._kafka = confluent_kafka.Consumer(options | self._voice.options())
            listener = self._rebalance
            self._kafka.subscribe(
                list(self._topics), on_assign=listener.assigned, on_revoke=listener.revoked, on_lost=listener.expelled
            )

    def poll(self, max_records: int = 1_000, timeout_s: float = 0.0) -> list[Record]:
        """Return the next records.

        It may take longer than ``timeout_s``, for records that are there are waited for: an empty list means that
        there are none. Raises ``LogError`` if they cannot be had within ``request_timeout``.
        """
        started = time.monotonic()
        deadline = started + timeout_s
        latest = max(deadline, started + self._broker.settings.request_timeout / 1_000.0)
        left = timeout_s
        while True:
            with self._guard:
                if self._closed.is_set():
                    return []
                records, lost = self._fetch(max_records, min(left, _SLICE_S))
                now = time.monotonic()
                # A rebalance that the others are ready for ends at once: better end it than return in its middle.
                ending = self._rebalance.pending and now < max(deadline, started + _ANSWER_S)
                if records or lost or (now >= deadline and not ending and not self._behind()):
                    return records
                if now >= latest:
                    if self._rebalance.pending:  # others keep it waiting: they get what it has
                        self._positions = {}
                        return []
                    raise LogError(
                        f"Kafka at {self._broker.settings.where}: there are records for group {self._group!r}, but "
                        f"none has come for {now - started:.0f} s; see the log of the broker"
                    )
                left = max(deadline - now, _PAUSE_S)

    def assignment(self) -> frozenset[TopicPartition]:
        """Return the partitions that belong to this member."""
        return frozenset(self._positions)

    def position(self) -> dict[TopicPartition, int]:
        """Return the next offset of each assigned partition."""
        return dict(self._positions)

    def member(self) -> Any:
        """Return what ``consumer_group_metadata`` of confluent-kafka said in the last rebalance."""
        return None if self._member is None else self._member.metadata

    def seek(self, partition: TopicPartition, offset: int) -> None:
        """Go on reading at ``offset``; raises ``LogError`` for a partition that is not assigned."""
        with self._guard:
            if partition not in self._positions:
                raise LogError(
                    f"partition {partition.partition} of topic {partition.topic!r} is not assigned to this member of "
                    f"group {self._group!r}; poll first, and see assignment()"
                )
            self._positions[partition] = offset
            self._moved = True

    def pause(self, partitions: Collection[TopicPartition]) -> None:
        """Leave out these partitions in ``poll`` until the next call, and no others."""
        with self._guard:
            changed = (self._paused ^ frozenset(partitions)) & self._positions.keys()
            self._paused = frozenset(partitions)
            if self._moved or self._rebalance.pending or not changed:
                return  # in the first two cases they are paused when they are assigned
            with self._voice.explained(f"read as a member of group {self._broker.name(self._group)!r}"):
                self._kafka.pause(self._theirs(changed & self._paused))
                self._kafka.resume(self._theirs(changed - self._paused))

    def lag(self) -> dict[TopicPartition, int]:
        """Return for each assigned partition how many offsets are still to be read; some may hold no record."""
        positions = self.position()
        ends = self._broker.ends(positions) if positions else {}
        return {where: max(0, ends[where] - position) for where, position in positions.items()}

    def commit(self) -> None:
        """Store the positions of this member; raises ``LogError`` if its partitions are with another one by now."""
        with self._guard, self._voice.explained(f"commit offsets of group {self._broker.name(self._group)!r}"):
            if not self._positions:
                return
            if self._kafka.consumer_group_metadata() != self.member():
                # Expelled, the library may commit as nobody, and a group without members takes that.
                raise KafkaException(KafkaError(KafkaError._ASSIGNMENT_LOST))
            for answer in self._kafka.commit(offsets=self._theirs(self._positions), asynchronous=False):
                if answer.error is not None:
                    raise KafkaException(answer.error)

    def close(self) -> None:
        """Leave the group. Nothing is committed."""
        self._closed.set()
        with self._guard:
            self._positions = {}
            self._log.left(self._group, self)
            with self._voice.explained(f"leave group {self._broker.name(self._group)!r}"):
                self._kafka.close()

    def _fetch(self, max_records: int, timeout_s: float) -> tuple[list[Record], bool]:
        """Return what comes within the timeout, and whether partitions were lost meanwhile."""
        if self._former is not None:
            self._broker.remove_member(self._group, self._former)
            self._former = None
        if self._new:
            self._take_over(timeout_s)
        with self._voice.explained(f"read as a member of group {self._broker.name(self._group)!r}"):
            if self._error is not None:
                error, self._error = self._error, None
                raise KafkaException(error)
            if self._moved and not self._rebalance.pending:
                # Given anew with all offsets: what was fetched ahead is dropped, which is rare enough.
                self._kafka.assign(self._theirs(self._positions))
                self._moved = False
                if paused := self._paused & self._positions.keys():
                    self._kafka.pause(self._theirs(paused))
            found = self._kafka.consume(max_records, 0.0)
            if not found and timeout_s > 0.0:
                # The library waits until it has all that it is asked for, or the time is up: ask for one.
                found = self._kafka.consume(1, timeout_s)
                if found and max_records > 1:
                    found += self._kafka.consume(max_records - 1, 0.0)
            records = self._taken(found)
        if not self._rebalance.heard():
            return records, False
        lost = self._rebalanced()
        if self._new and not lost:
            self._take_over(timeout_s)
        return [each for each in records if TopicPartition(each.topic, each.partition) in self._positions], lost

    def _taken(self, messages: Sequence[confluent_kafka.Message]) -> list[Record]:
        """Return the records among what the library gave, and move the positions after them."""
        found = sort(messages, self._topics)
        # Expelled for not having polled, it hears of that beside. Other errors come out after what came with them.
        if found.error is not None and found.error.code() != KafkaError._MAX_POLL_EXCEEDED:
            self._error = found.error
        self._positions |= {where: end for where, end in found.positions.items() if where in self._positions}
        return found.records

    def _rebalanced(self) -> bool:
        """Go on with the partitions that have stayed; return whether some have not.

        Then the poll ends here: ``assignment()`` has to be without them once, also if they come back in the next one.
        """
        self._new = frozenset()
        if self._rebalance.lost:
            self._rebalance.lost = False
            self._positions, self._moved = {}, False
            if self._dynamic and self._member is not None:
                # The library joins anew under another id. Where the broker was away for so long, it still counts the
                # former one, and would let the group wait a session_timeout for it.
                self._former = self._member.member_id
            return True
        if self._rebalance.new is None:
            return False
        member, self._rebalance.new = self._rebalance.new, None
        before, self._member = self._member, member
        self.rebalances += 1
        # Each rebalance is one generation. If one was missed, it was without this member.
        stayed = before is not None and (
            member.member_id == before.member_id and member.generation - before.generation in (0, 1)
        )
        assigned = {TopicPartition(self._topics[topic], partition) for topic, partition in member.partitions}
        kept = {where: at for where, at in self._positions.items() if stayed and where in assigned}
        lost = len(kept) < len(self._positions)
        self._positions = kept
        self._new = frozenset(assigned - kept.keys())
        self._moved = True
        return lost

    def _take_over(self, timeout_s: float) -> None:
        """Begin with the partitions that are new, once nothing of their last owner is open; else try later."""
        if not self._log.settle(self._group, max(timeout_s, _ANSWER_S)):
            return
        with self._voice.explained(f"read the offsets of group {self._broker.name(self._group)!r}"):
            try:
                positions = dict(map(self._beginning, self._kafka.committed(self._theirs(self._new), _ANSWER_S)))
            except KafkaException as error:
                if error.args[0].code() in _LATER:
                    return
                raise
        self._positions |= positions
        self._new = frozenset()
        self._moved = True

    def _beginning(self, committed: confluent_kafka.TopicPartition) -> tuple[TopicPartition, int]:
        """Return where to begin with a partition: at the committed offset, or with its first record."""
        if committed.error is not None:
            raise KafkaException(committed.error)
        offset = committed.offset
        if offset < 0:  # nothing is committed
            offset, _ = self._kafka.get_watermark_offsets(committed, _ANSWER_S)
        return TopicPartition(self._topics[committed.topic], committed.partition), offset

    def _theirs(self, partitions: Iterable[TopicPartition]) -> list[confluent_kafka.TopicPartition]:
        return [
            confluent_kafka.TopicPartition(
                self._broker.name(where.topic),
                where.partition,
                self._positions.get(where, confluent_kafka.OFFSET_INVALID),
            )
            for where in partitions
        ]

    def _behind(self) -> bool:
        """Return whether records are there that were not returned yet."""
        wanted = [where for where in self._positions if where not in self._paused]
        if not wanted:
            return False
        self._log.shown(wanted)
        return any(self._positions[where] < end for where, end in self._broker.ends(wanted).items())


@dataclass(frozen=True, slots=True)
class _Membership:
    """What this member was told in a rebalance; the partitions by the names of the cluster."""

    metadata: Any
    member_id: str
    generation: int
    partitions: frozenset[tuple[str, int]]


class _Rebalance:
    """Notes what the library says of a rebalance while it is asked for records, and takes no partition by itself.

    Attributes
    ----------
    pending : bool
        A rebalance has begun and has not ended.
    lost : bool
        The group has gone on without this member.
    new : _Membership or None
        What was assigned in the last poll.
    """

    def __init__(self) -> None:
        self.pending = False
        self.lost = False
        self.new: _Membership | None = None
        self._heard = False

    def heard(self) -> bool:
        """Return whether anything was said since the last call."""
        heard, self._heard = self._heard, False
        return heard

    def revoked(self, consumer: confluent_kafka.Consumer, _: list[confluent_kafka.TopicPartition]) -> None:
        """Take note of the beginning of a rebalance."""
        consumer.unassign()
        self._heard = self.pending = True

    def expelled(self, consumer: confluent_kafka.Consumer, partitions: list[confluent_kafka.TopicPartition]) -> None:
        """Take note that the group goes on without this member."""
        self.revoked(consumer, partitions)
        self.lost = True
        self.new = None

    def assigned(self, consumer: confluent_kafka.Consumer, partitions: list[confluent_kafka.TopicPartition]) -> None:
        """Take note of the end of a rebalance.

        Who this member is must be asked now: after it was expelled the library may say that it is nobody, from whom a
        group without members takes any offset.
        """
        consumer.assign([])
        metadata = consumer.consumer_group_metadata()
        self._heard = True
        self.pending = False
        generation = generation_of(metadata)
        if generation < 0:
            self.lost = True  # since then, and what is assigned is no longer
            return
        theirs = frozenset((each.topic, each.partition) for each in partitions)
        self.new = _Membership(metadata, consumer.memberid(), generation, theirs)


def generation_of(metadata: bytes) -> int:
    """Return the generation of a group in which a member is, by its metadata; -1 if it is in none.

    librdkafka offers no other way: its metadata are its mark, the generation, and names.

    >>> generation_of(b"CGMDv2:\\x07\\x00\\x00\\x00group\\x00")
    7
    """
    mark, generation = _METADATA.unpack_from(metadata)
    if mark != b"CGMDv2:":
        raise LogError(
            f"this version of confluent-kafka describes a member of a group in a way not known here ({mark!r}); "
            "install the version in constraints.txt, or set client to kafka-python"
        )
    return int(generation)
