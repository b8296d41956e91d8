"""The bytes of a saved monitor: a checked frame around numbers and arrays, the same for all monitors.

Layout: magic, CRC-32 of the rest, then the deflated body: a JSON header (kind, scalar fields, names, types and
lengths of the arrays) and the arrays one after the other, little-endian. Integer arrays are stored as differences:
positions and counts grow slowly, and small differences deflate well. Floats go through JSON by their shortest
exact decimal, so that everything comes back bit for bit.
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.errors import SnapshotError

Scalar = int | float | str | bool | None
Array = NDArray[np.int64] | NDArray[np.float64] | NDArray[np.uint8]

_MAGIC = b"LWM1"
_FRAME = struct.Struct("<4sI")
_LENGTH = struct.Struct("<I")
_TYPES = ("<i8", "<f8", "|u1")


def encode(kind: str, fields: Mapping[str, Scalar], arrays: Mapping[str, Array]) -> bytes:
    """Return the saved form.

    Parameters
    ----------
    kind
        What is saved, with the version of its fields, such as ``rbocpd/1``.
    fields
        Finite numbers, texts, truth values.
    arrays
        One-dimensional arrays of int64, float64 or uint8.
    """
    shapes, chunks = [], []
    for name, array in arrays.items():
        code = array.dtype.newbyteorder("<").str
        if code not in _TYPES or array.ndim != 1:
            raise TypeError(f"{name}: cannot save an array of {array.dtype} with shape {array.shape}")
        stored = np.diff(array, prepend=array.dtype.type(0)) if code == "<i8" else array
        shapes.append([name, code, len(array)])
        chunks.append(stored.astype(code).tobytes())
    header = json.dumps({"kind": kind, "fields": fields, "arrays": shapes}, allow_nan=False).encode()
    body = zlib.compress(b"".join([_LENGTH.pack(len(header)), header, *chunks]), 1)
    return _FRAME.pack(_MAGIC, zlib.crc32(body)) + body


def decode(kind: str, data: bytes) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return fields and arrays of what ``encode`` wrote under ``kind``; raises ``SnapshotError`` otherwise."""
    advice = "discard it and let the monitor start anew"
    if len(data) < _FRAME.size:
        raise SnapshotError(f"saved {kind} is cut off after {len(data)} bytes; {advice}")
    magic, checksum = _FRAME.unpack_from(data)
    if magic != _MAGIC:
        raise SnapshotError(f"these bytes are no saved monitor (they begin with {magic!r}); {advice}")
    body = data[_FRAME.size :]
    if zlib.crc32(body) != checksum:
        raise SnapshotError(f"saved {kind} of {len(data)} bytes is damaged (checksum differs); {advice}")
    plain = zlib.decompress(body)
    position = _LENGTH.size + _LENGTH.unpack_from(plain)[0]
    header = json.loads(plain[_LENGTH.size : position])
    if header["kind"] != kind:
        raise SnapshotError(f"the saved state is of {header['kind']}, expected {kind}; {advice}")
    arrays = {}
    for name, code, length in header["arrays"]:
        array = np.frombuffer(plain, code, length, position)
        position += array.nbytes
        arrays[name] = np.cumsum(array) if code == "<i8" else array.copy()
    return header["fields"], arrays
