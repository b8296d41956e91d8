"""The service as a client and an operator meet it: a real server in processes of its own, over real sockets."""

from __future__ import annotations

import math
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import grpc
import numpy as np
import pytest
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.json_format import ParseDict
from google.protobuf.message_factory import GetMessageClass
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from engine.api.leeway.v1 import admin_pb2, admin_pb2_grpc, service_pb2, service_pb2_grpc
from engine.client import Candidate, Decided, LeewayClient, Refused, decide_request
from engine.records import FALLBACK_REASON_DEADLINE, new_id
from engine.serving.server import ADMIN, SERVICE
from tests.integration.service import ACTIONS, CONTEXT, OFFERS, Service, eventually, offer, running, settings
from tests.prometheus import binary

#: A deadline below this is answered from the fallback: far from both ends, so that no busy machine crosses it.
RESERVE_S = 0.5
MAX_MESSAGE_BYTES = 65_536
POINTS = {"offers": OFFERS, "banners": {"actions": {"max": 3}, "reward": {"window": "1s", "grace": "200ms"}}}


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """Everything of ``leeway up``, shared by the tests of this module: they must leave it as it was."""
    config = settings(POINTS, scoring_reserve=f"{RESERVE_S:g}s", max_message_bytes=MAX_MESSAGE_BYTES)
    with running(tmp_path_factory.mktemp("service"), config) as service:
        yield service


@pytest.fixture(scope="module")
def channel(service: Service) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(service.target) as channel:
        yield channel


@pytest.fixture(scope="module")
def stub(channel: grpc.Channel) -> service_pb2_grpc.LeewayStub:
    return service_pb2_grpc.LeewayStub(channel)


@pytest.fixture(scope="module")
def client(service: Service) -> Iterator[LeewayClient]:
    with service.client() as client:
        yield client


# What a product does


def test_a_decision_is_answered_logged_as_answered_and_joined_with_its_outcome(
    service: Service, client: LeewayClient
) -> None:
    actions: list[Candidate | str] = [
        "none",
        Candidate("small", {"discount": 0.05}),
        Candidate("large", {"discount": 0.2}, excluded=True),
    ]
    decided = [client.decide("offers", CONTEXT, actions) for _ in range(60)]
    for answer in decided:
        assert math.fsum(answer.probabilities) == pytest.approx(1.0, abs=1e-12)
        assert answer.probabilities[2] == 0.0
        assert answer.propensity == answer.probabilities[["none", "small", "large"].index(answer.action)]
        assert answer.fallback == "none"
    reported = {answer.decision_id: client.report(answer.decision_id, 1.0, point="offers") for answer in decided[:40]}

    logged = {decision.decision_id: decision for decision in service.decisions()}
    for answer in decided:
        entry = logged[answer.decision_id]
        assert tuple(entry.probabilities) == answer.probabilities
        assert entry.actions[entry.chosen].id == answer.action
        assert entry.policy_version == answer.policy_version
    outcomes = {outcome.decision_id: outcome.outcome_id for outcome in service.outcomes()}
    assert reported.items() <= outcomes.items()

    book = service.settled()
    assert book.decisions == book.feedback
    assert book.feedback - book.defaulted >= 40
    learned = eventually(lambda: service.status().learned >= 60 and service.status(), "the feedback to be learned")
    assert learned
    later = client.decide("offers", CONTEXT, actions)
    assert later.policy_version != decided[0].policy_version


def test_packed_numbers_mean_the_same_as_named_ones(stub: service_pb2_grpc.LeewayStub) -> None:
    named = offer(decision_id=new_id())
    packed = offer(decision_id=new_id())
    packed.context.Clear()
    packed.context.named["country"].text = "NL"
    packed.context.packed = np.array([0.4, 0.1, 0.2, 0.3], dtype="<f4").tobytes()
    with_named, with_packed = stub.DecideBatch(service_pb2.DecideBatchRequest(requests=[named, packed])).items
    assert with_named.response.policy_version == with_packed.response.policy_version
    assert with_named.response.probabilities == with_packed.response.probabilities


def test_items_of_a_batch_fail_one_by_one(client: LeewayClient) -> None:
    good = [decide_request("offers", CONTEXT, ACTIONS), decide_request("banners", {}, ["a", "b"])]
    bad = [decide_request("nowhere", CONTEXT, ACTIONS), decide_request("offers", CONTEXT, [])]
    first, unknown, empty, last = client.decide_batch([good[0], *bad, good[1]])
    assert isinstance(first, Decided)
    assert first.decision_id == good[0].decision_id
    assert isinstance(last, Decided)
    assert last.action in ("a", "b")
    assert isinstance(unknown, Refused)
    assert unknown.code == grpc.StatusCode.NOT_FOUND.value[0]
    assert isinstance(empty, Refused)
    assert empty.code == grpc.StatusCode.INVALID_ARGUMENT.value[0]
    assert "actions" in empty.message

    report = service_pb2.ReportRequest(decision_id=first.decision_id, outcome_id="o1", value=1.0)
    nan = service_pb2.ReportRequest(decision_id=first.decision_id, outcome_id="o2", value=math.nan)
    taken, refused = client.report_batch([report, nan])
    assert taken == "o1"
    assert isinstance(refused, Refused)
    assert "finite" in refused.message


