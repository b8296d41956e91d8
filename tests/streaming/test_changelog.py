from __future__ import annotations

import random
from collections.abc import Iterator

import pytest

from engine.config import RewardConfig
from engine.errors import LogError
from engine.records import JOIN_STAGE_OPEN, JOIN_STAGE_REMEMBERED, JOIN_STAGE_WAITING, Decision, JoinBlock, Outcome
from streaming.changelog import (
    BLOCK_COST_BYTES,
    HEAD_KEY,
    MAX_BLOCK_BYTES,
    MAX_GARBAGE,
    SLACK_BYTES,
    Blocks,
    block_of,
    decode,
    encode,
    head_of,
    is_ours,
)
from streaming.entry import Entry
from streaming.join import Joiner, Source
from streaming.log import Record
from tests.streaming.joining import Changes, compacted, drained, hand_in, outcome, restored

EVERYTHING = (-(2**63), b"")


def reported(number: int, index: int) -> bytes:
    return Outcome(decision_id=f"d{number}", outcome_id=f"o{index}", value=index).SerializeToString()


def made(stage: int, number: int) -> Entry:
    if stage == JOIN_STAGE_WAITING:
        entry = Entry(JOIN_STAGE_WAITING, 9_000 + number, "", 0, None)
        for index in range(1 + number % 3):
            entry.see(f"o{index}")
            headers = (("ce_id", b"\xff%d" % index), ("empty", b""))
            entry.wait(Record("outcomes", 4, 100 + index, 77, b"d%d" % number, reported(number, index), headers))
        return entry
    entry = Entry(JOIN_STAGE_OPEN, 9_000 + number, f"p{number % 2}", 50 + number, b"raw%d" % number)
    entry.not_before_ms = 12_000 if number == 3 else 0
    for index in range(20 if number == 4 else number):
        entry.see(f"o{index}")
        entry.count(
            (index, index / 8, index, "click") if stage == JOIN_STAGE_OPEN and number == 5 else (index, index / 8)
        )
    if stage == JOIN_STAGE_REMEMBERED:
        entry.stage, entry.decision, entry.outcomes = JOIN_STAGE_REMEMBERED, None, ()
        entry.time_ms = 0
    return entry


def slots(entry: Entry) -> dict[str, object]:
    return {name: getattr(entry, name) for name in Entry.__slots__}


@pytest.mark.parametrize("stage", [JOIN_STAGE_WAITING, JOIN_STAGE_OPEN, JOIN_STAGE_REMEMBERED])
def test_a_block_gives_back_its_entries(stage: int) -> None:
    entries = {b"d%d" % number: made(stage, number) for number in range(6)}
    count, items = decode(5, encode(list(entries), list(entries.values())), EVERYTHING, 4)
    for entry in entries.values():
        entry.block = 5
    assert count == 6
    assert [(key, slots(entry)) for key, entry in items] == [(key, slots(entry)) for key, entry in entries.items()]


def test_what_is_done_with_is_left_out() -> None:
    entries = {b"d%d" % number: made(JOIN_STAGE_OPEN, number) for number in range(6)}
    value = encode(list(entries), list(entries.values()))
    count, items = decode(5, value, (9_002, b"d3"), 0)
    assert (count, [key for key, _ in items]) == (6, [b"d3", b"d4", b"d5"])
    assert [len(entry.outcomes) for _, entry in items] == [3, 20, 5]


def written(blocks: Blocks, entries: dict[bytes, Entry], now_ms: int = 0) -> list[JoinBlock]:
    return [JoinBlock.FromString(value) for _, value in blocks.write(entries, now_ms) if value is not None]


def test_blocks_are_not_too_large() -> None:
    entries = {b"%d" % n: Entry(JOIN_STAGE_OPEN, 9_000, "p", 0, bytes(600)) for n in range(5_000)}
    entries |= {b"large%d" % n: Entry(JOIN_STAGE_OPEN, 9_000, "p", 0, bytes(MAX_BLOCK_BYTES + 1)) for n in range(2)}
    found = written(Blocks(), entries)
    assert sorted(key for block in found for key in block.decision_ids) == sorted(entries)
    assert all(block.ByteSize() <= MAX_BLOCK_BYTES for block in found if len(block.decision_ids) > 1)
    assert len(found) < 20


