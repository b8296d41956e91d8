"""Generations that undo each other, in the running service: the ledger is invented, who judges it is not."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from streaming.opening import open_log
from tests.faults.drill.alarm import drills, metrics_ports, targets_of, watching
from tests.integration.service import OFFERS, Service, leeway, settings
from tests.prometheus import binary
from tests.streaming.test_generations import swinging, write

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1_500)]

#: Generations that an oscillation is damped for once it is declared.
DAMPED = 3
CALM = [0.85, 0.851, 0.849, 0.85]


@drills("LeewayOscillation")
def test_an_oscillation_is_told_until_the_damped_generations_have_acted(tmp_path: Path) -> None:
    binary("prometheus")
    metrics = metrics_ports()
    damping = {"when": "declared", "generations": DAMPED}
    point: dict[str, Any] = {**OFFERS, "retraining": {"enabled": False, "damping": damping}}
    service = Service(tmp_path, {**settings({"offers": point}), "metrics": metrics})
    try:
        with watching(tmp_path, targets_of(metrics)) as watch:
            _ledger(service, swinging(10))
            service.start()
            watch.fires("LeewayOscillation")
            told = leeway("generations", "--plot", tmp_path / "ledger.png", "--config", service.path)
            assert "oscillation: declared after generation" in told.stdout, told.stderr
            assert "the next generation is damped" in told.stdout
            assert service.stop() == 0
            _ledger(service, [*swinging(10), *CALM])  # as damped generations earn
            service.start()
            watch.ends("LeewayOscillation", "LeewayDown")
            ended = leeway("generations", "--config", service.path)
            assert "oscillation: declared" not in ended.stdout, ended.stderr
    finally:
        service.kill()


def _ledger(service: Service, rewards: list[float]) -> None:
    with closing(open_log(service.config)) as log:
        write(log, rewards)
