"""Bytes that are no message are the caller's fault, on every method, and are counted as such."""

from __future__ import annotations

from pathlib import Path

import grpc
import pytest

from engine.channel import open_channel
from tests.engine.samples import request
from tests.engine.serving.world import served

NO_MESSAGE = b"\xff\xff\xff\xff"
METHODS = {
    "Leeway": ["Decide", "DecideBatch", "Recommend", "Report", "ReportBatch", "Activate", "Record"],
    "LeewayAdmin": ["GetStatus", "ListPolicies"],
}


def _same(data: bytes) -> bytes:
    return data


@pytest.mark.parametrize("split", [False, True])
def test_every_method_refuses_what_is_no_message(tmp_path: Path, split: bool) -> None:
    with served(tmp_path, **({"admin_port": 0} if split else {})) as world:
        for service, methods in METHODS.items():
            target = world.admin_target if service == "LeewayAdmin" else world.target
            with open_channel(target, [("grpc.use_local_subchannel_pool", 1)]) as channel:
                for method in methods:
                    with pytest.raises(grpc.RpcError) as error:
                        channel.unary_unary(f"/leeway.v1.{service}/{method}", _same, _same)(NO_MESSAGE, timeout=20.0)
                    assert error.value.code() is grpc.StatusCode.INVALID_ARGUMENT, method
                    assert "no such message" in str(error.value.details())
                    assert (method, "INVALID_ARGUMENT") in world.observer.ended


def test_a_stream_is_answered_up_to_what_is_no_message(tmp_path: Path) -> None:
    with served(tmp_path) as world, open_channel(world.target) as channel:
        good = request("s1").SerializeToString()
        stream = channel.stream_stream("/leeway.v1.Leeway/DecideStream", _same, _same)
        answers = iter(stream(iter([good, NO_MESSAGE, good]), timeout=20.0))
        assert next(answers)
        with pytest.raises(grpc.RpcError) as error:
            next(answers)
        assert error.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert [decision.decision_id for decision in world.recorder.decisions] == ["s1"]
