"""HTTP/JSON as a client meets it: a real server, the same core and the same answers as over gRPC."""

from __future__ import annotations

import http.client
import json
import signal
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.service import ACTIONS, CONTEXT, PATIENCE_S, Service, eventually, free_port, running, settings

BODY: dict[str, Any] = {"decision_point": "offers", "context": CONTEXT, "actions": list(ACTIONS)}


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    config = settings(http={"port": 0}, drain="5s", drain_grace="20s")
    with running(tmp_path_factory.mktemp("service"), config, "serve") as service:
        yield service


def call(service: Service, path: str, body: object = None) -> tuple[int, Any]:
    facts = service.facts("serve")
    assert facts is not None
    data = None if body is None else json.dumps(body).encode()
    url = f"http://127.0.0.1:{facts['http_port']}{path}"
    request = urllib.request.Request(url, data, {"content-type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=PATIENCE_S) as answer:
            return answer.status, json.loads(answer.read())
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.loads(error.read())


def test_http_and_grpc_are_one_engine(service: Service) -> None:
    with service.client() as client:
        for number in range(10):
            first = client.decide("offers", CONTEXT, ACTIONS, f"grpc-{number}")
            status, again = call(service, "/v1/decide", {**BODY, "decision_id": f"grpc-{number}"})
            assert status == 200
            assert (again["action"], tuple(again["probabilities"])) == (first.action, first.probabilities)
            assert again["policy_version"] == first.policy_version
            _, other = call(service, "/v1/decide", {**BODY, "decision_id": f"http-{number}"})
            known = client.decide("offers", CONTEXT, ACTIONS, f"http-{number}")
            assert (known.action, known.propensity) == (other["action"], other["propensity"])
    status, reported = call(service, "/v1/report", {"decision_id": "http-0", "outcome_id": "o1", "value": 1})
    assert (status, reported) == (200, {"outcome_id": "o1"})
    logged = [decision.decision_id for decision in service.decisions()]
    assert sorted(logged) == sorted({f"{kind}-{number}" for kind in ("grpc", "http") for number in range(10)})
    assert "o1" in {outcome.outcome_id for outcome in service.outcomes()}
    assert service.metric("serve", "leeway_requests_total", method="Decide", code="OK") >= 40


def test_a_mistake_is_told_alike(service: Service) -> None:
    status, problem = call(service, "/v1/decide", {**BODY, "context": {"age": 1}})
    assert status == 400
    assert problem["violations"][0]["field"] == "context.features.age"
    status, problem = call(service, "/v1/decide", {**BODY, "decision_point": "nowhere"})
    assert (status, problem["reason"]) == (404, "UNKNOWN_DECISION_POINT")


def test_it_stays_off_unless_it_is_asked_for(tmp_path: Path) -> None:
    with running(tmp_path, settings(), "serve") as service:
        facts = service.facts("serve")
        assert facts is not None
        assert "http_port" not in facts


def test_a_port_that_is_taken_ends_the_start_with_words(service: Service, tmp_path: Path) -> None:
    facts = service.facts("serve")
    assert facts is not None
    second = Service(tmp_path, settings(http={"port": facts["http_port"]}), "serve")
    second.launch()
    try:
        eventually(lambda: "serving.http.host/port: cannot listen" in second.messages(), "words about the port")
    finally:
        second.kill()


def test_the_end_says_not_ready_and_loses_nothing(tmp_path: Path) -> None:
    port = free_port()
    config = settings(http={"port": port}, drain="2s")
    with running(tmp_path, config, "serve") as service:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE_S)

        def ready() -> int:
            connection.request("GET", "/ready")
            answer = connection.getresponse()
            answer.read()
            return answer.status

        assert ready() == 200
        service.process.send_signal(signal.SIGTERM)
        eventually(lambda: ready() == 503, "it to drain")
        status, answer = call(service, "/v1/decide", {**BODY, "decision_id": "last"})
        assert status == 200
        connection.close()
        assert service.process.wait(PATIENCE_S) == 0
        assert answer["decision_id"] in {decision.decision_id for decision in service.decisions()}
