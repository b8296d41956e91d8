"""Mutated requests against a running server: ``python -m tests.fuzz.attack --requests N`` starts one and attacks it.

Bytes of requests are mutated and sent as they are, over gRPC with serializers that do nothing, and over HTTP. A fault
of the caller must never look like one of the server, each call has to end in time, and good requests in between have to
be answered as ever.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import random
import signal
import sys
import tempfile
import time
from collections import Counter, deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc

from engine.api.leeway.v1 import service_pb2
from engine.channel import open_channel
from engine.records import new_id
from tests.fuzz.harness import mutated
from tests.fuzz.requests import PATHS

LEEWAY, ADMIN = "/leeway.v1.Leeway/", "/leeway.v1.LeewayAdmin/"
#: How calls with a caller's fault may end; and those without one.
FINE = {
    grpc.StatusCode.OK,
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.RESOURCE_EXHAUSTED,  # a message that is too large
}
#: A minute for an answer: what takes longer, hangs.
DEADLINE_S = 60.0
UNDER_WAY = 64
#: One call of so many is of each of these kinds.
GOOD, OVER_HTTP, STREAMED = 50, 10, 25


@dataclass
class Tally:
    """How calls ended, and the first of those that ended as none should."""

    ends: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)

    def take(self, method: str, code: str, fine: bool, data: bytes, detail: str = "") -> None:
        """Count one."""
        self.ends[f"{method} {code}"] += 1
        if not fine and len(self.wrong) < 20:
            self.wrong.append(f"{method} ended with {code} ({detail[:300]}): {data[:1_000]!r}")


class Attack:
    """Mutated requests over one channel and one HTTP connection.

    Parameters
    ----------
    target
        ``host:port`` of the gRPC server.
    http_port
        Of the HTTP server on this machine; ``None``: there is none.
    requests
        Good requests by method of either service.
    good
        One that has to be answered with a decision.
    seed
        Of the mutations.
    """

    def __init__(
        self,
        target: str,
        http_port: int | None,
        requests: Mapping[str, Any],
        good: service_pb2.DecideRequest,
        seed: int = 1,
    ) -> None:
        self._target = target
        self._http_port = http_port
        self._messages = {name: message.SerializeToString() for name, message in requests.items()}
        self._others = [*self._messages.values(), *PATHS.values()]
        self._good = good
        self._random = random.Random(seed)
        self.tally = Tally()

    def run(self, count: int) -> Iterator[int]:
        """Send so many; yield how many were sent, now and then."""
        pending: deque[tuple[str, bytes, Any]] = deque()
        with open_channel(self._target, [("grpc.use_local_subchannel_pool", 1)]) as channel:
            calls = {name: self._method(channel, name) for name in self._messages if name != "DecideStream"}
            stream = channel.stream_stream(f"{LEEWAY}DecideStream", _same, _same)
            for number in range(count):
                if number % GOOD == 0:
                    self._check(calls["Decide"])
                if number % OVER_HTTP == 0 and self._http_port is not None:
                    self._post()
                elif number % STREAMED == 0:
                    self._stream(stream)
                else:
                    name = self._random.choice(list(calls))
                    data = self._mutated(self._messages[name])
                    pending.append((name, data, calls[name].future(data, timeout=DEADLINE_S)))
                while len(pending) >= UNDER_WAY:
                    self._end(*pending.popleft())
                if number % 1_000 == 999:
                    yield number + 1
            while pending:
                self._end(*pending.popleft())
            self._check(calls["Decide"])
        yield count

    @staticmethod
    def _method(channel: grpc.Channel, name: str) -> Any:
        service = ADMIN if name in ("GetStatus", "ListPolicies") else LEEWAY
        return channel.unary_unary(service + name, _same, _same)

    def _mutated(self, data: bytes) -> bytes:
        for _ in range(self._random.choice((1, 1, 2, 4))):
            data = mutated(data, self._random.choice(self._others), self._random)
        return data

    def _end(self, name: str, data: bytes, call: Any) -> None:
        error = call.exception()
        code = grpc.StatusCode.OK if error is None else error.code()
        self.tally.take(name, code.name, code in FINE, data, "" if error is None else str(error.details()))

    def _check(self, decide: Any) -> None:
        """A good request is answered well."""
        request = service_pb2.DecideRequest()
        request.CopyFrom(self._good)
        request.decision_id = new_id()
        try:
            answer = service_pb2.DecideResponse.FromString(decide(request.SerializeToString(), timeout=DEADLINE_S))
        except grpc.RpcError as error:
            self.tally.take("good", error.code().name, False, b"", str(error))
            return
        right = (
            answer.decision_id == request.decision_id
            and len(answer.probabilities) == len(request.actions)
            and answer.action == request.actions[answer.action_index].id
            and answer.propensity == answer.probabilities[answer.action_index] > 0.0
        )
        self.tally.take("good", "right" if right else "wrong", right, b"", str(answer))

    def _stream(self, stream: Any) -> None:
        """A stream ends after its good requests, at the first that cannot be read."""
        sent = [self._mutated(self._messages["DecideStream"]) for _ in range(self._random.randrange(4))]
        try:
            for item in stream(iter([self._good.SerializeToString(), *sent]), timeout=DEADLINE_S):
                service_pb2.DecideBatchItem.FromString(item)
            code, detail = grpc.StatusCode.OK, ""
        except grpc.RpcError as error:
            code, detail = error.code(), str(error)
        self.tally.take("DecideStream", code.name, code in FINE, b"".join(sent), detail)

    def _post(self) -> None:
        path = self._random.choice(list(PATHS))
        body = self._mutated(PATHS[path])
        connection = http.client.HTTPConnection("127.0.0.1", self._http_port, timeout=DEADLINE_S)
        with contextlib.closing(connection):
            try:
                connection.request("POST", path, body, {"content-type": "application/json"})
                answer = connection.getresponse()
                status, detail = answer.status, answer.read().decode(errors="replace")
            except (OSError, http.client.HTTPException) as error:
                status, detail = 0, repr(error)
        self.tally.take(path, str(status), 200 <= status < 500 and status != 408, body, detail)


def _same(data: bytes) -> bytes:
    return data


def main() -> int:
    """Start a server, attack it, and say what came of it; return 1 where something is wrong."""
    from tests.fuzz.attacked import attacked, resident_mib

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C, also where that is ignored
    with tempfile.TemporaryDirectory() as folder, attacked(Path(folder)) as (service, begin):
        began, before = time.monotonic(), resident_mib(service.pid("serve"))
        attack = begin(given.seed)
        mib, sent = before, 0
        with contextlib.suppress(KeyboardInterrupt):  # what came of it so far is said
            for sent in attack.run(given.requests):
                mib = resident_mib(service.pid("serve"))
                print(f"{sent} sent in {time.monotonic() - began:.0f} s, {mib:.0f} MiB", file=sys.stderr, flush=True)
        tally = attack.tally
    found = {"requests": sent, "mib": [before, mib], "ends": dict(sorted(tally.ends.items()))}
    print(json.dumps({**found, "wrong": tally.wrong}, indent=2))
    return int(bool(tally.wrong))


if __name__ == "__main__":
    sys.exit(main())
