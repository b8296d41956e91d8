"""One connection of HTTP/2: bytes in, streams out, and what its windows allow back. It knows no socket and no gRPC."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any, Generic, Protocol, TypeVar

from engine.serving.lean import frames
from engine.serving.lean.frames import ProtocolError, frame
from engine.serving.lean.headers import MOST, Decoder, Header, HeaderError

H = TypeVar("H")

#: What a caller may send before it is taken: of one stream, and of all of them.
STREAM_WINDOW, CONNECTION_WINDOW = 262_144, 1_048_576
#: Streams of one connection at one time.
STREAMS = 2_000
#: Streams that a caller takes back, over those that ended, until it is told to calm down.
TAKEN_BACK = 1_000
#: What a PING says that asks whether somebody is there, and one that wants to know whether a warning was heard.
_THERE, _HEARD = b"\1" * 8, bytes(8)
#: Blocks of headers whose meaning is known: a client says the same with every call, but for some hundred timeouts.
_KNOWN, _KNOWN_BYTES = 256, 512
#: A whole RST_STREAM.
_REST_UNREAD = struct.Struct(">IBII")


class Receiver(Protocol):
    """Who answers a stream. All of it is called by the thread that reads."""

    def received(self, data: bytes) -> None:
        """Take bytes of its body."""

    def ended(self) -> None:
        """Note that all of its body has come."""

    def gone(self) -> None:
        """Note that nobody waits for an answer any more."""

    def flushed(self) -> None:
        """Note that all is sent that had to wait."""


class _Nobody:
    """Waits for the rest of a request that nobody reads."""

    def received(self, data: bytes) -> None:
        """Drop it."""

    def ended(self) -> None:
        """Do nothing."""

    def gone(self) -> None:
        """Do nothing."""

    def flushed(self) -> None:
        """Do nothing."""


NOBODY = _Nobody()


class Stream:
    """One stream: a request, and its answer as far as it has been allowed out."""

    __slots__ = ("_connection", "_last", "_unsent", "number", "received", "receiver", "sending", "taking")

    def __init__(self, connection: Connection[Any], number: int, sending: int) -> None:
        self._connection = connection
        self.number = number
        self.receiver: Receiver | None = None
        self.received = False  # all of the request
        self.sending = sending  # what may still be sent
        self.taking = STREAM_WINDOW  # what may still come
        self._unsent = bytearray()
        self._last: bytes | None = None

    @property
    def unsent(self) -> int:
        """Bytes that wait for the caller's windows."""
        return len(self._unsent)

    def head(self, block: bytes, flags: int = 0) -> None:
        """Send headers."""
        self._connection.out += frame(frames.HEADERS, flags | frames.END_HEADERS, self.number, block)

    def send(self, data: bytes) -> None:
        """Send a part of the body, or let it wait for its window."""
        connection = self._connection
        size = len(data)
        if not self._unsent and size <= frames.MOST and size <= self.sending and size <= connection.sending:
            self.sending -= size
            connection.sending -= size
            connection.out += frame(frames.DATA, 0, self.number, data)
        else:
            self._unsent += data
            self.flush()

    def end(self, block: bytes) -> None:
        """Send the last headers, once all of the body is sent, and be done."""
        self._last = block
        if not self._unsent:
            self._close()

    def flush(self) -> None:
        """Send what the windows allow."""
        connection = self._connection
        while self._unsent:
            size = min(len(self._unsent), frames.MOST, self.sending, connection.sending)
            if size <= 0:
                return
            self.sending -= size
            connection.sending -= size
            connection.out += frame(frames.DATA, 0, self.number, bytes(self._unsent[:size]))
            del self._unsent[:size]
        if self._last is not None:
            self._close()
        elif self.receiver is not None:
            self.receiver.flushed()

    def _close(self) -> None:
        assert self._last is not None
        self.head(self._last, frames.END_STREAM)
        if not self.received:  # the rest of the request is of no use
            self._connection.out += frame(frames.RST_STREAM, 0, self.number, frames.LENGTH.pack(frames.NO_ERROR))
        self._connection.closed(self)

    def allow(self, size: int) -> None:
        """Let as much come again as has been taken."""
        if not self.received:
            self.taking += size
            self._connection.out += frame(frames.WINDOW_UPDATE, 0, self.number, frames.LENGTH.pack(size))

    def reset(self, code: int) -> None:
        """End it without an answer."""
        self._connection.out += frame(frames.RST_STREAM, 0, self.number, frames.LENGTH.pack(code))
        self._connection.closed(self)


