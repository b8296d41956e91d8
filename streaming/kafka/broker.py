"""What is asked of Kafka outside of consumer groups and transactions: topics, offsets, records."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

import kafka
from kafka import errors
from kafka.admin import ConfigResource, MemberToRemove
from kafka.protocol.consumer import IsolationLevel, OffsetSpec

from engine.errors import LogError
from streaming.kafka.client import connect
from streaming.kafka.errors import explained
from streaming.kafka.seam import Reader
from streaming.kafka.settings import ENVELOPE_BYTES, KafkaSettings
from streaming.log import Record, Topic, TopicPartition

T = TypeVar("T")

#: Kafka cleans no segment that is still written to. With its default of 1 GiB, a state of some MiB would be read back
#: from hundreds of MiB.
_COMPACTED_SEGMENT_BYTES = 67_108_864
#: A poll that finds the marks of a transaction alone goes on waiting for a record: better look again where it stands.
_POLL_MS = 10
_RETRY_S = 0.05


class KafkaBroker:
    """Questions to a cluster, each with an end: an answer, or ``LogError`` after ``request_timeout``.

    Names of topics and groups are those of Leeway; the prefix is put before them here. Safe for threads.

    Parameters
    ----------
    settings
        Where the cluster is.
    reader
        Makes what records are read by; ``None``: by kafka-python, as all else here.
    """

    def __init__(self, settings: KafkaSettings, reader: Callable[[KafkaBroker], Reader] | None = None) -> None:
        self.settings = settings
        self._make_reader: Callable[[KafkaBroker], Reader] = KafkaReader if reader is None else reader
        self._guard = threading.RLock()
        self._admin: Any = None
        self._reader: Any = None
        self._idle: list[Reader] = []
        self._partitions: dict[str, int] = {}
        self._closed = False

    def explained(self, doing: str) -> Any:
        """Return a context that makes errors of Kafka errors of ours."""
        return explained(self.settings.where, doing)

    def name(self, ours: str) -> str:
        """Return the name in the cluster of a topic, group or transactional id."""
        return self.settings.topic_prefix + ours

    def theirs(self, where: TopicPartition) -> Any:
        """Return a partition as kafka-python names it."""
        return kafka.TopicPartition(self.name(where.topic), where.partition)

    def ours(self, where: Any) -> TopicPartition:
        """Return a partition as the log names it."""
        return TopicPartition(where.topic.removeprefix(self.settings.topic_prefix), where.partition)

    def partitions(self, topic: str) -> int:
        """Return how many partitions a topic has; it is asked once, since that never changes."""
        with self._guard:
            known = self._partitions.get(topic)
        if known is None:
            known = self._describe([topic]).get(topic)
            if known is None:
                raise LogError(f"topic {self.name(topic)!r} does not exist at {self.settings.where}; create it first")
            with self._guard:
                self._partitions[topic] = known
        return known

    def all_partitions(self, topics: Iterable[str]) -> set[TopicPartition]:
        """Return every partition of some topics."""
        return {TopicPartition(topic, number) for topic in topics for number in range(self.partitions(topic))}

    def create(self, topics: Collection[Topic]) -> None:
        """Create what does not exist; nothing at all if something that exists is not as declared."""
        names = [topic.name for topic in topics]
        existing = self._describe(names)
        changes = self._compared(topics, existing)
        new = [topic for topic in topics if topic.name not in existing]
        if new and not self._create(new):  # another process was quicker: with the same declaration?
            changes = self._compared(topics, self._describe(names))
        if changes:
            self._ask("adjust topics", lambda admin: admin.alter_configs(changes))

    def ends(self, partitions: Collection[TopicPartition]) -> dict[TopicPartition, int]:
        """Return the last stable offset of each partition: up to there records are decided and can be read."""
        theirs = {self.theirs(where): where for where in partitions}
        with self._guard:
            self._check_open()
            if self._reader is None:
                with self.explained("connect"):
                    self._reader = connect(kafka.KafkaConsumer, **self.settings.consumer())
            reader = self._reader
        deadline = time.monotonic() + self.settings.request_timeout / 1_000.0
        with self.explained("ask for the ends of partitions"):
            while True:
                try:
                    left_ms = max(int(1_000 * (deadline - time.monotonic())), 1)
                    found = reader.end_offsets(list(theirs), timeout_ms=left_ms)
                    return {where: found[their] for their, where in theirs.items()}
                except KeyError as error:
                    # kafka-python 3.0 leaves out, in silence, partitions whose leader it does not know yet.
                    if time.monotonic() >= deadline:
                        raise errors.LeaderNotAvailableError(f"no leader of {error}") from error
                    time.sleep(_RETRY_S)

    def high_watermarks(self, partitions: Collection[TopicPartition]) -> dict[TopicPartition, int]:
        """Return for each partition where the next record goes, open transactions included."""
        specs = {self.theirs(where): OffsetSpec.LATEST for where in partitions}
        found = self._ask(
            "ask for the ends of partitions",
            lambda admin: admin.list_partition_offsets(specs, IsolationLevel.READ_UNCOMMITTED),
        )
        return {self.ours(their): offset.offset for their, offset in found.items()}

    def await_stable(self, targets: Mapping[TopicPartition, int], timeout_s: float) -> bool:
        """Wait until everything before each target is decided and can be read; false if that takes too long.

        The last question for it may take ``request_timeout`` more. When a broker was killed, it may be false for as
        long as it takes to start again and, where a producer has died too, until its transaction has timed out.
        """
        deadline = time.monotonic() + timeout_s
        pause = 0.001
        while targets:
            ends = self.ends(targets.keys())
            targets = {where: target for where, target in targets.items() if ends[where] < target}
            if targets and time.monotonic() >= deadline:
                return False
            if targets:
                time.sleep(pause)
                pause = min(2 * pause, _RETRY_S)
        return True

    def committed(self, group: str) -> dict[TopicPartition, int]:
        """Return the committed offsets of a group, as an onlooker sees them."""
        name = self.name(group)
        found = self._ask(f"read the offsets of group {name!r}", lambda admin: admin.list_group_offsets(name))
        offsets = {self.ours(their): offset.offset for their, offset in found.get(name, {}).items()}
        return {where: offset for where, offset in offsets.items() if offset >= 0}

    def committed_for_certain(self, group: str, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, int]:
        """Return the committed offsets of a group, once no transaction is open that might still change them."""
        name = self.name(group)
        doing = f"read the offsets of group {name!r}: a transaction may be open"
        offsets = {}
        with self.explained(doing):
            # Never subscribed, it is no member; reading committed, it asks for stable offsets.
            onlooker = connect(kafka.KafkaConsumer, group_id=name, **self.settings.consumer())
            try:
                for where in partitions:
                    offset = onlooker.committed(self.theirs(where), timeout_ms=self.settings.request_timeout)
                    if offset is not None:
                        offsets[where] = offset
            finally:
                onlooker.close()
        return offsets

    def remove_member(self, group: str, member_id: str) -> None:
        """Let the group go on without one that will not come back; nothing happens if it does so already."""
        name = self.name(group)
        self._ask(
            f"leave group {name!r}",
            lambda admin: admin.remove_group_members(name, [MemberToRemove(member_id=member_id)]),
        )

    def read(self, where: TopicPartition, start: int, max_records: int) -> list[Record]:
        """Return records of a partition from ``start`` on, as far as they are decided."""
        with self._borrowed(where, start) as reader:
            # Whoever reads on in order need not ask at each step how far it goes.
            if start >= reader.end:
                reader.end = self.ends([where])[where]
            return reader.read(max_records) if start < reader.end else []

    def close(self) -> None:
        """Close all connections."""
        with self._guard:
            self._closed = True
            clients = [*self._idle, self._reader, self._admin]
            self._idle, self._reader, self._admin = [], None, None
        for client in clients:
            if client is not None:
                client.close()

    def _check_open(self) -> None:
        if self._closed:
            raise LogError(f"the log at {self.settings.where} is closed; open it again")

    @contextmanager
    def _borrowed(self, where: TopicPartition, start: int) -> Iterator[Reader]:
        """Lend a reader, by preference one that stands there: it has the next records already."""
        with self._guard:
            self._check_open()
            places = [(reader.where, reader.position) for reader in self._idle]
            reader = self._idle.pop(places.index((where, start)) if (where, start) in places else 0) if places else None
        if reader is None:
            with self.explained("connect"):
                reader = self._make_reader(self)
        try:
            reader.seek(where, start)
            yield reader
        except BaseException:
            reader.close()
            raise
        with self._guard:
            if not self._closed:
                self._idle.append(reader)
                return
        reader.close()

    def _ask(self, doing: str, question: Callable[[Any], T]) -> T:
        """Ask by the admin client until there is an answer; what may pass is tried again on a new connection."""
        deadline = time.monotonic() + self.settings.request_timeout / 1_000.0
        with self.explained(doing):
            while True:
                with self._guard:
                    self._check_open()
                    if self._admin is None:
                        self._admin = connect(kafka.KafkaAdminClient, **self.settings.connection())
                    admin = self._admin
                try:
                    return question(admin)
                except errors.RetriableError:
                    # It keeps what it knows of coordinators and leaders for ever, even where that is over.
                    with self._guard:
                        if self._admin is admin:
                            self._admin = None
                    admin.close()
                    if time.monotonic() >= deadline:
                        raise
                    time.sleep(_RETRY_S)

    def _describe(self, topics: Collection[str]) -> dict[str, int]:
        """Return the number of partitions of those topics that exist."""
        names = {self.name(topic): topic for topic in topics}
        found = self._ask("describe topics", lambda admin: admin.describe_topics(list(names)))
        counts = {}
        for topic in found:
            error = errors.for_code(topic["error_code"])
            if error is errors.NoError:
                counts[names[topic["name"]]] = len(topic["partitions"])
            elif error is not errors.UnknownTopicOrPartitionError:
                with self.explained(f"describe topic {topic['name']!r}"):
                    raise error()
        return counts

    def _create(self, topics: Collection[Topic]) -> bool:
        """Create topics; return false if another process has just created one of them."""
        wanted = {
            self.name(topic.name): {
                "num_partitions": topic.partitions,
                "replication_factor": self.settings.replication_factor or -1,
                "configs": self._adjustable(topic) | self._fixed(topic),
            }
            for topic in topics
        }

        def create(admin: Any) -> bool:
            alone = True
            try:
                admin.create_topics(wanted, timeout_ms=self.settings.request_timeout)
            except errors.TopicAlreadyExistsError:
                alone = False
            admin.wait_for_topics(list(wanted), timeout_ms=self.settings.request_timeout)
            return alone

        return self._ask(f"create topics {', '.join(wanted)}", create)

    def _adjustable(self, topic: Topic) -> dict[str, str]:
        """Return the settings that follow the declaration also when the topic exists."""
        return {
            "retention.ms": str(-1 if topic.retention_ms is None else topic.retention_ms),
            "max.message.bytes": str(self.settings.record_bytes(derived=topic.derived) + ENVELOPE_BYTES),
            # Kafka refuses what is dated more than an hour ahead. A client's wrong clock must not stop the line.
            "message.timestamp.after.max.ms": str(2**63 - 1),
        }

    def _fixed(self, topic: Topic) -> dict[str, str]:
        fixed = {"cleanup.policy": "compact" if topic.compacted else "delete"}
        if topic.compacted:
            fixed["segment.bytes"] = str(_COMPACTED_SEGMENT_BYTES)
        if self.settings.min_insync_replicas is not None:
            fixed["min.insync.replicas"] = str(self.settings.min_insync_replicas)
        return fixed

    def _compared(self, topics: Collection[Topic], existing: Mapping[str, int]) -> list[ConfigResource]:
        """Return the settings of retention and size to be taken on by topics that exist, all of them as declared.

        Raises ``LogError``, with every topic that differs, where partitions or compaction are not as declared.
        """
        names = {self.name(topic.name): topic for topic in topics if topic.name in existing}
        if not names:
            return []
        keys = ["cleanup.policy", *self._adjustable(next(iter(names.values())))]
        resources = [ConfigResource("TOPIC", name, keys) for name in names]
        found = self._ask("read topics", lambda admin: admin.describe_configs(resources, config_filter="all"))["topic"]
        changes = []
        differences = []
        for name, topic in names.items():
            have = {key: entry["value"] for key, entry in found[name].items()}
            if existing[topic.name] != topic.partitions:
                differences.append(f"{name!r} has partitions {existing[topic.name]}, not {topic.partitions}")
            if ("compact" in (policy := have["cleanup.policy"])) != topic.compacted:
                differences.append(f"{name!r} is{' not' * topic.compacted} compacted (cleanup.policy {policy!r})")
            adjusted = {key: value for key, value in self._adjustable(topic).items() if have[key] != value}
            if adjusted:
                changes.append(ConfigResource("TOPIC", name, adjusted))
        if differences:
            raise LogError(
                f"topics exist at {self.settings.where} that are not as declared: {', '.join(differences)}. Nothing "
                "was created. Set log.partitions to what there is; or delete these topics if they are empty, and "
                "start again; or begin a new log with another log.topic_prefix"
            )
        return changes


class KafkaReader:
    """A reader on kafka-python; see :class:`streaming.kafka.seam.Reader`."""

    def __init__(self, broker: KafkaBroker) -> None:
        self._broker = broker
        # At the end of a partition a fetch would else be held by the broker, and reading another one wait for it.
        self._consumer = connect(kafka.KafkaConsumer, fetch_max_wait_ms=10, **broker.settings.consumer())
        self.where = TopicPartition("", -1)
        self.position = -1
        self.end = -1  # decided up to here, when last asked

    def seek(self, where: TopicPartition, start: int) -> None:
        """Go to an offset of a partition."""
        if (where, start) != (self.where, self.position):
            if where != self.where:
                self._consumer.assign([self._broker.theirs(where)])
            self._consumer.seek(self._broker.theirs(where), start)
            self.where, self.position, self.end = where, start, -1

    def read(self, max_records: int) -> list[Record]:
        """Return the next records before ``end``."""
        timeout_s = self._broker.settings.request_timeout / 1_000.0
        deadline = time.monotonic() + timeout_s
        records: list[Record] = []
        wait_ms = 0  # first what has come already, the marks of transactions behind a batch among it
        with self._broker.explained(f"read partition {self.where.partition} of topic {self.where.topic!r}"):
            while self.position < self.end and len(records) < max_records:
                (batch,) = self._consumer.poll(wait_ms, max_records - len(records)).values() or [[]]
                records += records_of(batch, self.where.topic)
                # What transactions and compaction leave behind has offsets and is no record.
                self.position = batch[-1].offset + 1 if batch else self._resolved()
                wait_ms = 0 if batch else _POLL_MS
                if batch:
                    deadline = time.monotonic() + timeout_s
                elif time.monotonic() >= deadline:
                    raise errors.KafkaTimeoutError(
                        f"no record from offset {self.position} on, and it ends at {self.end}"
                    )
        return records

    def close(self) -> None:
        """Close the connection."""
        self._consumer.close()

    def _resolved(self) -> int:
        position = self._consumer.position(self._broker.theirs(self.where), timeout_ms=_POLL_MS)
        return self.position if position is None else int(position)


def records_of(batch: list[Any], topic: str) -> list[Record]:
    """Return records of kafka-python, all of one partition, as ours."""
    partition = batch[0].partition if batch else -1
    return [
        Record(topic, partition, each.offset, each.timestamp, each.key, each.value, tuple(each.headers))
        for each in batch
    ]
