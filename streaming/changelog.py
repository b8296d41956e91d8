"""The form of the join's state in its changelog: blocks of entries, each written once, and a head after each step.

A step writes all entries that it has changed, in one block or a few. An entry holds as the last block in the log says
that has its id. A block is removed (its key gets a record without a value) when none of its entries holds any more.
So that a long window does not keep short ones, a block has entries of one stage, and of about the same time to go;
and when too much of what is stored does not hold any more, the rest of the sparsest blocks is written anew.

How an entry's end is known: it is not written. Due times of one id never decrease from a block to the next, but for an
open decision, which another entry follows in any case. What was due when the head was written is done with, and so is
any older version of it. That is all that a restore needs; whether Kafka has compacted the log already, or in part, or
not, is all the same to it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain

from google.protobuf.message import DecodeError

from engine.errors import LogError
from engine.records import JOIN_STAGE_WAITING, JoinBlock, JoinHead, JoinStage, WaitingOutcome
from streaming.entry import Counted, Entry, Item
from streaming.log import Record
from streaming.topics import JOIN_STATE, OUTCOMES
from streaming.wire import read_outcome

# Nobody else has such keys. The number in a key is that of the format.
_PREFIX = b"\xffjoin/"
HEAD_KEY = _PREFIX + b"1/head"
_BLOCK_PREFIX = _PREFIX + b"1/block/"
#: How messages name the topic: only the log knows the name in its cluster, where the bare one may be somebody else's.
TOPIC = f"topic {JOIN_STATE!r} (in a Kafka cluster with log.topic_prefix before its name)"
_RESTORE = (
    "stop every member of the join, and restore the log from a copy. On Kafka, where there is none, delete this topic, "
    "which is made anew at the next start: decisions whose windows were open get no feedback, and books begin at zero"
)

#: Most bytes of a block, but for one with a single entry.
MAX_BLOCK_BYTES = 524_288
#: What is stored is at most that many times what holds, and ``SLACK_BYTES`` ...
MAX_GARBAGE = 4
SLACK_BYTES = 1_048_576
#: ... where each block counts for that much more than its bytes, so that there are not too many small ones.
BLOCK_COST_BYTES = 2_048
#: How many entries are written anew at most in a step.
_REWRITTEN = 10_000
_ENTRY_BYTES = 144  # about what an entry takes beside its decision


def block_key(number: int) -> bytes:
    """Return the key of a block.

    >>> block_of(block_key(258))
    258
    """
    return _BLOCK_PREFIX + number.to_bytes(8, "big")


def is_ours(key: bytes | None) -> bool:
    """Whether a record with this key is part of the state, of whichever format; others may come from anybody.

    >>> is_ours(HEAD_KEY), is_ours(b"d17"), is_ours(None)
    (True, False, False)
    """
    return key is not None and key.startswith(_PREFIX)


def block_of(key: bytes) -> int | None:
    """Return the number of the block with this key of ours; ``None`` for the head.

    Raises
    ------
    LogError
        If the key is of another format.
    """
    if key.startswith(_BLOCK_PREFIX):
        return int.from_bytes(key.removeprefix(_BLOCK_PREFIX), "big")
    if key == HEAD_KEY:
        return None
    raise LogError(
        f"{TOPIC} has a record with the key {key[:60]!r}, which this version of Leeway does not know: the state was "
        "written by another version. Run that version; to change to this one, let that one run without new decisions "
        "until all windows are closed and stop it, then on Kafka delete this topic, or begin a new log"
    )


def head_of(value: bytes) -> JoinHead:
    """Return the head in a record's value; raises ``LogError`` if it is none."""
    try:
        return JoinHead.FromString(value)
    except DecodeError as error:
        raise damaged(f"its last head is damaged ({error})") from None


def damaged(what: str) -> LogError:
    """Return the error that says what is wrong with the state, and what to do about it."""
    return LogError(f"{TOPIC}: {what}; {_RESTORE}")


class _Block:
    __slots__ = ("count", "each", "live", "size")

    def __init__(self, size: int, count: int, live: int) -> None:
        self.size = size + BLOCK_COST_BYTES
        self.count = count
        self.live = live
        self.each = size // count


