"""A real gRPC server over a log in memory, with two decision points and a recommender."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc

from engine.api.leeway.v1 import admin_pb2, admin_pb2_grpc, service_pb2, service_pb2_grpc
from engine.channel import open_channel
from engine.client import recommend_request
from engine.config import ServingConfig
from engine.records import Alarm, JoinAccounting
from engine.serving.admin import AdminServicer
from engine.serving.limits import Limits
from engine.serving.server import Server
from engine.serving.service import DecisionService
from engine.serving.servicer import LeewayServicer
from engine.serving.tokens import new_token
from engine.store import PolicyStore
from tests.engine.recommender import shop
from tests.engine.samples import NAME, POINT, TIME_MS, MemoryObserver, MemoryRecorder, make_policy, request

OTHER = "banners"
#: Each method of both services, with a request that is about ``offers`` or ``shop`` where it can say so.
REQUESTS: Mapping[str, Any] = {
    "Decide": request("d1"),
    "DecideBatch": service_pb2.DecideBatchRequest(requests=[request("b1"), request("b2")]),
    "DecideStream": request("s1"),
    "Record": service_pb2.RecordRequest(decisions=[service_pb2.ClientDecision(request=request("c1"))]),
    "Recommend": recommend_request(shop.NAME, {"country": "NL"}, ["i1", "i2"]),
    "Report": service_pb2.ReportRequest(decision_id="d1", value=1.0, decision_point=NAME),
    "ReportBatch": service_pb2.ReportBatchRequest(
        requests=[service_pb2.ReportRequest(decision_id="d1", value=1.0, decision_point=NAME)]
    ),
    "Activate": service_pb2.ActivateRequest(decision_id="d1", decision_point=NAME),
    "GetStatus": admin_pb2.GetStatusRequest(),
    "ListPolicies": admin_pb2.ListPoliciesRequest(decision_point=NAME),
}


class Insight:
    """Of a log that nothing is in."""

    def accounting(self) -> Mapping[str, JoinAccounting]:
        return {}

    def alarms(self, point: str) -> Sequence[Alarm]:
        return ()


class CountingObserver(MemoryObserver):
    """Also counts how calls ended."""

    def __init__(self) -> None:
        super().__init__()
        self.ended: list[tuple[str, str]] = []
        self.under_way = 0

    def begin(self) -> None:
        self.under_way += 1

    def end(self, method: str, code: str) -> None:
        self.under_way -= 1
        self.ended.append((method, code))

    def turned_away(self, method: str, reason: str) -> None:
        super().turned_away(method, reason)
        self.ended.append((method, "RESOURCE_EXHAUSTED"))


class World:
    """The server, and what it did."""

    def __init__(self, directory: Path, **serving: Any) -> None:
        self.config = ServingConfig.model_validate({"port": 0, "drain": 0, "drain_grace": 0, **serving})
        self.recorder = MemoryRecorder()
        self.observer = CountingObserver()
        self.now_ms = TIME_MS
        lists = shop.make_policy()
        self.service = service = DecisionService(
            {NAME: POINT, OTHER: POINT},
            {NAME: make_policy(), OTHER: make_policy(name=OTHER)},
            self.recorder,
            self.observer,
            recommenders={shop.NAME: (lists.recommender, lists)},
            limits=Limits(self.config.limits),
        )
        admin = AdminServicer(service, PolicyStore(directory / "policies"), Insight(), TIME_MS)
        servicer = LeewayServicer(service, self.config, self.observer, self.clock)
        self.load = servicer.load
        names = [NAME, OTHER, shop.NAME]
        self.server = Server(self.config, servicer, admin, names, self.observer, self.clock)

    def clock(self) -> int:
        return self.now_ms

    @property
    def target(self) -> str:
        return f"127.0.0.1:{self.server.port}"

    @property
    def admin_target(self) -> str:
        return f"127.0.0.1:{self.server.admin_port or self.server.port}"


@contextmanager
def served(directory: Path, **serving: Any) -> Iterator[World]:
    """Serve; ``serving`` is the section of the configuration."""
    world = World(directory, **serving)
    world.server.start()
    hurry = threading.Event()
    hurry.set()
    try:
        yield world
    finally:
        world.server.stop(hurry)


def until(holds: Callable[[], bool], patience_s: float = 60.0) -> None:
    """Wait until something holds: what another thread does has no event to wait for, so it is looked at."""
    end = time.monotonic() + patience_s
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.002)


class Caller:
    """Calls any method of both services by its name."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._stubs = (service_pb2_grpc.LeewayStub(channel), admin_pb2_grpc.LeewayAdminStub(channel))

    def call(self, name: str, message: Any = None) -> Any:
        stub: Any = next(stub for stub in self._stubs if hasattr(stub, name))
        sent = REQUESTS[name] if message is None else message
        if name == "DecideStream":
            return list(stub.DecideStream(iter([sent]), timeout=20.0))
        return getattr(stub, name)(sent, timeout=20.0)

    def code(self, name: str, message: Any = None) -> grpc.StatusCode:
        """Return how a call ended."""
        try:
            self.call(name, message)
        except grpc.RpcError as error:
            return error.code()
        return grpc.StatusCode.OK


@contextmanager
def calling(
    target: str, token: str | None = None, credentials: grpc.ChannelCredentials | None = None
) -> Iterator[Caller]:
    # gRPC shares connections of equal channels in a process; a handshake of its own is what is tested.
    options = [("grpc.use_local_subchannel_pool", 1)]
    with open_channel(target, options, credentials=credentials, token=token) as channel:
        yield Caller(channel)


class AccessFile:
    """The file of those who may call, with a token for each entry."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.tokens: dict[str, str] = {}
        self._entries: list[dict[str, Any]] = []
        self._certificates: list[dict[str, Any]] = []

    def add(self, name: str, scopes: Sequence[str], points: str | Sequence[str] = "all", **more: Any) -> str:
        """Add a token and return it."""
        self.tokens[name], digest = new_token()
        self._entries.append({"name": name, "hash": digest, "scopes": list(scopes), "points": points, **more})
        self.write()
        return self.tokens[name]

    def add_certificate(self, name: str, identity: str, scopes: Sequence[str], points: Any = "all") -> None:
        self._certificates.append({"name": name, "identity": identity, "scopes": list(scopes), "points": points})
        self.write()

    def remove(self, name: str) -> None:
        self._entries = [entry for entry in self._entries if entry["name"] != name]
        self.write()

    def write(self) -> None:
        """Replace the file at once."""
        new = self.path.with_suffix(".new")
        new.write_text(json.dumps({"tokens": self._entries, "certificates": self._certificates}))
        new.replace(self.path)
