"""The measured processes: ``python -m benchmarks._streaming_measured KIND JSON``.

Each says ``ready`` when it has processed the warm-up, processes the rest, prints its figures as JSON, and stays until
its standard input ends (a member that left would disturb the others).
"""

from __future__ import annotations

import cProfile
import gc
import json
import os
import pstats
import select
import sys
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import kafka
from kafka.coordinator.assignors.range import RangePartitionAssignor

from benchmarks._streaming_workload import Workload, rewards_config
from engine.records import Decision, Outcome
from streaming.joiner import JoinerRole
from streaming.kafka import KafkaLog, KafkaSettings
from streaming.kafka.settings import ClientName
from streaming.role_process import calm_memory
from streaming.topics import DECISIONS, FEEDBACK, OUTCOMES, topics

RETENTION_MS = 2**50  # events are dated in the past
IDLE_S = 0.05


def bare(bootstrap: str, prefix: str, batch: int, workload: dict[str, int], **_: Any) -> None:
    """Consume, parse and re-produce with kafka-python: the least that a transactional program on it does."""
    work = Workload(**workload)
    client = {"bootstrap_servers": bootstrap, "metrics_enabled": False}
    consumer = kafka.KafkaConsumer(
        group_id=f"{prefix}bare",
        isolation_level="read_committed",
        auto_offset_reset="earliest",
        enable_auto_commit=False,
        partition_assignment_strategy=(RangePartitionAssignor,),
        max_partition_fetch_bytes=8_388_608,
        fetch_max_bytes=67_108_864,
        max_poll_records=batch,
        **client,
    )
    producer = kafka.KafkaProducer(
        transactional_id=f"{prefix}bare", linger_ms=100, batch_size=1_048_576, max_request_size=8_388_608, **client
    )
    producer.init_transactions()
    parsers = {prefix + DECISIONS: Decision.FromString, prefix + OUTCOMES: Outcome.FromString}
    consumer.subscribe(list(parsers))
    output = prefix + FEEDBACK

    def step() -> int:
        """Process one batch in one transaction."""
        taken, offsets = 0, {}
        deadline = time.monotonic() + 0.1
        producer_open = False
        while taken < batch and (not taken or time.monotonic() < deadline):
            found = consumer.poll(100, max_records=batch - taken)
            if not found:
                break
            if not producer_open:
                producer.begin_transaction()
                producer_open = True
            for where, records in found.items():
                parse = parsers[where.topic]
                for record in records:
                    parse(record.value)
                    producer.send(output, record.value, record.key, record.headers, record.partition, record.timestamp)
                taken += len(records)
                offsets[where] = kafka.OffsetAndMetadata(records[-1].offset + 1)
        if taken:
            producer.send_offsets_to_transaction(offsets, consumer.group_metadata())
            producer.commit_transaction()
        return taken

    taken = 0
    while taken < 2 * work.warm_up:
        taken += step()
    _say(_measured(step, lambda taken: taken >= 2 * work.pairs))
    producer.close()
    consumer.close(autocommit=False)


def joiner(
    bootstrap: str,
    prefix: str,
    batch: int,
    workload: dict[str, int],
    client: ClientName,
    counts: list[int],
    share: int,
    profile: str | None = None,
    **_: Any,
) -> None:
    """Join; ``counts`` has the number of decisions of each partition, ``share`` how many partitions are its."""
    work = Workload(**workload)
    log = KafkaLog(KafkaSettings(bootstrap_servers=[bootstrap], topic_prefix=prefix, client=client))
    log.create(topics(len(counts), RETENTION_MS))
    # Event time stands still while records come, and jumps when all are there: no window closes before its outcome.
    now_ms = [work.warm_ms]
    role = JoinerRole(log, rewards_config(), lambda: now_ms[0], batch=batch)

    def mine() -> Collection[int]:
        return {where.partition for where in role.lag()}

    def joined() -> int:
        return sum(book.feedback for book in role.accounting().values())

    def decided() -> int:
        return sum(book.decisions for book in role.accounting().values())

    quiet = 0
    while quiet < 2:  # a step that finds nothing may be in the middle of a rebalance
        quiet = quiet + 1 if role.step(IDLE_S) == 0 and len(mine()) == share else 0
    expected = sum(counts[number] for number in mine())

    def step() -> int:
        taken = role.step(IDLE_S)
        if not taken and decided() == expected:
            now_ms[0] = work.end_ms
        return taken

    calm_memory()  # as the product does once it is set up
    with _profiled(profile):
        # The last windows close when all was read: then a step ends when it is committed.
        figures = _measured(step, lambda _: joined() == expected)
    # Not what the steps say: one that hands in outcomes that an earlier one has read counts them too.
    _say({**figures, "events": 2 * work.pairs * share // len(counts)})
    while not select.select([sys.stdin], [], [], 0)[0]:
        role.step(IDLE_S)
    role.close()
    log.close()


def pending(
    bootstrap: str,
    prefix: str,
    batch: int,
    window_ms: int,
    now_ms: int,
    partitions: int,
    pending: int,
    swap: str | None,
    **_: Any,
) -> None:
    """Come to have so many open windows, from the decisions or from the state; and say what that took."""
    log = KafkaLog(KafkaSettings(bootstrap_servers=[bootstrap], topic_prefix=prefix))
    log.create(topics(partitions, RETENTION_MS))
    print("ready", flush=True)
    gc.collect()
    before, cpu, start = _resident_bytes(), time.process_time(), time.monotonic()
    role = JoinerRole(
        log, rewards_config(window_ms), lambda: now_ms, batch=batch, swap=None if swap is None else Path(swap)
    )
    while role.pending() < pending or len(role.watermarks()) < partitions:
        role.step(IDLE_S)
    figures = {"seconds": time.monotonic() - start, "cpu_seconds": time.process_time() - cpu}
    gc.collect()
    _say({**figures, "bytes": _resident_bytes() - before})
    role.close()
    log.close()


def _measured(step: Callable[[], int], done: Callable[[int], bool]) -> dict[str, float]:
    """Say that the work may come, and take steps until it is done."""
    print("ready", flush=True)
    taken, last = 0, time.process_time()
    while not taken:  # waiting for the start is no work
        cpu, last = last, time.process_time()
        taken = step()
    while not done(taken):
        taken += step()
    return {"end": time.monotonic(), "cpu_seconds": time.process_time() - cpu, "events": taken}


def _say(figures: dict[str, float]) -> None:
    print(json.dumps(figures), flush=True)


def _resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@contextmanager
def _profiled(path: str | None) -> Iterator[None]:
    """Write where the time of the main thread goes, if a file is given."""
    if path is None:
        yield
        return
    profile = cProfile.Profile()
    with profile:
        yield
    with Path(path).open("w") as file:
        statistics = pstats.Stats(profile, stream=file).strip_dirs()
        statistics.sort_stats("tottime").print_stats(60)
        statistics.sort_stats("cumulative").print_stats(60)


if __name__ == "__main__":
    kinds: dict[str, Callable[..., None]] = {"bare": bare, "joiner": joiner, "pending": pending}
    arguments = json.loads(sys.argv[2])
    if arguments["core"] is not None:
        os.sched_setaffinity(0, {arguments["core"]})
    kinds[sys.argv[1]](**arguments)
