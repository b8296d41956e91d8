"""Overview: does it decide, is it rewarded, does it learn, is anything wrong?"""

from __future__ import annotations

from monitoring.dashboards.figures import FAILED, REWARD
from monitoring.dashboards.model import SCOPE, Dashboard, Panel, Query, Row, gauge, grown, quantile, rate, stat

OVERVIEW = Dashboard(
    "leeway-overview",
    "Leeway / Overview",
    "Does it decide, is it rewarded, does it learn, is anything wrong? Start here.",
    (
        Row(
            "Now",
            (
                stat(
                    "Firing alerts",
                    "Alerts of Leeway that fire now. Each links to a panel and a runbook.",
                    "short",
                    'count(ALERTS{alertname=~"Leeway.*",alertstate="firing"}) or vector(0)',
                    limit=1.0,
                ),
                stat(
                    "Processes up",
                    "Share of the scraped processes that answer Prometheus.",
                    "percentunit",
                    f"avg(up{{{SCOPE}}})",
                    alerts=("LeewayDown",),
                ),
                stat(
                    "Roles running",
                    "Share of the roles behind the log that run; a role that fails is started again.",
                    "percentunit",
                    f"avg({gauge('leeway_role_up', scope=SCOPE)})",
                    alerts=("LeewayRoleDown",),
                ),
                stat(
                    "Decisions a second",
                    "Decisions of the chosen decision points, over all servers.",
                    "reqps",
                    f"sum({rate('leeway_decisions_total')})",
                ),
                stat(
                    "Promotions held",
                    "Decision points whose promotions an alarm holds until somebody acknowledges it.",
                    "short",
                    f"sum(max by (decision_point) ({gauge('leeway_promotion_held')}))",
                    alerts=("LeewayPromotionHeld",),
                    limit=1.0,
                ),
                stat(
                    "Disk free",
                    "Of the fullest disk that holds a data directory.",
                    "percentunit",
                    f"min({gauge('leeway_disk_free_bytes', scope=SCOPE)}"
                    f" / {gauge('leeway_disk_size_bytes', scope=SCOPE)})",
                    alerts=("LeewayDiskLow", "LeewayDiskFull"),
                ),
            ),
        ),
        Row(
            "The loop",
            (
                Panel(
                    "Decisions",
                    "Decisions a second by decision point.",
                    "reqps",
                    (Query(f"sum by (decision_point) ({rate('leeway_decisions_total')})", "{{decision_point}}"),),
                    low=0.0,
                ),
                Panel(
                    "Reward",
                    "Mean reward of the last 1000 feedbacks, and its 95 % interval.",
                    "short",
                    REWARD,
                ),
                Panel(
                    "Time to decide",
                    "Median and 99 % quantile of the time from request to answer, without the transport. The "
                    "objective is 25 ms.",
                    "s",
                    (
                        Query(quantile(0.5, "leeway_decision_duration_seconds"), "{{decision_point}} 50 %"),
                        Query(quantile(0.99, "leeway_decision_duration_seconds"), "{{decision_point}} 99 %"),
                    ),
                    low=0.0,
                    limit=0.025,
                    alerts=("LeewayLatencyBudgetBurn",),
                ),
                Panel(
                    "Requests that failed",
                    "Share of requests that ended with an error of the server; the objective is one in a thousand.",
                    "percentunit",
                    (FAILED,),
                    low=0.0,
                    limit=0.001,
                    alerts=("LeewayErrorBudgetBurn",),
                ),
                Panel(
                    "Decisions that were rewarded",
                    "Share of the feedback that has an outcome. At 0 nothing is learned: are outcomes reported, "
                    "with the decision's id, within the reward window?",
                    "percentunit",
                    (
                        Query(
                            f"1 - max by (decision_point) ({rate('leeway_join_defaulted_total')})"
                            f" / max by (decision_point) ({rate('leeway_join_feedback_total')})",
                            "{{decision_point}}",
                        ),
                    ),
                    low=0.0,
                    high=1.0,
                    alerts=("LeewayNoRewardJoined",),
                ),
                Panel(
                    "Lag of the roles",
                    "Age of the oldest record that a role has not yet committed.",
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
            ),
        ),
        Row(
            "What changed",
            (
                Panel(
                    "Drift alarms",
                    "Changes that the policy itself does not account for, by monitor.",
                    "short",
                    (
                        Query(
                            grown("leeway_drift_alarms_total", "decision_point, monitor"),
                            "{{decision_point}} {{monitor}}",
                        ),
                    ),
                    low=0.0,
                    alerts=("LeewayDrift",),
                ),
                Panel(
                    "Generation that serves",
                    "Each step is a promotion or a rollback.",
                    "none",
                    (Query(f"max by (decision_point) ({gauge('leeway_policy_generation')})", "{{decision_point}}"),),
                ),
                Panel(
                    "Age of what serves",
                    "How long ago the policy that serves was made. Where it learns online it is young while "
                    "there is feedback.",
                    "s",
                    (
                        Query(
                            "time() - min by (decision_point) "
                            f"({gauge('leeway_policy_created_timestamp_seconds')} > 0)",
                            "{{decision_point}}",
                        ),
                    ),
                    low=0.0,
                    alerts=("LeewayPolicyNotLoaded",),
                ),
            ),
        ),
    ),
)
