"""What a connection of HTTP/2 does with what comes over it, without a socket."""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.serving.lean import frames
from engine.serving.lean.connection import CONNECTION_WINDOW, STREAM_WINDOW, TAKEN_BACK, Connection, Stream
from engine.serving.lean.frames import ProtocolError, frame
from engine.serving.lean.headers import Header, encode

HEAD = encode([(b":path", b"/a.B/C")])


class Seen:
    """What came of one stream."""

    def __init__(self, stream: Stream) -> None:
        self.stream = stream
        self.body = b""
        self.over = ""

    def received(self, data: bytes) -> None:
        self.body += data

    def ended(self) -> None:
        self.over = "ended"

    def gone(self) -> None:
        self.over = "gone"

    def flushed(self) -> None:
        pass


class Talk:
    """A connection, and what it did."""

    def __init__(self) -> None:
        self.calls: dict[int, Seen] = {}
        self.refusal: bytes | None = None
        self.connection = Connection[list[Header]](lambda headers: headers, self._begin, self._refuse)
        self.connection.receive(frames.PREFACE + frame(frames.SETTINGS, 0, 0))
        self.sent()

    def _refuse(self, headers: list[Header]) -> bytes | None:
        return self.refusal

    def _begin(self, stream: Stream, headers: list[Header]) -> None:
        assert headers == [(b":path", b"/a.B/C")]
        stream.receiver = self.calls[stream.number] = Seen(stream)

    def say(self, *parts: bytes) -> None:
        self.connection.receive(b"".join(parts))

    def open(self, number: int, flags: int = 0) -> Seen:
        self.say(frame(frames.HEADERS, frames.END_HEADERS | flags, number, HEAD))
        return self.calls[number]

    def sent(self) -> list[tuple[int, int, int, bytes]]:
        """Return the frames that went out since the last time: kind, flags, stream, content."""
        out, found = bytes(self.connection.out), []
        self.connection.out.clear()
        while out:
            first, flags, stream = frames.HEAD.unpack_from(out)
            end = frames.HEAD_BYTES + (first >> 8)
            found.append((first & 0xFF, flags, stream, out[frames.HEAD_BYTES : end]))
            out = out[end:]
        return found


def window(number: int, more: int) -> bytes:
    return frame(frames.WINDOW_UPDATE, 0, number, struct.pack(">I", more))


def setting(name: int, value: int) -> bytes:
    return frame(frames.SETTINGS, 0, 0, frames.setting(name, value))


@given(st.lists(st.integers(1, 60), max_size=20))
def test_bytes_may_come_in_any_pieces(cuts: list[int]) -> None:
    talk = Talk()
    text = (
        frame(frames.HEADERS, 0, 1, HEAD[:3])
        + frame(frames.CONTINUATION, frames.END_HEADERS, 1, HEAD[3:])
        + frame(frames.DATA, 0, 1, b"one ")
        + frame(frames.DATA, frames.END_STREAM | frames.PADDED, 1, b"\x02two..")
    )
    for cut in cuts:
        talk.say(text[:cut])
        text = text[cut:]
    talk.say(text)
    assert (talk.calls[1].body, talk.calls[1].over) == (b"one two", "ended")


def test_an_answer_waits_for_the_windows_of_its_caller() -> None:
    talk = Talk()
    stream = talk.open(1, frames.END_STREAM).stream
    stream.head(HEAD)
    stream.send(bytes(100_000))
    stream.end(HEAD)
    sizes = [len(content) for kind, _, _, content in talk.sent() if kind == frames.DATA]
    assert (sum(sizes), max(sizes)) == (frames.WINDOW, frames.MOST)
    talk.say(window(0, 100_000))
    assert talk.sent() == []  # the stream's own window is empty still
    talk.say(setting(frames.INITIAL_WINDOW_SIZE, frames.WINDOW + 10))
    assert [len(content) for kind, _, _, content in talk.sent() if kind == frames.DATA] == [10]
    talk.say(window(1, 100_000))
    *parts, last = talk.sent()
    assert sum(len(content) for _, _, _, content in parts) == 100_000 - frames.WINDOW - 10
    assert last[:3] == (frames.HEADERS, frames.END_HEADERS | frames.END_STREAM, 1)
    assert talk.connection.streams == {}


