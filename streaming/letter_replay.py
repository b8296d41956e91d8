"""Dead letters back into the line: their records are appended again to the topics that they came from.

The join takes each as if it came for the first time, and recognises what it has had already. Two things make that
right for decisions whose windows have passed long ago: their outcomes come first, and wait in the join; and a decision
is only appended when the join has read them. Otherwise it would be given the default reward at once, and its outcomes
would be late.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping

from engine.errors import LeewayError
from streaming.dead_letters import SOURCES, Letter, original, scan
from streaming.log import Log, Message, TopicPartition
from streaming.topics import DEAD_LETTERS, DECISIONS, JOIN, OUTCOMES

#: The consumer group whose offsets say up to where all letters were replayed.
GROUP = "dlq"

#: At most so many records are appended at a time.
BATCH_RECORDS = 5_000
_BATCH_BYTES = 8_388_608
_NAP_S = 0.05

#: Gives the letters to be replayed, the same ones each time that it is called.
Letters = Callable[[], Iterable[Letter]]


def new_letters(log: Log, ends: Mapping[int, int], reason: str | None = None) -> Iterator[Letter]:
    """Yield the letters, of one reason or of all, that :func:`remember` does not know of, up to offsets ``ends``."""
    done = log.committed(GROUP)
    for partition, end in ends.items():
        start = done.get(TopicPartition(DEAD_LETTERS, partition), 0)
        yield from (letter for letter in scan(log, partition, start, end) if reason in (None, letter.reason))


def remember(log: Log, ends: Mapping[int, int]) -> None:
    """Note that every letter up to offsets ``ends`` was replayed."""
    with log.transaction(GROUP) as transaction:
        transaction.commit_offsets({TopicPartition(DEAD_LETTERS, number): end for number, end in ends.items()})


def replay(
    log: Log, letters: Letters, progress: Callable[[int], None] = lambda _: None, patience_s: float = 60.0
) -> Counter[str]:
    """Append the records of letters again; return how many by topic, those of topics that are not ours included.

    The latter stay where they are. Memory is bounded, however many letters there are.

    Parameters
    ----------
    log
        Where.
    letters
        What is replayed; called twice.
    progress
        Told now and then how many were appended so far.
    patience_s
        How long the join may stand still while it has outcomes to read.

    Raises
    ------
    LeewayError
        If the join stands still. The decisions were not replayed then.
    LogError
        If the log takes no records. Some may have been replayed; the join recognises them the next time, as long as
        it remembers the decision.
    """
    counts = Counter(letter.topic for letter in letters() if letter.topic not in SOURCES)
    sent = 0
    for topic in (OUTCOMES, DECISIONS):
        for batch in _batches(original(letter) for letter in letters() if letter.topic == topic):
            if topic == DECISIONS and counts[OUTCOMES] and not counts[DECISIONS]:
                _await_join(log, log.ends(OUTCOMES), patience_s)
            log.append(batch)
            counts[topic] += len(batch)
            sent += len(batch)
            progress(sent)
    return counts


def _batches(messages: Iterable[Message]) -> Iterator[list[Message]]:
    batch: list[Message] = []
    size = 0
    for message in messages:
        batch.append(message)
        size += len(message.value or b"")
        if len(batch) == BATCH_RECORDS or size >= _BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _await_join(log: Log, ends: Mapping[int, int], patience_s: float) -> None:
    """Wait until the join has read the outcomes up to offsets ``ends``."""
    last: Mapping[TopicPartition, int] = {}
    deadline = 0.0
    while True:
        done = log.committed(JOIN)
        if all(done.get(TopicPartition(OUTCOMES, number), 0) >= end for number, end in ends.items()):
            return
        if done != last:
            last, deadline = done, time.monotonic() + patience_s
        elif time.monotonic() > deadline:
            raise LeewayError(
                f"the join has read nothing for {patience_s:g} s, and must read the outcomes, which were replayed, "
                "before their decisions, which were not yet; start `leeway work`, and replay again: outcomes that it "
                "has had already do not count twice"
            )
        time.sleep(_NAP_S)
