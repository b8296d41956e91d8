"""The HTTP server over a core and a log in memory."""

from __future__ import annotations

import contextlib
import http.client
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from engine.config import DecisionPoint, HttpConfig, ServingConfig
from engine.policy import initial_policy
from engine.recommender.policy import initial_recommender
from engine.serving.http.app import HttpFace
from engine.serving.http.server import HttpServer
from engine.serving.load import Load
from engine.serving.rates import ClientRates
from engine.serving.service import DecisionService
from engine.serving.tokens import Access
from tests.engine.recommender.shop import shop
from tests.engine.samples import TIME_MS, MemoryObserver, MemoryRecorder

OFFERS = DecisionPoint.model_validate(
    {
        "context": {
            "basket": {"type": "number"},
            "country": {"type": "text", "buckets": 8},
            "taste": {"type": "vector", "size": 2},
        },
        "actions": {"features": {"discount": {"type": "number"}}, "max": 50},
        "reward": {"range": [0, 1]},
    }
)
SHOP = shop()
BODY: dict[str, Any] = {
    "decision_point": "offers",
    "decision_id": "d1",
    "context": {"basket": 0.5, "country": "NL", "taste": [0.25, -1]},
    "actions": ["none", {"id": "small", "features": {"discount": 0.1}}, {"id": "large", "excluded": True}],
}


@dataclass
class Answer:
    """What came back."""

    status: int
    headers: dict[str, str]
    body: Any


class Recorded(MemoryObserver):
    """Remembers how calls ended."""

    def __init__(self) -> None:
        super().__init__()
        self.ended: list[tuple[str, str]] = []
        self.reported = 0

    def end(self, method: str, code: str) -> None:
        """Remember it."""
        self.ended.append((method, code))

    def outcome(self) -> None:
        """Count it."""
        self.reported += 1


class Face:
    """A core with an HTTP face that is not served yet."""

    def __init__(self, access: Callable[[], Access] | None = None, **serving: Any) -> None:
        self.recorder = MemoryRecorder()
        self.observer = Recorded()
        self.service = DecisionService(
            {"offers": OFFERS},
            {"offers": initial_policy("offers", OFFERS, TIME_MS)},
            self.recorder,
            self.observer,
            1_000,
            recommenders={"shop": (SHOP, initial_recommender("shop", SHOP, TIME_MS))},
        )
        self.config = ServingConfig.model_validate({"http": {"port": 0}, **serving})
        rate = self.config.overload.rate
        self.load = Load(self.config)
        self.face = HttpFace(
            self.service,
            self.config,
            self.observer,
            lambda: TIME_MS,
            access,
            self.load,
            None if rate is None else ClientRates(rate, self.observer),
        )
        self.port = 0

    def call(
        self,
        verb: str,
        path: str,
        body: object = None,
        headers: dict[str, str] | None = None,
        *,
        raw: bytes | None = None,
    ) -> Answer:
        """Send one request; ``raw`` is a body as it is."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        data = raw if raw is not None else None if body is None else json.dumps(body).encode()
        with contextlib.closing(connection):
            connection.request(verb, path, data, {"content-type": "application/json", **(headers or {})})
            answer = connection.getresponse()
            text = answer.read()
        kind = answer.headers.get("content-type", "")
        return Answer(
            answer.status,
            {name.lower(): value for name, value in answer.headers.items()},
            json.loads(text) if "json" in kind else text.decode(),
        )

    def post(self, path: str, body: object, headers: dict[str, str] | None = None) -> Answer:
        """Send one request to ``/v1``."""
        return self.call("POST", f"/v1/{path}", body, headers)


@contextlib.contextmanager
def serving(**options: Any) -> Iterator[Face]:
    """Serve for a block, on a free port."""
    face = Face(**options)
    assert isinstance(face.config.http, HttpConfig)
    server = HttpServer(face.config.http, face.face, 5.0)
    face.port = server.start()
    try:
        yield face
    finally:
        server.stop()
