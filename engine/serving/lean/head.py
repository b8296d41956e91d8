"""What the headers of a call say: the words of gRPC over HTTP/2, read and written."""

from __future__ import annotations

import base64
import binascii
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from urllib.parse import quote

import grpc

from engine.serving.lean.headers import Header, encode

Metadata = Sequence[tuple[str, str | bytes]]

_UNITS = {"H": 3_600.0, "M": 60.0, "S": 1.0, "m": 1e-3, "u": 1e-6, "n": 1e-9}
#: Headers that are of the protocol, and none of a caller's metadata.
_OWN = frozenset({"te", "content-type", "grpc-timeout", "grpc-encoding", "grpc-accept-encoding", "grpc-message-type"})
#: Bytes of a message's text: all of the last headers have to fit into one frame.
_LONGEST = 2_000
_KINDS = (b":status", b"content-type")
#: What every answer begins with; no message is compressed, and none is taken that is.
START: tuple[Header, ...] = (
    (b":status", b"200"),
    (b"content-type", b"application/grpc"),
    (b"grpc-accept-encoding", b"identity"),
)


@dataclass(frozen=True, slots=True)
class Head:
    """What a caller says before its message.

    Attributes
    ----------
    path
        Of the method: ``/package.Service/Method``.
    timeout_s
        How long it waits; infinite: it did not say.
    metadata
        What else it sends. Values of names in ``-bin`` are bytes.
    problem
        Why the call cannot be answered, whatever the method; ``None``: it can.
    is_grpc
        Whether it knows gRPC: else it is answered with a status of HTTP.
    """

    path: str
    timeout_s: float
    metadata: Metadata
    problem: tuple[grpc.StatusCode, str] | None
    is_grpc: bool


def read_head(headers: Iterable[Header]) -> Head:
    """Return what headers say.

    Examples
    --------
    >>> head = read_head([(b":method", b"POST"), (b":path", b"/a.B/C"), (b"content-type", b"application/grpc"),
    ...                   (b"grpc-timeout", b"250m"), (b"k", b"v")])
    >>> head.path, head.timeout_s, head.metadata, head.problem
    ('/a.B/C', 0.25, (('k', 'v'),), None)
    """
    said: dict[str, str] = {}
    metadata: list[tuple[str, str | bytes]] = []
    problem: tuple[grpc.StatusCode, str] | None = None
    timeout_s = math.inf
    for raw_name, raw_value in headers:
        name, value = raw_name.decode("latin-1"), raw_value.decode("latin-1")
        if name.startswith(":") or name in _OWN:
            said[name] = value
        elif name.endswith("-bin"):
            try:
                metadata += [(name, _bytes(part)) for part in value.split(",")]
            except binascii.Error:
                problem = (grpc.StatusCode.INTERNAL, f"the metadata {name} is not base64")
        else:
            metadata.append((name, value))
    if "grpc-timeout" in said:
        timeout_s = _timeout_s(said["grpc-timeout"])
        if math.isnan(timeout_s):
            problem = (grpc.StatusCode.INTERNAL, f"grpc-timeout {said['grpc-timeout']!r} is no time")
    encoding = said.get("grpc-encoding", "identity")
    if encoding != "identity":
        problem = (grpc.StatusCode.UNIMPLEMENTED, f"messages in {encoding!r} are not read; send them as they are")
    is_grpc = said.get(":method") == "POST" and _is_grpc(said.get("content-type", ""))
    return Head(said.get(":path", ""), timeout_s, tuple(metadata), problem, is_grpc)


def _is_grpc(kind: str) -> bool:
    base = kind.partition(";")[0].strip()
    return base == "application/grpc" or base.startswith("application/grpc+")


def _timeout_s(text: str) -> float:
    digits, unit = text[:-1], text[-1:]
    if unit not in _UNITS or not 1 <= len(digits) <= 8 or not digits.isascii() or not digits.isdigit():
        return math.nan
    return int(digits) * _UNITS[unit]


def _bytes(text: str) -> bytes:
    return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)


def last_headers(code: grpc.StatusCode, details: str, metadata: Metadata) -> tuple[Header, ...]:
    """Return the headers that end an answer.

    Examples
    --------
    >>> last_headers(grpc.StatusCode.NOT_FOUND, "no such päth", [])
    ((b'grpc-status', b'5'), (b'grpc-message', b'no such p%C3%A4th'))
    """
    number: int = code.value[0]
    headers: list[Header] = [(b"grpc-status", str(number).encode())]
    if details:
        text = details.encode(errors="replace")[:_LONGEST].decode(errors="ignore")
        # Of the visible characters the percent sign alone has to be written otherwise.
        headers.append((b"grpc-message", quote(text, safe=" !\"#$&'()*+,/:;<=>?@[\\]^`{|}").encode()))
    return (*headers, *encoded(metadata))


def encoded(metadata: Metadata) -> list[Header]:
    """Return metadata as headers."""
    return [
        (name.encode(), base64.b64encode(value).rstrip(b"=") if isinstance(value, bytes) else value.encode())
        for name, value in metadata
    ]


def refusal(code: int) -> bytes:
    """Return the headers for a caller who does not know gRPC."""
    return encode(zip(_KINDS, (str(code).encode(), b"text/plain"), strict=True))