def test_callers_with_one_id_get_one_answer_and_one_record(service: Service, client: LeewayClient) -> None:
    decision_id = new_id()
    with ThreadPoolExecutor(8) as pool:
        asked = [pool.submit(client.decide, "offers", CONTEXT, ACTIONS, decision_id) for _ in range(16)]
    assert len({future.result() for future in asked}) == 1
    assert [decision.decision_id for decision in service.decisions()].count(decision_id) == 1


# What a platform relies on


def test_health_knows_the_process_the_service_and_each_decision_point(channel: grpc.Channel) -> None:
    health = health_pb2_grpc.HealthStub(channel)
    for name in ("", SERVICE, f"{SERVICE}/offers", f"{SERVICE}/banners"):
        answer = health.Check(health_pb2.HealthCheckRequest(service=name), timeout=10.0)
        assert answer.status == health_pb2.HealthCheckResponse.SERVING, name
    with pytest.raises(grpc.RpcError) as refused:
        health.Check(health_pb2.HealthCheckRequest(service=f"{SERVICE}/nowhere"), timeout=10.0)
    assert refused.value.code() is grpc.StatusCode.NOT_FOUND


def test_reflection_is_enough_to_call_the_service(channel: grpc.Channel) -> None:
    """As grpcurl does: no generated code, only what the server says of itself."""
    database = ProtoReflectionDescriptorDatabase(channel)
    assert {SERVICE, ADMIN, "grpc.health.v1.Health"} <= set(database.get_services())
    method = DescriptorPool(database).FindServiceByName(SERVICE).FindMethodByName("Decide")
    ask, answer = GetMessageClass(method.input_type), GetMessageClass(method.output_type)
    request = ParseDict({"decisionPoint": "banners", "actions": [{"id": "a"}, {"id": "b"}]}, ask())
    call = channel.unary_unary(
        f"/{SERVICE}/Decide", request_serializer=ask.SerializeToString, response_deserializer=answer.FromString
    )
    assert call(request, timeout=10.0).action in ("a", "b")


def test_a_deadline_that_cannot_be_kept_is_told_and_harms_nothing(stub: service_pb2_grpc.LeewayStub) -> None:
    endings: set[object] = set()
    for timeout_s in 25 * (0.001, 0.000_01):
        try:
            endings.add(stub.Decide(offer(), timeout=timeout_s).fallback)
        except grpc.RpcError as error:
            endings.add(error.code())
    # In a millisecond the server may answer or not, or say that it will not; in a hundredth of one nobody can.
    refused = {grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.RESOURCE_EXHAUSTED}
    assert endings <= {FALLBACK_REASON_DEADLINE, *refused}
    assert grpc.StatusCode.DEADLINE_EXCEEDED in endings
    assert stub.Decide(offer(), timeout=10.0).fallback != FALLBACK_REASON_DEADLINE


def test_too_little_time_to_score_gives_the_fallback_with_its_true_propensities(
    service: Service, stub: service_pb2_grpc.LeewayStub
) -> None:
    before = service.metric("serve", "leeway_decisions_total", decision_point="offers", fallback="deadline")
    answer = stub.Decide(offer(), timeout=0.9 * RESERVE_S)
    assert answer.fallback == FALLBACK_REASON_DEADLINE
    assert "deadline" in answer.fallback_detail
    assert list(answer.probabilities) == [1 / 3] * 3
    after = service.metric("serve", "leeway_decisions_total", decision_point="offers", fallback="deadline")
    assert after == before + 1


@pytest.mark.parametrize("role", ["serve", "work"])
def test_prometheus_accepts_the_metrics(service: Service, client: LeewayClient, role: str) -> None:
    promtool = binary("promtool")
    client.decide("banners", {}, ["a"])
    checked = subprocess.run(
        [promtool, "check", "metrics"], input=service.exposition(role), capture_output=True, text=True, check=False
    )
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, "", "")


def test_status_and_policies_tell_what_serves(channel: grpc.Channel, client: LeewayClient) -> None:
    admin = admin_pb2_grpc.LeewayAdminStub(channel)
    serving = client.decide("banners", {}, ["a"]).policy_version
    reply = admin.GetStatus(admin_pb2.GetStatusRequest(), timeout=10.0)
    assert {entry.decision_point for entry in reply.decision_points} == {"offers", "banners"}
    assert not reply.draining
    banners = next(entry for entry in reply.decision_points if entry.decision_point == "banners")
    assert banners.decisions >= 1
    assert banners.policy_error == ""
    listed = admin.ListPolicies(admin_pb2.ListPoliciesRequest(decision_point="banners"), timeout=10.0).policies
    assert {policy.decision_point for policy in listed} == {"banners"}
    assert serving in {policy.policy_version for policy in listed}
    assert [policy.oracle for policy in listed if policy.acting] == ["linear"]
    with pytest.raises(grpc.RpcError) as refused:
        admin.ListPolicies(admin_pb2.ListPoliciesRequest(decision_point="nowhere"), timeout=10.0)
    assert refused.value.code() is grpc.StatusCode.NOT_FOUND
