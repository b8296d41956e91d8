"""Alarms as tags of the champion that acted when they were raised, in MLflow."""

from __future__ import annotations

from engine.records import Alarm
from streaming.config import Config
from streaming.holds import read_alarms
from streaming.log import Log
from streaming.retraining import open_registry, read_generations

#: Alarms written of one decision point, the newest: a version is no log.
MOST = 50


def tag_champions(config: Config, log: Log) -> int:
    """Write the alarms since each champion was promoted to its version and to its run; return how many there are.

    Doing it again changes nothing. Raises ``RegistryError`` where the registry is away.
    """
    alarms = [alarm for alarm in read_alarms(log) if not alarm.explained and not alarm.echo_of]
    promoted = {entry.decision_point: entry for entry in read_generations(log) if entry.promoted}
    registry = open_registry(config)
    count = 0
    for name in config.deciding:
        if name not in promoted:
            continue
        since = promoted[name].trained_ms
        mine = [alarm for alarm in alarms if alarm.decision_point == name and alarm.detected_ms > since][-MOST:]
        champion = registry.champion(name) if mine else None
        if champion is None:
            continue
        tags = {f"drift.{alarm.alarm_id[:12]}": _words(alarm) for alarm in mine}
        for key, value in tags.items():
            registry.tag(name, champion.version, key, value)
        registry.set_run_tags(champion.run_id, tags)
        count += len(tags)
    return count


def _words(alarm: Alarm) -> str:
    stream = f"{alarm.monitor} {alarm.stream}".strip()
    return f"{stream}, change at {alarm.change_ms} ms, effect {alarm.effect:.3f}: {alarm.explanation}"[:1_000]
