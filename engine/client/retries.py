"""When a call is made again: what may be repeated, after which pause, and until when."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import cast

import grpc
from google.protobuf.message import DecodeError
from google.rpc.status_pb2 import Status

from engine.client.messages import retry_delay_s

#: A server that ends cancels the calls that it had not begun; nobody else cancels a call of this client.
PASSING = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.CANCELLED)
#: Where grpcio puts a rich status among the trailing metadata.
STATUS = "grpc-status-details-bin"
#: What grpcio says by itself when more calls are under way than a server ever lets wait.
_NO_ROOM = "Concurrent RPC limit exceeded!"
_FIRST_PAUSE_S = 0.05
_LONGEST_PAUSE_S = 1.0


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a client tries.

    Attributes
    ----------
    timeout_s
        Deadline of one attempt.
    retry_s
        No attempt begins later than this after the first.
    deadline_s
        Deadline of a call with all its attempts and pauses; ``None``: ``timeout_s + retry_s``.
    """

    timeout_s: float
    retry_s: float
    deadline_s: float | None = None

    def __post_init__(self) -> None:
        for name, least in (("timeout_s", self.timeout_s), ("deadline_s", self.deadline_s)):
            if least is not None and not least > 0.0:
                raise ValueError(f"{name} is {least}; give seconds above 0")
        if not self.retry_s >= 0.0:
            raise ValueError(f"retry_s is {self.retry_s}; give seconds, or 0 for one attempt alone")

    def within(self, deadline_s: float) -> Patience:
        """Return the same with another deadline of the whole call."""
        return Patience(self.timeout_s, self.retry_s, deadline_s)


@dataclass(slots=True)
class Attempts:
    """The attempts of one call.

    Parameters
    ----------
    patience
        How long.
    started_s
        The clock when the call began.
    chance
        Gives a number from 0 to 1 for each pause: clients that failed together must not come back together.
    """

    patience: Patience
    started_s: float
    chance: Callable[[], float]
    _failed: int = field(default=0, init=False)

    def timeout_s(self, now_s: float) -> float:
        """Return the deadline of the attempt that begins now: never beyond that of the call."""
        return max(min(self.patience.timeout_s, self._end_s - now_s), 0.0)

    def pause_s(self, error: grpc.RpcError, now_s: float) -> float | None:
        """Return how long to wait after a failed attempt; ``None``: the error is final.

        Exponential backoff whose upper half is left to chance; where the server said when to come again, not before.
        """
        may, hint_s = judged(error)
        if not may:
            return None
        ceiling = min(_FIRST_PAUSE_S * 2.0**self._failed, _LONGEST_PAUSE_S)
        self._failed += 1
        pause = max(ceiling * (1.0 + self.chance()) / 2.0, hint_s)
        begins_s = now_s + pause
        if begins_s > self.started_s + self.patience.retry_s or begins_s >= self._end_s:
            return None
        return pause

    @property
    def _end_s(self) -> float:
        patience = self.patience
        whole = patience.timeout_s + patience.retry_s if patience.deadline_s is None else patience.deadline_s
        return self.started_s + whole


def judged(error: grpc.RpcError) -> tuple[bool, float]:
    """Return whether a call may be repeated after an error, and after how many seconds at the earliest.

    What was refused for what it is would be refused again. A server that has no room says so with a time
    (``RESOURCE_EXHAUSTED`` with ``RetryInfo``), or grpcio says it in its place; else the request is too large.
    """
    hint = _hint_s(error)
    code = error.code()
    has_no_room = hint is not None or error.details() == _NO_ROOM
    may = code in PASSING or (code is grpc.StatusCode.RESOURCE_EXHAUSTED and has_no_room)
    return may, hint or 0.0


def _hint_s(error: grpc.RpcError) -> float | None:
    for name, value in cast(Iterable[tuple[str, bytes]], error.trailing_metadata() or ()):
        if name == STATUS:
            return _delay_s(value)
    return None


@lru_cache(maxsize=64)
def _delay_s(status: bytes) -> float | None:
    """Return what a rich status says; a server that refuses many says the same to those of one moment."""
    try:
        return retry_delay_s(Status.FromString(status))
    except DecodeError:
        return None  # of a proxy in between: its code is all that is known
