"""The ledger as metrics: entries counted once, and the verdict on oscillation that `leeway generations` gives."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from prometheus_client import CollectorRegistry

from engine.records import GenerationStatistics
from monitoring.generation_metrics import LineageMetrics
from streaming.config import Config, load_config
from streaming.embedded import EmbeddedLog
from streaming.kafka import KafkaLog
from streaming.lineage import Lineage
from streaming.log import Message
from streaming.monitor import read_statistics
from streaming.opening import open_log
from streaming.retraining import generation_table
from streaming.topics import GENERATIONS
from tests.streaming.test_generations import swinging, write


class Followed:
    """A lineage over a log, and what it shows."""

    def __init__(self, config: Config, log: EmbeddedLog | KafkaLog) -> None:
        self.registry = CollectorRegistry()
        metrics = LineageMetrics(self.registry, {"offers": None}, 0.0)

        self.known = True

        def statistics(point: str) -> list[GenerationStatistics] | None:
            if not self.known:
                return None
            return [entry for entry in read_statistics(log) if entry.decision_point == point]

        self.lineage = Lineage(config, metrics, statistics)

    def value(self, name: str, **labels: str) -> float | None:
        return self.registry.get_sample_value(name, {"decision_point": "offers", **labels})

    @property
    def promoted(self) -> float | None:
        return self.value("leeway_trainings_total", reason="schedule", result="promoted")


@pytest.fixture
def config(tmp_path: Path) -> Config:
    path = tmp_path / "leeway.yaml"
    point = {"context": {"taste": {"type": "number"}}}
    path.write_text(
        yaml.safe_dump({"version": 1, "data_dir": str(tmp_path / "data"), "decision_points": {"offers": point}})
    )
    return load_config(path, {})


@pytest.fixture
def log(config: Config) -> Iterator[EmbeddedLog | KafkaLog]:
    log = open_log(config)
    yield log
    log.close()


def test_every_entry_is_counted_once(config: Config, log: EmbeddedLog | KafkaLog) -> None:
    write(log, [0.8, 0.81, 0.82])
    followed = Followed(config, log)
    for _ in range(2):
        followed.lineage.follow(log)
        assert followed.promoted == 2
    log.append([Message(GENERATIONS, b"offers", b"\xff", 0)])  # one that nobody can read is passed over
    write(log, [0.8, 0.81])
    followed.lineage.follow(log)
    assert followed.promoted == 3


@pytest.mark.parametrize("swing", [0.0, 0.03])
def test_oscillation_is_shown_as_the_command_declares_it(
    config: Config, log: EmbeddedLog | KafkaLog, swing: float
) -> None:
    wobble = (0.001, -0.002, 0.0015, 0.0, -0.0005, 0.002, -0.001)
    write(log, [0.85 + swing * (-1) ** g + wobble[g % 7] for g in range(13)])
    followed = Followed(config, log)
    followed.lineage.follow(log)
    state = generation_table(config, "offers", log).state
    assert state.judged is not None
    assert (state.declared is not None) == (swing > 0.0)
    assert followed.value("leeway_oscillation_declared") == float(swing > 0.0)
    assert followed.value("leeway_oscillation_p_value") == state.judged.p_value
    assert followed.value("leeway_oscillation_period_generations") == state.judged.period


def test_a_short_ledger_is_not_judged(config: Config, log: EmbeddedLog | KafkaLog) -> None:
    write(log, [0.9, 0.7] * 4)
    followed = Followed(config, log)
    followed.lineage.follow(log)
    assert followed.value("leeway_oscillation_declared") == 0
    assert followed.value("leeway_oscillation_p_value") == 1


def test_it_is_judged_as_soon_as_what_generations_earned_is_known(config: Config, log: EmbeddedLog | KafkaLog) -> None:
    write(log, swinging(12))
    followed = Followed(config, log)
    followed.known = False
    followed.lineage.follow(log)
    assert followed.value("leeway_oscillation_declared") == 0
    followed.known = True
    followed.lineage.follow(log)  # with no new entry
    assert followed.value("leeway_oscillation_declared") == 1