class Blocks:
    """Which blocks the changelog of a partition has, and how much of each still holds.

    Attributes
    ----------
    next : int
        Number of the next block; none is given twice.
    """

    def __init__(self) -> None:
        self.next = 1
        self._blocks: dict[int, _Block] = {}
        self._gone: list[int] = []
        self._stored = 0
        self._live = 0

    def __len__(self) -> int:
        return len(self._blocks)

    @property
    def stored_bytes(self) -> int:
        """Bytes of all blocks, and what each costs beside."""
        return self._stored

    @property
    def live_bytes(self) -> int:
        """About the bytes of what holds."""
        return self._live

    def release(self, numbers: Iterable[int]) -> None:
        """Note that entries of these blocks do not hold any more; a block is named once for each."""
        for number, count in Counter(numbers).items():
            block = self._blocks[number]
            block.live -= count
            self._live -= block.each * count
            if not block.live:
                self._drop(number)

    def sparse(self) -> set[int]:
        """Return the blocks of which the rest should be written anew: none, or some of the sparsest."""
        if self._stored <= MAX_GARBAGE * self._live + SLACK_BYTES:
            return set()
        chosen: set[int] = set()
        entries, excess = 0, self._stored - MAX_GARBAGE // 2 * self._live
        for number, block in sorted(self._blocks.items(), key=lambda item: item[1].live * item[1].each / item[1].size):
            if chosen and (excess <= 0 or entries + block.live > _REWRITTEN):
                break
            chosen.add(number)
            entries += block.live
            excess -= block.size
        return chosen

    def write(self, entries: Mapping[bytes, Entry], now_ms: int) -> Iterator[tuple[bytes, bytes | None]]:
        """Return keys and values of blocks with these entries, and of the blocks to be removed.

        Each entry gets the number of its block. Those of similar remaining life after ``now_ms`` share one.
        """
        groups: dict[int, tuple[list[bytes], list[Entry]]] = {}
        for key, entry in entries.items():
            group = entry.stage << 8 | (entry.due_ms - now_ms).bit_length()
            if (members := groups.get(group)) is None:
                groups[group] = [key], [entry]
            else:
                members[0].append(key)
                members[1].append(entry)
        for keys, those in groups.values():
            for some, value in _cut(keys, those):
                number = self.next
                self.next += 1
                self.add(number, len(value), len(some), len(some))
                for entry in some:
                    entry.block = number
                yield block_key(number), value
        gone, self._gone = self._gone, []
        for number in gone:
            yield block_key(number), None

    def add(self, number: int, size: int, count: int, live: int) -> None:
        """Note a block that is in the changelog, with ``live`` of its ``count`` entries holding."""
        block = self._blocks[number] = _Block(size, count, live)
        self._stored += block.size
        self._live += block.each * live
        if not live:
            self._drop(number)

    def _drop(self, number: int) -> None:
        self._stored -= self._blocks.pop(number).size
        self._gone.append(number)