class Connection(Generic[H]):
    """The state of one connection.

    Parameters
    ----------
    read
        Makes what is needed of headers: once for those that come again.
    begin
        Is told of each new stream and what was made of its headers, before anything of its body, and gives it a
        receiver.
    refuse
        Is asked before, with what was made of them: returns the last headers of a call that is not taken, of which
        nothing is made; ``None``: it is taken.

    Attributes
    ----------
    out : bytearray
        What is to be sent.
    streams : dict of int to Stream
        Those that are not over.
    draining : bool
        Whether no new streams are taken.
    """

    def __init__(
        self,
        read: Callable[[list[Header]], H],
        begin: Callable[[Stream, H], None],
        refuse: Callable[[H], bytes | None],
    ) -> None:
        self._read = read
        self._begin = begin
        self._refuse = refuse
        self._rest = b""
        self._greeted = False
        self._decoder = Decoder()
        self._known: dict[bytes, H] = {}
        self._block: tuple[int, int, bytearray] | None = None  # headers that are not complete: stream, flags, so far
        self._newest = self._taken = 0
        self._initial = frames.WINDOW
        self._taking = CONNECTION_WINDOW
        self._taken_back = 0
        self._warned = False
        self.sending = frames.WINDOW
        self.streams: dict[int, Stream] = {}
        self.draining = False
        self.out = bytearray(
            frame(
                frames.SETTINGS,
                0,
                0,
                frames.setting(frames.MAX_CONCURRENT_STREAMS, STREAMS)
                + frames.setting(frames.INITIAL_WINDOW_SIZE, STREAM_WINDOW)
                + frames.setting(frames.MAX_HEADER_LIST_SIZE, MOST),
            )
            + frame(frames.WINDOW_UPDATE, 0, 0, frames.LENGTH.pack(CONNECTION_WINDOW - frames.WINDOW))
        )

    @property
    def greeted(self) -> bool:
        """Whether the other side has said that it speaks HTTP/2."""
        return self._greeted

    def receive(self, data: bytes) -> None:
        """Take what has come; raises ``ProtocolError``, after which nothing more may be given to it."""
        buffer = self._rest + data if self._rest else data
        at, end = 0, len(buffer)
        if not self._greeted:
            if not buffer.startswith(frames.PREFACE[:end]):
                raise ProtocolError(frames.PROTOCOL_ERROR, "it does not begin as HTTP/2 does")
            if end < len(frames.PREFACE):
                self._rest = buffer
                return
            self._greeted = True
            at = len(frames.PREFACE)
        while end - at >= frames.HEAD_BYTES:
            first, flags, number = frames.HEAD.unpack_from(buffer, at)
            length = first >> 8
            if length > frames.MOST:
                raise ProtocolError(frames.FRAME_SIZE_ERROR, f"a frame of {length} bytes")
            after = at + frames.HEAD_BYTES + length
            if after > end:
                break
            self._frame(first & 0xFF, flags, number & 0x7FFFFFFF, buffer[at + frames.HEAD_BYTES : after])
            at = after
        self._rest = buffer[at:]

    def _frame(self, kind: int, flags: int, number: int, content: bytes) -> None:
        if self._block is not None and kind != frames.CONTINUATION:
            raise ProtocolError(frames.PROTOCOL_ERROR, "headers that are not continued")
        if kind == frames.DATA:
            self._data(flags, number, content)
        elif kind == frames.HEADERS:
            self._headers(flags, number, content)
        elif kind == frames.WINDOW_UPDATE:
            self._window(number, content)
        elif kind == frames.RST_STREAM:
            self._reset(number, content)
        elif kind == frames.CONTINUATION:
            self._continuation(flags, number, content)
        elif kind == frames.SETTINGS:
            self._settings(flags, number, content)
        elif kind == frames.PING:
            if len(content) != 8 or number:
                raise ProtocolError(frames.FRAME_SIZE_ERROR, "a PING that is none")
            if not flags & frames.ACK:
                self.out += frame(frames.PING, frames.ACK, 0, content)
            elif self._warned and content == _HEARD:
                self.refuse()
        elif kind == frames.PUSH_PROMISE:
            raise ProtocolError(frames.PROTOCOL_ERROR, "a promise by a client")
        # PRIORITY, the other side's GOAWAY and what is not known are passed over.

    def _data(self, flags: int, number: int, content: bytes) -> None:
        size = len(content)
        stream = self.streams.get(number)
        if stream is None and (not number or number > self._newest):
            raise ProtocolError(frames.PROTOCOL_ERROR, f"data of the stream {number}, which was not begun")
        self._taking -= size
        if self._taking < 0:
            raise ProtocolError(frames.FLOW_CONTROL_ERROR, "more than its window allows")
        if self._taking < CONNECTION_WINDOW // 2:
            more = CONNECTION_WINDOW - self._taking
            self._taking = CONNECTION_WINDOW
            self.out += frame(frames.WINDOW_UPDATE, 0, 0, frames.LENGTH.pack(more))
        if stream is None:
            return  # it ended before it heard so
        stream.taking -= size
        if stream.received or stream.taking < 0:
            self._fail(stream, frames.STREAM_CLOSED if stream.received else frames.FLOW_CONTROL_ERROR)
            return
        if flags & frames.PADDED:
            content = _unpadded(content)
            stream.taking += size - len(content)  # nobody waits for it
        assert stream.receiver is not None
        if content:
            stream.receiver.received(content)
        if flags & frames.END_STREAM and number in self.streams:
            stream.received = True
            stream.receiver.ended()

    def _headers(self, flags: int, number: int, content: bytes) -> None:
        if number % 2 == 0:
            raise ProtocolError(frames.PROTOCOL_ERROR, f"headers of the stream {number}")
        if flags & frames.PADDED:
            content = _unpadded(content)
        if flags & frames.WITH_PRIORITY:
            if len(content) < 5:
                raise ProtocolError(frames.FRAME_SIZE_ERROR, "headers that end early")
            content = content[5:]
        if flags & frames.END_HEADERS:
            self._complete(flags, number, content)
        else:
            self._block = (number, flags, bytearray(content))

    def _continuation(self, flags: int, number: int, content: bytes) -> None:
        if self._block is None or self._block[0] != number:
            raise ProtocolError(frames.PROTOCOL_ERROR, "a continuation of nothing")
        _, first, block = self._block
        block += content
        if len(block) > frames.MOST or not content:
            raise ProtocolError(frames.ENHANCE_YOUR_CALM, "headers without end")
        if flags & frames.END_HEADERS:
            self._block = None
            self._complete(first, number, bytes(block))

    def _complete(self, flags: int, number: int, block: bytes) -> None:
        head = self._meaning(block)
        stream = self.streams.get(number)
        if stream is not None:  # those that end a request
            if not flags & frames.END_STREAM or stream.received:
                self._fail(stream, frames.PROTOCOL_ERROR)
                return
            assert stream.receiver is not None
            stream.received = True
            stream.receiver.ended()
            return
        if number <= self._newest:
            return  # it ended before it heard so
        self._newest = number
        if self.draining:
            return  # it was told from which one on nothing is taken
        self._taken = number
        last = self._refuse(head)
        if last is not None:
            self.out += frame(frames.HEADERS, frames.END_HEADERS | frames.END_STREAM, number, last)
            if not flags & frames.END_STREAM:
                self.out += _REST_UNREAD.pack(4 << 8 | frames.RST_STREAM, 0, number, frames.NO_ERROR)
            self._taken_back = max(self._taken_back - 1, 0)
            return
        stream = Stream(self, number, self._initial)
        if len(self.streams) >= STREAMS:
            self.out += frame(frames.RST_STREAM, 0, number, frames.LENGTH.pack(frames.REFUSED_STREAM))
            return
        self.streams[number] = stream
        self._begin(stream, head)
        if flags & frames.END_STREAM and number in self.streams:
            assert stream.receiver is not None
            stream.received = True
            stream.receiver.ended()

    def _meaning(self, block: bytes) -> H:
        known = self._known.get(block)
        if known is not None:
            return known
        before = self._decoder.generation
        try:
            read = self._read(self._decoder.decode(block))
        except HeaderError as problem:
            raise ProtocolError(frames.COMPRESSION_ERROR, str(problem)) from problem
        if self._decoder.generation != before or len(self._known) >= _KNOWN:
            self._known.clear()
        if self._decoder.generation == before and len(block) <= _KNOWN_BYTES:
            self._known[block] = read
        return read

    def _window(self, number: int, content: bytes) -> None:
        if len(content) != 4:
            raise ProtocolError(frames.FRAME_SIZE_ERROR, "a WINDOW_UPDATE that is none")
        more = int.from_bytes(content, "big") & frames.MOST_WINDOW
        if not number:
            self.sending += more
            if not more or self.sending > frames.MOST_WINDOW:
                raise ProtocolError(frames.FLOW_CONTROL_ERROR, "a window of no size")
            for stream in tuple(self.streams.values()):
                stream.flush()
            return
        stream_ = self.streams.get(number)
        if stream_ is not None:
            stream_.sending += more
            if not more or stream_.sending > frames.MOST_WINDOW:
                self._fail(stream_, frames.FLOW_CONTROL_ERROR)
            else:
                stream_.flush()

    def _settings(self, flags: int, number: int, content: bytes) -> None:
        if number or len(content) % 6 or (flags & frames.ACK and content):
            raise ProtocolError(frames.FRAME_SIZE_ERROR, "SETTINGS that are none")
        if flags & frames.ACK:
            return
        for name, value in struct.iter_unpack(">HI", content):
            if name == frames.INITIAL_WINDOW_SIZE:
                if value > frames.MOST_WINDOW:
                    raise ProtocolError(frames.FLOW_CONTROL_ERROR, "a window of no size")
                more, self._initial = value - self._initial, value
                for stream in tuple(self.streams.values()):
                    stream.sending += more
                    stream.flush()
        self.out += frame(frames.SETTINGS, frames.ACK, 0)

    def _reset(self, number: int, content: bytes) -> None:
        if len(content) != 4:
            raise ProtocolError(frames.FRAME_SIZE_ERROR, "a RST_STREAM that is none")
        if not number or number > self._newest:
            raise ProtocolError(frames.PROTOCOL_ERROR, f"an end of the stream {number}, which was not begun")
        stream = self.streams.pop(number, None)
        if stream is None:
            return
        assert stream.receiver is not None
        stream.receiver.gone()
        self._taken_back += 1
        if self._taken_back > TAKEN_BACK:
            raise ProtocolError(frames.ENHANCE_YOUR_CALM, "calls that are taken back, one after the other")

    def _fail(self, stream: Stream, code: int) -> None:
        stream.reset(code)
        assert stream.receiver is not None
        stream.receiver.gone()

    def closed(self, stream: Stream) -> None:
        """Forget a stream that is over."""
        self.streams.pop(stream.number, None)
        self._taken_back = max(self._taken_back - 1, 0)

    def ping(self) -> None:
        """Ask the other side whether it is there."""
        self.out += frame(frames.PING, 0, 0, _THERE)

    def warn(self) -> None:
        """Say that no more streams should come; those on their way are taken until the other side has heard."""
        self._warned = True
        self.out += frame(frames.GOAWAY, 0, 0, frames.LENGTH.pack(frames.MOST_WINDOW) + bytes(4))
        self.out += frame(frames.PING, 0, 0, _HEARD)

    def refuse(self) -> None:
        """Take no more streams, and say which was the last."""
        if not self.draining:
            self.draining = True
            self.goodbye(frames.NO_ERROR)

    def goodbye(self, code: int, words: str = "") -> None:
        """Say that the connection ends, and why."""
        content = frames.LENGTH.pack(self._taken) + frames.LENGTH.pack(code) + words.encode()
        self.out += frame(frames.GOAWAY, 0, 0, content)

    def lost(self) -> None:
        """End all streams: the connection is no more."""
        streams, self.streams = tuple(self.streams.values()), {}
        for stream in streams:
            if stream.receiver is not None:
                stream.receiver.gone()


def _unpadded(content: bytes) -> bytes:
    if not content or content[0] >= len(content):
        raise ProtocolError(frames.PROTOCOL_ERROR, "more padding than content")
    return content[1 : len(content) - content[0]]
