"""A decision that was written as it was made: its record and its answer as bytes, and what is asked of it meanwhile."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from engine.records import FALLBACK_REASON_NONE, MODE_ONLINE, Decision, FallbackReason, Mode


@dataclass(slots=True)  # not frozen: that would take four times as long to make, and each decision is one
class SealedDecision:
    """A decision, in the form in which it goes to the log and to the caller. Nothing of it ever changes.

    Attributes
    ----------
    decision_id, decision_point, time_ms
        As in ``Decision``.
    propensity
        Probability with which the action was drawn.
    data
        The ``Decision``, serialized.
    answer
        The ``DecideResponse``, serialized, of a decision that the log takes.
    fallback
        Why it is not the policy's, if it is not.
    """

    decision_id: str
    decision_point: str
    time_ms: int
    propensity: float
    data: bytes
    answer: bytes
    fallback: FallbackReason.ValueType = FALLBACK_REASON_NONE

    mode: ClassVar[Mode.ValueType] = MODE_ONLINE

    def decision(self) -> Decision:
        """Return it as a message."""
        return Decision.FromString(self.data)