def test_a_long_window_does_not_keep_short_ones() -> None:
    entries = {b"%d" % n: Entry(JOIN_STAGE_OPEN, (1_000, 500_000)[n % 2], "p", 0, b"x") for n in range(100)}
    found = written(Blocks(), entries)
    assert sorted(set(block.due_ms) for block in found) == [{1_000}, {500_000}]


def steps(rng: random.Random, points: dict[str, RewardConfig], count: int) -> Iterator[tuple[Joiner, Changes, int]]:
    """Let a joiner work with decisions that get many outcomes, each in another step; yield it and its changelog."""
    joiner = Joiner(points)
    changelog: Changes = []
    recent: list[Decision] = []
    for now_ms in range(0, count * 100, 100):
        for number in range(rng.choice([0, 1, 30])):
            point = rng.choice(list(points))
            decision = Decision(
                decision_id=f"{now_ms}-{number}", decision_point=point, time_ms=now_ms, salt="x" * rng.choice([10, 900])
            )
            hand_in(joiner, decision)
            recent.append(decision)
        for decision in rng.sample(recent, min(len(recent), 100)):
            hand_in(joiner, outcome(0.5, now_ms, decision_id=decision.decision_id))
        recent = recent[-300:]
        for source in Source:
            joiner.on_end(source, now_ms)
        told = drained(joiner)
        changelog = compacted([*changelog, *told.changes])
        yield joiner, changelog, sum(len(value or b"") for _, value in told.changes)


def test_what_is_stored_is_bounded_by_what_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Outcomes leave behind older copies of their decisions in blocks that others keep."""
    monkeypatch.setattr("streaming.changelog.SLACK_BYTES", slack := 20_000)
    points = {"short": RewardConfig(window=5_000, aggregation="sum"), "long": RewardConfig(window=60_000)}
    most = 0.0
    for number, (joiner, changelog, step) in enumerate(steps(random.Random(5), points, 300)):
        stored = sum(len(value or b"") + BLOCK_COST_BYTES for key, value in changelog if key != HEAD_KEY)
        assert stored == joiner.stored_bytes
        if number % 50:
            continue
        again = restored(changelog, points)
        entries = again.pending.hot
        assert len(entries) == len(joiner.pending)
        live = sum(len(encode([key], [entry])) for key, entry in entries.items())
        # What this step has made garbage is cleared by the next one.
        assert stored <= MAX_GARBAGE * live + slack + step + 25 * BLOCK_COST_BYTES
        most = max(most, stored / max(live, 1_000_000))
    assert slack < SLACK_BYTES
    assert most > 1.0  # there was garbage


def test_keys_of_another_version_are_refused_with_a_remedy() -> None:
    for key in (b"\xffjoin/2/head", b"\xffjoin/2/block/00000001", b"\xffjoin/"):
        assert is_ours(key)
        with pytest.raises(LogError, match=r"join_state.*log\.topic_prefix.*join/.*another version.*Run that version"):
            block_of(key)
    assert block_of(HEAD_KEY) is None
    assert not any(is_ours(key) for key in (None, b"", b"foreign", b"\xffjoin"))


DAMAGED = {
    "no message": b"\xff",
    "empty": b"",
    "a column too short": JoinBlock(stage=JOIN_STAGE_OPEN, decision_ids=[b"d"]).SerializeToString(),
    "no such point": JoinBlock(
        stage=JOIN_STAGE_OPEN, decision_ids=[b"d"], due_ms=[1], seen_counts=[0], points=[7]
    ).SerializeToString(),
}


@pytest.mark.parametrize("value", DAMAGED.values(), ids=DAMAGED.keys())
def test_a_damaged_block_is_told_with_a_remedy(value: bytes) -> None:
    with pytest.raises(LogError, match=r"join_state.*log\.topic_prefix.*block 3 is damaged.*from a copy.*delete this"):
        decode(3, value, EVERYTHING, 0)


def test_damage_is_told() -> None:
    with pytest.raises(LogError, match=r"block 3 is of stage 9.*install the version"):
        decode(3, JoinBlock(stage=9, decision_ids=[b"d"]).SerializeToString(), EVERYTHING, 0)  # type: ignore[arg-type]
    with pytest.raises(LogError, match=r"head is damaged.*from a copy"):
        head_of(b"\xff")
