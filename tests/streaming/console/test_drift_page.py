"""The streams of the monitors, as the console shows them."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import yaml

from streaming.config import load_config
from streaming.console.looking import Looks
from streaming.embedded import EmbeddedLog
from streaming.monitor import MonitorRole
from streaming.opening import open_log
from tests.monitoring.traffic import POINT, traffic
from tests.streaming.samples import Clock, append


def test_each_stream_is_shown_by_its_distance_from_the_reference(tmp_path: Path) -> None:
    path = tmp_path / "leeway.yaml"
    point = {
        "context": {"x": {"type": "number"}, "country": {"type": "text"}},
        "monitors": {"warm_up": 500, "settle": 200},
    }
    path.write_text(yaml.safe_dump({"version": 1, "data_dir": "data", "decision_points": {POINT: point}}))
    config, clock = load_config(path, {}), Clock()
    with closing(open_log(config)) as log:
        assert isinstance(log, EmbeddedLog)
        assert Looks(config, clock).drift(POINT) == {"seen": 0, "streams": []}
        role = MonitorRole(log, config.decision_points, clock)
        append(log, *traffic(1, 0, 2_000))
        while role.step(500):
            clock.now_ms += 1_000
    found = Looks(config, clock).drift(POINT)
    streams = {each["stream"]: each["blocks"] for each in found["streams"]}
    assert found["seen"] > 0
    assert "features:country" in streams
    assert any(streams.values())
    assert all(0.0 <= value <= 1.0 for blocks in streams.values() for value in blocks)
