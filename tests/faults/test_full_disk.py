"""A full disk: decisions are refused in words, go on when there is room, and none is lost or half-written."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import grpc
import pytest

from engine.records import new_id
from tests.integration.service import ACTIONS, CONTEXT, Service, eventually, leeway, running, settings


def fill(disk: Path) -> Path:
    """Write until not a byte more can be written; return the file that takes the room."""
    ballast = disk / "ballast"
    descriptor = os.open(ballast, os.O_WRONLY | os.O_CREAT)
    try:
        for size in (65_536, 512, 1):
            try:
                while True:
                    os.write(descriptor, b"x" * size)
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise
    finally:
        os.close(descriptor)
    return ballast


def test_decisions_are_refused_while_the_disk_is_full_and_go_on_when_there_is_room(disk: Path) -> None:
    with running(disk, settings()) as service, service.client() as client:
        made = {client.decide("offers", CONTEXT, ACTIONS).decision_id for _ in range(50)}
        reported = {client.report(decision_id, 1.0) for decision_id in made}
        ballast = fill(disk)
        refused: list[tuple[str, grpc.RpcError]] = []
        # The log may have some room of its own left.
        while len(refused) < 5 and len(made) < 50_000:
            decision_id = new_id()
            try:
                made.add(client.decide("offers", CONTEXT, ACTIONS, decision_id).decision_id)
            except grpc.RpcError as error:
                refused.append((decision_id, error))
        assert {error.code() for _, error in refused} == {grpc.StatusCode.UNAVAILABLE}
        for part in (
            "nothing was decided",
            str(service.config.log_dir / "serving.sqlite"),
            "disk is full",
            "free space",
        ):
            assert part in str(refused[0][1].details())
        with pytest.raises(grpc.RpcError) as unreported:
            client.report(next(iter(made)), 0.0, outcome_id="refused")
        assert unreported.value.code() is grpc.StatusCode.UNAVAILABLE

        # Full as it is, it says what is wrong.
        assert service.metric("serve", "leeway_log_append_errors_total") >= 5
        assert service.status().decisions == len(made)
        doctor = leeway("doctor", "--config", service.path)
        assert doctor.returncode == 1
        assert "a full disk stops deciding" in doctor.stdout

        ballast.unlink()
        again, _ = refused.pop()
        made.add(client.decide("offers", CONTEXT, ACTIONS, again).decision_id)
        reported.add(client.report(again, 1.0))
        book = service.settled()
        assert service.stop() == 0

        assert sorted(decision.decision_id for decision in service.decisions()) == sorted(made)
        assert {outcome.outcome_id for outcome in service.outcomes()} == reported
        assert (book.decisions, book.feedback, book.pending) == (len(made), len(made), 0)
        assert leeway("replay", "--config", service.path).returncode == 0


@pytest.mark.parametrize(
    ("start", "words"), [("first", "the disk is full: free space"), ("next", "check its free space")]
)
def test_a_start_on_a_full_disk_says_so_and_succeeds_when_there_is_room(disk: Path, start: str, words: str) -> None:
    service = Service(disk, settings(), "serve", messages=disk.parent / "server.log")  # on another disk
    try:
        if start == "next":
            service.start()
            assert service.stop() == 0
        ballast = fill(disk)
        service.launch()
        eventually(lambda: "serve ended with status 1" in service.messages(), "the start to fail")
        assert words in service.messages()
        assert "Traceback" not in service.messages()
        ballast.unlink()
        eventually(lambda: service.facts("serve"), "the server to start")
        with service.client() as client:
            assert client.decide("offers", CONTEXT, ACTIONS).action in ACTIONS
    finally:
        service.kill()