def test_room_is_given_again_for_the_connection_and_not_for_a_stream_that_nobody_reads() -> None:
    talk = Talk()
    talk.open(1)
    for _ in range(STREAM_WINDOW // frames.MOST):
        talk.say(frame(frames.DATA, 0, 1, bytes(frames.MOST)))
    talk.open(3)
    for _ in range(STREAM_WINDOW // frames.MOST):
        talk.say(frame(frames.DATA, 0, 3, bytes(frames.MOST)))
    talk.open(5)
    talk.say(frame(frames.DATA, 0, 5, bytes(frames.MOST)))
    given_again = [(stream, int.from_bytes(content, "big")) for kind, _, stream, content in talk.sent()]
    assert given_again == [(0, CONNECTION_WINDOW // 2 + frames.MOST)]
    talk.say(frame(frames.DATA, 0, 1, b"x"))  # more than was allowed
    assert talk.sent() == [(frames.RST_STREAM, 0, 1, struct.pack(">I", frames.FLOW_CONTROL_ERROR))]
    assert talk.calls[1].over == "gone"


def test_a_call_that_is_taken_back_is_gone_and_the_rest_of_it_harms_nothing() -> None:
    talk = Talk()
    call = talk.open(1)
    talk.say(frame(frames.RST_STREAM, 0, 1, bytes(4)))
    assert call.over == "gone"
    talk.say(frame(frames.DATA, 0, 1, b"late"), frame(frames.HEADERS, 5, 1, HEAD), window(1, 5))
    assert talk.sent() == []
    assert call.body == b""


def test_who_is_told_to_go_may_send_what_was_on_its_way() -> None:
    talk = Talk()
    talk.connection.warn()
    (kind, _, _, goodbye), (ping, _, _, token) = talk.sent()
    assert (kind, goodbye[:4], ping) == (frames.GOAWAY, struct.pack(">I", 2**31 - 1), frames.PING)
    talk.open(1)
    talk.say(frame(frames.PING, frames.ACK, 0, token))
    ((kind, _, _, goodbye),) = talk.sent()
    assert (kind, goodbye) == (frames.GOAWAY, struct.pack(">II", 1, frames.NO_ERROR))
    talk.say(frame(frames.HEADERS, frames.END_HEADERS, 3, HEAD), frame(frames.DATA, 0, 3, b"x"))
    assert set(talk.connection.streams) == {1}
    talk.say(frame(frames.DATA, frames.END_STREAM, 1, b"y"))
    assert (talk.calls[1].body, talk.calls[1].over) == (b"y", "ended")


def test_who_was_told_to_go_is_still_asked_whether_it_is_there() -> None:
    talk = Talk()
    talk.connection.ping()
    ((_, _, _, before),) = talk.sent()
    talk.connection.warn()
    talk.sent()
    talk.say(frame(frames.PING, frames.ACK, 0, before))  # it need not have heard the warning
    assert talk.sent() == []
    assert not talk.connection.draining
    talk.connection.ping()
    ((kind, flags, _, _),) = talk.sent()
    assert (kind, flags) == (frames.PING, 0)


def nothing(talk: Talk) -> None:
    """Prepare nothing."""


def opened(talk: Talk) -> None:
    talk.open(1)


@pytest.mark.parametrize(
    ("before", "said", "code"),
    [
        (nothing, frame(frames.DATA, 0, 1, b"x"), frames.PROTOCOL_ERROR),
        (nothing, frame(frames.DATA, 0, 0, b"x"), frames.PROTOCOL_ERROR),
        (nothing, frame(frames.HEADERS, frames.END_HEADERS, 2, HEAD), frames.PROTOCOL_ERROR),
        (nothing, frame(frames.HEADERS, frames.END_HEADERS, 1, b"\x80"), frames.COMPRESSION_ERROR),
        (nothing, frame(frames.HEADERS, 0, 1, HEAD) + frame(frames.PING, 0, 0, bytes(8)), frames.PROTOCOL_ERROR),
        (nothing, frame(frames.HEADERS, 0, 1, HEAD) + frame(9, 0, 1) * 2, frames.ENHANCE_YOUR_CALM),
        (nothing, frame(frames.HEADERS, 0, 1, HEAD) + frame(9, 0, 1, bytes(9_000)) * 2, frames.ENHANCE_YOUR_CALM),
        (nothing, frame(frames.CONTINUATION, 0, 1, HEAD), frames.PROTOCOL_ERROR),
        (nothing, frame(frames.PUSH_PROMISE, 0, 1, HEAD), frames.PROTOCOL_ERROR),
        (nothing, frame(frames.RST_STREAM, 0, 1, bytes(4)), frames.PROTOCOL_ERROR),
        (nothing, frame(frames.PING, 0, 0, bytes(7)), frames.FRAME_SIZE_ERROR),
        (nothing, frame(frames.SETTINGS, 0, 0, bytes(5)), frames.FRAME_SIZE_ERROR),
        (nothing, setting(frames.INITIAL_WINDOW_SIZE, 2**31), frames.FLOW_CONTROL_ERROR),
        (nothing, window(0, 0), frames.FLOW_CONTROL_ERROR),
        (nothing, window(0, 2**31 - 1), frames.FLOW_CONTROL_ERROR),
        (nothing, frame(frames.DATA, 0, 1, bytes(frames.MOST + 1)), frames.FRAME_SIZE_ERROR),
        (opened, frame(frames.DATA, frames.PADDED, 1, b"\x05x"), frames.PROTOCOL_ERROR),
    ],
)
def test_what_http2_does_not_allow_ends_the_connection(before: Callable[[Talk], None], said: bytes, code: int) -> None:
    talk = Talk()
    before(talk)
    with pytest.raises(ProtocolError) as ended:
        talk.say(said)
    assert ended.value.code == code


def test_who_speaks_something_else_is_told_at_its_first_word() -> None:
    with pytest.raises(ProtocolError, match="does not begin"):
        Connection[list[Header]](lambda headers: headers, lambda stream, headers: None, _taken).receive(
            b"GET / HTTP/1.1\r\n"
        )


def test_calls_that_are_begun_and_taken_back_without_end_end_the_connection() -> None:
    talk = Talk()
    *allowed, last = range(1, 2 * TAKEN_BACK + 2, 2)
    for number in allowed:
        talk.open(number)
        talk.say(frame(frames.RST_STREAM, 0, number, bytes(4)))
    talk.open(last)
    with pytest.raises(ProtocolError) as ended:
        talk.say(frame(frames.RST_STREAM, 0, last, bytes(4)))
    assert ended.value.code == frames.ENHANCE_YOUR_CALM


@given(st.lists(st.tuples(st.integers(0, 10), st.integers(0, 255), st.integers(0, 5), st.binary(max_size=20))))
def test_no_frames_break_it(said: list[tuple[int, int, int, bytes]]) -> None:
    connection = Connection[list[Header]](lambda headers: headers, _answer, _taken)
    connection.receive(frames.PREFACE)
    with contextlib.suppress(ProtocolError):
        for part in said:
            connection.receive(frame(*part))


def _answer(stream: Stream, headers: list[Header]) -> None:
    stream.receiver = Seen(stream)


def _taken(_headers: list[Header]) -> None:
    return None


def test_a_call_that_is_refused_by_its_headers_leaves_nothing_behind() -> None:
    talk = Talk()
    talk.refusal = HEAD
    begun = frame(frames.HEADERS, frames.END_HEADERS, 1, HEAD)
    talk.say(begun, frame(frames.DATA, frames.END_STREAM, 1, b"what nobody reads"))
    whole = frames.END_HEADERS | frames.END_STREAM
    rest = struct.pack(">I", frames.NO_ERROR)  # need not come, but it may be on its way
    assert talk.sent() == [(frames.HEADERS, whole, 1, HEAD), (frames.RST_STREAM, 0, 1, rest)]
    assert (talk.connection.streams, talk.calls) == ({}, {})
    talk.say(frame(frames.HEADERS, frames.END_HEADERS | frames.END_STREAM, 3, HEAD))
    assert talk.sent() == [(frames.HEADERS, whole, 3, HEAD)]
    talk.refusal = None
    assert talk.open(5).stream.number == 5


def test_the_body_of_refused_calls_is_given_back_to_the_window_of_all() -> None:
    talk = Talk()
    talk.refusal = HEAD
    size, given = 0, 0
    for number in range(1, 201, 2):
        talk.say(frame(frames.HEADERS, frames.END_HEADERS, number, HEAD))
        talk.say(frame(frames.DATA, frames.END_STREAM, number, bytes(frames.MOST)))
        size += frames.MOST
        given += sum(
            int.from_bytes(content, "big")
            for kind, _, stream, content in talk.sent()
            if (kind, stream) == (frames.WINDOW_UPDATE, 0)
        )
    assert size - CONNECTION_WINDOW // 2 <= given <= size
