"""A disk that fills up under a running service."""

from __future__ import annotations

import os
import time
from pathlib import Path

import grpc
import pytest

from tests.faults.drill.alarm import drills, metrics_ports, targets_of, watching
from tests.faults.test_full_disk import fill
from tests.integration.service import ACTIONS, CONTEXT, running, settings
from tests.prometheus import binary

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1_500)]


def leave(ballast: Path, disk: Path, share: float) -> None:
    """Make the ballast as large as leaves this share of the disk free."""
    found = os.statvfs(disk)
    size, free = found.f_blocks * found.f_frsize, found.f_bavail * found.f_frsize
    wanted = ballast.stat().st_size + free - int(share * size)
    with ballast.open("r+b") as file:
        file.truncate(min(wanted, ballast.stat().st_size))
        file.seek(0, os.SEEK_END)
        for _ in range(max(0, wanted - file.tell()) // 65_536):
            file.write(b"x" * 65_536)


@pytest.fixture
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory that is not on the full disk."""
    return tmp_path_factory.mktemp("elsewhere")


@drills("LeewayWatermarkBehind")
def test_a_join_that_cannot_write_stands_still_until_there_is_room(disk: Path, elsewhere: Path) -> None:
    binary("prometheus")
    metrics = metrics_ports()
    with (
        running(disk, {**settings(), "metrics": metrics}) as service,
        watching(elsewhere, targets_of(metrics)) as watch,
        service.client() as client,
    ):
        made = [client.decide("offers", CONTEXT, ACTIONS).decision_id]
        service.settled()
        watch.quiet("LeewayWatermarkBehind")
        ballast = fill(disk)
        large = {**CONTEXT, "country": "x" * 4_000}
        refused = False
        while not refused:  # the log has some room of its own left, for decisions that then wait
            try:
                made.append(client.decide("offers", large, ACTIONS).decision_id)
            except grpc.RpcError:
                refused = True
        watch.fires("LeewayWatermarkBehind")
        ballast.unlink()
        watch.ends("LeewayWatermarkBehind")
        service.settled()
        assert {decision.decision_id for decision in service.decisions()} >= set(made)


@drills("LeewayDiskLow", "LeewayDiskFull", "LeewayErrorBudgetBurn")
def test_a_disk_that_fills_up_is_told_early_and_room_ends_it(disk: Path, elsewhere: Path) -> None:
    binary("prometheus")
    metrics = metrics_ports()
    with (
        running(disk, {**settings(), "metrics": metrics}) as service,
        watching(elsewhere, targets_of(metrics)) as watch,
        service.client() as client,
    ):
        client.decide("offers", CONTEXT, ACTIONS)
        assert watch.firing() == {}
        ballast = disk / "ballast"
        ballast.touch()
        leave(ballast, disk, 0.1)
        watch.fires("LeewayDiskLow")
        watch.quiet("LeewayDiskFull", "LeewayErrorBudgetBurn")
        large = {**CONTEXT, "country": "x" * 4_000}
        fill(disk)
        watch.fires("LeewayDiskFull")
        began, codes = time.monotonic(), set()
        while len(watch.firing().get("LeewayErrorBudgetBurn", [])) < 3:  # of each urgency
            try:
                client.decide("offers", large, ACTIONS)
            except grpc.RpcError as error:
                codes.add(error.code())
            assert time.monotonic() - began < 400
        assert codes == {grpc.StatusCode.UNAVAILABLE}
        # Room is made.
        ballast.unlink()
        watch.ends("LeewayDiskFull", "LeewayDiskLow")
        while "LeewayErrorBudgetBurn" in watch.firing():
            client.decide("offers", CONTEXT, ACTIONS)
            assert time.monotonic() - began < 1_000
