from __future__ import annotations

import http.client
import json
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from engine.config import HttpConfig, ServingConfig
from engine.errors import ConfigError
from engine.serving.http.server import HttpServer, listen
from engine.serving.load import Call, Rank
from engine.serving.tokens import read_access
from tests.engine.http.face import BODY, Face, serving
from tests.engine.samples import TIME_MS
from tests.engine.serving.world import AccessFile


@pytest.fixture
def face() -> Iterator[Face]:
    with serving() as face:
        yield face


def without(name: str) -> dict[str, Any]:
    return {key: value for key, value in BODY.items() if key != name}


def test_a_decision_is_answered_as_it_is_recorded(face: Face) -> None:
    answer = face.post("decide", BODY)
    assert answer.status == 200
    (decision,) = face.recorder.decisions
    assert answer.body["decision_id"] == decision.decision_id == "d1"
    assert answer.body["probabilities"] == list(decision.probabilities) == [0.5, 0.5, 0.0]
    assert answer.body["action"] == ["none", "small", "large"][decision.chosen]
    assert answer.body["action_index"] == decision.chosen
    assert answer.body["propensity"] == 0.5
    assert answer.body["fallback"] == "none"
    assert answer.body["unrecorded"] is False
    assert decision.context.named["taste"].numbers.values == [0.25, -1.0]
    assert decision.actions[1].features["discount"].number == 0.1
    assert face.post("decide", BODY).body == answer.body
    assert len(face.recorder.records) == 1
    assert face.observer.ended == [("Decide", "OK")] * 2


def test_without_an_id_each_is_a_decision_of_its_own(face: Face) -> None:
    first, second = (face.post("decide", without("decision_id")).body["decision_id"] for _ in range(2))
    assert first != second
    assert {first, second} == {decision.decision_id for decision in face.recorder.decisions}


def test_a_list_is_ranked(face: Face) -> None:
    answer = face.post("recommend", {"recommender": "shop", "user": {"age": 30}, "candidates": list("abcde"), "k": 2})
    assert answer.status == 200
    assert [item["propensity"] for item in answer.body["items"]] == [0.2, 0.25]
    assert len({item["item"] for item in answer.body["items"]}) == 2


def test_an_outcome_is_recorded_when_it_is_acknowledged(face: Face) -> None:
    answer = face.post("report", {"decision_id": "d1", "outcome_id": "o1", "value": 1, "time_ms": 5.0})
    assert (answer.status, answer.body) == (200, {"outcome_id": "o1"})
    made = face.post(
        "report", {"decision_id": "d2", "value": 0.5, "decision_point": "shop", "task": "click", "slot": 1}
    )
    assert made.status == 200
    first, second = face.recorder.outcomes
    assert (first.decision_id, first.outcome_id, first.value, first.time_ms) == ("d1", "o1", 1.0, 5)
    assert not first.HasField("slot")
    assert (second.task, second.slot, second.time_ms) == ("click", 1, TIME_MS)
    assert second.outcome_id == made.body["outcome_id"] != ""
    assert face.observer.reported == 2


def test_items_of_a_batch_fail_one_by_one(face: Face) -> None:
    wrong = {**BODY, "decision_id": "d2", "decision_point": "nowhere"}
    answer = face.post("decide/batch", {"requests": [BODY, wrong, {**BODY, "decision_id": "d3"}]})
    assert answer.status == 200
    first, second, third = answer.body["items"]
    assert (first["response"]["decision_id"], third["response"]["decision_id"]) == ("d1", "d3")
    assert second["error"]["status"] == 404
    assert second["error"]["reason"] == "UNKNOWN_DECISION_POINT"
    reports = [
        {"decision_id": "d1", "value": 1, "outcome_id": "o1"},
        {"decision_id": "d1", "value": 9, "decision_point": "offers"},
    ]
    answer = face.post("report/batch", {"requests": reports})
    good, bad = answer.body["items"]
    assert good == {"response": {"outcome_id": "o1"}}
    assert bad["error"]["violations"][0]["field"] == "value"
    assert len(face.recorder.outcomes) == face.observer.reported == 1


