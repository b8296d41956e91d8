"""The join of Quix Streams, exactly once, on the messages of the streaming benchmark: ``python quix_join.py JSON``.

It runs in an environment of its own, with nothing of ours but the definition of the records. How it fits: its interval
join with ``how="inner"`` answers a decision as soon as its outcome comes; decisions and outcomes of one partition are
merged in the order of time, both are kept in RocksDB and in changelog topics, and outputs, state and offsets are one
transaction. It is given bytes all through (values, state, merge), which spares it the dictionaries that it is usually
given; decisions and outcomes are parsed once, as by the others.

What it does not do, and is not charged with: no default reward when a window closes (``how="left"`` answers at once,
before any outcome can have come); a decision with two outcomes is answered twice, and an outcome sent twice gives two
answers; an outcome that is read before its decision is lost; nothing is kept of late or unreadable records; what is
kept of a key goes away when that key comes again, which ids of decisions never do, so its state grows for ever.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from quixstreams import Application  # type: ignore[import-not-found, unused-ignore]
from quixstreams.internal_producer import InternalProducer  # type: ignore[import-not-found, unused-ignore]
from quixstreams.state.rocksdb import RocksDBOptions  # type: ignore[import-not-found, unused-ignore]

from engine.api.leeway.v1.records_pb2 import Decision, Feedback, Outcome

FEEDBACK_DECISION = b"\x0a"  # field 1, a message


def merge(decision: bytes, outcome: bytes) -> bytes:
    """Return the bytes of a feedback: a decision as it came, and its reward."""
    made = Outcome.FromString(outcome)
    reward = Feedback(reward=made.value, outcomes=1, reward_time_ms=made.time_ms)
    size, length = len(decision), bytearray()
    while size > 127:
        length.append(size & 127 | 128)
        size >>= 7
    length.append(size)
    return b"".join((FEEDBACK_DECISION, length, decision, reward.SerializeToString()))


def decision(value: bytes) -> bytes:
    """Return a decision as it came, if it is one."""
    Decision.FromString(value)
    return value


def dumps(value: bytes | int) -> bytes:
    """Write a value of the state: a record as it is, or a counter of the store."""
    return value if isinstance(value, bytes) else b"%d" % value


def loads(value: bytes) -> bytes | int:
    """Read a value of the state: every record begins with its field 1, the id."""
    return value if value[:1] == b"\x0a" else int(value)


def run(
    bootstrap: str,
    prefix: str,
    batch: int,
    workload: dict[str, int],
    window_ms: int,
    grace_ms: int,
    state: str,
    core: int,
) -> dict[str, float]:
    """Join all pairs on one core; return when the last was committed, and what it took."""
    os.sched_setaffinity(0, {core})
    figures = {"end": 0.0, "cpu_seconds": 0.0, "events": 0}
    # Merging topics in the order of time, it waits where a transaction is open: no decision of the warm-up is missing
    # then, but some outcomes.
    warm_up, total = workload["warm_up"], 2 * (workload["warm_up"] + workload["pairs"])
    processed, cpu = 0, 0.0

    def count(_topic: str, _partition: int, _offset: int) -> None:
        nonlocal processed, cpu
        processed += 1
        if processed == warm_up:
            cpu = time.process_time()
            print("ready", flush=True)
        elif processed == total:
            app.stop()

    commit = InternalProducer.commit_transaction

    def noted(*arguments: Any, **named: Any) -> None:
        commit(*arguments, **named)
        figures.update(end=time.monotonic(), cpu_seconds=time.process_time() - cpu, events=processed - warm_up)

    InternalProducer.commit_transaction = noted
    app = Application(
        bootstrap,
        consumer_group=f"{prefix}quix",
        processing_guarantee="exactly-once",
        auto_offset_reset="earliest",
        commit_every=batch,
        consumer_poll_timeout=0.02,  # of its default, a second, much would be spent waiting for a full buffer
        state_dir=Path(state),
        rocksdb_options=RocksDBOptions(dumps=dumps, loads=loads),
        producer_extra_config={"linger.ms": 100, "batch.size": 1_048_576, "queue.buffering.max.messages": 1_000_000},
        on_message_processed=count,
        loglevel="WARNING",
    )
    decisions, outcomes, feedback = (
        app.topic(prefix + name, value_deserializer="bytes", value_serializer="bytes")
        for name in ("decisions", "outcomes", "feedback")
    )
    joined = (
        app.dataframe(decisions)
        .apply(decision)
        .join_interval(
            app.dataframe(outcomes),
            how="inner",
            on_merge=merge,
            grace_ms=window_ms + grace_ms,
            forward_ms=window_ms,
        )
    )
    joined.to_topic(feedback)
    app.run()
    return figures


if __name__ == "__main__":
    print(json.dumps(run(**json.loads(sys.argv[1]))), flush=True)
