"""The cluster is away for longer than the spool can take: decisions go on, and say that they are not in the log."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_status import rpc_status

from engine.client import Decided, LeewayClient
from tests.integration.service import ACTIONS, CONTEXT, Service, running, settings

#: Nobody listens there, and nobody may without the rights of root.
NOBODY = "127.0.0.1:1"


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    log = {"kind": "kafka", "bootstrap_servers": [NOBODY], "request_timeout": "1s", "delivery_timeout": "2s"}
    with running(tmp_path, {**settings(), "log": {**log, "spool_max_bytes": 1_048_576}}, "serve") as service:
        yield service


def fill(client: LeewayClient, most: int = 200_000) -> tuple[int, Decided]:
    """Decide until a decision is not recorded; return how many were, and that one."""
    large = {**CONTEXT, "country": "x" * 4_000}
    for number in range(most):
        decided = client.decide("offers", large, ACTIONS, f"d{number}")
        if decided.unrecorded:
            return number, decided
    pytest.fail(f"{most} decisions did not fill it")


def test_decisions_go_on_flagged_and_counted_and_outcomes_are_refused(service: Service) -> None:
    with service.client() as client:
        recorded, flagged = fill(client)
        assert "wait" in flagged.unrecorded
        assert sum(flagged.probabilities) == pytest.approx(1.0)
        assert flagged.probabilities[ACTIONS.index(flagged.action)] == flagged.propensity
        assert client.decide("offers", {**CONTEXT, "country": "x" * 4_000}, ACTIONS, flagged.decision_id) == flagged
        with pytest.raises(grpc.RpcError) as refused:  # noqa: PT012
            for _ in range(1_000):  # there was no room for a large decision; there may be some for a small outcome
                client.report("d0", 1.0)
    assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
    assert isinstance(refused.value, grpc.Call)
    status = rpc_status.from_call(refused.value)
    retries = [detail for detail in status.details if detail.Is(error_details_pb2.RetryInfo.DESCRIPTOR)]
    assert len(retries) == 1
    assert service.metric("serve", "leeway_decisions_unrecorded_total", decision_point="offers") == 1
    assert service.metric("serve", "leeway_decisions_total", fallback="none") == recorded + 1
    with grpc.insecure_channel(service.target) as channel:
        ready = health_pb2_grpc.HealthStub(channel).Check(
            health_pb2.HealthCheckRequest(service="leeway.v1.Leeway"), timeout=30.0
        )
    assert ready.status == health_pb2.HealthCheckResponse.SERVING
    assert service.stop() == 0
    assert "the spool is full" in service.messages()
    assert "stay in the spool" in service.messages()
