"""Blocks: many records of a partition as one value, so that a record costs some joins of bytes and no row of its own.

Layout, little-endian:

- the number of this layout (1 byte);
- the length of the head (4 bytes) and the head: for each header that the records have, the lengths of its name and of
  its content (4 bytes each), name (UTF-8) and content. Where the records differ in it, its length is -1 and it follows
  below;
- the times (8 bytes each);
- the lengths of all keys, then of all values, then of all contents of the first header in which they differ, and so on
  (4 bytes each; -1: there is none);
- all of these, in the same order.

How many records there are is known beside a block. Their headers have the same names, in the same order.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from itertools import accumulate, groupby, pairwise, repeat
from typing import Any, NamedTuple

from streaming.log import Header, Message

_LAYOUT = 1
_BEGIN = struct.Struct("<BI")
_LENGTHS = struct.Struct("<Ii")
#: A block is read whole, however few of its records are wanted; larger ones would not be cheaper for a record.
MOST_RECORDS = 256
MOST_BYTES = 262_144

#: Of a record: its time, key, value and headers.
Fields = tuple[int, bytes | None, bytes | None, tuple[Header, ...]]


class Block(NamedTuple):
    """Records that follow each other.

    Attributes
    ----------
    size
        How many.
    oldest_ms, newest_ms
        The least and the greatest of their times.
    data
        All of them.
    """

    size: int
    oldest_ms: int
    newest_ms: int
    data: bytes


def blocks(messages: Sequence[Message]) -> Iterator[Block]:
    """Yield messages of one partition as blocks, in their order."""
    for first in range(0, len(messages), MOST_RECORDS):
        yield from _blocks(messages[first : first + MOST_RECORDS])


def _blocks(messages: Sequence[Message]) -> Iterator[Block]:
    _, keys, values, times, headers, _ = zip(*messages, strict=True)
    parts: list[Any] = [*keys, *values]
    head = _head(headers, parts)
    if head is None:
        for _, alike in groupby(messages, lambda message: [header[0] for header in message.headers]):
            yield from _blocks(list(alike))
        return
    try:
        lengths = list(map(len, parts))
    except TypeError:
        lengths = [-1 if part is None else len(part) for part in parts]
        parts = [part or b"" for part in parts]
    size = len(times)
    if size > 1 and sum(lengths) > MOST_BYTES:
        yield from _blocks(messages[: size // 2])
        yield from _blocks(messages[size // 2 :])
        return
    begin = _BEGIN.pack(_LAYOUT, len(head)) + head
    numbers = struct.pack(f"<{size}q{len(lengths)}i", *times, *lengths)
    yield Block(size, min(times), max(times), b"".join((begin, numbers, *parts)))


def _head(headers: Sequence[Sequence[Header]], parts: list[Any]) -> bytes | None:
    """Return the head, and add what records differ in to their parts; ``None`` where names differ."""
    head = b""
    try:
        for column in zip(*headers, strict=True):
            name, content = column[0]
            encoded = name.encode("utf-8", "surrogatepass")
            if column.count(column[0]) == len(column):  # mostly one and the same object, which is compared in no time
                head += _LENGTHS.pack(len(encoded), len(content)) + encoded + content
            elif all([its == name for its, _ in column]):  # noqa: C419 a list is quicker
                head += _LENGTHS.pack(len(encoded), -1) + encoded
                parts += [content for _, content in column]
            else:
                return None
    except ValueError:  # some have more headers than others
        return None
    return head


class BlockReader:
    """Reads blocks; those with the same head are read faster by one reader.

    Examples
    --------
    >>> [block] = blocks([Message("t", b"k", None, 5, [("h", b"x")])])
    >>> list(BlockReader().fields(block.data, block.size, 0, 1))
    [(5, b'k', None, (('h', b'x'),))]
    """

    def __init__(self) -> None:
        self._heads: dict[bytes, list[Header | str]] = {}

    def fields(self, data: bytes, size: int, first: int, last: int) -> Iterator[Fields]:
        """Return records of a block: from number ``first``, counted from 0, to before ``last``.

        Raises ``ValueError`` where ``data`` is no block of ``size`` records.
        """
        try:
            return self._fields(data, size, first, last)
        except (struct.error, TypeError) as error:
            raise ValueError(f"no block of {size!r} records: {error}") from error

    def _fields(self, data: bytes, size: int, first: int, last: int) -> Iterator[Fields]:
        layout, head_length = _BEGIN.unpack_from(data)
        if layout != _LAYOUT or size < 1:
            raise ValueError(f"layout {layout}, {size} records")
        begin = _BEGIN.size + head_length
        head = data[_BEGIN.size : begin]
        headers = self._heads.get(head)
        if headers is None:
            headers = self._heads[head] = _headers(head)
        columns = 2 + sum([isinstance(header, str) for header in headers])
        form = struct.Struct(f"<{size}q{columns * size}i")
        numbers = form.unpack_from(data, begin)
        lengths = numbers[size:]
        missing = min(lengths) < 0
        sizes = [0 if length == -1 else length for length in lengths] if missing else lengths
        ends = list(accumulate(sizes, initial=begin + form.size))
        if ends[-1] != len(data) or (missing and min(sizes) < 0):
            raise ValueError(f"a block of {size} records ends at byte {ends[-1]}, and not at {len(data)}")

        def column(at: int) -> list[Any]:
            parts: list[Any] = [data[a:b] for a, b in pairwise(ends[at + first : at + last + 1])]
            if missing:
                return [
                    None if length < 0 else part for length, part in zip(lengths[at + first :], parts, strict=False)
                ]
            return parts

        last = min(last, size)
        keys, values, *contents = map(column, range(0, columns * size, size))
        differing = iter(contents)
        pairs = [
            zip(repeat(header), next(differing), strict=False) if isinstance(header, str) else repeat(header)
            for header in headers
        ]
        its = zip(*pairs, strict=False) if pairs else repeat(())
        return zip(numbers[first:last], keys, values, its, strict=False)


def _headers(head: bytes) -> list[Header | str]:
    """Return what a head says: headers that all records have alike, and the names of the other ones."""
    headers: list[Header | str] = []
    at = 0
    while at < len(head):
        name_length, length = _LENGTHS.unpack_from(head, at)
        at += _LENGTHS.size
        name = head[at : at + name_length].decode("utf-8", "surrogatepass")
        at += name_length
        headers.append(name if length < 0 else (name, head[at : at + length]))
        at += max(length, 0)
    if at != len(head):
        raise ValueError(f"a head of {len(head)} bytes ends at {at}")
    return headers
