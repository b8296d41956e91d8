"""The gate: each condition by itself, and how often it lets something pass that is no better."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tests.training.arrays import Bandit, like_logging
from training.config import GateConfig
from training.evaluation import ESTIMATORS, LoggedRows, estimate
from training.evaluation.policy import Bounds, PolicyEvaluation, evaluate_rows
from training.gate import Verdict, judge
from training.gate_report import gate_report
from training.window_quality import WindowQuality

SEEDS = 200


def evaluation(rows: LoggedRows, calibration_error: float = 0.0) -> PolicyEvaluation:
    return evaluate_rows(rows, rows.reward + calibration_error, Bounds(estimators=("dr",)))


def two_actions(n: int, good: float, bad: float, target: tuple[float, float], seed: int = 0) -> LoggedRows:
    """Rows of a champion that draws both of two actions alike; the first is the good one."""
    rng = np.random.default_rng(seed)
    chosen = rng.integers(2, size=n)
    return LoggedRows(
        starts=np.arange(n + 1) * 2,
        chosen=np.arange(n) * 2 + chosen,
        reward=(rng.random(n) < np.where(chosen == 0, good, bad)).astype(np.float64),
        logged=np.full(2 * n, 0.5),
        target=np.tile(target, n),
        q_hat=np.tile([good, bad], n),
    )


def verdict(
    rows: LoggedRows,
    config: GateConfig | None = None,
    *,
    comparisons: int = 1,
    calibration_error: float = 0.0,
    window: WindowQuality | None = None,
    oscillating: bool = False,
) -> Verdict:
    return judge(
        evaluation(rows, calibration_error),
        evaluation(like_logging(rows)),
        config or GateConfig(),
        comparisons=comparisons,
        reward_range=(0.0, 1.0),
        window=window,
        oscillating=oscillating,
    )


def failed(found: Verdict) -> list[str]:
    return [check.name for check in found.checks if not check.holds]


BETTER = two_actions(1_000, good=0.8, bad=0.2, target=(0.9, 0.1))


def test_a_candidate_that_is_better_beyond_doubt_is_promoted() -> None:
    found = verdict(BETTER)
    assert found.promoted
    assert failed(found) == []
    assert found.difference.value == pytest.approx(0.24, abs=0.03)  # 0.4 more on the good action, worth 0.6 more
    assert found.summary.startswith("promoted: better than the champion by +0.2")


def test_a_worse_candidate_is_refused_and_told_by_how_much() -> None:
    found = verdict(two_actions(1_000, good=0.8, bad=0.2, target=(0.1, 0.9)))
    assert failed(found) == ["difference"]
    assert found.difference.high < 0.0
    assert "difference to the champion -0.2" in found.summary
    assert "gate.margin" in found.summary


def test_better_by_less_than_the_margin_is_refused() -> None:
    low = verdict(BETTER).difference.low
    assert verdict(BETTER, GateConfig(margin=low - 1e-6)).promoted
    assert failed(verdict(BETTER, GateConfig(margin=low + 1e-6))) == ["difference"]


def test_too_few_rows_are_refused_however_good_they_look() -> None:
    few = two_actions(199, good=0.8, bad=0.2, target=(0.9, 0.1))
    assert failed(verdict(few)) == ["rows"]
    assert "199 held-back feedbacks of at least 200" in verdict(few).summary
    assert verdict(few, GateConfig(min_events=199)).promoted


def test_a_small_effective_sample_is_refused() -> None:
    size = evaluation(BETTER).estimates["dr"].effective_sample_size
    assert failed(verdict(BETTER, GateConfig(min_effective_sample_size=size + 0.01))) == ["effective_sample_size"]
    assert verdict(BETTER, GateConfig(min_effective_sample_size=size)).promoted


def test_a_candidate_that_wants_what_was_never_tried_is_refused() -> None:
    n = len(BETTER)
    # A third action, excluded from the draw by the champion, on which the candidate puts 2 %.
    rows = LoggedRows(
        starts=np.arange(n + 1) * 3,
        chosen=np.arange(n) * 3 + (BETTER.chosen - BETTER.starts[:-1]),
        reward=BETTER.reward,
        logged=np.tile([0.5, 0.5, 0.0], n),
        target=np.tile([0.9, 0.08, 0.02], n),
        q_hat=np.tile([0.8, 0.2, 0.5], n),
    )
    found = verdict(rows)
    assert failed(found) == ["support"]
    assert "2.00%" in found.summary
    assert verdict(rows, GateConfig(max_unsupported=0.03)).promoted


def test_logged_propensities_that_are_not_those_of_the_draws_are_noticed() -> None:
    # Drawn 50:50; logged as 25:75.
    rows = replace(BETTER, logged=np.tile([0.25, 0.75], len(BETTER)))
    assert failed(verdict(rows)) == ["propensities"]
    assert "may not be those of the draws" in verdict(rows).summary


@pytest.mark.parametrize("error", [0.11, -0.11])
def test_scores_on_a_wrong_scale_are_refused(error: float) -> None:
    assert failed(verdict(BETTER, calibration_error=error)) == ["calibration"]
    assert verdict(BETTER, calibration_error=error * 0.8).promoted


GOOD = WindowQuality(coverage=0.9, trajectory_quality=0.6, positives=0.5, drifts=1)


@pytest.mark.parametrize(
    ("settings", "name", "words"),
    [
        ({"min_coverage": 0.95}, "coverage", "90.0% of what was offered"),
        ({"min_trajectory_quality": 0.7}, "trajectory_quality", "lies at 0.60"),
        ({"positives": (0.6, 0.9)}, "positives", "allowed are 60.00% to 90.00%"),
        ({"positives": (0.1, 0.4)}, "positives", "allowed are 10.00% to 40.00%"),
        ({"max_drifts": 0}, "drifts", "1 unexplained changes inside the window"),
        ({"max_total_variation": 0.3}, "divergence", "40.0% of the decisions would be others"),
    ],
)
def test_a_window_or_a_distance_beyond_its_bounds_is_refused(
    settings: dict[str, object], name: str, words: str
) -> None:
    assert failed(verdict(BETTER, window=GOOD)) == []  # measured, and not bounded where nothing is said
    found = verdict(BETTER, GateConfig.model_validate(settings), window=GOOD)
    assert failed(found) == [name]
    assert words in found.summary
    assert f"gate.{next(iter(settings))}" in found.summary


def test_generations_that_go_up_and_down_get_no_other() -> None:
    found = verdict(BETTER, oscillating=True)
    assert failed(found) == ["oscillation"]
    assert "go up and down" in found.summary


def test_estimated_propensities_are_refused_unless_they_are_allowed() -> None:
    guessed = replace(BETTER, estimated=True)
    found = verdict(guessed)
    assert failed(found) == ["logged_propensities"]
    assert "gate.allow_estimated_propensities" in found.summary
    assert verdict(guessed, GateConfig(allow_estimated_propensities=True)).promoted


def test_the_interval_is_the_one_that_is_configured() -> None:
    lows = {}
    for interval in ("student", "bootstrap", "empirical_bernstein", "anytime"):
        found = verdict(BETTER, GateConfig.model_validate({"interval": interval}))
        lows[interval] = found.difference.low
        assert found.interval == ("betting" if interval == "anytime" else interval)
        assert found.promoted
    assert lows["bootstrap"] == pytest.approx(lows["student"], abs=0.01)
    assert max(lows["empirical_bernstein"], lows["anytime"]) < lows["student"]


def test_the_report_says_what_failed_and_by_how_much_and_needs_nothing_else() -> None:
    candidate = evaluation(replace(BETTER, estimated=True), calibration_error=0.25)
    champion = evaluation(like_logging(BETTER))
    config = GateConfig(min_coverage=0.95)
    found = judge(candidate, champion, config, comparisons=1, reward_range=(0.0, 1.0), window=GOOD)
    page = gate_report("offers: <drift>", {"linear": found}, {"champion": champion, "linear": candidate}, GOOD)
    assert "<h1>offers: &lt;drift&gt;</h1>" in page
    assert "linear: refused" in page
    for name, by in (("coverage", "0.05"), ("calibration", "0.15"), ("logged_propensities", "1")):
        row = next(part for part in page.split("<tr") if f"<td>{name}</td>" in part)
        assert row.startswith(' class="fails"')
        assert f'<td class="number">{by}</td>' in row
    assert 'class="fails"' not in next(part for part in page.split("<tr") if "<td>rows</td>" in part)
    assert "were estimated, not logged" in page
    assert page.count("data:image/png;base64,") == 3
    for outside in ("http:", "https:", "<script", "<link"):
        assert outside not in page


def test_all_that_failed_is_named() -> None:
    found = verdict(two_actions(100, good=0.8, bad=0.2, target=(0.1, 0.9)), calibration_error=0.5)
    assert set(failed(found)) >= {"rows", "calibration", "difference"}
    for words in ("gate.min_events", "predicted mean reward", "gate.margin"):
        assert words in found.summary
    assert "\n" not in found.summary


def test_the_best_of_several_candidates_must_show_more() -> None:
    one, three = verdict(BETTER), verdict(BETTER, comparisons=3)
    assert [one.confidence, three.confidence] == pytest.approx([0.95, 1 - 0.05 / 3])
    assert three.difference.value == one.difference.value
    assert three.difference.low < one.difference.low


@pytest.mark.parametrize("candidates", [1, 3])
def test_candidates_that_are_no_better_seldom_pass(candidates: int) -> None:
    """Both actions are alike, so that every policy is: whatever is promoted is promoted by chance."""
    promoted = 0
    for seed in range(SEEDS):
        targets = [(0.9, 0.1), (0.1, 0.9), (0.7, 0.3)][:candidates]
        found = [two_actions(400, good=0.5, bad=0.5, target=target, seed=seed) for target in targets]
        best = max(found, key=lambda rows: estimate(ESTIMATORS["dr"], rows).value)
        promoted += verdict(best, comparisons=candidates).promoted
    # 5 % of 200 is 10; 99.9 % of binomial counts lie below 21.
    assert promoted <= 20


def test_a_candidate_that_is_a_little_better_passes_more_often_with_more_feedback() -> None:
    bandit = Bandit()
    gain = bandit.truth - bandit.logging_truth
    sign = 1.0 if gain > 0 else -1.0

    def share(n: int) -> float:
        count = 0
        for seed in range(40):
            rows = bandit.sample(n, seed)
            # Either the target or the logging policy is the better one; the reward's sign decides which.
            rows = replace(rows, reward=rows.reward * sign, q_hat=rows.model * sign)
            count += verdict(rows).difference.low > 0.0
        return count / 40

    assert share(300) < share(3_000)
    assert share(30_000) > 0.9
