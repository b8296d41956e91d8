"""The gate: may this candidate become champion?

A pure function of the evaluations and the configuration; what it saw and what it said are kept with the run.
"""

from __future__ import annotations

from dataclasses import dataclass

from training.config import GateConfig
from training.evaluation import (
    ANYTIME,
    ESTIMATORS,
    INTERVALS,
    Interval,
    IntervalMethod,
    SlateEstimator,
    Student,
    Support,
    difference,
)
from training.evaluation.lists import ListEvaluation
from training.evaluation.policy import PolicyEvaluation
from training.window_quality import WindowQuality

#: The judge. Unbiased with logged propensities, and of less variance than the weights alone.
ESTIMATOR = ESTIMATORS["dr"]

#: Standard errors by which the mean importance weight may miss its expectation: true propensities are refused once
#: in 16,000 times, and wrong ones miss it by far more.
MAX_WEIGHT_DEVIATION = 4.0

#: By how much, in shares of the reward's range, mean prediction and mean reward may differ. The exploration turns
#: gaps between scores into probabilities, so scores on a wrong scale explore too little or too much.
MAX_CALIBRATION_ERROR = 0.1


@dataclass(frozen=True)
class Check:
    """One condition of the gate.

    Attributes
    ----------
    name
        Of the condition, for metrics and tags.
    holds
        Whether it is met.
    value, bound
        What was found, and what it was held against.
    words
        The condition and the finding as a person would say them.
    """

    name: str
    holds: bool
    value: float
    bound: float
    words: str


@dataclass(frozen=True)
class Verdict:
    """What the gate decided.

    Attributes
    ----------
    checks
        All conditions, met or not.
    difference
        Candidate minus champion, doubly robust, with its one-sided bounds.
    confidence
        Of each of these bounds, after the correction for the number of candidates.
    interval
        How the bounds were made: a name in ``training.evaluation.INTERVALS``.
    """

    checks: tuple[Check, ...]
    difference: Interval
    confidence: float
    interval: str = Student.name

    @property
    def promoted(self) -> bool:
        """Whether every check holds."""
        return all(check.holds for check in self.checks)

    @property
    def summary(self) -> str:
        """The verdict in one line: what failed and by how much, or by how much the candidate is better."""
        if self.promoted:
            return (
                f"promoted: better than the champion by {self.difference.value:+.4f} "
                f"(at least {self.difference.low:+.4f} with {self.confidence:.4g} confidence)"
            )
        return "refused: " + "; ".join(check.words for check in self.checks if not check.holds)


def judge(
    candidate: PolicyEvaluation,
    champion: PolicyEvaluation,
    config: GateConfig,
    *,
    comparisons: int,
    reward_range: tuple[float, float],
    window: WindowQuality | None = None,
    oscillating: bool = False,
) -> Verdict:
    """Judge a candidate against the champion on the same held-back feedback.

    Parameters
    ----------
    candidate, champion
        Their evaluations.
    config
        The conditions. ``confidence`` is one-sided: the lower bound of the difference lies above the truth in at
        most ``1 - confidence`` of all samples.
    comparisons
        How many candidates are judged by the same feedback. The best of several looks better than it is, so each
        is held to ``1 - (1 - confidence) / comparisons`` (Bonferroni): the chance that any candidate which is no
        better passes stays within ``1 - confidence``, whichever of those that pass is taken.
    reward_range
        The decision point's range of reward.
    window
        The quality of the window that the candidate was trained on; ``None``: not judged.
    oscillating
        Whether the rewards of the generations go up and down by themselves and the candidate is not damped: another
        promotion would go on with it.
    """
    confidence = 1.0 - (1.0 - config.confidence) / comparisons
    method = interval_method(config)
    gain = difference(ESTIMATOR, candidate.rows, champion.rows, confidence, method, reward_range)
    checks = (
        _rows(candidate, config),
        _effective_sample_size(candidate, config),
        _support(candidate, config),
        _propensities(candidate),
        _logged(candidate, config),
        _calibration(candidate, reward_range),
        _divergence(candidate, config),
        *([] if window is None else _window(window, config)),
        _oscillation(oscillating),
        _better(gain, confidence, config),
    )
    return Verdict(checks, gain, confidence, method.name)


def interval_method(config: GateConfig) -> IntervalMethod:
    """Return what makes the interval of the difference."""
    return INTERVALS[ANYTIME if config.interval == "anytime" else config.interval]


def _rows(candidate: PolicyEvaluation, config: GateConfig) -> Check:
    n, least = len(candidate.rows), config.min_events
    return Check("rows", n >= least, n, least, f"{n} held-back feedbacks of at least {least} (gate.min_events)")


def _effective_sample_size(candidate: PolicyEvaluation, config: GateConfig) -> Check:
    return _size(candidate.estimates[ESTIMATOR.name].effective_sample_size, config)


def _size(size: float, config: GateConfig) -> Check:
    least = config.min_effective_sample_size
    return Check(
        "effective_sample_size",
        size >= least,
        size,
        least,
        f"effective sample size {size:.1f} of at least {least:g} (gate.min_effective_sample_size): "
        "the champion explored too little of what the candidate would do",
    )


def _support(candidate: PolicyEvaluation | ListEvaluation, config: GateConfig) -> Check:
    share, most = candidate.unsupported, config.max_unsupported
    return Check(
        "support",
        share <= most,
        share,
        most,
        f"{share:.2%} of the candidate's probability is on actions logged with probability 0, "
        f"at most {most:.2%} allowed (gate.max_unsupported)",
    )


