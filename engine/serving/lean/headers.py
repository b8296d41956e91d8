"""Header compression of HTTP/2: as much of HPACK (RFC 7541) as a gRPC server needs.

Requests are read in every form that the RFC has. Answers are written as literals that the other side does not remember.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Iterable

Header = tuple[bytes, bytes]

#: Bytes of the headers of one call, as section 4.1 counts them; as much as gRPC allows by itself.
MOST = 8_192
#: What the table of what is remembered takes, counted alike; HTTP/2's default.
_TABLE = 4_096
_ENTRY = 32
#: Appendix A.
_STATIC: tuple[Header, ...] = tuple(
    (name, value.replace(b"_", b" "))
    for name, _, value in (
        entry.partition(b"=")
        for entry in (
            b":authority :method=GET :method=POST :path=/ :path=/index.html :scheme=http :scheme=https :status=200 "
            b":status=204 :status=206 :status=304 :status=400 :status=404 :status=500 accept-charset "
            b"accept-encoding=gzip,_deflate accept-language accept-ranges accept access-control-allow-origin age allow "
            b"authorization cache-control content-disposition content-encoding content-language content-length "
            b"content-location content-range content-type cookie date etag expect expires from host if-match "
            b"if-modified-since if-none-match if-range if-unmodified-since last-modified link location max-forwards "
            b"proxy-authenticate proxy-authorization range referer refresh retry-after server set-cookie "
            b"strict-transport-security transfer-encoding user-agent vary via www-authenticate"
        ).split(b" ")
    )
)
#: Appendix B: how many bits the code of each symbol has, the end of a text being the last one.
_BITS = bytes.fromhex(
    "0d171c1c1c1c1c1c1c181e1c1c1e1c1c1c1c1c1c1c1c1e1c1c1c1c1c1c1c1c1c060a0a0c0d06080b0a0a080b080606060505050606060606"
    "060607080f060c0a0d06070707070707070707070707070707070707070707070807080d130d0e060f050605060506060605070706060605"
    "06070605050607070707070f0b0e0d1c14161414161616171617171717171817181816171817171717151617161717181615141616171715"
    "1716161815161717151516151716171714161616171616171a1a1413161716191a1a1a1b1b1a181913151a1b1b1a1b1815151a1a1c1b1b1b"
    "14181415161515171616191918181a171a1b1a1a1b1b1b1b1b1c1b1b1b1b1b1a1e"
)
_LONGEST = 30
_END = 256
#: Codes of one length follow each other in the order of their symbols, and after those that are shorter.
_ORDER = sorted(range(len(_BITS)), key=lambda symbol: (_BITS[symbol], symbol))


def _codes() -> list[int]:
    """Return the codes in their order, with zeros behind them up to the longest."""
    codes, code = [], 0
    for symbol in _ORDER:
        codes.append(code)
        code += 1 << (_LONGEST - _BITS[symbol])
    return codes


_CODES = _codes()


class HeaderError(Exception):
    """A block of headers that is none: what follows it on its connection cannot be read either."""


class Decoder:
    """Reads the blocks of one connection, in their order.

    Attributes
    ----------
    generation : int
        Changes whenever something else is remembered: until then a block means what it meant before.

    Examples
    --------
    >>> Decoder().decode(bytes.fromhex("828684410f7777772e6578616d706c652e636f6d"))[-1]
    (b':authority', b'www.example.com')
    """

    def __init__(self) -> None:
        self._table: deque[Header] = deque()
        self._size = 0
        self._limit = _TABLE
        self.generation = 0

    def decode(self, block: bytes) -> list[Header]:
        """Return the headers of a block; raises ``HeaderError``."""
        headers: list[Header] = []
        at, end, size = 0, len(block), 0
        try:
            while at < end:
                first = block[at]
                if first & 0x80:
                    index, at = _integer(block, at, 7)
                    header = self._entry(index)
                elif first & 0xE0 == 0x20:
                    limit, at = _integer(block, at, 5)
                    if headers or limit > _TABLE:
                        raise HeaderError("a change of the table's size that is not allowed")
                    self._limit = limit
                    self._shrink()
                    continue
                else:
                    remembered = bool(first & 0x40)
                    index, at = _integer(block, at, 6 if remembered else 4)
                    if index:
                        name = self._entry(index)[0]
                    else:
                        name, at = _text(block, at)
                    value, at = _text(block, at)
                    header = (name, value)
                    if remembered:
                        self._remember(header)
                size += len(header[0]) + len(header[1]) + _ENTRY
                if size > MOST:
                    raise HeaderError(f"headers of more than {MOST} bytes")
                headers.append(header)
        except IndexError as error:
            raise HeaderError("a block that ends early, or names what is not remembered") from error
        return headers

    def _entry(self, index: int) -> Header:
        if not index:
            raise HeaderError("the index 0")
        return _STATIC[index - 1] if index <= len(_STATIC) else self._table[index - 1 - len(_STATIC)]

    def _remember(self, header: Header) -> None:
        self._table.appendleft(header)
        self._size += len(header[0]) + len(header[1]) + _ENTRY
        self._shrink()

    def _shrink(self) -> None:
        self.generation += 1
        while self._size > self._limit:
            name, value = self._table.pop()
            self._size -= len(name) + len(value) + _ENTRY


def encode(headers: Iterable[Header]) -> bytes:
    """Return a block that says these headers.

    Examples
    --------
    >>> Decoder().decode(encode([(b"grpc-status", b"0")]))
    [(b'grpc-status', b'0')]
    """
    out = bytearray()
    for header in headers:
        out.append(0)
        for text in header:
            out += _length(len(text)) + text
    return bytes(out)


def _length(value: int) -> bytes:
    if value < 127:
        return bytes((value,))
    out, rest = bytearray((127,)), value - 127
    while rest >= 128:
        out.append(rest % 128 + 128)
        rest //= 128
    out.append(rest)
    return bytes(out)


def _integer(block: bytes, at: int, bits: int) -> tuple[int, int]:
    """Return a number (section 5.1), and where what follows it begins."""
    most = (1 << bits) - 1
    value = block[at] & most
    at += 1
    if value < most:
        return value, at
    for shift in (0, 7, 14):  # no number that is of use has more
        byte = block[at]
        at += 1
        value += (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise HeaderError("a number that is too large")


def _text(block: bytes, at: int) -> tuple[bytes, int]:
    """Return a text (section 5.2), and where what follows it begins."""
    coded = block[at] & 0x80
    length, at = _integer(block, at, 7)
    end = at + length
    if end > len(block):
        raise HeaderError("a text that ends early")
    text = block[at:end]
    return (_decoded(text) if coded else text), end


def _decoded(text: bytes) -> bytes:
    """Return what a Huffman code stands for."""
    left = 8 * len(text)
    # Behind it stand as many ones as the longest code has: these are the code of the end.
    value = (int.from_bytes(text, "big") << _LONGEST) | ((1 << _LONGEST) - 1)
    mask = (1 << _LONGEST) - 1
    out = bytearray()
    while left > 0:
        symbol = _ORDER[bisect_right(_CODES, (value >> left) & mask) - 1]
        bits = _BITS[symbol]
        if bits > left or symbol == _END:
            if left > 7 or (value >> _LONGEST) & ((1 << left) - 1) != (1 << left) - 1:
                raise HeaderError("a text whose code does not end as it should")
            break
        out.append(symbol)
        left -= bits
    return bytes(out)
