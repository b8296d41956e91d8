"""Writes decisions as they are made: record and answer as bytes, with nothing built that is only to be serialized.

What the request carries goes from it into the record as it came. The bytes are those of the messages of
:func:`engine.serving.deciding.decide` and ``response`` (https://protobuf.dev/programming-guides/encoding).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from engine.effort import Effort
from engine.packed import ActionSet
from engine.policy import Float64, Policy
from engine.sampling import draw, draw_each
from engine.sealed import SealedDecision

UInt8 = NDArray[np.uint8]

#: Tags: number of the field and type of what follows. Of ``Decision``:
_POINT, _TIME, _VERSION, _CONTEXT, _ACTION, _PACKED = b"\x12", b"\x18", b"\x22", b"\x2a", b"\x32", b"\x3a"
_PROBABILITIES, _CHOSEN, _SCORES, _FALLBACK, _DETAIL, _SALT = b"\x42", b"\x48", b"\x52", b"\x58", b"\x62", b"\x6a"
_DEFERRED = b"\x90\x01\x01"
#: Of ``DecideResponse``:
_ANSWER_ACTION, _ANSWER_INDEX, _ANSWER_PROPENSITY, _ANSWER_VECTOR, _ANSWER_VERSION = (
    b"\x12",
    b"\x18",
    b"\x21",
    b"\x2a",
    b"\x32",
)
_ANSWER_FALLBACK, _ANSWER_DETAIL = b"\x38", b"\x42"
#: Of both, and of what is in a ``DecideBatchItem`` and a ``DecideBatchResponse``.
_ID = _ITEM = b"\x0a"

_FLOAT64 = np.dtype("<f8")


def varint(number: int) -> bytes:
    """Return a number that is not negative, seven bits to a byte, the lowest first.

    >>> varint(5), varint(300)
    (b'\\x05', b'\\xac\\x02')
    """
    parts = bytearray()
    while number > 0x7F:
        parts.append(number & 0x7F | 0x80)
        number >>= 7
    parts.append(number)
    return bytes(parts)


@lru_cache(maxsize=16_384)
def head(tag: bytes, length: int) -> bytes:
    """Return what stands before so many bytes of a field; of a number, what it is written as."""
    return tag + varint(length)


def field(tag: bytes, content: bytes) -> bytes:
    """Return a field of bytes; one without content is left out.

    >>> field(b"\\x12", b"ab"), field(b"\\x12", b"")
    (b'\\x12\\x02ab', b'')
    """
    return head(tag, len(content)) + content if content else b""


def batch_item(answer: bytes) -> bytes:
    """Return a ``DecideBatchItem`` that holds a ``DecideResponse``, both serialized."""
    return head(_ITEM, len(answer)) + answer


def batch_response(items: Sequence[bytes]) -> bytes:
    """Return the ``DecideBatchResponse`` of serialized items."""
    return b"".join([part for item in items for part in (head(_ITEM, len(item)), item)])


#: What record and answer say of a decision that was made with less effort than to score.
_FELL_BACK = {
    effort: (
        head(_FALLBACK, effort.fallback) + field(_DETAIL, effort.detail.encode()),
        head(_ANSWER_FALLBACK, effort.fallback) + field(_ANSWER_DETAIL, effort.detail.encode()),
    )
    for effort in Effort
    if not effort.scores
}
_BY_THE_POLICY = (b"", b"")


class Offered:
    """What stands in every record and answer that has the same actions.

    Parameters
    ----------
    actions
        Read from their messages.
    messages
        The actions, serialized, as in the request.
    """

    __slots__ = ("actions", "answers", "chosen", "messages", "records", "size")

    def __init__(self, actions: ActionSet, messages: Sequence[bytes]) -> None:
        self.actions = actions
        self.messages = messages
        self.records = b"".join(head(_ACTION, len(message)) + message for message in messages)
        self.size = 8 * len(messages)
        self.chosen = [head(_CHOSEN, index) if index else b"" for index in range(len(messages))]
        self.answers = [
            field(_ANSWER_ACTION, identity.encode()) + (head(_ANSWER_INDEX, index) if index else b"")
            for index, identity in enumerate(actions.ids)
        ]


class Sealer:
    """Draws the actions of one policy's decisions, and writes them.

    Parameters
    ----------
    policy
        It decides.
    """

    def __init__(self, policy: Policy) -> None:
        self._name = policy.name
        self._salt = policy.point.policy.salt
        self._point = field(_POINT, policy.name.encode())
        self._version = field(_VERSION, policy.version.encode())
        self._end = field(_SALT, self._salt.encode())
        self._answer_end = field(_ANSWER_VERSION, policy.version.encode())

    def seal(
        self,
        offered: Offered,
        context: bytes,
        packed: bytes,
        decision_id: str,
        now_ms: int,
        scores: bytes,
        vector: list[float],
        probabilities: bytes,
        *,
        deferred: bool,
        effort: Effort = Effort.FULL,
    ) -> SealedDecision:
        """Make a decision.

        Parameters
        ----------
        offered
            Its actions.
        context, packed
            Of the request: its ``Features``, serialized, and the packed features of its actions.
        decision_id, now_ms
            As in ``Decision``.
        scores, vector, probabilities
            What the oracle expects of each action, as it is written, and how probable it is, as numbers and as written.
            No scores: it was not asked.
        deferred
            Whether it counts only once it is activated.
        effort
            Why it was not asked.
        """
        chosen = draw(decision_id, self._salt, vector)
        identity = decision_id.encode()
        begin = head(_ID, len(identity)) + identity
        recorded, told = _FELL_BACK.get(effort, _BY_THE_POLICY)
        data = b"".join(
            (
                begin,
                self._point,
                head(_TIME, now_ms),
                self._version,
                head(_CONTEXT, len(context)),
                context,
                offered.records,
                head(_PACKED, len(packed)) if packed else b"",
                packed,
                head(_PROBABILITIES, offered.size),
                probabilities,
                offered.chosen[chosen],
                head(_SCORES, offered.size) if scores else b"",
                scores,
                recorded,
                self._end,
                _DEFERRED if deferred else b"",
            )
        )
        answer = b"".join(
            (
                begin,
                offered.answers[chosen],
                _ANSWER_PROPENSITY,
                probabilities[8 * chosen : 8 * chosen + 8],
                head(_ANSWER_VECTOR, offered.size),
                probabilities,
                self._answer_end,
                told,
            )
        )
        return SealedDecision(decision_id, self._name, now_ms, vector[chosen], data, answer, effort.fallback)

    def seal_each(
        self,
        offered: Offered,
        contexts: UInt8,
        packed: UInt8,
        ids: Sequence[str],
        now_ms: int,
        scores: Float64,
        vectors: Float64,
        *,
        deferred: bool,
    ) -> list[SealedDecision]:
        """Make decisions among the same actions, each as :meth:`seal` would.

        Parameters
        ----------
        offered
            Their actions.
        contexts, packed
            A row of bytes for each.
        ids
            Of one length, in ASCII.
        now_ms, deferred
            Of all.
        scores, vectors
            A row of numbers for each.
        """
        count, identity = len(ids), len(ids[0])
        chosen = draw_each(ids, self._salt, vectors)
        propensities = vectors[np.arange(count), chosen]
        probabilities = _bytes(vectors)
        # What stands before, behind and instead of the action's number, in a row: only that is not as long in each.
        begin = (head(_ID, identity), _rows("".join(ids).encode(), count))
        common = head(_TIME, now_ms) + self._version + head(_CONTEXT, contexts.shape[1])
        actions = offered.records + (head(_PACKED, packed.shape[1]) if packed.shape[1] else b"")
        front = (self._point + common, contexts, actions, packed, head(_PROBABILITIES, offered.size), probabilities)
        back = (head(_SCORES, offered.size), _bytes(scores), self._end + (_DEFERRED if deferred else b""))
        middle = (_ANSWER_PROPENSITY, _bytes(propensities.reshape(-1, 1)), head(_ANSWER_VECTOR, offered.size))
        data, ends = _beside(count, begin, front, back, (*middle, probabilities, self._answer_end))
        own, action_at, end, width = ends
        made = []
        for decision_id, at, action, propensity in zip(
            ids, range(0, count * width, width), chosen.tolist(), propensities.tolist(), strict=True
        ):
            record = data[at : at + action_at] + offered.chosen[action] + data[at + action_at : at + end]
            answer = data[at : at + own] + offered.answers[action] + data[at + end : at + width]
            made.append(SealedDecision(decision_id, self._name, now_ms, propensity, record, answer))
        return made


def _beside(count: int, *groups: Sequence[bytes | UInt8]) -> tuple[bytes, list[int]]:
    """Return rows of parts, one after the other, and where each group of parts ends in a row."""
    row = bytearray()
    places, ends = [], []
    for group in groups:
        for part in group:
            if isinstance(part, bytes):
                row += part
            else:
                places.append((len(row), part))
                row += bytes(part.shape[1])
        ends.append(len(row))
    rows = np.empty((count, len(row)), np.uint8)
    rows[:] = np.frombuffer(row, np.uint8)
    for at, part in places:
        rows[:, at : at + part.shape[1]] = part
    return rows.tobytes(), ends


def _rows(data: bytes, count: int) -> UInt8:
    return np.frombuffer(data, np.uint8).reshape(count, -1)


def _bytes(values: Float64) -> UInt8:
    """Return rows of numbers as rows of what Protobuf writes them as."""
    return np.ascontiguousarray(values, dtype=_FLOAT64).view(np.uint8)


def doubles(values: Float64) -> bytes:
    """Return numbers as Protobuf writes them, whatever an oracle or an exploration gave them as."""
    return values.astype(_FLOAT64, copy=False).tobytes()