def _propensities(candidate: PolicyEvaluation | ListEvaluation) -> Check:
    test = candidate.weights
    return Check(
        "propensities",
        abs(test.z) <= MAX_WEIGHT_DEVIATION,
        test.z,
        MAX_WEIGHT_DEVIATION,
        f"mean clipped importance weight {test.mean:.3f} is {abs(test.z):.1f} standard errors from "
        f"{test.expected:.3f}, at most {MAX_WEIGHT_DEVIATION:g} allowed: "
        "the logged propensities may not be those of the draws",
    )


def _logged(candidate: PolicyEvaluation, config: GateConfig) -> Check:
    estimated = candidate.rows.estimated
    return Check(
        "logged_propensities",
        not estimated or config.allow_estimated_propensities,
        float(estimated),
        float(config.allow_estimated_propensities),
        "the propensities are estimated, not logged: no interval knows their error "
        "(gate.allow_estimated_propensities: true judges all the same)",
    )


def _divergence(candidate: PolicyEvaluation, config: GateConfig) -> Check:
    found, most = candidate.divergence, config.max_total_variation
    return Check(
        "divergence",
        found.total_variation <= most,
        found.total_variation,
        most,
        f"{found.total_variation:.1%} of the decisions would be others than the logging policies' "
        f"(Kullback-Leibler divergence {found.kl:.3f}), at most {most:.1%} allowed (gate.max_total_variation)",
    )


def _window(window: WindowQuality, config: GateConfig) -> list[Check]:
    low, high = config.positives
    outside = window.positives - min(max(window.positives, low), high)
    checks = [
        Check(
            "coverage",
            window.coverage >= config.min_coverage,
            window.coverage,
            config.min_coverage,
            f"{window.coverage:.1%} of what was offered in the window, by kind of context, was ever tried, at least "
            f"{config.min_coverage:.1%} asked for (gate.min_coverage)",
        ),
        Check(
            "trajectory_quality",
            window.trajectory_quality >= config.min_trajectory_quality,
            window.trajectory_quality,
            config.min_trajectory_quality,
            f"the window's reward lies at {window.trajectory_quality:.2f} between the worst policy's (0) and the best "
            f"one's (1), at least {config.min_trajectory_quality:.2f} asked for (gate.min_trajectory_quality)",
        ),
        Check(
            "positives",
            outside == 0.0,
            window.positives,
            high if outside > 0.0 else low,
            f"{window.positives:.2%} of the window's rewards are in the upper half of their range, allowed are "
            f"{low:.2%} to {high:.2%} (gate.positives)",
        ),
    ]
    if config.max_drifts is not None:
        words = (
            f"{window.drifts} unexplained changes inside the window, at most {config.max_drifts} allowed "
            "(gate.max_drifts): train on what came after the last one (--since-ms)"
        )
        checks.append(Check("drifts", window.drifts <= config.max_drifts, window.drifts, config.max_drifts, words))
    return checks


def _oscillation(oscillating: bool) -> Check:
    return Check(
        "oscillation",
        not oscillating,
        float(oscillating),
        0.0,
        "the generations' rewards go up and down by themselves, and nothing damps them: another promotion would go on "
        "with it; let damping.when be declared or always",
    )


def _calibration(candidate: PolicyEvaluation, reward_range: tuple[float, float]) -> Check:
    observed = float(candidate.rows.reward.mean())
    predicted = observed if candidate.predicted is None else float(candidate.predicted.mean())
    return _calibrated(observed, predicted, reward_range)


def _calibrated(observed: float, predicted: float, reward_range: tuple[float, float]) -> Check:
    most = MAX_CALIBRATION_ERROR * (reward_range[1] - reward_range[0])
    return Check(
        "calibration",
        abs(predicted - observed) <= most,
        predicted - observed,
        most,
        f"predicted mean reward {predicted:.4f} of the actions taken, observed {observed:.4f}: "
        f"{abs(predicted - observed):.4f} apart, at most {most:g} allowed",
    )


def judge_lists(
    candidate: ListEvaluation, champion: ListEvaluation, config: GateConfig, estimator: SlateEstimator
) -> Verdict:
    """Judge a recommender's candidate against its champion on the same held-back lists.

    Parameters
    ----------
    candidate, champion
        Their evaluations.
    config
        The conditions; ``confidence`` is one-sided.
    estimator
        The judge.
    """
    lists, confidence = candidate.lists, config.confidence
    apart = estimator.contributions(lists) - estimator.contributions(champion.lists)
    gain = Student().interval(apart, confidence, Support())
    n, size = len(lists), candidate.effective_sample_sizes[estimator.name]
    support, difference_ = _support(candidate, config), _better(gain, confidence, config)
    checks = (
        Check(
            "rows", n >= config.min_events, n, config.min_events,
            f"{n} held-back lists of at least {config.min_events} (gate.min_events)",
        ),
        _size(size, config),
        support,
        _propensities(candidate),
        _calibrated(candidate.observed, candidate.predicted, candidate.reward_range),
        difference_,
    )  # fmt: skip
    return Verdict(checks, gain, confidence)


def _better(gain: Interval, confidence: float, config: GateConfig) -> Check:
    return Check(
        "difference",
        gain.low >= config.margin,
        gain.low,
        config.margin,
        f"difference to the champion {gain.value:+.4f}, lower bound {gain.low:+.4f} ({confidence:.4g} confidence, "
        f"{config.interval}) "
        f"does not reach the margin {config.margin:+g} (gate.margin)",
    )
