from __future__ import annotations

import asyncio
from pathlib import Path

import grpc
import pytest

from engine.api.leeway.v1.service_pb2 import ReportRequest
from engine.client import AsyncReporter, OutboxFull, Reporter
from engine.client.testing import AsyncFakeClient, FakeClient, FakeEngine


class Lost(list[tuple[str, str]]):
    """What was said to be lost: decision id and reason."""

    def __call__(self, request: ReportRequest, reason: str) -> None:
        self.append((request.decision_id, reason))


def test_outcomes_are_delivered_in_batches_with_the_time_of_their_report() -> None:
    with FakeClient() as client, Reporter(client, linger_s=60.0, batch=50) as reporter:
        sent = [reporter.report(f"d{n}", n, point="shop", task="click", slot=n % 3) for n in range(120)]
        assert reporter.flush()
        assert reporter.waiting == 0
        outcomes = client.engine.outcomes
        assert [outcome.outcome_id for outcome in outcomes] == sent
        assert [outcome.value for outcome in outcomes] == list(range(120))
        assert {(outcome.task, outcome.decision_point) for outcome in outcomes} == {("click", "shop")}
        assert all(outcome.time_ms > 1_700_000_000_000 for outcome in outcomes)


def test_what_cannot_be_delivered_now_waits_and_is_delivered_once() -> None:
    engine = FakeEngine()
    engine.fail()
    lost = Lost()
    with FakeClient(engine) as client, Reporter(client, linger_s=0.0, on_undelivered=lost) as reporter:
        for n in range(5):
            reporter.report(f"d{n}", 1.0, outcome_id=f"o{n}")
        assert not reporter.flush(0.3)
        assert reporter.waiting == 5
        engine.recover()
        assert reporter.flush()
    assert [outcome.outcome_id for outcome in engine.outcomes] == [f"o{n}" for n in range(5)]
    assert lost == []


def test_a_full_one_says_so_and_takes_nothing() -> None:
    engine = FakeEngine()
    engine.fail()
    with FakeClient(engine) as client:
        reporter = Reporter(client, most=2, on_undelivered=Lost())
        reporter.report("d1", 1.0)
        reporter.report("d2", 1.0)
        with pytest.raises(OutboxFull):
            reporter.report("d3", 1.0)
        engine.recover()
        assert reporter.close() == 0
    assert [outcome.decision_id for outcome in engine.outcomes] == ["d1", "d2"]


def test_what_is_left_at_the_end_is_said() -> None:
    engine = FakeEngine()
    engine.fail()
    lost = Lost()
    with FakeClient(engine) as client:
        reporter = Reporter(client, on_undelivered=lost)
        reporter.report("d1", 1.0)
        assert reporter.close(timeout_s=0.2) == 1
    ((decision_id, reason),) = lost
    assert decision_id == "d1"
    assert "before the reporter was closed" in reason
    assert "UNAVAILABLE" in reason


def test_on_disk_what_is_left_is_delivered_by_the_next(tmp_path: Path) -> None:
    engine = FakeEngine()
    engine.fail()
    lost = Lost()
    with FakeClient(engine) as client:
        first = Reporter(client, path=tmp_path / "outcomes", on_undelivered=lost)
        first.report("d1", 1.0, outcome_id="o1")
        assert first.close(timeout_s=0.0) == 1
        engine.recover()
        with Reporter(client, path=tmp_path / "outcomes", on_undelivered=lost) as second:
            assert second.flush()
    assert [outcome.outcome_id for outcome in engine.outcomes] == ["o1"]
    assert lost == []


def test_a_wrong_id_is_refused_at_once() -> None:
    with FakeClient() as client, Reporter(client) as reporter, pytest.raises(TypeError, match="decision_id is None"):
        reporter.report(None, 1.0)  # type: ignore[arg-type]


def test_asyncio_reports_alike() -> None:
    engine = FakeEngine()
    lost = Lost()

    async def go() -> None:
        async with AsyncFakeClient(engine) as client:
            async with AsyncReporter(client, linger_s=60.0, batch=50, on_undelivered=lost) as reporter:
                for n in range(120):
                    reporter.report(f"d{n}", 1.0)
                assert await reporter.flush()
                engine.fail(grpc.StatusCode.UNAVAILABLE)
                reporter.report("d120", 1.0)
                assert not await reporter.flush(0.2)
                engine.recover()
                assert await reporter.flush()
                assert await reporter.flush()
            engine.fail()
            late = AsyncReporter(client, on_undelivered=lost)
            late.report("left", 1.0)
            assert await late.close(timeout_s=0.1) == 1

    asyncio.run(go())
    assert [outcome.decision_id for outcome in engine.outcomes] == [f"d{n}" for n in range(121)]
    assert [decision_id for decision_id, _ in lost] == ["left"]
