"""A request for many decisions: its parts, and the bytes that they came as."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from engine.api.leeway.v1.parts_pb2 import DecideBatchRequestParts, DecideRequestParts

#: Tag of a request in a ``DecideBatchRequest``.
_REQUEST = 0x0A


class Batch:
    """A ``DecideBatchRequest``; raises ``DecodeError`` where the bytes are none.

    Parameters
    ----------
    data
        It, serialized.

    Attributes
    ----------
    requests
        In their order.
    """

    __slots__ = ("_data", "requests")

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.requests: Sequence[DecideRequestParts] = DecideBatchRequestParts.FromString(data).requests

    def portions(self, most: int) -> Iterator[tuple[Sequence[DecideRequestParts], bytes]]:
        """Yield up to so many requests at a time, and the same serialized.

        There are no bytes where they cannot be told apart: the message has something else between them.

        >>> data = b"\\x0a\\x03\\x0a\\x01a" * 3
        >>> [(len(requests), data) for requests, data in Batch(data).portions(2)]
        [(2, b'\\n\\x03\\n\\x01a\\n\\x03\\n\\x01a'), (1, b'\\n\\x03\\n\\x01a')]
        """
        count = len(self.requests)
        ends = _ends(self._data, count) if count > most else [0, *[len(self._data)] * count]
        for start in range(0, count, most):
            stop = min(start + most, count)
            yield self.requests[start:stop], self._data[ends[start] : ends[stop]]


def _ends(data: bytes, count: int) -> list[int]:
    """Return where each of the requests begins, and where the last one ends; all 0 where there is something else."""
    ends = [0]
    at = 0
    while at < len(data) and data[at] == _REQUEST:
        at += 1
        length = shift = 0
        while data[at] & 0x80:
            length |= (data[at] & 0x7F) << shift
            shift += 7
            at += 1
        length |= data[at] << shift
        at += 1 + length
        ends.append(at)
    return ends if at == len(data) else [0] * (count + 1)