def _cut(keys: list[bytes], entries: list[Entry]) -> Iterator[tuple[list[Entry], bytes]]:
    """Cut entries into parts that each fit into a block; return them, and the block."""
    size = _ENTRY_BYTES * len(entries) + sum([len(entry.decision) for entry in entries if entry.decision is not None])
    count = max(1, len(keys) * MAX_BLOCK_BYTES // size)
    for start in range(0, len(keys), count):
        names, some = keys[start : start + count], entries[start : start + count]
        value = encode(names, some)
        if len(value) <= MAX_BLOCK_BYTES or len(some) == 1:
            yield some, value
        else:  # they are not alike
            half = len(some) // 2
            yield from _cut(names[:half], some[:half])
            yield from _cut(names[half:], some[half:])


def encode(keys: list[bytes], entries: list[Entry]) -> bytes:
    """Return the block of some entries, which are of one stage."""
    stage = entries[0].stage
    seen = [entry.seen for entry in entries]
    block = JoinBlock(
        stage=stage,
        decision_ids=keys,
        due_ms=[entry.due_ms for entry in entries],
        seen_counts=list(map(len, seen)),
        seen=list(chain.from_iterable(seen)),
    )
    if any(not_before_ms := [entry.not_before_ms for entry in entries]):
        block.not_before_ms.extend(not_before_ms)
    if stage == JOIN_STAGE_WAITING:
        block.waiting.extend([_waiting(record) for entry in entries for record in entry.waiting])
        return block.SerializeToString()
    points = [entry.point for entry in entries]
    names = {name: index for index, name in enumerate(dict.fromkeys(points))}
    block.points.extend([names[point] for point in points])
    block.point_names.extend(names)
    if entries[0].decision is not None:
        outcomes = [entry.outcomes for entry in entries]
        counted = list(chain.from_iterable(outcomes))
        block.decision_ms.extend([entry.time_ms for entry in entries])
        block.decisions.extend([entry.decision or b"" for entry in entries])
        block.outcome_counts.extend(map(len, outcomes))
        block.outcome_ms.extend([outcome[0] for outcome in counted])
        block.outcome_values.extend([outcome[1] for outcome in counted])
        if any(inactive := [entry.inactive for entry in entries]):
            block.inactive.extend(inactive)
        if any(overdue := [entry.overdue for entry in entries]):
            block.overdue.extend(overdue)
        if any(len(outcome) == 4 for outcome in counted):
            block.outcome_slots.extend([outcome[2] if len(outcome) == 4 else -1 for outcome in counted])
            block.outcome_tasks.extend([outcome[3] if len(outcome) == 4 else "" for outcome in counted])
    return block.SerializeToString()


def decode(number: int, value: bytes, done: tuple[int, bytes], partition: int) -> tuple[int, list[Item]]:
    """Return how many entries a block has, and those of them that are not done with.

    Parameters
    ----------
    number
        The block's, for the entries.
    value
        What :func:`encode` has made.
    done
        Time and id before which all is done with.
    partition
        The partition of the outcomes that wait.

    Raises
    ------
    LogError
        If it is no block, or one that this version does not know.
    """
    try:
        block = JoinBlock.FromString(value)
        if block.stage not in JoinStage.values():
            raise LogError(
                f"{TOPIC}: block {number} is of stage {block.stage}, which this version does not know; install the "
                "version of Leeway that wrote it"
            )
        if not block.stage:
            raise ValueError("it has no stage")
        if not block.decision_ids:
            raise ValueError("it has no entries")
        return len(block.decision_ids), _items(number, block, done, partition)
    except (
        DecodeError,
        ValueError,
        IndexError,
    ) as error:  # the last two: columns that do not fit together, unreadable outcomes
        raise damaged(f"block {number} is damaged ({error})") from None


def _items(number: int, block: JoinBlock, done: tuple[int, bytes], partition: int) -> list[Item]:
    stage = block.stage
    keys = list(block.decision_ids)
    points = [block.point_names[index] for index in block.points] or [""] * len(keys)
    not_before = list(block.not_before_ms) or [0] * len(keys)
    times = list(block.decision_ms) or [0] * len(keys)
    decisions: list[bytes] | list[None] = list(block.decisions) or [None] * len(keys)
    outcome_counts = list(block.outcome_counts) or [0] * len(keys)
    inactive = list(block.inactive) or [False] * len(keys)
    overdue = list(block.overdue) or [False] * len(keys)
    outcomes = _outcomes(block)
    identities = list(block.seen)
    items: list[Item] = []
    outcome_place = identity_place = 0
    columns = zip(
        keys, block.due_ms, not_before, points, times, decisions, outcome_counts, block.seen_counts, inactive,
        overdue, strict=True,
    )  # fmt: skip
    for key, due_ms, not_before_ms, point, time_ms, decision, counted, seen, asleep, over in columns:
        if (due_ms, key) >= done:
            entry = Entry(stage, due_ms, point, time_ms, decision)
            entry.not_before_ms = not_before_ms
            entry.block = number
            entry.inactive = asleep
            entry.overdue = over
            if counted:
                own = outcomes[outcome_place : outcome_place + counted]
                entry.outcomes = own if counted > Entry.MANY else tuple(own)
            if seen:
                told = identities[identity_place : identity_place + seen]
                entry.seen = dict.fromkeys(told) if seen > Entry.MANY else tuple(told)
            if stage == JOIN_STAGE_WAITING:
                waiting = block.waiting[identity_place : identity_place + seen]
                entry.waiting = tuple([_record(outcome, key, partition) for outcome in waiting])
                for record in entry.waiting:
                    read_outcome(record)  # it was, when it came; where it cannot be now, no window would close any more
            items.append((key, entry))
        outcome_place += counted
        identity_place += seen
    return items


def _outcomes(block: JoinBlock) -> list[Counted]:
    plain: list[Counted] = list(zip(block.outcome_ms, block.outcome_values, strict=True))
    if not block.outcome_slots:
        return plain
    places = zip(plain, block.outcome_slots, block.outcome_tasks, strict=True)
    return [(both[0], both[1], slot, task) if slot >= 0 else both for both, slot, task in places]


def _waiting(record: Record) -> WaitingOutcome:
    headers = [part for name, value in record.headers for part in (name.encode(), value or b"")]
    return WaitingOutcome(
        value=record.value or b"", offset=record.offset, timestamp_ms=record.timestamp_ms, headers=headers
    )


def _record(outcome: WaitingOutcome, key: bytes, partition: int) -> Record:
    parts = list(outcome.headers)
    headers = tuple((name.decode(), value) for name, value in zip(parts[::2], parts[1::2], strict=True))
    return Record(OUTCOMES, partition, outcome.offset, outcome.timestamp_ms, key, outcome.value, headers)
