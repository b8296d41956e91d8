"""How the service starts, ends and is killed: ports, drain, supervision, and what a retry finds afterwards."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import threading
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from engine.api.leeway.v1 import service_pb2, service_pb2_grpc
from engine.records import new_id
from engine.serving.server import SERVICE
from tests.integration.service import ACTIONS, CONTEXT, Service, alive, eventually, free_port, offer, running, settings


def test_a_retry_after_kill_9_gets_the_answer_that_was_recorded(tmp_path: Path) -> None:
    with running(tmp_path, settings(), "serve") as service:
        decision_id = new_id()
        with service.client() as client:
            first = client.decide("offers", CONTEXT, ACTIONS, decision_id)
            outcome = client.report(decision_id, 1.0, outcome_id="o1")
        service.kill()
        service.start()
        with service.client() as client:
            # Even asked otherwise: what was decided stays decided.
            again = client.decide("offers", {"basket": 9.0}, [*ACTIONS, "huge"], decision_id)
            assert client.report(decision_id, 1.0, outcome_id="o1") == outcome
        assert again == first
        assert [decision.decision_id for decision in service.decisions()] == [decision_id]


#: What speaks gRPC; the second one decides in the thread that reads where a record has not to be on the disk.
FRONTS = pytest.mark.parametrize("front", [{}, {"front": "lean"}, {"front": "lean", "durability": "memory"}])


@FRONTS
def test_sigterm_waits_for_what_is_under_way(tmp_path: Path, front: dict[str, Any]) -> None:
    config = settings(drain="0ms", drain_grace="10m", max_message_bytes=2**26, **front)
    with running(tmp_path, config, "serve") as service, grpc.insecure_channel(service.target) as channel:
        watch(channel, SERVICE)  # a call that has no end is not waited for
        large = service_pb2.DecideBatchRequest(requests=[offer() for _ in range(8_000)])
        under_way = service_pb2_grpc.LeewayStub(channel).DecideBatch.future(large, timeout=60.0)
        eventually(lambda: service.metric("serve", "leeway_requests_in_flight") > 0, "the batch to be under way")
        assert not under_way.done()
        assert service.stop() == 0
        ended = under_way.exception()
        # TCP may drop the end of a large answer when the server closes the connection behind it.
        assert ended is None or "Connection reset by peer" in str(ended)
        logged = {decision.decision_id for decision in service.decisions()}
        assert {request.decision_id for request in large.requests} == logged
        assert service.facts("serve") is None


@FRONTS
def test_sigterm_loses_nothing_that_was_acknowledged(tmp_path: Path, front: dict[str, Any]) -> None:
    with running(tmp_path, settings(drain="300ms", **front), "serve") as service:
        acknowledged: list[str] = []
        reported: list[str] = []
        codes: list[grpc.StatusCode] = []

        def work() -> None:
            with service.client() as client:
                try:
                    while True:
                        acknowledged.append(client.decide("offers", CONTEXT, ACTIONS).decision_id)
                        reported.append(client.report(acknowledged[-1], 1.0))
                except grpc.RpcError as error:
                    codes.append(error.code())

        with grpc.insecure_channel(service.target) as channel:
            watched = {name: watch(channel, name) for name in ("", SERVICE, f"{SERVICE}/offers")}
            threads = [threading.Thread(target=work, daemon=True) for _ in range(4)]
            for thread in threads:
                thread.start()
            eventually(lambda: len(reported) > 20, "some decisions")
            assert service.stop() == 0
            for thread in threads:
                thread.join()
        # The second one for a call that had come and not begun when the server ended.
        assert set(codes) <= {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED}
        logged = [decision.decision_id for decision in service.decisions()]
        assert len(set(logged)) == len(logged)
        assert set(acknowledged) <= set(logged)
        assert set(reported) <= {outcome.outcome_id for outcome in service.outcomes()}
        # Ready no more, and alive to the end.
        assert watched[SERVICE] == watched[f"{SERVICE}/offers"] == ["SERVING", "NOT_SERVING"]
        assert watched[""] == ["SERVING"]


def test_a_client_that_retries_does_not_notice_a_restart(tmp_path: Path) -> None:
    config = settings()
    config["serving"]["port"] = free_port()
    answered: list[str] = []
    failures: list[grpc.RpcError] = []
    done = threading.Event()
    with running(tmp_path, config, "serve") as service:

        def work() -> None:
            with service.client(retry_s=60.0) as client:
                while not done.is_set():
                    try:
                        answered.append(client.decide("offers", CONTEXT, ACTIONS).decision_id)
                    except grpc.RpcError as error:
                        failures.append(error)

        threads = [threading.Thread(target=work, daemon=True) for _ in range(8)]
        for thread in threads:
            thread.start()
        for _ in range(3):
            count = len(answered)
            eventually(lambda count=count: len(answered) > count + 100, "decisions")  # type: ignore[misc]
            assert service.stop() == 0
            service.start()
        done.set()
        for thread in threads:
            thread.join()
        assert failures == []
        assert sorted(answered) == sorted(decision.decision_id for decision in service.decisions())


def test_a_second_sigterm_cuts_the_pause_of_the_drain_short(tmp_path: Path) -> None:
    """As for an operator who presses Ctrl-C twice."""
    with running(tmp_path, settings(drain="10m"), "serve") as service:
        with grpc.insecure_channel(service.target) as channel:
            ready = watch(channel, SERVICE)
            service.process.terminate()
            eventually(lambda: ready[-1] == "NOT_SERVING", "the drain to begin")
        assert service.stop() == 0


def test_a_role_that_is_killed_is_started_again_and_goes_on(tmp_path: Path) -> None:
    with running(tmp_path, settings()) as service, service.client() as client:
        for killed in range(2):
            decided = client.decide("offers", CONTEXT, ACTIONS)
            pid = service.pid("work")
            os.kill(pid, signal.SIGKILL)
            eventually(lambda pid=pid: (service.facts("work") or {"pid": pid})["pid"] != pid, "another worker")  # type: ignore[misc]
            client.report(decided.decision_id, 1.0)
            eventually(
                lambda n=killed + 1: service.settled().decisions == n,  # type: ignore[misc]
                "the decision to be joined",
            )
        assert "work ended with status -9; starting it again" in service.messages()


def test_a_member_of_the_join_stands_by_and_takes_over(tmp_path: Path) -> None:
    """On the embedded log, where one member has every partition."""
    service = Service(tmp_path, settings(), options=["--joiners", "2"])
    try:
        service.start()
        eventually(lambda: len(service.members()) == 2, "two members of the join")
        with service.client() as client:
            for joined in range(1, 3):
                client.report(client.decide("offers", CONTEXT, ACTIONS).decision_id, 1.0)
                eventually(lambda n=joined: service.settled().decisions == n, "the decision to be joined")  # type: ignore[misc]
                commits = {m: service.metric(m, "leeway_join_commits_total") for m in service.members()}
                at_work = max(commits, key=lambda member: commits[member])
                assert sum(map(bool, commits.values())) == 1
                os.kill(service.pid(at_work), signal.SIGKILL)
                eventually(lambda m=at_work: m not in service.members() and len(service.members()) == 2, "another one")  # type: ignore[misc]
        assert service.stop() == 0
        assert service.members() == []
    finally:
        service.kill()


def test_no_role_outlives_its_supervisor(tmp_path: Path) -> None:
    """It is killed with -9, and can tell them nothing: its end of a pipe is closed by the kernel."""
    with running(tmp_path, settings()) as service:
        with service.client() as client:
            decided = client.decide("offers", CONTEXT, ACTIONS)
        roles = [service.pid(role) for role in ("serve", "work")]
        service.process.kill()
        eventually(lambda: not any(map(alive, roles)), "the end of serve and work")
        assert [decision.decision_id for decision in service.decisions()] == [decided.decision_id]


def watch(channel: grpc.Channel, name: str) -> list[str]:
    """Follow the health of a service; return the list into which its states go."""
    seen: list[str] = []
    states = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(service=name))
    seen.append(health_pb2.HealthCheckResponse.ServingStatus.Name(next(states).status))

    def follow() -> None:
        with contextlib.suppress(grpc.RpcError):  # the server is gone
            seen.extend(health_pb2.HealthCheckResponse.ServingStatus.Name(state.status) for state in states)

    threading.Thread(target=follow, daemon=True).start()
    return seen


@pytest.mark.parametrize("section", ["serving", "metrics"])
def test_a_port_that_is_taken_ends_it_with_words(tmp_path: Path, section: str) -> None:
    config = settings()
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        config[section]["port" if section == "serving" else "serving_port"] = port
        service = Service(tmp_path, config)
        try:
            service.launch()
            assert service.process.wait(60.0) == 2
        finally:
            service.kill()
    assert f"127.0.0.1:{port}" in service.messages()
    assert "hoose a" in service.messages()
    assert "Traceback" not in service.messages()


def test_what_cannot_say_where_it_is_says_why(tmp_path: Path) -> None:
    service = Service(tmp_path, settings(), "serve")
    service.config.data_dir.mkdir()
    (service.config.data_dir / "run").touch()  # not a directory
    try:
        service.launch()
        eventually(lambda: "serve ended with status 1" in service.messages(), "the start to fail")
    finally:
        service.kill()
    assert str(service.config.data_dir / "run") in service.messages()
    assert "mend the directory" in service.messages()
    assert "Traceback" not in service.messages()
