"""``leeway generations``, ``promote`` and ``rollback``, and where a retraining begins, over a log on disk."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import yaml
from click.testing import CliRunner, Result

from engine.records import Alarm, Generation, GenerationStatistics
from streaming.cli import main
from streaming.config import Config, load_config
from streaming.embedded import EmbeddedLog
from streaming.kafka import KafkaLog
from streaming.log import Message
from streaming.opening import open_log
from streaming.retraining import begin_of, record_success
from streaming.topics import ALARMS, GENERATIONS, MONITOR_STATE
from training.job import ExitCode, Outcome

FEEDBACK = 10_000


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "leeway.yaml"
    point = {"context": {"taste": {"type": "number"}}, "retraining": {"rollback": {"error": 0.01}}}
    path.write_text(
        yaml.safe_dump({"version": 1, "data_dir": str(tmp_path / "data"), "decision_points": {"offers": point}})
    )
    return path


@pytest.fixture
def log(path: Path) -> Iterator[EmbeddedLog | KafkaLog]:
    log = open_log(load_config(path, {}))
    yield log
    log.close()


def write(log: EmbeddedLog | KafkaLog, rewards: list[float]) -> None:
    """Write a ledger of generations from 0 on that earned these rewards, each estimated at 0.85."""
    messages = []
    for g, reward in enumerate(rewards):
        if g:
            entry = Generation(
                decision_point="offers", generation=g, policy_version=f"g{g}.0-00000000", promoted=True, run_id="r",
                estimate=0.85, estimate_error=0.004, reason="schedule", verdict="promoted: better",
                window_end_ms=1_000 * g,
            )  # fmt: skip
            messages.append(Message(GENERATIONS, b"offers", entry.SerializeToString(), 0))
        book = GenerationStatistics(
            decision_point="offers", generation=g, feedback=FEEDBACK, reward_sum=reward * FEEDBACK,
            reward_square_sum=reward * FEEDBACK, positives=round(reward * FEEDBACK),
        )  # fmt: skip
        messages.append(Message(MONITOR_STATE, f"generation/offers/{g}".encode(), book.SerializeToString(), 0))
    log.append(messages)


def run(path: Path, *arguments: str) -> Result:
    return CliRunner().invoke(main, [arguments[0], "--config", str(path), *arguments[1:]])


def swinging(count: int) -> list[float]:
    noise = np.random.default_rng(0).normal(size=count)
    return [0.7, *(0.85 + 0.03 * (-1.0) ** np.arange(count) + 0.003 * noise)]


def test_the_ledger_is_shown_with_intervals_verdicts_and_oscillation(
    log: EmbeddedLog | KafkaLog, path: Path, tmp_path: Path
) -> None:
    write(log, swinging(12))
    shown = run(path, "generations", "--plot", str(tmp_path / "ledger.png"))
    assert shown.exit_code == 0, shown.output
    lines = shown.output.splitlines()
    assert lines[0].split()[:2] == ["gen", "feedback"]
    assert lines[1].split()[:2] == ["0", "10000"]
    assert "above" in lines[2]  # 0.88, of which 0.85 was estimated
    assert "below" in lines[3]
    assert "g3: promoted: better" in lines
    assert any("oscillation: declared after generation 9: period 2, amplitude 0.0" in line for line in lines)
    assert any(line.endswith("the next generation is damped") for line in lines)
    assert (tmp_path / "ledger.png").read_bytes().startswith(b"\x89PNG")
    report = json.loads(run(path, "generations", "--json").output)
    assert report["oscillation"]["declared_after"] == 9
    assert [row["generation"] for row in report["generations"]] == list(range(13))
    assert report["generations"][1]["kept"] == "above"
    assert report["generations"][0]["estimate"] is None  # JSON has no NaN
    assert {each["name"] for each in report["attribution"]} >= {"class_imbalance"}


def test_a_ledger_that_stands_still_is_told_as_one(log: EmbeddedLog | KafkaLog, path: Path) -> None:
    nothing = run(path, "generations")
    assert nothing.output == "no generation has acted yet\n"
    write(log, [0.7, *(0.85 + 0.003 * np.random.default_rng(1).normal(size=9))])
    assert "oscillation: none is declared (p 0." in run(path, "generations").output


def test_a_champion_is_moved_only_where_there_is_a_reason_and_another_version(
    log: EmbeddedLog | KafkaLog, path: Path
) -> None:
    back = run(path, "rollback", "--json")
    assert (back.exit_code, json.loads(back.output)["exit_code"]) == (3, 3)
    forward = run(path, "promote", "--dry-run")
    assert forward.exit_code == 3
    assert "has no challenger" in forward.output
    write(log, [0.7, 0.845])
    kept = run(path, "rollback", "--if-disappointing")
    assert (kept.exit_code, kept.output.startswith("nothing to do")) == (0, True)
    write(log, [0.7, 0.70])
    asked = run(path, "rollback", "--if-disappointing")
    assert asked.exit_code == 3  # there is something to do, and nothing to go back to


def alarmed(log: EmbeddedLog | KafkaLog, change_ms: int) -> None:
    alarm = Alarm(alarm_id="a", decision_point="offers", change_ms=change_ms, calls_for_retraining=True)
    log.append([Message(ALARMS, b"offers", alarm.SerializeToString(), 0)])


def test_where_a_retraining_begins(log: EmbeddedLog | KafkaLog, path: Path) -> None:
    config: Config = load_config(path, {})

    def begin(*, since_ms: int | None = None, since_last: bool = False, if_drift: bool = False) -> int | str | None:
        found = begin_of(config, "offers", since_ms=since_ms, since_last=since_last, if_drift=if_drift)
        return found.since_ms if found.nothing is None else found.nothing.words

    assert begin(since_ms=7) == 7
    assert begin(since_last=True) is None  # the configured window
    assert str(begin(if_drift=True)).startswith("nothing to do")
    write(log, [0.7, 0.8, 0.8])
    assert begin(since_last=True) == 2_000
    alarmed(log, 5_000)
    assert begin(if_drift=True) == 5_000
    trained = Generation(decision_point="offers", generation=3, promoted=True, reason="drift", window_start_ms=5_000)
    log.append([Message(GENERATIONS, b"offers", trained.SerializeToString(), 0)])
    assert str(begin(if_drift=True)).startswith("nothing to do")
    quiet = run(path, "retrain", "--if-drift", "--json")
    assert (quiet.exit_code, json.loads(quiet.output)["outcome"]) == (0, "nothing_to_do")
    both = run(path, "retrain", "--if-drift", "--since-last")
    assert both.exit_code == 2
    assert "choose one" in both.output


def test_the_time_of_the_last_success_is_left_for_prometheus(tmp_path: Path) -> None:
    path = tmp_path / "retrain.prom"
    record_success(path, "offers", Outcome(ExitCode.LOCKED, "another one runs"))
    assert not path.exists()
    record_success(path, "offers", Outcome(ExitCode.REFUSED, "no better"))
    lines = path.read_text().splitlines()
    assert lines[1] == "# TYPE leeway_retrain_last_success_timestamp_seconds gauge"
    name, value = lines[2].split()
    assert name == 'leeway_retrain_last_success_timestamp_seconds{decision_point="offers"}'
    assert float(value) > 1.7e9
