"""What a client does while no server can be reached: it decides by itself, and hands the decision in later."""

from __future__ import annotations

import logging
import sqlite3
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

import grpc

from engine.api.leeway.v1.service_pb2 import ClientDecision, DecideRequest, RecordRequest
from engine.choice import stated_choice
from engine.client.messages import Decided, Refused
from engine.client.outbox import Outbox, OutboxFull
from engine.records import FALLBACK_REASON_CLIENT, fallback_name
from engine.sampling import draw, vector_problem

logger = logging.getLogger(__name__)

SALT = "leeway-client"
#: Decisions that are handed in at once, and how long a batch that is not full waits for more.
HANDED_IN = 200
HAND_IN_LINGER_S = 0.2
#: How long the end of a client waits for what has to be handed in still.
CLOSING_S = 5.0
_REMEMBERED = 10_000
_WAITS = "no server was reached; the client keeps it and hands it in when one is back"


def uniform_vector(request: DecideRequest) -> list[float]:
    """Return the vector of a draw in which every action that is not excluded is as likely as any other."""
    free = sum(not action.excluded for action in request.actions)
    return [0.0 if action.excluded else 1.0 / free for action in request.actions]


@dataclass(frozen=True, slots=True)
class Fallback:
    """How a client decides while no server can be reached.

    Attributes
    ----------
    vector
        From a request to the probability of each of its actions, 0 where one is excluded. Where it fails, the draw is
        uniform.
    most
        How many decisions are kept until they can be handed in; beyond it they are answered, and flagged.
    path
        File that keeps them over the end of the process; ``None``: in memory.
    """

    vector: Callable[[DecideRequest], Sequence[float]] = uniform_vector
    most: int = 10_000
    path: Path | None = None


def local_id(decision_id: str) -> str:
    """Return the id of the decision that a client makes in place of one that it asked for.

    It is another one: the server may have made that decision, and its answer was lost on the way. An outcome
    reported for one must not become that of the other.

    >>> local_id("d1") == local_id("d1") != local_id("d2")
    True
    """
    return f"client-{blake2b(decision_id.encode(), digest_size=16).hexdigest()}"


class LocalDecisions:
    """The decisions that a client makes by itself, and those that wait to be handed in. Safe for threads.

    Parameters
    ----------
    fallback
        How.

    Attributes
    ----------
    outbox
        What waits to be handed in.
    away
        Whether the last decision was made here: then the server is asked once, and not again and again.
    """

    def __init__(self, fallback: Fallback) -> None:
        self._vector = fallback.vector
        self.outbox = Outbox(fallback.path, fallback.most)
        self.away = False
        self._recent: OrderedDict[str, Decided] = OrderedDict()
        self._lock = threading.Lock()

    def known(self, decision_id: str) -> Decided | None:
        """Return what was answered here when the same was asked before; asked again, it is the same."""
        with self._lock:
            return self._recent.get(decision_id)

    def decide(
        self, request: DecideRequest, vector: Sequence[float] | None, error: grpc.RpcError, now_ms: int
    ) -> Decided:
        """Decide, and keep what was decided.

        Parameters
        ----------
        request
            What was asked.
        vector
            The probability of each action; ``None``: the choice that the request states acts, or else it is drawn as
            the fallback says.
        error
            Why no server has answered.
        now_ms
            Time of the decision.
        """
        detail = f"{error.code().name}: {error.details()}"
        made = ClientDecision(request=request, time_ms=now_ms)
        made.request.decision_id = local_id(request.decision_id)
        if vector is None and request.HasField("choice"):
            chosen, chosen_from = stated_choice(request, [not action.excluded for action in request.actions])
            trouble = ""
        else:
            chosen_from, trouble = self._checked(request, vector)
            made.salt = SALT
            chosen = draw(made.request.decision_id, SALT, chosen_from)
        made.chosen = chosen
        made.probabilities.extend(chosen_from)
        made.detail = f"{trouble}{detail}"[:1_000]
        answer = Decided(
            decision_id=made.request.decision_id,
            action=request.actions[made.chosen].id,
            propensity=chosen_from[made.chosen],
            probabilities=tuple(chosen_from),
            policy_version="",
            fallback=fallback_name(FALLBACK_REASON_CLIENT),
            unrecorded=self._keep(made),
        )
        with self._lock:
            self.away = True
            self._recent[request.decision_id] = answer
            if len(self._recent) > _REMEMBERED:
                self._recent.popitem(last=False)
        return answer

    def _checked(self, request: DecideRequest, given: Sequence[float] | None) -> tuple[list[float], str]:
        """Return the vector to draw from, and what is wrong with the one that should have been."""
        available = [not action.excluded for action in request.actions]
        if not any(available):
            raise ValueError("actions: none can be drawn; give at least one that is not excluded")
        if given is not None:
            check_vector(given, request)
            return list(given), ""
        try:
            vector = [float(p) for p in self._vector(request)]
            problem = vector_problem(vector, available)
        except Exception as failure:  # whatever goes wrong there must not cost the caller the decision
            vector, problem = [], f"{type(failure).__name__}: {failure}"
        if not problem:
            return vector, ""
        logger.error("the fallback's vector %s; the draw is uniform", problem)
        return uniform_vector(request), f"the fallback's vector {problem}; "

    def _keep(self, made: ClientDecision) -> str:
        """Keep a decision to be handed in; return why it is not in the log now."""
        try:
            self.outbox.add(made.request.decision_id, made.SerializeToString())
        except OutboxFull as full:
            return f"no server was reached, and the client cannot keep it: {full}"
        except sqlite3.Error as error:
            logger.error("a decision cannot be kept in %s: %s", self.outbox.path, error)
            return f"no server was reached, and the client cannot keep it: {error}"
        return _WAITS

    def left(self) -> str:
        """Return what becomes of the decisions that were not handed in; empty where there are none."""
        count = len(self.outbox)
        if not count:
            return ""
        fate = f"they are kept in {self.outbox.path}" if self.outbox.path else "they are lost, with their outcomes"
        return f"{count} decisions that the client made by itself were not handed in; {fate}"


def check_vector(vector: Sequence[float], request: DecideRequest) -> None:
    """Raise ``ValueError`` where a vector cannot be drawn from: at the call, not in the outage that needs it."""
    problem = vector_problem(list(vector), [not action.excluded for action in request.actions])
    if problem:
        raise ValueError(f"fallback_vector {problem}")


def no_vector(vector: Sequence[float] | None) -> None:
    """Raise ``ValueError`` where a vector is given to a client that never decides by itself."""
    if vector is not None:
        raise ValueError("fallback_vector is given to a client without fallback; make it with fallback=Fallback()")


def record_request(batch: Sequence[bytes]) -> RecordRequest:
    """Return the request that hands in what an outbox held."""
    return RecordRequest(decisions=[ClientDecision.FromString(data) for data in batch])


def refused_decision(data: bytes, reason: str) -> None:
    """Say that a decision will never be in the log."""
    made = ClientDecision.FromString(data)
    logger.error(
        "decision %s of %s, made by the client itself, was refused and is lost: %s",
        made.request.decision_id,
        made.request.decision_point,
        reason,
    )


def taken(answer: Decided | Refused) -> Refused | None:
    """Return why a decision that was handed in has to be handed in again; ``None``: it is in the log."""
    if isinstance(answer, Refused):
        return answer
    if answer.unrecorded:
        return Refused(grpc.StatusCode.UNAVAILABLE.value[0], answer.unrecorded, 1.0)
    return None
