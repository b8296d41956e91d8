"""The whole retraining on a small world: promoted when better, refused when not, and all of it on record."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose

from engine.oracles import LinearLearner
from engine.records import Generation
from tests.training.floor import BOTH, CONFIG, ROWS, Floor, Past
from tests.training.swinging import books, swinging
from tests.training.world import NAME, POINT, START_MS, World
from training.archive import ArchiveReader
from training.config import DampingConfig, GateConfig
from training.evaluation.policy import PolicyEvaluation
from training.evaluation.target import policy_pmf
from training.gate import Check, Verdict, judge
from training.job import ExitCode, Outcome, RetrainJob
from training.learner_file import learner_path, read_learner
from training.mlflow_import import mlflow
from training.pipeline import retrain
from training.registry import Registry


@pytest.fixture(scope="module")
def promoted(drifted: Past, empty_database: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Floor, Outcome]:
    """One retraining after a drift, for all tests that only look at it."""
    directory = tmp_path_factory.mktemp("promoted")
    (directory / "mlflow.db").write_bytes(empty_database.read_bytes())
    floor = Floor(directory, Registry(f"sqlite:///{directory}/mlflow.db"))
    return floor, floor.retrain(drifted, BOTH)


def test_after_a_drift_the_better_policy_is_promoted(drifted: Past, promoted: tuple[Floor, Outcome]) -> None:
    _, outcome = promoted
    assert outcome.exit_code == ExitCode.PROMOTED, outcome.words
    assert outcome.champion == drifted.champion.version
    assert outcome.held_back == ROWS // 4
    assert outcome.policy is not None
    assert outcome.policy.generation == 2
    # It is better in truth, too: in a new stretch of the drifted world it finds the right action far more often.
    world = World(seed=77, shift=1)
    gain = np.mean([f.reward for f in world.stream(outcome.policy, 600)]) - np.mean(
        [f.reward for f in world.stream(drifted.champion, 600)]
    )
    assert gain > 0.1
    assert outcome.verdict is not None
    assert outcome.verdict.difference.low <= gain <= outcome.verdict.difference.high + 0.06
    assert outcome.verdict.confidence == pytest.approx(0.975)  # two candidates share the 5 %


def test_what_was_evaluated_is_what_is_kept(drifted: Past, promoted: tuple[Floor, Outcome]) -> None:
    floor, outcome = promoted
    assert outcome.policy is not None
    saved = floor.store.load(NAME, outcome.policy.version)
    assert saved.digest() == outcome.policy.digest()
    assert saved.learned == ROWS - outcome.held_back
    champion = floor.registry.champion(NAME)
    assert champion is not None
    assert floor.registry.load(champion).version == outcome.policy.version
    # The estimate can be computed again from what is on disk.
    held = ArchiveReader(drifted.archive).read(NAME, POINT, START_MS).rows(slice(ROWS - outcome.held_back, ROWS))
    weights = policy_pmf(saved, held)[held.chosen_flat] / held.propensity
    assert np.mean(weights * held.reward) == pytest.approx(outcome.estimates[saved.oracle.kind]["ips"].value)
    # Serving is not switched here: that is the learner's.
    assert floor.store.current(NAME) == drifted.champion.version


def test_the_ledger_has_the_whole_story(drifted: Past, promoted: tuple[Floor, Outcome]) -> None:
    floor, outcome = promoted
    [entry] = floor.ledger.entries
    assert outcome.policy is not None
    assert outcome.verdict is not None
    assert entry == outcome.generation
    assert (entry.decision_point, entry.generation, entry.policy_version) == (NAME, 2, outcome.policy.version)
    assert (entry.window_start_ms, entry.window_end_ms, entry.rows) == (START_MS, drifted.now_ms, ROWS)
    assert (entry.reason, entry.promoted, entry.registry_version) == ("drift", True, "1")
    assert entry.run_id == outcome.run_id
    assert entry.verdict == outcome.words
    assert entry.estimate > entry.champion_estimate
    assert (entry.difference_low, entry.difference_high) == (
        outcome.verdict.difference.low,
        outcome.verdict.difference.high,
    )


def test_mlflow_shows_parameters_window_metrics_and_plots(promoted: tuple[Floor, Outcome]) -> None:
    floor, outcome = promoted
    assert outcome.generation is not None
    run = floor.client.get_run(outcome.run_id)
    assert run.info.status == "FINISHED"
    assert run.data.params["gate.confidence"] == "0.95"
    assert run.data.params["lightgbm.trees"] == "40"
    assert run.data.params["linear.ridge"] == "1.0"
    tags = run.data.tags
    assert tags["window_start_ms"] == str(START_MS)
    assert (tags["rows"], tags["reason"], tags["seed"], tags["code_version"]) == (str(ROWS), "drift", "0", "1.2.3")
    assert len(tags["data_digest"]) == 64
    assert tags["outcome"] == "promoted"
    metrics = run.data.metrics
    for policy in ("champion", "linear", "lightgbm"):
        for estimator in ("ips", "snips", "dm", "dr"):
            low, value, high = (metrics[f"{policy}/{estimator}{end}"] for end in ("_low", "", "_high"))
            assert low < value < high
        assert metrics[f"{policy}/effective_sample_size"] > 50
    assert 0.0 < metrics["logged/positives"] < 1.0
    assert 0.0 < metrics["logged/action_entropy"] < np.log(4)
    assert metrics[f"{outcome.generation.oracle}/gate/difference_holds"] == 1.0
    plots = {Path(file.path).name for file in floor.client.list_artifacts(outcome.run_id, "plots")}
    overlaps = {"overlap_linear.png", "overlap_lightgbm.png"}
    assert plots == overlaps | {"reward_over_time.png", "propensities.png", "calibration.png", "estimates.png"}
    assert 0.5 < metrics["window/coverage"] <= 1.0
    assert 0.0 < metrics["window/trajectory_quality"] < 1.0
    [report] = [Path(file.path).name for file in floor.client.list_artifacts(outcome.run_id, "gate")]
    assert report == "report.html"


def test_mlflow_loads_the_promoted_policy_by_its_alias(
    promoted: tuple[Floor, Outcome], monkeypatch: pytest.MonkeyPatch
) -> None:
    floor, outcome = promoted
    monkeypatch.setenv("MLFLOW_TRACKING_URI", floor.registry.tracking_uri)
    model = mlflow.pyfunc.load_model("models:/leeway-offers@champion")
    assert outcome.policy is not None
    assert model.unwrap_python_model().policy.version == outcome.policy.version


def test_the_report_is_plain_json(promoted: tuple[Floor, Outcome]) -> None:
    _, outcome = promoted
    report = json.loads(json.dumps(outcome.report()))
    assert (report["exit_code"], report["outcome"], report["rows"]) == (0, "promoted", ROWS)
    assert report["estimates"]["champion"]["dr"]["n"] == outcome.held_back
    assert {check["name"] for check in report["checks"]} >= {"difference", "support", "propensities"}


def test_the_learner_goes_on_from_a_promoted_linear_policy(drifted: Past, floor: Floor) -> None:
    outcome = floor.retrain(drifted)
    assert outcome.exit_code == ExitCode.PROMOTED
    assert outcome.policy is not None
    assert outcome.learner is not None
    learner = read_learner(learner_path(floor.store, NAME, outcome.policy.version))
    # The policy has not seen the held-back part; what goes on learning has, as if it had been there all the time.
    assert (outcome.policy.learned, learner.learned) == (ROWS - outcome.held_back, ROWS)
    rows = ArchiveReader(drifted.archive).read(NAME, POINT, START_MS)
    online = LinearLearner(rows.width)
    online.partial_fit(rows.chosen_matrix(), rows.chosen_actions(), rows.reward)
    theta = np.asarray(learner.oracle().arrays()["theta"], dtype=np.float64)
    assert_allclose(theta, online.oracle().theta, rtol=1e-9)
    assert not np.allclose(theta, np.asarray(outcome.policy.oracle.arrays()["theta"], dtype=np.float64))
    # The file is not taken for a policy.
    assert set(floor.store.versions(NAME)) == {drifted.champion.version, outcome.policy.version}


@pytest.mark.parametrize("holds", [["alarm a holds promotions"], [None, "alarm a holds promotions"]])
def test_while_an_alarm_holds_promotions_nothing_is_written(
    drifted: Past, floor: Floor, holds: list[str | None]
) -> None:
    """The alarm may come before the training or during it."""
    floor.holds = holds
    outcome = floor.retrain(drifted)
    assert outcome.exit_code is ExitCode.HELD
    assert "alarm a holds promotions" in outcome.words
    assert floor.ledger.generations(NAME) == []
    assert floor.registry.champion(NAME) is None
    assert floor.retrain(drifted).exit_code is ExitCode.PROMOTED


def test_an_equal_policy_is_not_promoted(equal: Past, floor: Floor) -> None:
    outcome = floor.retrain(equal, BOTH, reason="schedule")
    assert outcome.exit_code == ExitCode.REFUSED
    assert "gate.margin" in outcome.words
    assert floor.registry.champion(NAME) is None
    assert outcome.policy is not None
    assert floor.store.versions(NAME) == [equal.champion.version]
    # It can be looked at: a version with the alias of a challenger, a run, and an entry in the ledger.
    challenger = floor.client.get_model_version_by_alias("leeway-offers", "challenger")
    assert challenger.tags["gate"] == "refused"
    assert challenger.tags["policy_version"] == outcome.policy.version
    assert floor.client.get_run(outcome.run_id).data.tags["outcome"] == "refused"
    [entry] = floor.ledger.entries
    assert (entry.promoted, entry.rows, entry.reason) == (False, ROWS, "schedule")


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"min_events": ROWS + 1}, "1600 feedbacks in the window of at least 1601 (min_events)"),
        ({"gate": GateConfig(min_events=401)}, "400 feedbacks held back of at least 401 (gate.min_events)"),
    ],
)
def test_too_little_feedback_is_said_and_kept_as_a_run(
    drifted: Past, floor: Floor, config: dict[str, object], words: str
) -> None:
    outcome = floor.retrain(drifted, CONFIG.model_copy(update=config))
    assert outcome.exit_code == ExitCode.NOT_ENOUGH_DATA
    assert outcome.words.startswith(words)
    run = floor.client.get_run(outcome.run_id)
    assert (run.info.status, run.data.tags["outcome"]) == ("FINISHED", "not_enough_data")
    assert (floor.versions(), floor.ledger.entries) == (0, [])


def test_no_feedback_at_all_is_not_enough(drifted: Past, floor: Floor) -> None:
    outcome = floor.retrain(replace(drifted, archive=floor.directory / "nothing"))
    assert outcome.exit_code == ExitCode.NOT_ENOUGH_DATA
    assert floor.client.get_run(outcome.run_id).data.tags["rows"] == "0"


def test_the_same_feedback_gives_the_same_policy_anywhere(
    drifted: Past, floor: Floor, promoted: tuple[Floor, Outcome]
) -> None:
    outcome = floor.retrain(drifted, BOTH)
    assert outcome.policy is not None
    assert promoted[1].policy is not None
    assert outcome.policy.digest() == promoted[1].policy.digest()
    assert outcome.estimates == promoted[1].estimates


def test_a_dry_run_judges_and_writes_nothing(drifted: Past, floor: Floor, promoted: tuple[Floor, Outcome]) -> None:
    outcome = floor.retrain(drifted, BOTH, dry_run=True)
    assert outcome.exit_code == ExitCode.PROMOTED
    assert outcome.policy is not None
    assert promoted[1].policy is not None
    assert outcome.policy.version == promoted[1].policy.version
    assert (outcome.run_id, outcome.registry_version, floor.ledger.entries) == (None, None, [])
    assert floor.store.versions(NAME) == [drifted.champion.version]
    assert floor.client.search_experiments(filter_string="name = 'leeway'") == []


def test_the_held_back_part_is_the_newest_and_is_not_learned_from(drifted: Past, floor: Floor) -> None:
    """The policy is that of the same window without its newest quarter: what came later has no influence."""
    outcome = floor.retrain(drifted, dry_run=True)
    rows = ArchiveReader(drifted.archive).read(NAME, POINT, START_MS)
    end_ms = int(rows.time_ms[ROWS - outcome.held_back])
    fitted_on = ArchiveReader(drifted.archive).read(NAME, POINT, START_MS, end_ms)
    assert outcome.policy is not None
    assert len(fitted_on) == outcome.policy.learned == ROWS - outcome.held_back


def test_a_champion_whose_file_is_gone_is_replaced_by_the_log(drifted: Past, floor: Floor) -> None:
    floor.store.publish(drifted.champion)
    floor.store.path(NAME, drifted.champion.version).unlink()
    outcome = floor.again(drifted)
    assert outcome.exit_code == ExitCode.PROMOTED
    assert outcome.champion is None
    assert f"not with {drifted.champion.version}" in outcome.words
    # One champion acted all the time, so the log is worth the same as its policy.
    rows = ArchiveReader(drifted.archive).read(NAME, POINT, START_MS)
    assert outcome.estimates["champion"]["ips"].value == pytest.approx(rows.reward[-outcome.held_back :].mean())


def test_a_champion_with_other_features_is_replaced_by_the_log(drifted: Past, floor: Floor) -> None:
    context = dict(POINT.context)
    del context["segment"]
    outcome = floor.retrain(drifted, point=POINT.model_copy(update={"context": context}))
    assert outcome.champion is None
    assert "has other features" in outcome.words


def test_each_step_says_what_it_does(promoted: tuple[Floor, Outcome]) -> None:
    floor, outcome = promoted
    assert [line.split(":")[0] for line in floor.said[:8]] == [
        "extract",
        "check",
        "split",
        "fit",
        "evaluate",
        "fit and evaluate",
        "evaluate",
        "fit and evaluate",
    ]
    assert floor.said[-1] == outcome.words


def test_the_best_of_those_that_pass_is_taken(
    drifted: Past, floor: Floor, promoted: tuple[Floor, Outcome], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert promoted[1].policy is not None
    first = promoted[1].policy.oracle.kind

    def judge_but_refuse_the_first(candidate: PolicyEvaluation, *others: Any, **named: Any) -> Verdict:
        verdict = judge(candidate, *others, **named)
        if candidate.estimates != promoted[1].estimates[first]:
            return verdict
        return replace(verdict, checks=(*verdict.checks, Check("test", False, 0.0, 1.0, "refused by the test")))

    monkeypatch.setattr("training.pipeline.judge", judge_but_refuse_the_first)
    outcome = floor.retrain(drifted, BOTH, dry_run=True)
    assert outcome.exit_code == ExitCode.PROMOTED
    assert outcome.policy is not None
    assert outcome.policy.oracle.kind != first


def test_the_gate_hears_of_changes_inside_the_window_and_of_oscillation(drifted: Past, floor: Floor) -> None:
    asked: list[tuple[int, int]] = []

    def drifts(start_ms: int, end_ms: int) -> int:
        asked.append((start_ms, end_ms))
        return 2

    undamped = DampingConfig(when="never")
    config = CONFIG.model_copy(update={"gate": GateConfig(max_drifts=1), "damping": undamped})
    job = RetrainJob(NAME, POINT, config, floor.directory, "drift", START_MS, dry_run=True)
    floor.store.publish(drifted.champion)
    for g in range(16):
        floor.ledger.append(
            Generation(decision_point=NAME, generation=g, policy_version=f"g{g}.0-00000000", promoted=True)
        )
    outcome = retrain(
        job,
        archive=ArchiveReader(drifted.archive),
        store=floor.store,
        registry=floor.registry,
        ledger=floor.ledger,
        now_ms=drifted.now_ms,
        statistics=books(swinging(16)),
        drifts=drifts,
    )
    assert asked == [(START_MS, drifted.now_ms)]
    assert outcome.exit_code == ExitCode.REFUSED
    assert outcome.verdict is not None
    assert [check.name for check in outcome.verdict.checks if not check.holds] == ["drifts", "oscillation"]


def test_estimated_propensities_and_another_reward_model_go_all_the_way(drifted: Past, floor: Floor) -> None:
    estimated = CONFIG.model_copy(update={"propensities": "logistic", "reward_model": "configured"})
    refused = floor.retrain(drifted, estimated, dry_run=True)
    assert refused.verdict is not None
    assert "logged_propensities" in [check.name for check in refused.verdict.checks if not check.holds]
    assert all(e.estimated for found in refused.estimates.values() for e in found.values())
