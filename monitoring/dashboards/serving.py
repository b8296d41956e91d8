"""Serving: requests, latency, errors and what the log takes of it."""

from __future__ import annotations

from monitoring.dashboards.figures import FAILED
from monitoring.dashboards.model import SCOPE, Dashboard, Panel, Query, Row, buckets, gauge, quantile, rate

_FALLBACK = ',fallback!="none"'
_QUICK = ',le="0.025"'
_DURATION = "leeway_decision_duration_seconds"

SERVING = Dashboard(
    "leeway-serving",
    "Leeway / Serving",
    "Requests, latency, errors, the objectives and their budgets, and what the log takes of it.",
    (
        Row(
            "Requests",
            (
                Panel(
                    "Requests",
                    "Answered in a second, by gRPC method and status code.",
                    "reqps",
                    (
                        Query(
                            f"sum by (method, code) ({rate('leeway_requests_total', scope=SCOPE)})",
                            "{{method}} {{code}}",
                        ),
                    ),
                    low=0.0,
                ),
                Panel(
                    "Requests under way",
                    "At one time, by server. More than its workers wait.",
                    "short",
                    (Query(f"sum by (instance) ({gauge('leeway_requests_in_flight', scope=SCOPE)})", "{{instance}}"),),
                    low=0.0,
                ),
                Panel(
                    "Outcomes reported",
                    "Taken from clients over gRPC, in a second.",
                    "reqps",
                    (Query(f"sum({rate('leeway_reports_total', scope=SCOPE)})", "outcomes"),),
                    low=0.0,
                ),
            ),
        ),
        Row(
            "Latency",
            (
                Panel(
                    "Time to decide",
                    "Distribution over decisions, from request to answer without the transport.",
                    "s",
                    (Query(buckets(_DURATION), "{{le}}"),),
                    "heatmap",
                ),
                Panel(
                    "Quantiles of the time to decide",
                    "Median, 95 % and 99 %. The objective is that 99 % take no more than 25 ms.",
                    "s",
                    (
                        Query(quantile(0.5, _DURATION), "{{decision_point}} 50 %"),
                        Query(quantile(0.95, _DURATION), "{{decision_point}} 95 %"),
                        Query(quantile(0.99, _DURATION), "{{decision_point}} 99 %"),
                    ),
                    low=0.0,
                    limit=0.025,
                    alerts=("LeewayLatencyBudgetBurn",),
                ),
                Panel(
                    "Slow decisions",
                    "Share that took more than 25 ms; the objective allows one in a hundred.",
                    "percentunit",
                    (
                        Query(
                            "1 - sum by (decision_point) "
                            f"({rate(f'{_DURATION}_bucket', _QUICK)})"
                            f" / sum by (decision_point) ({rate(f'{_DURATION}_count')})",
                            "{{decision_point}}",
                        ),
                    ),
                    low=0.0,
                    limit=0.01,
                    alerts=("LeewayLatencyBudgetBurn",),
                ),
            ),
        ),
        Row(
            "Errors",
            (
                Panel(
                    "Requests that failed",
                    "Share that ended with an error of the server; the objective allows one in a thousand.",
                    "percentunit",
                    (FAILED,),
                    low=0.0,
                    limit=0.001,
                    alerts=("LeewayErrorBudgetBurn",),
                ),
                Panel(
                    "Burn of the budgets",
                    "How many times faster than the objectives allow, over an hour. At 14.4 a month's budget is "
                    "gone in two days.",
                    "short",
                    (
                        Query("max(job:leeway_request_errors:ratio_rate1h) / 0.001", "errors"),
                        Query("max(job:leeway_slow_decisions:ratio_rate1h) / 0.01", "latency"),
                    ),
                    low=0.0,
                    limit=14.4,
                    alerts=("LeewayErrorBudgetBurn", "LeewayLatencyBudgetBurn"),
                ),
                Panel(
                    "More than can be answered",
                    "Calls that were refused, and calls that got less effort because many waited, in a second.",
                    "reqps",
                    (
                        Query(
                            f"sum by (method, reason) ({rate('leeway_requests_refused_total', scope=SCOPE)})",
                            "{{method}} {{reason}}",
                        ),
                        Query(
                            f"sum by (method, step) ({rate('leeway_requests_degraded_total', scope=SCOPE)})",
                            "{{method}} {{step}}",
                        ),
                    ),
                    low=0.0,
                ),
                Panel(
                    "Fallbacks",
                    "Decisions that did not come from the policy's oracle, in a second.",
                    "reqps",
                    (
                        Query(
                            f"sum by (decision_point, fallback) ({rate('leeway_decisions_total', _FALLBACK)})",
                            "{{decision_point}} {{fallback}}",
                        ),
                    ),
                    low=0.0,
                ),
            ),
        ),
        Row(
            "To the log",
            (
                Panel(
                    "Queue to the log",
                    "Records that wait to be written.",
                    "short",
                    (Query(f"sum by (instance) ({gauge('leeway_log_queue_records', scope=SCOPE)})", "{{instance}}"),),
                    low=0.0,
                ),
                Panel(
                    "Writes refused",
                    "By the log, in a second.",
                    "reqps",
                    (
                        Query(
                            f"sum by (instance) ({rate('leeway_log_append_errors_total', scope=SCOPE)})", "{{instance}}"
                        ),
                    ),
                    low=0.0,
                    alerts=("LeewayUnrecordedDecisions",),
                ),
                Panel(
                    "Decisions without a record",
                    "Answered though the log could not take them, in a second; nothing is learned from them.",
                    "reqps",
                    (
                        Query(
                            f"sum by (decision_point) ({rate('leeway_decisions_unrecorded_total')})",
                            "{{decision_point}}",
                        ),
                    ),
                    low=0.0,
                    alerts=("LeewayUnrecordedDecisions",),
                ),
            ),
        ),
    ),
)
