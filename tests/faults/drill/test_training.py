"""Trainings that do not come: of Leeway's own schedule, and of a scheduler beside it."""

from __future__ import annotations

import functools
import threading
import time
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.faults.drill.alarm import drills, metrics_ports, targets_of, watching
from tests.integration.operated import OFFERS, POINT, send, trained
from tests.integration.service import eventually, leeway, running, settings
from tests.prometheus import binary

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1_500)]


@drills("LeewayRetrainingOverdue", "LeewayScheduledJobOverdue")
def test_a_training_that_is_late_is_told_until_it_was_done(tmp_path: Path) -> None:
    binary("prometheus")
    metrics = metrics_ports()
    point: dict[str, Any] = {**OFFERS, "retraining": {**OFFERS["retraining"], "every": "1m", "min_events": 300}}
    textfiles = tmp_path / "textfiles"
    textfiles.mkdir()
    text = textfiles / "metrics"

    def job() -> int:
        """What a scheduler of one's own starts."""
        return leeway("retrain", "--textfile", text, "--config", tmp_path / "leeway.yaml", patience_s=900.0).returncode

    # In the place of Prometheus' node exporter, whose textfile collector shows the file.
    handler = functools.partial(_Text, directory=str(textfiles))
    with (
        ThreadingHTTPServer(("127.0.0.1", 0), handler) as exporter,
        running(tmp_path, {**settings({POINT: point}), "metrics": metrics}) as service,
    ):
        thread = threading.Thread(target=exporter.serve_forever)
        thread.start()
        try:
            assert job() == 3  # not enough feedback, which is no failure of the job
            targets = {**targets_of(metrics), "node": f"127.0.0.1:{exporter.server_address[1]}"}
            with watching(tmp_path, targets) as watch, service.client() as client:
                send(client, 0, 100)  # too little to train on, so the schedule of Leeway itself is late
                watch.fires("LeewayScheduledJobOverdue", "LeewayRetrainingOverdue")
                send(client, 100, 800)  # feedback comes again
                eventually(lambda: service.metric("work", "leeway_archive_rows_total") >= 600, "the archive", 300)
                watch.ends("LeewayRetrainingOverdue")
                began = time.monotonic()
                assert job() in (0, 3, 4, 5)
                watch.ends("LeewayScheduledJobOverdue")
                assert time.monotonic() - began < 600
        finally:
            exporter.shutdown()
            thread.join()


@drills("LeewayRunaway")
def test_inputs_that_move_away_are_told_until_a_generation_is_trained_on_them(tmp_path: Path) -> None:
    binary("prometheus")
    metrics = metrics_ports()
    monitors = {**OFFERS["monitors"], "features": {"reactions": []}}
    config = {**settings({POINT: {**OFFERS, "monitors": monitors}}), "metrics": metrics}
    with (
        running(tmp_path, config) as service,
        watching(tmp_path, targets_of(metrics)) as watch,
        service.client() as client,
    ):
        send(client, 0, 1_000)
        service.settled()
        watch.quiet("LeewayRunaway")
        sent = 1_000
        # A step away with each block, and not before the one before it was seen: a block is longer where traffic is
        # denser, and what has moved as far as it can stands still again.
        while "LeewayRunaway" not in watch.firing():
            assert sent < 20_000, service.messages()
            send(client, sent, 250, basket=3e-4 * (sent - 1_000))
            sent += 250
            service.settled()
        assert "basket" in leeway("drift", "list", "--config", service.path).stdout
        service.settled()
        made = trained(service, sent)
        if made["outcome"] != "promoted":
            assert leeway("promote", "--force", "--config", service.path).returncode == 0
        send(client, sent, 100, basket=3e-4 * (sent - 1_000))
        watch.ends("LeewayRunaway")


class _Text(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""
