"""Who may call what: every scope and points, for every method, over plain text, TLS and mutual TLS."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from grpc_status import rpc_status

from engine.api.leeway.v1 import admin_pb2, service_pb2, service_pb2_grpc
from engine.channel import open_channel, tls_credentials
from engine.serving.rules import RULES
from engine.serving.server import LEEWAY, LEEWAY_ADMIN
from tests.engine.recommender import shop
from tests.engine.samples import NAME, TIME_MS, request
from tests.engine.serving.certificates import Authority
from tests.engine.serving.world import OTHER, REQUESTS, AccessFile, Caller, World, calling, served

OK, UNAUTHENTICATED, DENIED = (
    grpc.StatusCode.OK,
    grpc.StatusCode.UNAUTHENTICATED,
    grpc.StatusCode.PERMISSION_DENIED,
)
NEEDS = {
    "Decide": {"decide"},
    "DecideBatch": {"decide"},
    "DecideStream": {"decide"},
    "Record": {"decide"},
    "Recommend": {"decide"},
    "Report": {"report"},
    "ReportBatch": {"report"},
    "Activate": {"report"},
    "GetStatus": {"read", "admin"},
    "ListPolicies": {"read", "admin"},
}
POINTS: dict[str, Any] = {"all": "all", "these": [NAME, shop.NAME], "other": [OTHER]}
TRANSPORTS = ("plain", "tls", "mtls")


class Lane:
    """One server and how its clients connect."""

    def __init__(self, world: World, file: AccessFile, credentials: grpc.ChannelCredentials | None) -> None:
        self.world = world
        self.file = file
        self.credentials = credentials

    def as_caller(self, token: str | None) -> Any:
        return calling(self.world.target, token, self.credentials)


@pytest.fixture(scope="module", params=TRANSPORTS)
def lane(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lane]:
    directory = tmp_path_factory.mktemp("lane")
    file = AccessFile(directory / "access.json")
    for scope, points in itertools.product(("decide", "report", "read", "admin"), POINTS):
        file.add(f"{scope}-{points}", [scope], POINTS[points])
    file.add("expired", ["decide"], expires="2025-12-31T23:59:59Z")
    file.add("ending", ["decide"], expires="2026-01-01T00:00:01Z")
    serving: dict[str, Any] = {"access_file": file.path}
    credentials = None
    if request.param != "plain":
        authority = Authority(directory)
        server, client = authority.pair("server"), authority.pair("batch", "batch.example.org")
        serving["tls"] = {"certificate": server.certificate, "key": server.key}
        credentials = tls_credentials(authority.path)
        if request.param == "mtls":
            serving["tls"]["client_ca"] = authority.path
            credentials = tls_credentials(authority.path, client.certificate, client.key)
    with served(directory, **serving) as world:
        yield Lane(world, file, credentials)


@pytest.mark.parametrize("points", POINTS)
@pytest.mark.parametrize("scope", ["decide", "report", "read", "admin"])
def test_a_token_opens_what_its_scope_and_points_say_and_nothing_else(lane: Lane, scope: str, points: str) -> None:
    found, expected = {}, {}
    with lane.as_caller(lane.file.tokens[f"{scope}-{points}"]) as caller:
        for method in REQUESTS:
            found[method] = caller.code(method)
            named = method != "GetStatus"
            allowed = scope in NEEDS[method] and (points in ("all", "these") or not named)
            expected[method] = OK if allowed else DENIED
    assert found == expected


@pytest.mark.parametrize("token", [None, "", "leeway_wrong", "expired"])
def test_whoever_is_not_known_is_unauthenticated_everywhere(lane: Lane, token: str | None) -> None:
    before = len(lane.world.recorder.records)
    with lane.as_caller(lane.file.tokens.get(token or "", token)) as caller:
        assert {method: caller.code(method) for method in REQUESTS} == dict.fromkeys(REQUESTS, UNAUTHENTICATED)
    assert len(lane.world.recorder.records) == before
    assert lane.world.observer.ended[-1] == ("ListPolicies", "UNAUTHENTICATED")
    assert lane.world.observer.under_way == 0


def test_health_is_open_and_reflection_wants_a_reader(lane: Lane) -> None:
    def services(token: str | None) -> int:
        with open_channel(lane.world.target, credentials=lane.credentials) as channel:
            stub = reflection_pb2_grpc.ServerReflectionStub(channel)
            asked = iter([reflection_pb2.ServerReflectionRequest(list_services="")])
            metadata = () if token is None else (("authorization", f"Bearer {token}"),)
            (answer,) = stub.ServerReflectionInfo(asked, metadata=metadata, timeout=20.0)
            return len(answer.list_services_response.service)

    with open_channel(lane.world.target, credentials=lane.credentials) as channel:
        answer = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=20.0)
    assert answer.status == health_pb2.HealthCheckResponse.SERVING
    assert services(lane.file.tokens["read-all"]) == 4
    for name, code in ((None, UNAUTHENTICATED), ("decide-all", DENIED)):
        with pytest.raises(grpc.RpcError) as refused:
            services(None if name is None else lane.file.tokens[name])
        assert refused.value.code() is code


def test_a_batch_with_one_foreign_request_is_refused_whole(lane: Lane) -> None:
    before = len(lane.world.recorder.records)
    with lane.as_caller(lane.file.tokens["decide-these"]) as caller:
        mixed = service_pb2.DecideBatchRequest(requests=[request("m1"), request("m2", OTHER)])
        assert caller.code("DecideBatch", mixed) is DENIED
    assert len(lane.world.recorder.records) == before


def test_a_limited_reporter_has_to_say_what_it_is_about(lane: Lane) -> None:
    silent = service_pb2.ReportRequest(decision_id="d1", value=1.0)
    with lane.as_caller(lane.file.tokens["report-these"]) as caller:
        with pytest.raises(grpc.RpcError) as refused:
            caller.call("Report", silent)
        assert refused.value.code() is DENIED
        assert "name the one that this is about" in str(refused.value.details())
    with lane.as_caller(lane.file.tokens["report-all"]) as caller:
        assert caller.code("Report", silent) is OK


def test_a_limited_reader_sees_its_points_alone(lane: Lane) -> None:
    def seen(name: str) -> set[str]:
        with lane.as_caller(lane.file.tokens[name]) as caller:
            return {entry.decision_point for entry in caller.call("GetStatus").decision_points}

    assert seen("read-all") == {NAME, OTHER, shop.NAME}
    assert seen("read-these") == {NAME, shop.NAME}
    assert seen("read-other") == {OTHER}
    with lane.as_caller(lane.file.tokens["read-other"]) as caller:
        assert caller.code("ListPolicies", admin_pb2.ListPoliciesRequest()) is OK


def test_a_refusal_does_not_tell_which_points_there_are(lane: Lane) -> None:
    def words(caller: Caller, point: str) -> str:
        with pytest.raises(grpc.RpcError) as refused:
            caller.call("Decide", request(point=point))
        assert refused.value.code() is DENIED
        return str(refused.value.details()).replace(point, "POINT")

    with lane.as_caller(lane.file.tokens["decide-other"]) as caller:
        assert words(caller, NAME) == words(caller, "nowhere") == "'token decide-other' may not decide for 'POINT'"
    with lane.as_caller(lane.file.tokens["decide-all"]) as caller:
        assert caller.code("Decide", request(point="nowhere")) is grpc.StatusCode.NOT_FOUND


def test_an_unknown_token_and_one_that_has_ended_are_told_alike_with_rich_details(lane: Lane) -> None:
    details = []
    for token in (lane.file.tokens["expired"], "leeway_" + "x" * 43):
        with lane.as_caller(token) as caller, pytest.raises(grpc.RpcError) as refused:
            caller.call("Decide")
        status = rpc_status.from_call(cast(grpc.Call, refused.value))
        assert status is not None
        info = error_details_pb2.ErrorInfo()
        assert status.details[0].Unpack(info)
        assert (info.reason, info.domain) == ("NOT_AUTHENTICATED", "leeway")
        assert token not in str(status)
        details.append(status.message)
    assert details[0] == details[1]


def test_a_token_ends_by_the_clock(lane: Lane) -> None:
    with lane.as_caller(lane.file.tokens["ending"]) as caller:
        assert caller.code("Decide") is OK
        lane.world.now_ms = TIME_MS + 1_000
        try:
            assert caller.code("Decide") is UNAUTHENTICATED
        finally:
            lane.world.now_ms = TIME_MS


@pytest.mark.parametrize("header", ["Basic {0}", "{0}", "bearer {0}", "BEARER {0}", "Bearer  {0} "])
def test_the_scheme_is_bearer_in_any_case(lane: Lane, header: str) -> None:
    with open_channel(lane.world.target, credentials=lane.credentials) as channel:
        call = channel.unary_unary(
            "/leeway.v1.Leeway/Decide",
            request_serializer=service_pb2.DecideRequest.SerializeToString,
            response_deserializer=service_pb2.DecideResponse.FromString,
        )
        metadata = (("authorization", header.format(lane.file.tokens["decide-all"])),)
        if header.lower().startswith("bearer"):
            assert call(request("h1"), metadata=metadata, timeout=20.0).decision_id == "h1"
        else:
            with pytest.raises(grpc.RpcError) as refused:
                call(request("h1"), metadata=metadata, timeout=20.0)
            assert refused.value.code() is UNAUTHENTICATED


def test_every_method_says_what_it_needs() -> None:
    stated = {name for service in (LEEWAY, LEEWAY_ADMIN) for name in (method.full_name for method in service.methods)}
    assert stated <= RULES.keys()
    assert {name.rpartition(".")[2] for name in stated} == REQUESTS.keys() == NEEDS.keys()


def test_a_listed_certificate_is_a_caller_and_one_that_is_not_is_denied(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    server, listed, other = (authority.pair(name, f"{name}.example.org") for name in ("server", "batch", "stranger"))
    file = AccessFile(tmp_path / "access.json")
    file.add_certificate("nightly", "batch.example.org", ["report"], [NAME])
    shop_token = file.add("shop", ["decide"])
    tls = {"certificate": server.certificate, "key": server.key, "client_ca": authority.path}
    with served(tmp_path, access_file=file.path, tls=tls, audit_log=tmp_path / "audit.jsonl") as world:
        for pair, token, expected in (
            (listed, None, {"Report": OK, "Decide": DENIED}),
            (other, None, {"Report": DENIED, "Decide": DENIED}),
            (other, shop_token, {"Report": DENIED, "Decide": OK}),
            (listed, "leeway_wrong", {"Report": UNAUTHENTICATED, "Decide": UNAUTHENTICATED}),
        ):
            credentials = tls_credentials(authority.path, pair.certificate, pair.key)
            with calling(world.target, token, credentials) as caller:
                assert {method: caller.code(method) for method in expected} == expected
        with calling(world.target, None, tls_credentials(authority.path, listed.certificate, listed.key)) as caller:
            assert caller.code("GetStatus") is DENIED
    (line,) = map(json.loads, (tmp_path / "audit.jsonl").read_text().splitlines())
    assert line["who"] == "certificate nightly"
    assert {"batch", "batch.example.org"} <= set(line["peer"].split())


def test_without_an_access_file_anybody_may_do_everything(tmp_path: Path) -> None:
    with served(tmp_path) as world, calling(world.target) as caller:
        assert {method: caller.code(method) for method in REQUESTS} == dict.fromkeys(REQUESTS, OK)


def test_a_stream_is_answered_up_to_the_first_request_that_may_not_be_made(tmp_path: Path) -> None:
    file = AccessFile(tmp_path / "access.json")
    token = file.add("limited", ["decide"], [NAME])
    foreign = request("foreign")
    foreign.decision_point = OTHER
    with (
        served(tmp_path, access_file=file.path) as world,
        open_channel(world.target, token=token) as channel,
    ):
        answers = service_pb2_grpc.LeewayStub(channel).DecideStream(
            iter([request("s1"), request("s2"), foreign, request("s3")]), timeout=20.0
        )
        ids: list[str] = []
        with pytest.raises(grpc.RpcError) as refused:
            ids.extend(item.response.decision_id for item in answers)
        assert ids == ["s1", "s2"]
        assert refused.value.code() == DENIED
