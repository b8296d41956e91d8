"""A cluster that stays away while decisions go on: its spool fills, is full, and is given more room."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.faults.drill.alarm import drills, metrics_ports, targets_of, watching
from tests.faults.test_full_spool import NOBODY
from tests.integration.service import ACTIONS, CONTEXT, running, settings
from tests.prometheus import binary

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1_500)]

MOST = 1_048_576


def config(metrics: dict[str, int], most: int) -> dict[str, Any]:
    log = {"kind": "kafka", "bootstrap_servers": [NOBODY], "request_timeout": "1s", "delivery_timeout": "2s"}
    return {**settings(), "metrics": metrics, "log": {**log, "spool_max_bytes": most}}


@drills("LeewaySpoolFilling", "LeewaySpoolFull", "LeewayUnrecordedDecisions")
def test_a_spool_that_fills_up_is_told_before_a_decision_is_lost_and_more_room_ends_it(tmp_path: Path) -> None:
    binary("prometheus")
    metrics = metrics_ports()
    large = {**CONTEXT, "country": "x" * 4_000}
    targets = {"leeway-serve": targets_of(metrics)["leeway-serve"]}
    with (
        running(tmp_path, config(metrics, MOST), "serve") as service,
        watching(tmp_path, targets) as watch,
    ):
        assert watch.firing() == {}
        with service.client() as client:
            while service.metric("serve", "leeway_spool_bytes") < 0.7 * MOST:
                assert not client.decide("offers", large, ACTIONS).unrecorded
            watch.fires("LeewaySpoolFilling")
            watch.quiet("LeewaySpoolFull", "LeewayUnrecordedDecisions")
            while service.metric("serve", "leeway_spool_bytes") < 0.93 * MOST:
                assert not client.decide("offers", large, ACTIONS).unrecorded
            watch.fires("LeewaySpoolFull")
            watch.quiet("LeewayUnrecordedDecisions")
            began = time.monotonic()
            while "LeewayUnrecordedDecisions" not in watch.firing():
                client.decide("offers", large, ACTIONS)
                assert time.monotonic() - began < 400
        # There is room on the disk: the spool may take more, from the next start on.
        assert service.stop() == 0
        service.path.write_text(yaml.safe_dump(config(metrics, 64 * MOST), sort_keys=False))
        service.start()
        with service.client() as client:
            assert not client.decide("offers", large, ACTIONS).unrecorded
        watch.ends("LeewaySpoolFull", "LeewayUnrecordedDecisions", "LeewaySpoolFilling")
