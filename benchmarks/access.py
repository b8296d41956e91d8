"""What it costs to ask who calls: tokens, limits and TLS, beside a whole call of an open server.

One decision of 10 actions with 10 named numbers each and 20 of the context, by a real gRPC server and client in one
process on loopback, over a log that forgets. Costs are CPU time of both, in turns; the guard and the limits are also
measured alone. Certificates are made by openssl; without it the parts with TLS are left out, which the result says.
"""

from __future__ import annotations

import json
import shutil
import statistics
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import grpc

from benchmarks._harness import goal, main
from engine.api.leeway.v1 import service_pb2_grpc
from engine.api.leeway.v1.parts_pb2 import DecideRequestParts
from engine.api.leeway.v1.service_pb2 import DecideRequest
from engine.channel import open_channel, tls_credentials
from engine.client import Candidate, decide_request
from engine.config import DecisionPoint, LimitsConfig, ServingConfig
from engine.policy import initial_policy
from engine.records import Alarm, Decision, JoinAccounting, Outcome
from engine.serving.admin import AdminServicer
from engine.serving.audit import AuditLog
from engine.serving.guard import Guard
from engine.serving.limits import Limits
from engine.serving.seams import Observer
from engine.serving.server import LEEWAY, Server
from engine.serving.service import DecisionService
from engine.serving.servicer import LeewayServicer
from engine.serving.tokens import new_token, read_access
from engine.store import PolicyStore

NAME, CONTEXT, ACTIONS, ACTION, TOKENS = "offers", 20, 10, 10, 50
POINT = DecisionPoint.model_validate(
    {
        "context": {f"c{i}": {"type": "number"} for i in range(CONTEXT)},
        "actions": {"features": {f"a{i}": {"type": "number"} for i in range(ACTION)}},
    }
)
CERTIFICATES = """
openssl req -x509 -newkey rsa:2048 -nodes -days 1 -subj /CN=authority -keyout ca.key -out ca.pem
openssl req -newkey rsa:2048 -nodes -subj /CN=server -keyout server.key -out server.csr
echo subjectAltName=IP:127.0.0.1 > server.ext
openssl x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 1 -extfile server.ext -out server.pem
"""


def request() -> DecideRequest:
    """Return a request with a new id."""
    features = {f"a{i}": 0.5 for i in range(ACTION)}
    return decide_request(
        NAME, {f"c{i}": 0.5 for i in range(CONTEXT)}, [Candidate(f"action-{i}", features) for i in range(ACTIONS)]
    )


class Nothing:
    """A log that forgets, an onlooker that does not look, and no insight."""

    def record(self, records: Sequence[Decision | Outcome]) -> Future[None]:
        done: Future[None] = Future()
        done.set_result(None)
        return done

    def accounting(self) -> Mapping[str, JoinAccounting]:
        return {}

    def alarms(self, point: str) -> Sequence[Alarm]:
        return ()

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *_: None


@contextmanager
def calls(directory: Path, token: str | None, *, tls: bool, access_file: Path | None) -> Iterator[Callable[[], object]]:
    """Serve, and give what makes one call."""
    pair = {"certificate": directory / "server.pem", "key": directory / "server.key"}
    config = ServingConfig.model_validate(
        {"port": 0, "drain": 0, "drain_grace": 0, "access_file": access_file, "tls": pair if tls else None}
    )
    nothing: Any = Nothing()
    service = DecisionService({NAME: POINT}, {NAME: initial_policy(NAME, POINT, 0)}, nothing, nothing, 1_000)
    clock = lambda: time.time_ns() // 1_000_000  # noqa: E731
    admin = AdminServicer(service, PolicyStore(directory / "policies"), nothing, 0)
    server = Server(config, LeewayServicer(service, config, nothing, clock), admin, [NAME], nothing, clock)
    port, hurry = server.start(), threading.Event()
    hurry.set()
    credentials = tls_credentials(directory / "ca.pem") if tls else None
    with open_channel(f"127.0.0.1:{port}", credentials=credentials, token=token) as channel:
        stub = service_pb2_grpc.LeewayStub(channel)
        yield lambda: stub.Decide(request(), timeout=20.0)
    server.stop(hurry)


def microseconds(work: Callable[[], object], times: int) -> float:
    """Return CPU microseconds of one call."""
    began = time.process_time()
    for _ in range(times):
        work()
    return 1e6 * (time.process_time() - began) / times


def _nothing(_request: object, _context: object) -> None:
    pass


class Context:
    """Of a call with a token."""

    def __init__(self, token: str) -> None:
        self._metadata = (("user-agent", "grpc-python"), ("authorization", f"Bearer {token}"))

    def invocation_metadata(self) -> tuple[tuple[str, str], ...]:
        return self._metadata


def measure(quick: bool) -> dict[str, Any]:
    """Return costs in microseconds, and shares of a call of an open server."""
    rounds, times = (3, 200) if quick else (9, 1_000)
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        directory = Path(name)
        file, token = directory / "access.json", ""
        entries = []
        for number in range(TOKENS):
            token, digest = new_token()
            entries.append({"name": f"t{number}", "hash": digest, "scopes": ["decide"], "points": [NAME]})
        file.write_text(json.dumps({"tokens": entries}))
        ways: dict[str, dict[str, Any]] = {
            "open": {"token": None, "tls": False, "access_file": None},
            "token": {"token": token, "tls": False, "access_file": file},
        }
        if shutil.which("openssl"):
            subprocess.run(["sh", "-eu", "-c", CERTIFICATES], cwd=directory, check=True, capture_output=True)
            ways["tls"] = {"token": None, "tls": True, "access_file": None}
            ways["tls and token"] = {"token": token, "tls": True, "access_file": file}
        work = {way: stack.enter_context(calls(directory, **how)) for way, how in ways.items()}
        access, one = read_access(file), request()
        parts = DecideRequestParts.FromString(one.SerializeToString())
        context, limits = cast(grpc.ServicerContext, Context(token)), Limits(LimitsConfig())

        echo = cast(LeewayServicer, SimpleNamespace(**{method.name: _nothing for method in LEEWAY.methods}))
        guard = Guard(lambda: access, cast(Observer, Nothing()), AuditLog(None), lambda: 0).front(echo, LEEWAY)
        work |= {"guard alone": lambda: guard.Decide(parts, context), "limits alone": lambda: limits.decide(one)}
        found: dict[str, list[float]] = {way: [] for way in work}
        for _ in range(rounds):
            for way, call in work.items():
                call()
                found[way].append(microseconds(call, times))
    cost = {way: statistics.median(values) for way, values in found.items()}
    share = {way: value / cost["open"] for way, value in cost.items() if way != "open"}
    return {
        "cpu_us": cost,
        "share_of_an_open_call": share,
        "left_out": [] if "tls" in ways else ["tls: openssl is not installed"],
        "goals": [
            goal("guard, share of an open call", share["guard alone"], "<= 0.02", share["guard alone"] <= 0.02),
            goal("limits, share of an open call", share["limits alone"], "<= 0.03", share["limits alone"] <= 0.03),
        ],
    }


if __name__ == "__main__":
    main(__doc__, measure)
