"""The records of the log under one name, and the few functions that every floor needs of them.

Their one definition is ``engine/api/leeway/v1/records.proto``.
"""

from __future__ import annotations

import math
import os
import re
import secrets
from collections.abc import Iterable

from engine.api.leeway.v1.records_pb2 import (
    DEAD_LETTER_REASON_INVALID,
    DEAD_LETTER_REASON_UNKNOWN_DECISION,
    DEAD_LETTER_REASON_UNKNOWN_DECISION_POINT,
    DEAD_LETTER_REASON_UNREADABLE,
    DIRECTION_DOWN,
    DIRECTION_UP,
    FALLBACK_REASON_CLIENT,
    FALLBACK_REASON_DEADLINE,
    FALLBACK_REASON_NONE,
    FALLBACK_REASON_ORACLE_FAILED,
    FALLBACK_REASON_OVERLOAD,
    JOIN_STAGE_OPEN,
    JOIN_STAGE_PARKED,
    JOIN_STAGE_REMEMBERED,
    JOIN_STAGE_WAITING,
    MODE_APPRENTICE,
    MODE_LOGGING_ONLY,
    MODE_ONLINE,
    REACTION_DISCOUNT_LEARNER,
    REACTION_EXPLORE,
    REACTION_HOLD_PROMOTION,
    REACTION_RESET_LEARNER,
    REACTION_RETRAIN,
    Acknowledgement,
    Action,
    Alarm,
    DeadLetterReason,
    Decision,
    Direction,
    FallbackReason,
    Features,
    Feedback,
    Generation,
    GenerationStatistics,
    JoinAccounting,
    JoinBlock,
    JoinHead,
    JoinStage,
    Mode,
    Numbers,
    Outcome,
    Reaction,
    Slate,
    Texts,
    Value,
    WaitingOutcome,
)

__all__ = [
    "DEAD_LETTER_REASON_INVALID",
    "DEAD_LETTER_REASON_UNKNOWN_DECISION",
    "DEAD_LETTER_REASON_UNKNOWN_DECISION_POINT",
    "DEAD_LETTER_REASON_UNREADABLE",
    "DIRECTION_DOWN",
    "DIRECTION_UP",
    "FALLBACK_REASON_CLIENT",
    "FALLBACK_REASON_DEADLINE",
    "FALLBACK_REASON_NONE",
    "FALLBACK_REASON_ORACLE_FAILED",
    "FALLBACK_REASON_OVERLOAD",
    "JOIN_STAGE_OPEN",
    "JOIN_STAGE_PARKED",
    "JOIN_STAGE_REMEMBERED",
    "JOIN_STAGE_WAITING",
    "MAX_ID_LENGTH",
    "MODE_APPRENTICE",
    "MODE_LOGGING_ONLY",
    "MODE_ONLINE",
    "REACTION_DISCOUNT_LEARNER",
    "REACTION_EXPLORE",
    "REACTION_HOLD_PROMOTION",
    "REACTION_RESET_LEARNER",
    "REACTION_RETRAIN",
    "Acknowledgement",
    "Action",
    "Alarm",
    "DeadLetterReason",
    "Decision",
    "Direction",
    "FallbackReason",
    "Features",
    "Feedback",
    "Generation",
    "GenerationStatistics",
    "JoinAccounting",
    "JoinBlock",
    "JoinHead",
    "JoinStage",
    "Mode",
    "Numbers",
    "Outcome",
    "Reaction",
    "Slate",
    "Texts",
    "Value",
    "WaitingOutcome",
    "entropy",
    "fallback_name",
    "generation_of",
    "mode_name",
    "new_id",
    "policy_acted",
    "policy_version",
]

#: Characters of a decision's or an outcome's id.
MAX_ID_LENGTH = 256

_VERSION = re.compile(r"g(\d+)\.(\d+)-[0-9a-f]{8}")


#: Ids that nobody has had yet. Each call for the system's randomness lets go of the interpreter, which busy threads are
#: quick to take: once for many ids, not for each.
_fresh: list[str] = []
_AT_ONCE = 256
os.register_at_fork(after_in_child=_fresh.clear)


def new_id() -> str:
    """Return a fresh id: 128 random bits in hexadecimal."""
    while True:
        try:
            return _fresh.pop()
        except IndexError:
            digits = secrets.token_hex(16 * _AT_ONCE)
            _fresh.extend(digits[start : start + 32] for start in range(0, len(digits), 32))


def policy_version(generation: int, update: int, digest: str) -> str:
    """Name a policy by its generation, its online update and the digest of its content.

    >>> policy_version(2, 17, "3fa9c1de77")
    'g2.17-3fa9c1de'
    """
    return f"g{generation}.{update}-{digest[:8]}"


def generation_of(version: str) -> int:
    """Return the generation in a policy version; raises ``ValueError`` for any other text.

    >>> generation_of("g2.17-3fa9c1de")
    2
    """
    match = _VERSION.fullmatch(version)
    if match is None:
        raise ValueError(f"{version!r} is no policy version (expected like g2.17-3fa9c1de)")
    return int(match[1])


def entropy(probabilities: Iterable[float]) -> float:
    """Shannon entropy in nats of a probability vector; 0 log 0 counts as 0.

    >>> entropy([1.0, 0.0])
    0.0
    """
    return -math.fsum(p * math.log(p) for p in probabilities if p > 0.0) + 0.0


def fallback_name(reason: FallbackReason.ValueType) -> str:
    """Short lower-case name of a fallback reason, for labels and reports.

    >>> fallback_name(FALLBACK_REASON_ORACLE_FAILED)
    'oracle_failed'
    """
    return FallbackReason.Name(reason).removeprefix("FALLBACK_REASON_").lower()


def mode_name(mode: Mode.ValueType) -> str:
    """Short lower-case name of a mode, as in the configuration.

    >>> mode_name(MODE_LOGGING_ONLY)
    'logging_only'
    """
    return Mode.Name(mode).removeprefix("MODE_").lower()


def policy_acted(decision: Decision) -> bool:
    """Say whether the policy of a decision's version made it, so that what came of it is that policy's doing."""
    return decision.mode == MODE_ONLINE and decision.fallback != FALLBACK_REASON_CLIENT
