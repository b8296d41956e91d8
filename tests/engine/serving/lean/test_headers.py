from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.serving.lean.headers import MOST, Decoder, HeaderError, encode

REQUEST = [(b":method", b"GET"), (b":scheme", b"http"), (b":path", b"/"), (b":authority", b"www.example.com")]
# RFC 7541, sections C.3 and C.4: three requests on one connection, without and with the code of Huffman.
PLAIN = (
    "828684410f7777772e6578616d706c652e636f6d",
    "828684be58086e6f2d6361636865",
    "828785bf400a637573746f6d2d6b65790c637573746f6d2d76616c7565",
)
CODED = (
    "828684418cf1e3c2e5f23a6ba0ab90f4ff",
    "828684be5886a8eb10649cbf",
    "828785bf408825a849e95ba97d7f8925a849e95bb8e8b4bf",
)
WANTED = [
    REQUEST,
    [*REQUEST, (b"cache-control", b"no-cache")],
    [
        (b":method", b"GET"),
        (b":scheme", b"https"),
        (b":path", b"/index.html"),
        (b":authority", b"www.example.com"),
        (b"custom-key", b"custom-value"),
    ],
]


@pytest.mark.parametrize("blocks", [PLAIN, CODED])
def test_the_examples_of_the_rfc_are_read(blocks: tuple[str, ...]) -> None:
    decoder = Decoder()
    assert [decoder.decode(bytes.fromhex(block)) for block in blocks] == WANTED


def test_a_smaller_table_forgets_the_oldest() -> None:
    decoder = Decoder()
    decoder.decode(bytes.fromhex(PLAIN[0]))
    assert decoder.decode(b"\xbe") == [(b":authority", b"www.example.com")]
    decoder.decode(b"\x20")  # no table
    with pytest.raises(HeaderError, match="not remembered"):
        decoder.decode(b"\xbe")


def test_what_is_remembered_is_told_by_the_generation() -> None:
    decoder = Decoder()
    before = decoder.generation
    decoder.decode(encode([(b"a", b"b")]))
    assert decoder.generation == before
    decoder.decode(bytes.fromhex(PLAIN[0]))
    assert decoder.generation != before


@pytest.mark.parametrize(
    ("block", "words"),
    [
        ("80", "index 0"),
        ("c0", "not remembered"),
        ("ff8080808001", "too large"),
        ("3fe21f", "not allowed"),  # a table of 4,097 bytes
        ("8220", "not allowed"),  # a change after a header
        ("0002", "ends early"),
        ("4005616263", "ends early"),
        ("0081180161", "does not end as it should"),  # bits behind an "a" that are no ones
        ("0085ffffffffff0161", "does not end as it should"),
    ],
)
def test_what_is_no_block_is_refused(block: str, words: str) -> None:
    with pytest.raises(HeaderError, match=words):
        Decoder().decode(bytes.fromhex(block))


def test_a_small_block_that_means_much_is_refused() -> None:
    decoder = Decoder()
    decoder.decode(b"\x40\x01a\x7f\xa1\x1e" + b"x" * 4_000)  # remembered
    with pytest.raises(HeaderError, match=f"more than {MOST} bytes"):
        decoder.decode(b"\xbe" * 3)


@given(st.lists(st.tuples(st.binary(max_size=200), st.binary(max_size=300)), max_size=8))
def test_what_is_written_is_read(headers: list[tuple[bytes, bytes]]) -> None:
    assert Decoder().decode(encode(headers)) == headers


@given(st.binary(max_size=60))
def test_no_bytes_break_it(block: bytes) -> None:
    with contextlib.suppress(HeaderError):
        Decoder().decode(block)