PROBLEMS: dict[str, tuple[str, Any, int, str, str]] = {
    "unknown point": ("decide", {**BODY, "decision_point": "nowhere"}, 404, "UNKNOWN_DECISION_POINT", "nowhere"),
    "unknown feature": ("decide", {**BODY, "context": {"age": 1}}, 400, "INVALID_REQUEST", "age"),
    "no actions": ("decide", {**BODY, "actions": []}, 400, "INVALID_REQUEST", "actions"),
    "no such key": ("decide", {**BODY, "kontext": {}}, 400, "INVALID_REQUEST", "kontext"),
    "not given": ("decide", without("actions"), 400, "INVALID_REQUEST", "actions: Field required"),
    "null": ("decide", {**BODY, "context": {"basket": None}}, 400, "INVALID_REQUEST", "context.basket: must"),
    "true": ("decide", {**BODY, "context": {"basket": True}}, 400, "INVALID_REQUEST", "context.basket: must"),
    "long id": ("decide", {**BODY, "decision_id": "x" * 257}, 400, "INVALID_REQUEST", "decision_id"),
    "a list": ("decide", [BODY], 400, "INVALID_REQUEST", "body"),
    "text for a value": ("report", {"decision_id": "d", "value": "1"}, 400, "INVALID_REQUEST", "value"),
    "no decision": ("report", {"decision_id": "", "value": 1}, 400, "INVALID_REQUEST", "decision_id"),
    "in a batch": ("report/batch", {"requests": [{"value": []}]}, 400, "INVALID_REQUEST", "requests[0].value"),
    "a point as recommender": ("recommend", {"recommender": "offers"}, 400, "INVALID_REQUEST", "Decide"),
}  # fmt: skip


@pytest.mark.parametrize(("path", "body", "status", "reason", "words"), PROBLEMS.values(), ids=PROBLEMS.keys())
def test_a_bad_request_is_a_problem_that_names_the_field(
    face: Face, path: str, body: object, status: int, reason: str, words: str
) -> None:
    answer = face.post(path, body)
    assert answer.status == answer.body["status"] == status
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.body["reason"] == reason
    assert words in answer.body["detail"]
    assert answer.body["violations"]
    assert "retry-after" not in answer.headers
    assert face.recorder.records == []
    assert face.post("decide", BODY).status == 200


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"{",
        b"\xff\xfe",
        b"[" * 50_000,
        b'{"decision_point": "offers", "actions": ["a"], "context": {"basket": 1e999}}',
        b'{"decision_point": "offers", "actions": ["a"], "context": {"basket": NaN}}',
        b'{"decision_point": "\\ud800", "actions": ["a"]}',
    ],
)
def test_what_is_no_json_is_refused(face: Face, raw: bytes) -> None:
    answer = face.call("POST", "/v1/decide", raw=raw)
    assert (answer.status, answer.body["reason"]) == (400, "INVALID_REQUEST")


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "application/jsonp", ""])
def test_another_media_type_is_refused(face: Face, kind: str) -> None:
    # A page of another origin can send forms and texts without asking first; JSON it cannot.
    answer = face.call("POST", "/v1/decide", BODY, {"content-type": kind})
    assert (answer.status, answer.body["reason"]) == (415, "UNSUPPORTED_MEDIA_TYPE")
    assert face.post("decide", BODY, {"content-type": "Application/JSON; charset=utf-8"}).status == 200


def test_a_body_has_a_size() -> None:
    with serving(max_message_bytes=2_000) as face:
        answer = face.post("decide", {**BODY, "context": {"country": "x" * 3_000}})
        assert (answer.status, answer.body["reason"]) == (413, "TOO_LARGE")
        assert "max_message_bytes (2000)" in answer.body["detail"]
        assert face.post("decide", BODY).status == 200


def test_unknown_paths_and_methods_are_problems_too(face: Face) -> None:
    assert face.call("POST", "/v1/nothing", {}).body["status"] == 404
    wrong = face.call("GET", "/v1/decide")
    assert (wrong.status, wrong.headers["content-type"]) == (405, "application/problem+json")
    assert wrong.headers["allow"] == "POST"


def test_a_log_that_does_not_take_it_is_said_with_when_to_come_again(face: Face) -> None:
    face.recorder.failing = True
    for path, body in (("decide", BODY), ("report", {"decision_id": "d1", "value": 1})):
        answer = face.post(path, body)
        assert (answer.status, answer.body["reason"], answer.headers["retry-after"]) == (503, "LOG_UNAVAILABLE", "1")
        assert answer.body["retry_after_s"] == 1.0
    face.recorder.failing = False
    assert face.post("decide", BODY).status == 200


