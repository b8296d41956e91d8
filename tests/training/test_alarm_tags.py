"""Alarms as tags of the champion, in a real MLflow."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import yaml
from click.testing import CliRunner

from engine.records import Alarm, Generation
from streaming.cli import main
from streaming.config import load_config
from streaming.log import Message
from streaming.opening import open_log
from streaming.topics import ALARMS, GENERATIONS
from tests.training.world import NAME, World, trained
from training.mlflow_import import mlflow
from training.registry import Registry


def test_alarms_since_its_promotion_become_tags_of_the_champion(registry: Registry, tmp_path: Path) -> None:
    version = registry.register(trained(World(seed=1), 300), registry.start_run("test", params={}, tags={}), {})
    registry.promote(NAME, version.version)
    path = tmp_path / "leeway.yaml"
    points = {NAME: {"context": {"x": {"type": "number"}}}}
    settings = {"version": 1, "data_dir": "data", "decision_points": points}
    path.write_text(yaml.safe_dump(settings | {"registry": {"tracking_uri": registry.tracking_uri}}))
    promoted = Generation(decision_point=NAME, generation=1, promoted=True, trained_ms=100)
    alarms = [
        Alarm(alarm_id=name, decision_point=NAME, monitor="features", stream="x", explanation="it moved",
              detected_ms=at_ms, explained=explained)
        for name, at_ms, explained in (("old", 50, False), ("new", 150, False), ("explained", 160, True))
    ]  # fmt: skip
    with closing(open_log(load_config(path, {}))) as log:
        log.append([Message(GENERATIONS, NAME.encode(), promoted.SerializeToString(), 0)])
        log.append([Message(ALARMS, NAME.encode(), alarm.SerializeToString(), 0) for alarm in alarms])
    for _ in range(2):  # again changes nothing
        done = CliRunner().invoke(main, ["drift", "tag", "--config", str(path)], catch_exceptions=False)
        assert done.exit_code == 0, done.output

    client = mlflow.MlflowClient(registry.tracking_uri, registry.tracking_uri)
    champion = client.get_model_version_by_alias(f"leeway-{NAME}", "champion")
    told = {key: value for key, value in champion.tags.items() if key.startswith("drift.")}
    assert set(told) == {"drift.new"}
    assert told["drift.new"].startswith("features x, ")
    run = client.get_run(champion.run_id).data.tags
    assert {key: value for key, value in run.items() if key.startswith("drift.")} == told
