"""Policies in a running server: swapped under load, damaged, listed."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import grpc
import numpy as np
import pytest

from engine.api.leeway.v1 import admin_pb2, admin_pb2_grpc
from engine.atomic_file import write_atomically
from engine.client import Decided, LeewayClient
from engine.oracles import LinearLearner
from engine.policy import Policy, initial_policy
from engine.store import PolicyStore
from streaming.opening import open_log
from streaming.replaying import replay_log
from tests.integration.service import ACTIONS, CONTEXT, Service, eventually, running, settings

#: The policies that are published under load.
SWAPS = 40


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A server without the learner: what is published is what a test publishes."""
    with running(tmp_path_factory.mktemp("service"), settings(swap_interval="10ms"), "serve") as service:
        yield service


@pytest.fixture(scope="module")
def client(service: Service) -> Iterator[LeewayClient]:
    with service.client() as client:
        yield client


@pytest.fixture
def store(service: Service) -> PolicyStore:
    return PolicyStore(service.config.policy_dir)


def learned(service: Service, update: int) -> Policy:
    """Return a policy that has learned a little, something else for each ``update``."""
    policy = initial_policy("offers", service.config.points()["offers"], created_ms=update)
    learner = LinearLearner(policy.encoder.width)
    rng = np.random.default_rng(update)
    X = rng.random((50, policy.encoder.width), dtype=np.float32)
    learner.partial_fit(X, [ACTIONS[i % 3] for i in range(50)], rng.random(50))
    vocabulary = tuple(learner.vocabulary)
    return replace(policy, vocabulary=vocabulary, oracle=learner.oracle(), update=update, learned=learner.learned)


def serves(client: LeewayClient, version: str) -> bool:
    return client.decide("offers", CONTEXT, ACTIONS).policy_version == version


def test_swapping_under_load_drops_no_request_and_falsifies_no_propensity(service: Service, store: PolicyStore) -> None:
    answers: list[Decided] = []
    failures: list[grpc.RpcError] = []
    done = threading.Event()

    def work() -> None:
        with service.client() as client:
            while not done.is_set():
                try:
                    answers.append(client.decide("offers", CONTEXT, ACTIONS))
                except grpc.RpcError as error:
                    failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        for update in range(1, SWAPS + 1):
            policy = learned(service, update)
            store.publish(policy)
            eventually(lambda version=policy.version: service_version(answers) == version, "the swap")  # type: ignore[misc]
    finally:
        done.set()
        for thread in threads:
            thread.join()
    assert failures == []
    assert len({answer.policy_version for answer in answers}) >= SWAPS
    logged = {decision.decision_id: decision for decision in service.decisions()}
    assert all(tuple(logged[a.decision_id].probabilities) == a.probabilities for a in answers)
    log = open_log(service.config)
    try:
        replayed = replay_log(log, service.config.policy_dir)
    finally:
        log.close()
    assert (replayed.mismatches, replayed.examples) == (0, [])
    assert replayed.decisions >= len(answers)


def service_version(answers: list[Decided]) -> str:
    return answers[-1].policy_version if answers else ""


@pytest.mark.parametrize("damage", ["half a policy", "no such policy", "a pointer of other bytes", "another schema"])
def test_a_policy_that_cannot_serve_leaves_the_one_before(
    service: Service, client: LeewayClient, store: PolicyStore, damage: str
) -> None:
    good = learned(service, 100)
    store.publish(good)
    eventually(lambda: serves(client, good.version), "the good policy to serve")
    errors = service.metric("serve", "leeway_policy_load_errors_total", decision_point="offers")

    bad = learned(service, 101)
    pointer = store.root / "offers" / "CURRENT"
    match damage:
        case "half a policy":
            path = store.save(bad)
            whole = path.read_bytes()
            path.write_bytes(whole[: len(whole) // 2])
            store.set_current("offers", bad.version)
            words = "not a whole policy file"
        case "no such policy":
            store.set_current("offers", "g7.7-0123abcd")
            words = "no such policy file"
        case "a pointer of other bytes":
            write_atomically(pointer, b"\xff\xfe\x00\x9c")  # else it may be read while it is empty, as one error more
            words = "policy file"
        case _:
            bad = replace(initial_policy("offers", service.config.points()["offers"], 0), update=102)
            narrow = bad.point.model_copy(update={"context": {"basket": bad.point.context["basket"]}})
            bad = replace(bad, point=narrow, oracle=LinearLearner(2).oracle())
            store.publish(bad)
            words = "made for other features"
    eventually(lambda: service.status().policy_error, "the status to tell of it")

    assert words in service.status().policy_error
    assert serves(client, good.version)
    assert service.metric("serve", "leeway_policy_load_errors_total", decision_point="offers") == errors + 1
    assert words in service.messages()
    (store.path("offers", bad.version)).unlink(missing_ok=True)
    mended = learned(service, 103)
    store.publish(mended)
    eventually(lambda: serves(client, mended.version), "the mended policy to serve")
    assert service.status().policy_error == ""


def test_a_damaged_file_hides_no_other_policy_from_the_operator(service: Service, store: PolicyStore) -> None:
    store.publish(learned(service, 200))
    path = store.save(learned(service, 201))
    path.write_bytes(path.read_bytes()[:100])
    with grpc.insecure_channel(service.target) as channel:
        admin = admin_pb2_grpc.LeewayAdminStub(channel)
        reply = admin.ListPolicies(admin_pb2.ListPoliciesRequest(decision_point="offers"), timeout=10.0)
    path.unlink()
    listed = {policy.policy_version: policy for policy in reply.policies}
    assert set(listed) >= {learned(service, update).version for update in (200, 201)}
    assert listed[learned(service, 200).version].oracle == "linear"
    assert listed[learned(service, 200).version].learned == 50
    assert listed[learned(service, 201).version].oracle == ""


def test_a_restart_with_a_damaged_policy_serves_and_says_so(tmp_path: Path) -> None:
    with running(tmp_path, settings(), "serve") as service:
        assert service.stop() == 0
        store = PolicyStore(service.config.policy_dir)
        path = store.save(learned(service, 1))
        path.write_bytes(path.read_bytes()[:100])
        store.set_current("offers", learned(service, 1).version)
        service.start()
        with service.client() as client:
            answer = client.decide("offers", CONTEXT, ACTIONS)
        assert answer.probabilities == (1 / 3, 1 / 3, 1 / 3)
        assert "not a whole policy file" in service.status().policy_error
