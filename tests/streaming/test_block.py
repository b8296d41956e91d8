from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streaming.block import MOST_BYTES, MOST_RECORDS, Block, BlockReader, Fields, blocks
from streaming.log import Message

_times = st.integers(-(2**63), 2**63 - 1)
_parts = st.none() | st.binary(max_size=20)
# Few names and contents, so that records have headers alike, in part alike, and not alike.
_headers = st.lists(st.tuples(st.sampled_from(["", "a", "\u00fc", "\ud800"]), st.sampled_from([b"", b"x", b"\xff\0"])))
_messages = st.builds(Message, st.just("t"), _parts, _parts, _times, _headers | st.just([("a", b"x"), ("b", b"y")]))


def read(all_blocks: list[Block]) -> list[Fields]:
    reader = BlockReader()
    return [its for block in all_blocks for its in reader.fields(block.data, block.size, 0, block.size)]


def fields_of(messages: list[Message]) -> list[Fields]:
    return [(m.timestamp_ms, m.key, m.value, tuple(m.headers)) for m in messages]


@settings(max_examples=300, deadline=None)
@given(st.lists(_messages, min_size=1, max_size=12), st.integers(0, 12), st.integers(0, 12))
def test_records_come_back_as_they_went_in(messages: list[Message], first: int, last: int) -> None:
    written = list(blocks(messages))
    assert read(written) == fields_of(messages)
    for block in written:
        its = read([block])
        times = [time_ms for time_ms, *_ in its]
        assert (block.oldest_ms, block.newest_ms) == (min(times), max(times))
        assert list(BlockReader().fields(block.data, block.size, first, last)) == its[first:last]


def test_a_block_has_an_end() -> None:
    many = [Message("t", b"k", b"v", n) for n in range(2 * MOST_RECORDS + 1)]
    assert [block.size for block in blocks(many)] == [MOST_RECORDS, MOST_RECORDS, 1]
    large = [Message("t", b"k", bytes(MOST_BYTES // 3), n) for n in range(10)]
    written = list(blocks(large))
    assert all(len(block.data) < 1.1 * MOST_BYTES for block in written)
    assert read(written) == fields_of(large)
    huge = [Message("t", b"k", bytes(2 * MOST_BYTES), 0), *many[:3]]
    assert [block.size for block in blocks(huge)] == [1, 1, 2]


def test_what_records_have_alike_is_written_once() -> None:
    messages = [Message("t", b"", b"", n, (("type", b"x" * 100), ("id", b"%d" % n))) for n in range(50)]
    [block] = blocks(messages)
    assert len(block.data) < 100 + 50 * 30


@pytest.mark.parametrize("headers", [(), (("a", b"x"), ("b", b"y"))])
def test_what_is_no_block_of_so_many_records_is_refused(headers: tuple[tuple[str, bytes], ...]) -> None:
    messages = [Message("t", b"key", None if n else b"value", n, (*headers, ("n", b"%d" % n))) for n in range(3)]
    [block] = blocks(messages)
    whole = block.data
    lengths = whole.rindex(b"\xff\xff\xff\xff")
    broken = [whole[:end] for end in range(len(whole))]
    broken += [whole + b"x", b"\2" + whole[1:], whole[:lengths] + b"\xfe" + whole[lengths + 1 :]]
    for data in broken:
        with pytest.raises(ValueError, match=r"\S"):
            BlockReader().fields(data, 3, 0, 3)
    for size in (-1, 0, 2, 4, 2**40, 2**62, "3", None):
        with pytest.raises(ValueError, match=r"\S"):
            BlockReader().fields(whole, size, 0, 3)  # type: ignore[arg-type]
