"""Requests of a batch that are alike but for their numbers: read all at once, and not one by one.

Who asks for many decisions mostly asks for them with one program: the same actions, and as many numbers. Serialized
they are rows of one length, that differ in nothing but the bytes of their packed features.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from engine.api.leeway.v1.parts_pb2 import DecideRequestParts
from engine.serving.sealing import field, head

UInt8 = NDArray[np.uint8]

#: Tags: number of the field and type of what follows. Of ``DecideRequest``, ``Features`` and ``DecideBatchRequest``:
_POINT, _CONTEXT, _ACTION, _PACKED_ACTIONS, _DEFERRED = b"\x0a", b"\x1a", b"\x22", b"\x2a", b"\x38\x01"
_PACKED = b"\x12"
_REQUEST = b"\x0a"


class Alike(NamedTuple):
    """What differs between requests: a row of bytes for each.

    Attributes
    ----------
    contexts
        Their ``Features``, serialized.
    numbers
        What of that are the packed numbers.
    packed
        The packed features of their actions.
    """

    contexts: UInt8
    numbers: UInt8
    packed: UInt8


def alike(
    first: DecideRequestParts, numbers: bytes, messages: Sequence[bytes], count: int, data: bytes
) -> Alike | None:
    """Return what requests differ in; ``None`` where it is more than numbers.

    Parameters
    ----------
    first
        The first of them, without an id.
    numbers
        The packed numbers of its context, which has nothing else.
    messages
        Its actions, serialized.
    count
        How many there are.
    data
        All of them, serialized, each as in a ``DecideBatchRequest``.
    """
    width, rest = divmod(len(data), count)
    packed = first.packed_actions
    inner = field(_PACKED, numbers)
    before = field(_POINT, first.decision_point.encode()) + field(_CONTEXT, inner)
    between = b"".join([head(_ACTION, len(message)) + message for message in messages])
    if packed:
        between += head(_PACKED_ACTIONS, len(packed))
    after = _DEFERRED if first.defer_activation else b""
    length = len(before) + len(between) + len(packed) + len(after)
    before = head(_REQUEST, length) + before
    if rest or width != len(before) + len(between) + len(packed) + len(after):
        return None
    actions_at = len(before)
    packed_at = actions_at + len(between)
    after_at = packed_at + len(packed)
    # Written anew, the first is as it came: nothing is in it that is not known here, nor in another order.
    if before + between + packed + after != data[:width]:
        return None
    rows = np.frombuffer(data, np.uint8).reshape(count, width)
    numbers_at = actions_at - len(numbers)
    for same in (slice(numbers_at), slice(actions_at, packed_at), slice(after_at, width)):
        if (rows[:, same] != rows[0, same]).any():
            return None
    return Alike(
        rows[:, actions_at - len(inner) : actions_at], rows[:, numbers_at:actions_at], rows[:, packed_at:after_at]
    )
