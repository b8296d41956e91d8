"""Figures that several dashboards show."""

from __future__ import annotations

from monitoring.dashboards.model import SCOPE, Query, gauge, rate

#: Codes of gRPC that count against the objective: the client could not have done better.
_SERVER_ERRORS = ',code=~"UNAVAILABLE|INTERNAL|UNKNOWN|DEADLINE_EXCEEDED|RESOURCE_EXHAUSTED|DATA_LOSS"'
_MEAN, _ERROR = gauge("leeway_reward_mean"), gauge("leeway_reward_standard_error")

#: The mean reward and its 95 % interval.
REWARD = (
    Query(f"max by (decision_point) ({_MEAN})", "{{decision_point}}"),
    Query(f"max by (decision_point) ({_MEAN} - 1.96 * {_ERROR})", "{{decision_point}} low"),
    Query(f"max by (decision_point) ({_MEAN} + 1.96 * {_ERROR})", "{{decision_point}} high"),
)

#: The share of requests that failed.
FAILED = Query(
    f"(sum({rate('leeway_requests_total', _SERVER_ERRORS, SCOPE)}) or vector(0))"
    f" / sum({rate('leeway_requests_total', scope=SCOPE)})",
    "failed",
)
