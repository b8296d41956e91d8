"""Join and log: from decisions and outcomes to feedback, and how far each role is behind."""

from __future__ import annotations

from monitoring.dashboards.model import SCOPE, Dashboard, Panel, Query, Row, buckets, gauge, quantile, rate

_POINT = "{{decision_point}}"


def _of_join(name: str) -> str:
    """Return the rate of a counter of the join's book, which several processes may show."""
    return f"max by (decision_point) ({rate(f'leeway_join_{name}_total')})"


JOIN = Dashboard(
    "leeway-join",
    "Leeway / Join and log",
    "From decisions and outcomes to feedback: conservation, delays, lag, the spool and the disk.",
    (
        Row(
            "The book",
            (
                Panel(
                    "Decisions and feedback",
                    "What goes into the join and what comes out, a window later.",
                    "reqps",
                    (
                        Query(_of_join("decisions"), f"{_POINT} decisions"),
                        Query(_of_join("feedback"), f"{_POINT} feedback"),
                        Query(_of_join("defaulted"), f"{_POINT} defaulted"),
                    ),
                    low=0.0,
                    alerts=("LeewayNoRewardJoined",),
                ),
                Panel(
                    "Pending decisions",
                    "Decisions whose feedback is still to come: about the rate times window and grace.",
                    "short",
                    (Query(f"max by (decision_point) ({gauge('leeway_join_pending_decisions')})", _POINT),),
                    low=0.0,
                ),
                Panel(
                    "Conservation",
                    "Decisions less feedback, pending and unactivated ones. It is 0; what stays is lost.",
                    "short",
                    (
                        Query(
                            f"max by (decision_point) ({gauge('leeway_join_decisions_total')}"
                            f" - {gauge('leeway_join_feedback_total')} - {gauge('leeway_join_pending_decisions')}"
                            f" - {gauge('leeway_join_unactivated_total')})",
                            _POINT,
                        ),
                    ),
                ),
                Panel(
                    "Time from decision to outcome",
                    "Distribution over feedback with an outcome. What nears the reward window is lost beyond it.",
                    "s",
                    (Query(buckets("leeway_outcome_delay_seconds"), "{{le}}"),),
                    "heatmap",
                ),
                Panel(
                    "Quantiles of that time",
                    "Median, 90 % and 99 %.",
                    "s",
                    (
                        Query(quantile(0.5, "leeway_outcome_delay_seconds"), f"{_POINT} 50 %"),
                        Query(quantile(0.9, "leeway_outcome_delay_seconds"), f"{_POINT} 90 %"),
                        Query(quantile(0.99, "leeway_outcome_delay_seconds"), f"{_POINT} 99 %"),
                    ),
                    low=0.0,
                ),
                Panel(
                    "What is left out",
                    "Late, surplus and duplicate outcomes, duplicate decisions, and dead letters.",
                    "reqps",
                    (
                        Query(_of_join("late_outcomes"), f"{_POINT} late"),
                        Query(_of_join("surplus_outcomes"), f"{_POINT} surplus"),
                        Query(_of_join("duplicate_outcomes"), f"{_POINT} duplicate outcomes"),
                        Query(_of_join("duplicate_decisions"), f"{_POINT} duplicate decisions"),
                        Query(_of_join("dead_letters"), f"{_POINT} dead letters"),
                    ),
                    low=0.0,
                    alerts=("LeewayDeadLetters",),
                ),
            ),
        ),
        Row(
            "Behind",
            (
                Panel(
                    "Lag in records",
                    "What a role has not yet committed of a topic.",
                    "short",
                    (
                        Query(
                            f"max by (role, topic) ({gauge('leeway_lag_records', scope=SCOPE)})", "{{role}} {{topic}}"
                        ),
                    ),
                    low=0.0,
                    alerts=("LeewayLag",),
                ),
                Panel(
                    "Lag in time",
                    "Age of the oldest of them.",
                    "s",
                    (
                        Query(
                            f"max by (role, topic) ({gauge('leeway_lag_seconds', scope=SCOPE)})", "{{role}} {{topic}}"
                        ),
                    ),
                    low=0.0,
                    limit=300.0,
                    alerts=("LeewayLag",),
                ),
                Panel(
                    "Delay of the watermark",
                    "How far event time is behind the clock, by partition. One that grows alone stands still.",
                    "s",
                    (
                        Query(
                            f"max by (partition) ({gauge('leeway_join_watermark_delay_seconds', scope=SCOPE)})",
                            "partition {{partition}}",
                        ),
                    ),
                    low=0.0,
                    limit=300.0,
                    alerts=("LeewayWatermarkBehind",),
                ),
                Panel(
                    "Roles",
                    "1 while a role runs; errors after which it was started again.",
                    "short",
                    (
                        Query(f"min by (role) ({gauge('leeway_role_up', scope=SCOPE)})", "{{role}} up"),
                        Query(
                            f"sum by (role) ({rate('leeway_role_errors_total', scope=SCOPE)})",
                            "{{role}} errors a second",
                        ),
                    ),
                    low=0.0,
                    alerts=("LeewayRoleDown",),
                ),
                Panel(
                    "Commits and restores",
                    "Transactions of the join in a second, partitions whose state was read back, and records "
                    "dated too far ahead.",
                    "short",
                    (
                        Query(f"sum({rate('leeway_join_commits_total', scope=SCOPE)})", "commits"),
                        Query(f"sum({rate('leeway_join_restores_total', scope=SCOPE)})", "restores"),
                        Query(f"sum({rate('leeway_join_skewed_total', scope=SCOPE)})", "dated ahead"),
                    ),
                    low=0.0,
                ),
                Panel(
                    "Rebalances and aborts",
                    "On Kafka: rebalances of the roles' groups and transactions that were given up; 0 on the "
                    "embedded log.",
                    "short",
                    (
                        Query(f"sum by (role) ({rate('leeway_rebalances_total', scope=SCOPE)})", "{{role}} rebalances"),
                        Query(
                            f"sum by (role) ({rate('leeway_transaction_aborts_total', scope=SCOPE)})", "{{role}} aborts"
                        ),
                    ),
                    low=0.0,
                ),
            ),
        ),
        Row(
            "Spool, archive, disk",
            (
                Panel(
                    "Spool",
                    "What waits on the local disk for the cluster, of what it may use; NaN on the embedded log, "
                    "which needs none.",
                    "percentunit",
                    (
                        Query(
                            f"max by (instance) ({gauge('leeway_spool_bytes', scope=SCOPE)}"
                            f" / {gauge('leeway_spool_limit_bytes', scope=SCOPE)})",
                            "{{instance}}",
                        ),
                    ),
                    low=0.0,
                    high=1.0,
                    limit=0.5,
                    alerts=("LeewaySpoolFilling", "LeewaySpoolFull"),
                ),
                Panel(
                    "Age of the spool",
                    "Of the oldest decision that waits; 0 while none does.",
                    "s",
                    (
                        Query(
                            f"max by (instance) ({gauge('leeway_spool_oldest_age_seconds', scope=SCOPE)})",
                            "{{instance}}",
                        ),
                    ),
                    low=0.0,
                    alerts=("LeewaySpoolFilling",),
                ),
                Panel(
                    "Shipping",
                    "Records that the cluster has taken, and attempts that failed, in a second; 0 on the embedded log.",
                    "reqps",
                    (
                        Query(f"sum({rate('leeway_shipped_records_total', scope=SCOPE)})", "shipped"),
                        Query(f"sum({rate('leeway_shipping_errors_total', scope=SCOPE)})", "failed"),
                    ),
                    low=0.0,
                ),
                Panel(
                    "Archive",
                    "Rows written in a second.",
                    "reqps",
                    (Query(f"sum by (decision_point) ({rate('leeway_archive_rows_total')})", _POINT),),
                    width=12,
                    low=0.0,
                ),
                Panel(
                    "Free disk",
                    "Share of the disk below the data directory that is free.",
                    "percentunit",
                    (
                        Query(
                            f"min by (instance) ({gauge('leeway_disk_free_bytes', scope=SCOPE)}"
                            f" / {gauge('leeway_disk_size_bytes', scope=SCOPE)})",
                            "{{instance}}",
                        ),
                    ),
                    width=12,
                    low=0.0,
                    high=1.0,
                    alerts=("LeewayDiskLow", "LeewayDiskFull"),
                ),
            ),
        ),
    ),
)