def test_a_deadline_ends_the_wait_and_a_retry_gets_the_answer(face: Face) -> None:
    face.recorder.held = True
    late = face.post("decide", BODY, {"Leeway-Timeout-Ms": "50"})
    assert (late.status, late.body["reason"], late.headers["retry-after"]) == (504, "LOG_SLOW", "1")
    batch = face.post("decide/batch", {"requests": [BODY]}, {"Leeway-Timeout-Ms": "50"})
    assert batch.body["items"][0]["error"]["status"] == 504
    face.recorder.held = False
    face.recorder.confirm()
    again = face.post("decide", BODY)
    assert again.status == 200
    assert len(face.recorder.decisions) == 1
    assert again.body["probabilities"] == list(face.recorder.decisions[0].probabilities)


@pytest.mark.parametrize("given", ["0", "-1", "1.5", "soon", "", "9" * 30, "²"])
def test_a_deadline_that_is_none_is_refused(face: Face, given: str) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", face.port, timeout=30)
    connection.putrequest("POST", "/v1/decide")
    for name, value in (("content-type", "application/json"), ("content-length", "2")):
        connection.putheader(name, value)
    connection.putheader("leeway-timeout-ms", given.encode())
    connection.endheaders(b"{}")
    answer = connection.getresponse()
    assert answer.status == 400
    assert "Leeway-Timeout-Ms" in json.loads(answer.read())["detail"]
    connection.close()


def test_without_time_to_score_the_answer_is_a_fallback() -> None:
    with serving(scoring_reserve="10s", default_deadline="1s") as face:
        assert face.post("decide", BODY).body["fallback"] == "deadline"
        assert (
            face.post("decide", {**BODY, "decision_id": "d2"}, {"Leeway-Timeout-Ms": "60000"}).body["fallback"]
            == "none"
        )


def test_who_waits_for_the_log_holds_up_nobody(face: Face) -> None:
    face.recorder.held = True
    with ThreadPoolExecutor(20) as threads:
        waiting = [threads.submit(face.post, "decide", {**BODY, "decision_id": f"d{n}"}) for n in range(20)]
        while len(face.recorder._waiting) < 20:
            assert face.call("GET", "/ready").status == 200
        face.recorder.held = False
        face.recorder.confirm()
        assert {answer.result().status for answer in waiting} == {200}
    assert len(face.recorder.decisions) == 20


def test_beyond_the_bound_callers_are_told_to_come_again() -> None:
    with serving(http={"port": 0, "max_requests": 2}) as face:
        face.recorder.held = True
        with ThreadPoolExecutor(2) as threads:
            waiting = [threads.submit(face.post, "decide", {**BODY, "decision_id": f"d{n}"}) for n in range(2)]
            while len(face.recorder._waiting) < 2:
                face.call("GET", "/health")
            third = face.post("decide", BODY)
            assert (third.status, third.body["reason"], third.headers["retry-after"]) == (503, "OVERLOADED", "1")
            face.recorder.confirm()
            assert [answer.result().status for answer in waiting] == [200, 200]
        face.recorder.held = False
        assert face.post("decide", BODY).status == 200


def test_who_asks_too_often_is_told_when_to_come_again() -> None:
    with serving(overload={"rate": {"per_second": 0.1, "burst": 1}}) as face:
        assert face.post("decide", BODY).status == 200
        refused = face.post("decide", BODY)
        assert (refused.status, refused.body["reason"]) == (429, "RATE_LIMITED")
        assert 1 <= int(refused.headers["retry-after"]) <= 10
        assert face.observer.refusals == [("Decide", "rate_limited")]


def test_while_calls_wait_at_the_grpc_server_decisions_fall_back_here_too() -> None:
    with serving(workers=1, max_concurrent=2, overload={"score_until": 0.5}) as face:
        for _ in range(2):
            face.load.enter(Call(lambda: None, Rank.ALWAYS, "", 0.0), 0.0)
        face.load.take()
        answer = face.post("decide", BODY)
        assert (answer.body["fallback"], answer.body["propensity"]) == ("overload", 0.5)
        assert face.observer.degradations == [("Decide", "overload")]


