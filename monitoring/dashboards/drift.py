"""Drift: the reward and the monitors over time."""

from __future__ import annotations

from monitoring.dashboards.figures import REWARD
from monitoring.dashboards.model import Dashboard, Panel, Query, Row, gauge, grown, rate

_MONITOR = "{{decision_point}} {{monitor}}"

DRIFT = Dashboard(
    "leeway-drift",
    "Leeway / Drift",
    "The reward and what the monitors see, with alarms and generations marked on the time axis.",
    (
        Row(
            "Reward",
            (
                Panel(
                    "Reward",
                    "Mean reward of the last 1000 feedbacks, and its 95 % interval. A fall that the policy's own "
                    "predictions do not explain calls for retraining.",
                    "short",
                    REWARD,
                    width=16,
                    height=9,
                ),
                Panel(
                    "Probability of a change",
                    "What the reward's detector believes: the posterior of a change since the last it reported. "
                    "Above one half it reports an alarm and begins anew.",
                    "percentunit",
                    (
                        Query(
                            f"max by (decision_point) ({gauge('leeway_reward_monitor_change_probability')})",
                            "{{decision_point}}",
                        ),
                    ),
                    height=9,
                    low=0.0,
                    high=1.0,
                    limit=0.5,
                ),
            ),
        ),
        Row(
            "Alarms",
            (
                Panel(
                    "Drift alarms",
                    "Changes that the policy itself does not account for, by monitor.",
                    "short",
                    (
                        Query(
                            grown("leeway_drift_alarms_total", "decision_point, monitor"),
                            _MONITOR,
                        ),
                    ),
                    low=0.0,
                    alerts=("LeewayDrift",),
                ),
                Panel(
                    "All alarms by direction",
                    "Changes, explained ones among them, by where the mean went.",
                    "short",
                    (
                        Query(
                            grown("leeway_alarms_total", "decision_point, direction"),
                            "{{decision_point}} {{direction}}",
                        ),
                    ),
                    low=0.0,
                ),
                Panel(
                    "Calls for retraining",
                    "Alarms that called for retraining, and whether an alarm holds promotions (1).",
                    "short",
                    (
                        Query(
                            grown("leeway_retraining_requests_total", "decision_point"),
                            "{{decision_point}} calls",
                        ),
                        Query(
                            f"max by (decision_point) ({gauge('leeway_promotion_held')})",
                            "{{decision_point}} promotion held",
                        ),
                    ),
                    low=0.0,
                    alerts=("LeewayPromotionHeld",),
                ),
            ),
        ),
        Row(
            "Monitors",
            (
                Panel(
                    "Run length of the reward",
                    "Feedbacks since the last change; it falls to the feedbacks after the change at an alarm.",
                    "short",
                    (
                        Query(
                            f"max by (decision_point) ({gauge('leeway_reward_monitor_run_length')})",
                            "{{decision_point}}",
                        ),
                    ),
                    low=0.0,
                ),
                Panel(
                    "Run length of the streams",
                    "Observations since the last change, the least of the monitor's streams; 0 while its "
                    "reference is collected.",
                    "short",
                    (Query(f"max by (decision_point, monitor) ({gauge('leeway_monitor_run_length')})", _MONITOR),),
                    low=0.0,
                ),
                Panel(
                    "Streams",
                    "How many streams each monitor watches; 0 while its reference is collected.",
                    "short",
                    (Query(f"max by (decision_point, monitor) ({gauge('leeway_monitor_streams')})", _MONITOR),),
                    low=0.0,
                ),
                Panel(
                    "Distance from the reference",
                    "Jensen-Shannon distance of the latest block of observations, the greatest of all streams. "
                    "What grows and does not come back is a drift in the making.",
                    "short",
                    (Query(f"max by (decision_point, monitor) ({gauge('leeway_monitor_divergence')})", _MONITOR),),
                    low=0.0,
                    alerts=("LeewayRunaway",),
                ),
                Panel(
                    "Streams that run away",
                    "Streams whose distance from the reference grows and shows no restoring force.",
                    "short",
                    (Query(f"max by (decision_point, monitor) ({gauge('leeway_monitor_runaway_streams')})", _MONITOR),),
                    low=0.0,
                    limit=1.0,
                    alerts=("LeewayRunaway",),
                ),
                Panel(
                    "Feedback watched",
                    "Feedbacks that the monitors see in a second; at 0 they notice nothing.",
                    "reqps",
                    (
                        Query(
                            f"max by (decision_point) ({rate('leeway_monitor_feedback_total')})", "{{decision_point}}"
                        ),
                    ),
                    low=0.0,
                ),
            ),
        ),
    ),
)
