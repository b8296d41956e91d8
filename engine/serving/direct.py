"""The short way from a request to its decision, for what most requests are: packed features, and a policy that scores.

Scores, vector and draw are those of :func:`engine.serving.deciding.decide`, by the same functions, and so are record
and answer, which are written as bytes (:mod:`engine.serving.sealing`). What is anything else, or is to be refused, goes
the long way, which says why.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from time import perf_counter_ns

import numpy as np
from google.protobuf.message import DecodeError

from engine.api.leeway.v1.parts_pb2 import DecideRequestParts, FeaturesParts
from engine.effort import Effort
from engine.features import Encoded, Float32
from engine.packed import ActionSet, PackedEncoder
from engine.policy import OracleFailure, Policy, uniform_pmf
from engine.sealed import SealedDecision
from engine.serving.alike import alike
from engine.serving.limits import Limits
from engine.serving.sealing import Offered, Sealer, doubles
from engine.serving.stages import StageTimes

#: Actions of all sets that are remembered; beyond it all are forgotten, and read again as they come.
_REMEMBERED = 100_000


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
        self._sealer = Sealer(policy)
        self._sets: dict[tuple[bytes, ...], Offered | None] = {}
        self._remembered = 0

    def make(
        self,
        request: DecideRequestParts,
        decision_id: str,
        now_ms: int,
        times: StageTimes,
        effort: Effort = Effort.FULL,
    ) -> SealedDecision | None:
        """Make one decision, as ``decide`` does; ``None``: the request has to go the long way."""
        began = perf_counter_ns()
        its = self._read(request)
        if its is None or now_ms <= 0:
            return None
        offered, context = its
        actions = offered.actions
        X = self._encoder.rows(context, request.packed_actions, actions.counts)
        if X is None:
            return None
        was_encoded = perf_counter_ns()
        scores = b""
        if effort.scores:
            try:
                prediction = self.policy.predict(Encoded(X, actions.codes, actions.available))
            except OracleFailure:
                return None
            scores = doubles(prediction.mean)
            was_scored = perf_counter_ns()
            p = self.policy.pmf(prediction, actions.available)
        else:
            was_scored = was_encoded
            p = uniform_pmf(actions.available)
        was_explored = perf_counter_ns()
        made = self._seal(request, offered, decision_id, now_ms, scores, p.tolist(), doubles(p), effort)
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
        scores, vector, probabilities = doubles(together.mean), row.tolist(), doubles(row)
        begin = 0
        for (place, (offered, _)), end in zip(read, ends, strict=True):
            its = slice(8 * begin, 8 * end)
            made[place] = self._seal(
                requests[place], offered, ids[place], now_ms, scores[its], vector[begin:end], probabilities[its]
            )
            begin = end
        times.add(0, (began, was_encoded, was_scored, was_explored, perf_counter_ns()), len(read))
        return made

    def make_alike(
        self, requests: Sequence[DecideRequestParts], data: bytes, ids: Sequence[str], now_ms: int, times: StageTimes
    ) -> list[SealedDecision] | None:
        """Make many decisions that were asked for alike; ``None``: they are not, or one has to go the long way.

        Parameters
        ----------
        requests
            One or more.
        data
            The same, serialized, each as in a ``DecideBatchRequest``.
        ids
            New ones.
        now_ms, times
            As in :meth:`make`.
        """
        began = perf_counter_ns()
        first, count = requests[0], len(requests)
        its = self._read(first)
        if its is None or now_ms <= 0:
            return None
        offered, numbers = its
        asked = alike(first, numbers, offered.messages, count, data)
        if asked is None:
            return None
        actions = offered.actions
        X = self._encoder.rows(asked.numbers.tobytes(), asked.packed.tobytes(), np.repeat(actions.counts, count))
        if X is None:
            return None
        was_encoded = perf_counter_ns()
        try:
            together = self.policy.predict(Encoded(X, np.tile(actions.codes, count), np.tile(actions.available, count)))
        except OracleFailure:
            return None
        was_scored = perf_counter_ns()
        width = len(actions.codes)
        free = None if actions.every else [actions.available] * count
        vectors = self.policy.pmf_each(together, range(width, width * count + 1, width), free)
        was_explored = perf_counter_ns()
        made = self._sealer.seal_each(
            offered,
            asked.contexts,
            asked.packed,
            ids,
            now_ms,
            together.mean.reshape(count, width),
            np.concatenate(vectors).reshape(count, width),
            deferred=first.defer_activation,
        )
        times.add(0, (began, was_encoded, was_scored, was_explored, perf_counter_ns()), count)
        return made

    def _seal(
        self,
        request: DecideRequestParts,
        offered: Offered,
        decision_id: str,
        now_ms: int,
        scores: bytes,
        vector: list[float],
        probabilities: bytes,
        effort: Effort = Effort.FULL,
    ) -> SealedDecision:
        return self._sealer.seal(
            offered,
            request.context,
            request.packed_actions,
            decision_id,
            now_ms,
            scores,
            vector,
            probabilities,
            deferred=request.defer_activation,
            effort=effort,
        )

    def _read(self, request: DecideRequestParts) -> tuple[Offered, bytes] | None:
        """Return the actions and the packed context of a request that can go the short way."""
        messages = tuple(request.actions)
        try:
            offered = self._sets[messages]
        except KeyError:
            offered = self._offered_by(messages)
        if offered is None:
            return None
        if not self._limits.allows(len(messages), offered.actions.longest, len(request.decision_id)):
            return None
        try:
            context = FeaturesParts.FromString(request.context)
        except DecodeError:
            return None
        packed = context.packed
        if context.named or not self._encoder.fits(packed, request.packed_actions, len(messages)):
            return None
        return offered, packed

    def _offered_by(self, messages: tuple[bytes, ...]) -> Offered | None:
        """Read actions, and remember what was made of them: mostly the same are offered again."""
        actions = self._encoder.actions(messages)
        offered = None if actions is None else Offered(actions, messages)
        if self._remembered > _REMEMBERED:
            self._sets.clear()
            self._remembered = 0
        self._remembered += 1 + len(messages)
        self._sets[messages] = offered
        return offered


def _together(X: Float32, all_actions: Sequence[ActionSet]) -> Encoded:
    """Return the rows of several requests as if they were one."""
    return Encoded(
        X,
        np.concatenate([actions.codes for actions in all_actions]),
        np.concatenate([actions.available for actions in all_actions]),
    )
