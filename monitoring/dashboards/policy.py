"""Policy and exploration: what serves, how much it explores, what it learns, whether its propensities are right."""

from __future__ import annotations

from monitoring.dashboards.model import Dashboard, Panel, Query, Row, buckets, gauge, grown, quantile, rate

POLICY = Dashboard(
    "leeway-policy",
    "Leeway / Policy and exploration",
    "What serves, how much it explores, what it learns, and whether its propensities are right.",
    (
        Row(
            "Exploration",
            (
                Panel(
                    "Entropy of the probability vectors",
                    "Mean over the feedback of the time; 0 is no exploration, ln K is uniform over K actions.",
                    "short",
                    (
                        Query(
                            f"max by (decision_point) ({rate('leeway_propensity_entropy_nats_total')})"
                            f" / max by (decision_point) ({rate('leeway_monitor_feedback_total')})",
                            "{{decision_point}}",
                        ),
                        Query(
                            f"max by (decision_point) ({gauge('leeway_generation_entropy_nats')})",
                            "{{decision_point}} generation so far",
                        ),
                    ),
                    low=0.0,
                ),
                Panel(
                    "Propensity of the chosen action",
                    "Distribution over decisions: near 1 is greedy, the rest is exploration.",
                    "percentunit",
                    (Query(buckets("leeway_propensity_ratio"), "{{le}}"),),
                    "heatmap",
                ),
                Panel(
                    "Quantiles of the propensity",
                    "Tenth and median. A tenth that falls towards 0 makes off-policy estimates noisy.",
                    "percentunit",
                    (
                        Query(quantile(0.1, "leeway_propensity_ratio"), "{{decision_point}} 10 %"),
                        Query(quantile(0.5, "leeway_propensity_ratio"), "{{decision_point}} 50 %"),
                    ),
                    low=0.0,
                    high=1.0,
                ),
            ),
        ),
        Row(
            "Decisions",
            (
                Panel(
                    "Decisions by reason",
                    "Of the policy (none), or a fallback and why: too little time, or the oracle failed.",
                    "reqps",
                    (
                        Query(
                            f"sum by (decision_point, fallback) ({rate('leeway_decisions_total')})",
                            "{{decision_point}} {{fallback}}",
                        ),
                    ),
                    low=0.0,
                ),
                Panel(
                    "Feedback by generation",
                    "Which generation made the decisions whose feedback comes in; a canary has a number of its own.",
                    "reqps",
                    (
                        Query(
                            f"max by (decision_point, generation) ({rate('leeway_recent_generation_feedback_total')})",
                            "{{decision_point}} generation {{generation}}",
                        ),
                    ),
                    low=0.0,
                ),
                Panel(
                    "Propensities recomputed",
                    "Decisions recomputed from their policies by whether they were the same. One that differs makes "
                    "every estimate doubtful.",
                    "reqps",
                    (
                        Query(
                            f"sum by (decision_point, result) ({rate('leeway_propensity_audits_total')})",
                            "{{decision_point}} {{result}}",
                        ),
                    ),
                    low=0.0,
                    alerts=("LeewayWrongPropensity",),
                ),
            ),
        ),
        Row(
            "Learning",
            (
                Panel(
                    "Feedback learned",
                    "By the online learner, in a second.",
                    "reqps",
                    (
                        Query(
                            f"sum by (decision_point) ({rate('leeway_learner_feedback_total')})", "{{decision_point}}"
                        ),
                    ),
                    low=0.0,
                ),
                Panel(
                    "Time since it last learned",
                    "Of the online learner. It grows where no feedback comes, or where the learner stands still.",
                    "s",
                    (
                        Query(
                            "time() - max by (decision_point) "
                            f"({gauge('leeway_learner_last_learned_timestamp_seconds')} > 0)",
                            "{{decision_point}}",
                        ),
                    ),
                    low=0.0,
                ),
                Panel(
                    "Age of the snapshot that serves",
                    "How long ago the policy that serves was made, of the server that is furthest behind.",
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
                Panel(
                    "Policies taken into service",
                    "Swaps, and policies that could not be loaded.",
                    "short",
                    (
                        Query(
                            grown("leeway_policy_swaps_total", "decision_point"),
                            "{{decision_point}} swaps",
                        ),
                        Query(
                            grown("leeway_policy_load_errors_total", "decision_point"),
                            "{{decision_point}} errors",
                        ),
                    ),
                    width=12,
                    low=0.0,
                    alerts=("LeewayPolicyNotLoaded",),
                ),
                Panel(
                    "Feedback in the policy that serves",
                    "Feedbacks that it has learned; it begins anew with a generation that was trained on less.",
                    "short",
                    (
                        Query(
                            f"max by (decision_point) ({gauge('leeway_policy_learned_feedback')})", "{{decision_point}}"
                        ),
                    ),
                    width=12,
                    low=0.0,
                ),
            ),
        ),
    ),
)