def test_a_fault_of_ours_is_a_problem_without_its_trace(face: Face, caplog: pytest.LogCaptureFixture) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("secret path")

    face.service.report = broken  # type: ignore[assignment,method-assign]
    answer = face.post("report", {"decision_id": "d", "value": 1})
    assert (answer.status, answer.body["reason"]) == (500, "INTERNAL")
    assert "Traceback" not in answer.body["detail"]
    assert "secret path" in caplog.text


def test_it_drains(face: Face) -> None:
    assert face.call("GET", "/ready").body == {"status": "ready"}
    face.face.draining = True
    assert (face.call("GET", "/ready").status, face.call("GET", "/health").status) == (503, 200)
    assert face.post("decide", BODY).status == 200


def test_its_end_waits_for_what_is_under_way() -> None:
    face = Face()
    assert face.config.http is not None
    server = HttpServer(face.config.http, face.face, 20.0)
    face.port = server.start()
    face.recorder.held = True
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(face.post, "decide", BODY)
        while not face.recorder._waiting:
            face.call("GET", "/health")
        ending = threading.Thread(target=server.stop)
        ending.start()
        face.recorder.confirm()
        assert waiting.result().status == 200
        ending.join()
    with pytest.raises(OSError, match=r".*"):
        face.call("GET", "/health")


def test_an_answer_does_not_wait_for_an_acknowledgement() -> None:
    with listen("127.0.0.1", 0) as listener, socket.create_connection(listener.getsockname()):
        accepted, _ = listener.accept()
        with accepted:
            assert accepted.proto == socket.IPPROTO_TCP  # what asyncio asks before it sets TCP_NODELAY


def test_a_port_that_is_taken_is_said() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        face = Face()
        config = HttpConfig(port=taken.getsockname()[1])
        with pytest.raises(ConfigError, match=f"serving.http.host/port: cannot listen on 127.0.0.1:{config.port}"):
            HttpServer(config, face.face, 1.0).start()


def test_the_page_needs_nothing_from_elsewhere(face: Face) -> None:
    page = face.call("GET", "/docs")
    assert page.status == 200
    assert page.headers["content-type"].startswith("text/html")
    for path in ("/v1/decide", "/v1/report/batch", "/ready"):
        assert path in page.body
    assert "http://" not in page.body
    assert "https://" not in page.body
    assert "src=" not in page.body
    document = face.call("GET", "/openapi.json").body
    assert document["openapi"].startswith("3.1")
    assert set(document["components"]["schemas"]) >= {"DecideForm", "Problem"}


def test_tokens_are_asked_for_as_over_grpc(tmp_path: Path) -> None:
    file = AccessFile(tmp_path / "access.json")
    decider, reporter = file.add("decider", ["decide"], ["offers"]), file.add("reporter", ["report"])
    elsewhere = file.add("elsewhere", ["decide"], ["banners"])
    expired = file.add("old", ["decide"], expires="1970-01-01T00:00:00Z")
    outcome = {"decision_id": "d1", "decision_point": "offers", "value": 1.0}
    batch = {"requests": [BODY, {**BODY, "decision_id": "d2"}]}
    access = read_access(file.path)
    with serving(access=lambda: access) as face:

        def status(token: str | None, path: str = "decide", body: object = BODY) -> int:
            return face.post(path, body, None if token is None else {"authorization": f"Bearer {token}"}).status

        assert [status(token) for token in (None, "guess", expired)] == [401, 401, 401]
        assert [status(token) for token in (reporter, elsewhere, decider)] == [403, 403, 200]
        assert [status(token, "report", outcome) for token in (decider, reporter)] == [403, 200]
        assert [status(token, "decide/batch", batch) for token in (elsewhere, decider)] == [403, 200]
        assert status(None, "decide", {"wrong": 1}) == 401  # nothing is told to strangers
        assert [face.call("GET", path).status for path in ("/health", "/ready")] == [200, 200]
        assert {code for _, code in face.observer.ended} == {"OK", "UNAUTHENTICATED", "PERMISSION_DENIED"}
    assert {d.decision_id for d in face.recorder.decisions} == {"d1", "d2"}


def test_http_in_plain_text_stays_on_this_machine_where_grpc_is_encrypted() -> None:
    tls = {"certificate": "server.pem", "key": "server.key"}
    with pytest.raises(ValueError, match="a proxy before it that ends TLS"):
        ServingConfig.model_validate({"tls": tls, "http": {"host": "0.0.0.0"}})
    assert ServingConfig.model_validate({"tls": tls, "http": {}}).http is not None
