"""How much is done for a decision: all of it, or less where there is no time."""

from __future__ import annotations

from enum import Enum

from engine.records import FALLBACK_REASON_DEADLINE, FALLBACK_REASON_NONE, FALLBACK_REASON_OVERLOAD, FallbackReason


class Effort(Enum):
    """A step of the ladder, from all to nothing but the draw.

    Attributes
    ----------
    fallback : FallbackReason
        Of decisions made on this step, if the oracle does not fail.
    detail : str
        The same in words.

    Examples
    --------
    >>> Effort.ALONE.scores, Effort.OVERLOAD.scores
    (True, False)
    """

    #: The policy that acts, and one that looks on.
    FULL = (0, FALLBACK_REASON_NONE, "")
    #: The policy that acts, alone.
    ALONE = (1, FALLBACK_REASON_NONE, "")
    #: The fallback, because too many calls wait.
    OVERLOAD = (2, FALLBACK_REASON_OVERLOAD, "so many calls waited that nothing was scored")
    #: The fallback, because the caller waits no longer.
    DEADLINE = (3, FALLBACK_REASON_DEADLINE, "too little of the deadline was left to score")

    def __init__(self, step: int, fallback: FallbackReason.ValueType, detail: str) -> None:
        self.step = step
        self.fallback = fallback
        self.detail = detail
        #: Read at every decision.
        self.scores = fallback == FALLBACK_REASON_NONE
