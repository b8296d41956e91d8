"""The hash that gives a text its column."""

from __future__ import annotations

import zlib


def text_bucket(name: str, text: str, buckets: int) -> int:
    """Return the indicator column, within its feature, of a text value.

    >>> text_bucket("country", "NL", 32) == text_bucket("country", "NL", 32)
    True
    """
    return zlib.crc32(f"{name}={text}".encode()) % buckets
