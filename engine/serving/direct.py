"""The short way from a request to its decision, for what most requests are: packed features, and a policy that scores.

Nothing is built that is only to be serialized: what the request carries goes from it into the record as it came, and
record and answer are written as bytes (https://protobuf.dev/programming-guides/encoding). Scores, vector and draw are
those of :func:`engine.serving.deciding.decide`, by the same functions, and so are the bytes. What is anything else, or
is to be refused, goes the long way, which says why.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from itertools import accumulate
from time import perf_counter_ns

import numpy as np
from google.protobuf.message import DecodeError

from engine.api.leeway.v1.parts_pb2 import DecideRequestParts, FeaturesParts
from engine.features import Encoded, Float32
from engine.packed import ActionSet, PackedEncoder
from engine.policy import Float64, OracleFailure, Policy
from engine.sampling import draw
from engine.sealed import SealedDecision
from engine.serving.limits import Limits
from engine.serving.stages import StageTimes

#: Tags: number of the field and type of what follows. Of ``Decision``:
_POINT, _TIME, _VERSION, _CONTEXT, _ACTION, _PACKED = b"\x12", b"\x18", b"\x22", b"\x2a", b"\x32", b"\x3a"
_PROBABILITIES, _CHOSEN, _SCORES, _SALT, _DEFERRED = b"\x42", b"\x48", b"\x52", b"\x6a", b"\x90\x01\x01"
#: Of ``DecideResponse``:
_ANSWER_ACTION, _ANSWER_INDEX, _ANSWER_PROPENSITY, _ANSWER_VECTOR, _ANSWER_VERSION = (
    b"\x12",
    b"\x18",
    b"\x21",
    b"\x2a",
    b"\x32",
)
#: Of both, and of what is in a ``DecideBatchItem`` and a ``DecideBatchResponse``.
_ID = _ITEM = b"\x0a"

_FLOAT64 = np.dtype("<f8")
#: Actions of all sets that are remembered; beyond it all are forgotten, and read again as they come.
_REMEMBERED = 100_000


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


class _Written:
    """What stands in every record and answer that has the same actions."""

    __slots__ = ("actions", "answers", "chosen", "offered", "size")

    def __init__(self, actions: ActionSet, messages: Sequence[bytes]) -> None:
        self.actions = actions
        self.offered = b"".join(head(_ACTION, len(message)) + message for message in messages)
        self.size = 8 * len(messages)
        self.chosen = [head(_CHOSEN, index) if index else b"" for index in range(len(messages))]
        self.answers = [
            field(_ANSWER_ACTION, identity.encode()) + (head(_ANSWER_INDEX, index) if index else b"")
            for index, identity in enumerate(actions.ids)
        ]


class Direct:
    """Makes the decisions of one policy.

    Parameters
    ----------
    policy
        It acts on every request.
    limits
        How much a request may carry.
    """

    def __init__(self, policy: Policy, limits: Limits) -> None:
        self.policy = policy
        self._limits = limits
        self._encoder = PackedEncoder(policy.encoder)
        self._salt = policy.point.policy.salt
        self._point = field(_POINT, policy.name.encode())
        self._version = field(_VERSION, policy.version.encode())
        self._end = field(_SALT, self._salt.encode())
        self._answer_end = field(_ANSWER_VERSION, policy.version.encode())
        self._sets: dict[tuple[bytes, ...], _Written | None] = {}
        self._remembered = 0

    def make(
        self, request: DecideRequestParts, decision_id: str, now_ms: int, times: StageTimes
    ) -> SealedDecision | None:
        """Make one decision, as ``decide`` does; ``None``: the request has to go the long way."""
        began = perf_counter_ns()
        its = self._read(request)
        if its is None or now_ms <= 0:
            return None
        written, context = its
        actions = written.actions
        X = self._encoder.rows(context, request.packed_actions, actions.counts)
        if X is None:
            return None
        was_encoded = perf_counter_ns()
        try:
            prediction = self.policy.predict(Encoded(X, actions.codes, actions.available))
        except OracleFailure:
            return None
        was_scored = perf_counter_ns()
        p = self.policy.pmf(prediction, actions.available)
        was_explored = perf_counter_ns()
        made = self._seal(request, written, decision_id, now_ms, _doubles(prediction.mean), p.tolist(), _doubles(p))
        times.add(0, (began, was_encoded, was_scored, was_explored, perf_counter_ns()))
        return made

    def make_each(
        self, requests: Sequence[DecideRequestParts], ids: Sequence[str], now_ms: int, times: StageTimes
    ) -> list[SealedDecision | None]:
        """Make many decisions, each as :meth:`make` would; the oracle is asked once for all of them."""
        began = perf_counter_ns()
        made: list[SealedDecision | None] = [None] * len(requests)
        read = [(place, its) for place, its in enumerate(map(self._read, requests)) if its is not None]
        if not read or now_ms <= 0:
            return made
        all_actions = [its[0].actions for _, its in read]
        X = self._encoder.rows(
            b"".join([context for _, (_, context) in read]),
            b"".join([requests[place].packed_actions for place, _ in read]),
            np.concatenate([actions.counts for actions in all_actions]),
        )
        if X is None:
            return made
        was_encoded = perf_counter_ns()
        try:
            together = self.policy.predict(_together(X, all_actions))
        except OracleFailure:
            return made
        was_scored = perf_counter_ns()
        ends = list(accumulate(len(actions.codes) for actions in all_actions))
        every = all(actions.every for actions in all_actions)
        free = None if every else [actions.available for actions in all_actions]
        vectors = self.policy.pmf_each(together, ends, free)
        was_explored = perf_counter_ns()
        row = np.concatenate(vectors)
        scores, vector, probabilities = _doubles(together.mean), row.tolist(), _doubles(row)
        begin = 0
        for (place, (written, _)), end in zip(read, ends, strict=True):
            its = slice(8 * begin, 8 * end)
            made[place] = self._seal(
                requests[place], written, ids[place], now_ms, scores[its], vector[begin:end], probabilities[its]
            )
            begin = end
        times.add(0, (began, was_encoded, was_scored, was_explored, perf_counter_ns()), len(read))
        return made

    def _read(self, request: DecideRequestParts) -> tuple[_Written, bytes] | None:
        """Return the actions and the packed context of a request that can go the short way."""
        messages = tuple(request.actions)
        try:
            written = self._sets[messages]
        except KeyError:
            written = self._written(messages)
        if written is None:
            return None
        if not self._limits.allows(len(messages), written.actions.longest, len(request.decision_id)):
            return None
        try:
            context = FeaturesParts.FromString(request.context)
        except DecodeError:
            return None
        packed = context.packed
        if context.named or not self._encoder.fits(packed, request.packed_actions, len(messages)):
            return None
        return written, packed

    def _written(self, messages: tuple[bytes, ...]) -> _Written | None:
        """Read actions, and remember what was made of them: mostly the same are offered again."""
        actions = self._encoder.actions(messages)
        written = None if actions is None else _Written(actions, messages)
        if self._remembered > _REMEMBERED:
            self._sets.clear()
            self._remembered = 0
        self._remembered += 1 + len(messages)
        self._sets[messages] = written
        return written

    def _seal(
        self,
        request: DecideRequestParts,
        written: _Written,
        decision_id: str,
        now_ms: int,
        scores: bytes,
        vector: list[float],
        probabilities: bytes,
    ) -> SealedDecision:
        """Draw, and write the record and the answer; ``probabilities``: the vector as it is written."""
        chosen = draw(decision_id, self._salt, vector)
        context, packed = request.context, request.packed_actions
        identity = decision_id.encode()
        begin = head(_ID, len(identity)) + identity
        data = b"".join(
            (
                begin,
                self._point,
                head(_TIME, now_ms),
                self._version,
                head(_CONTEXT, len(context)),
                context,
                written.offered,
                head(_PACKED, len(packed)) if packed else b"",
                packed,
                head(_PROBABILITIES, written.size),
                probabilities,
                written.chosen[chosen],
                head(_SCORES, written.size),
                scores,
                self._end,
                _DEFERRED if request.defer_activation else b"",
            )
        )
        answer = b"".join(
            (
                begin,
                written.answers[chosen],
                _ANSWER_PROPENSITY,
                probabilities[8 * chosen : 8 * chosen + 8],
                head(_ANSWER_VECTOR, written.size),
                probabilities,
                self._answer_end,
            )
        )
        return SealedDecision(decision_id, self.policy.name, now_ms, vector[chosen], data, answer)


def _doubles(values: Float64) -> bytes:
    """Return numbers as Protobuf writes them, whatever an oracle or an exploration gave them as."""
    return values.astype(_FLOAT64, copy=False).tobytes()


def _together(X: Float32, all_actions: Sequence[ActionSet]) -> Encoded:
    """Return the rows of several requests as if they were one."""
    return Encoded(
        X,
        np.concatenate([actions.codes for actions in all_actions]),
        np.concatenate([actions.available for actions in all_actions]),
    )
