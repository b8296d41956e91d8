"""Frames of HTTP/2 (RFC 9113): their kinds, flags and codes, and how one is written."""

from __future__ import annotations

import struct

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
#: Length and kind in one number, flags, stream.
HEAD = struct.Struct(">IBI")
HEAD_BYTES = 9
#: Bytes of a frame's content; HTTP/2's default, and what a peer takes at least.
MOST = 16_384
#: Of a window before anybody says otherwise, and of any.
WINDOW = 65_535
MOST_WINDOW = 2**31 - 1

DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)

END_STREAM = ACK = 0x1
END_HEADERS = 0x4
PADDED = 0x8
WITH_PRIORITY = 0x20

#: Settings.
HEADER_TABLE_SIZE, ENABLE_PUSH, MAX_CONCURRENT_STREAMS, INITIAL_WINDOW_SIZE, MAX_FRAME_SIZE, MAX_HEADER_LIST_SIZE = (
    range(1, 7)
)

#: Why a stream or a connection ends.
NO_ERROR, PROTOCOL_ERROR, INTERNAL_ERROR, FLOW_CONTROL_ERROR = 0x0, 0x1, 0x2, 0x3
STREAM_CLOSED, FRAME_SIZE_ERROR, REFUSED_STREAM, CANCEL = 0x5, 0x6, 0x7, 0x8
COMPRESSION_ERROR, ENHANCE_YOUR_CALM = 0x9, 0xB

LENGTH = struct.Struct(">I")


class ProtocolError(Exception):
    """The other side does what HTTP/2 does not allow: its connection ends.

    Parameters
    ----------
    code
        One of HTTP/2's.
    words
        What it did.
    """

    def __init__(self, code: int, words: str) -> None:
        super().__init__(words)
        self.code = code


def frame(kind: int, flags: int, stream: int, content: bytes = b"") -> bytes:
    """Return a frame.

    Examples
    --------
    >>> frame(PING, ACK, 0, bytes(8)).hex()
    '0000080601000000000000000000000000'
    """
    return HEAD.pack(len(content) << 8 | kind, flags, stream) + content


def setting(name: int, value: int) -> bytes:
    """Return one entry of ``SETTINGS``."""
    return struct.pack(">HI", name, value)
