"""Errors that a person can act on: each names what is wrong, where, and what to do."""

from __future__ import annotations


class LeewayError(Exception):
    """Base of every error that Leeway raises on purpose."""


class ConfigError(LeewayError):
    """The configuration cannot be used; the message names path, value and remedy."""


class InvalidRequest(LeewayError):  # noqa: N818  (named for what the caller sent)
    """A request that cannot be answered.

    Parameters
    ----------
    field
        Path of the field in the request, such as ``actions[2].features.price``.
    problem
        What is wrong with it and what would be right.
    """

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(f"{field}: {problem}")
        self.field = field
        self.problem = problem


class UnknownDecisionPoint(InvalidRequest):
    """The request names a decision point, or a recommender, that is not configured."""

    def __init__(self, name: str, known: list[str], field: str = "decision_point") -> None:
        super().__init__(field, f"{name!r} is not configured; known are: {', '.join(known) or 'none'}")


class NotAuthenticated(LeewayError):  # noqa: N818  (named for what the caller is)
    """It is not known who calls: no token, or none that is known."""


class NotPermitted(LeewayError):  # noqa: N818
    """It is known who calls, and they may not do this."""


class Overloaded(LeewayError):  # noqa: N818  (named for what the server is)
    """More is asked than is answered.

    Parameters
    ----------
    reason
        ``queue_full``, ``too_late`` or ``rate_limited``.
    problem
        In words, and what to do.
    retry_s
        When to come again, in seconds.
    """

    def __init__(self, reason: str, problem: str, retry_s: float) -> None:
        super().__init__(problem)
        self.reason = reason
        self.retry_s = retry_s


class DeadlinePassed(LeewayError):  # noqa: N818
    """The caller's deadline ended while the call waited for its turn; nothing was done for it."""


class SnapshotError(LeewayError):
    """Saved state (a policy, a learner, a monitor) that cannot be read, is damaged, or does not fit."""


class LogError(LeewayError):
    """The log cannot take or give records (disk full, file damaged, broker away)."""


class RegistryError(LeewayError):
    """The model registry cannot be reached or refused a change."""
