"""Generations and oscillation: trainings, the gate, what each generation earned, whether they undo each other."""

from __future__ import annotations

from monitoring.dashboards.model import Dashboard, Panel, Query, Row, gauge, grown

_EACH = "{{decision_point}} generation {{generation}}"
_POINT = "{{decision_point}}"
_ASKED = ',reason=~"drift|schedule"'
_REWARD, _ERROR = gauge("leeway_recent_generation_reward_mean"), gauge("leeway_recent_generation_reward_standard_error")

GENERATIONS = Dashboard(
    "leeway-generations",
    "Leeway / Generations and oscillation",
    "Trainings and the gate's verdicts, what each generation earned, and whether generations undo each other's work.",
    (
        Row(
            "Generations",
            (
                Panel(
                    "Generation that serves",
                    "Each step is a promotion or a rollback.",
                    "none",
                    (Query(f"max by (decision_point) ({gauge('leeway_policy_generation')})", _POINT),),
                ),
                Panel(
                    "Reward by generation",
                    "Mean reward while each of the latest five generations acted, and its 95 % interval.",
                    "short",
                    (
                        Query(f"max by (decision_point, generation) ({_REWARD})", _EACH),
                        Query(f"max by (decision_point, generation) ({_REWARD} - 1.96 * {_ERROR})", f"{_EACH} low"),
                        Query(f"max by (decision_point, generation) ({_REWARD} + 1.96 * {_ERROR})", f"{_EACH} high"),
                    ),
                    width=16,
                ),
                Panel(
                    "Feedback of each generation",
                    "How many feedbacks each of the latest five has.",
                    "short",
                    (
                        Query(
                            f"max by (decision_point, generation) ({gauge('leeway_recent_generation_feedback_total')})",
                            _EACH,
                        ),
                    ),
                    low=0.0,
                ),
                Panel(
                    "Positive feedback",
                    "Share with a reward above the middle of the range, of the acting generation. A class that becomes "
                    "rare is the first sign of generations that undo each other's work.",
                    "percentunit",
                    (Query(f"max by (decision_point) ({gauge('leeway_generation_positives_ratio')})", _POINT),),
                    low=0.0,
                    high=1.0,
                ),
                Panel(
                    "Entropy of the acting generation",
                    "Mean entropy of its probability vectors so far, in nats.",
                    "short",
                    (Query(f"max by (decision_point) ({gauge('leeway_generation_entropy_nats')})", _POINT),),
                    low=0.0,
                ),
            ),
        ),
        Row(
            "Training and the gate",
            (
                Panel(
                    "Trainings by verdict",
                    "Generations in the ledger by what asked for them and the gate's verdict.",
                    "short",
                    (
                        Query(
                            "max by (decision_point, reason, result) "
                            f"({gauge('leeway_trainings_total')}) > 0 or max by (decision_point, reason, result) "
                            f"({gauge('leeway_trainings_total', _ASKED)})",
                            "{{decision_point}} {{reason}} {{result}}",
                        ),
                    ),
                    low=0.0,
                ),
                Panel(
                    "Verdict of the gate",
                    "The interval of the difference of the last trained policy from its champion: it is promoted where "
                    "the lower bound is above the margin.",
                    "short",
                    (
                        Query(f"max by (decision_point) ({gauge('leeway_gate_difference_low')})", f"{_POINT} low"),
                        Query(f"max by (decision_point) ({gauge('leeway_gate_difference_high')})", f"{_POINT} high"),
                    ),
                ),
                Panel(
                    "Estimates of the gate",
                    "Off-policy estimates of the last trained policy and of its champion on the same feedback.",
                    "short",
                    (
                        Query(f"max by (decision_point) ({gauge('leeway_gate_estimate')})", f"{_POINT} trained"),
                        Query(
                            f"max by (decision_point) ({gauge('leeway_gate_champion_estimate')})", f"{_POINT} champion"
                        ),
                    ),
                ),
                Panel(
                    "Time since the last training",
                    "Promoted or not.",
                    "s",
                    (
                        Query(
                            f"time() - max by (decision_point) ({gauge('leeway_training_timestamp_seconds')} > 0)",
                            _POINT,
                        ),
                    ),
                    low=0.0,
                    width=12,
                    alerts=("LeewayRetrainingOverdue", "LeewayScheduledJobOverdue"),
                ),
                Panel(
                    "Overdue",
                    "Periods that a scheduled training is late; below 0 it is not due yet.",
                    "short",
                    (
                        Query(
                            f"(time() - max by (decision_point) ({gauge('leeway_training_due_timestamp_seconds')}))"
                            f" / max by (decision_point) ({gauge('leeway_training_period_seconds')})",
                            _POINT,
                        ),
                    ),
                    width=12,
                    limit=1.0,
                    alerts=("LeewayRetrainingOverdue",),
                ),
            ),
        ),
        Row(
            "Oscillation",
            (
                Panel(
                    "Oscillation declared",
                    "1 while the generations are declared to oscillate; they are damped then.",
                    "short",
                    (Query(f"max by (decision_point) ({gauge('leeway_oscillation_declared')})", _POINT),),
                    low=0.0,
                    high=1.0,
                    limit=1.0,
                    alerts=("LeewayOscillation",),
                ),
                Panel(
                    "Test for oscillation",
                    "p value of the last look, and the level at which it would have been declared. Looks are after "
                    "9 generations and after every 3 more.",
                    "short",
                    (
                        Query(f"max by (decision_point) ({gauge('leeway_oscillation_p_value')})", f"{_POINT} p"),
                        Query(f"max by (decision_point) ({gauge('leeway_oscillation_level')})", f"{_POINT} level"),
                    ),
                    low=0.0,
                    high=1.0,
                ),
                Panel(
                    "Period and amplitude",
                    "Generations after which they return most clearly, and by how much the best phase earns more "
                    "than the worst.",
                    "short",
                    (
                        Query(
                            f"max by (decision_point) ({gauge('leeway_oscillation_period_generations')})",
                            f"{_POINT} period",
                        ),
                        Query(
                            f"max by (decision_point) ({gauge('leeway_oscillation_amplitude')})", f"{_POINT} amplitude"
                        ),
                    ),
                    low=0.0,
                ),
                Panel(
                    "Alarms while they acted",
                    "Drift alarms: a generation that earns less while one stands here did not cause it.",
                    "short",
                    (
                        Query(
                            grown("leeway_drift_alarms_total", "decision_point"),
                            _POINT,
                        ),
                    ),
                    width=24,
                    height=5,
                    low=0.0,
                    alerts=("LeewayDrift",),
                ),
            ),
        ),
    ),
)
