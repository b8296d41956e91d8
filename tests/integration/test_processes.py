"""Several serving processes on one port: both serve, one that is killed costs its own calls, all drain at once."""

from __future__ import annotations

import os
import signal
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import grpc
import pytest
import yaml

from engine.channel import open_channel
from engine.client import LeewayClient
from engine.client.connection import options_of
from engine.records import new_id
from streaming.own_cores import part
from streaming.process_spools import spools
from tests.integration.service import ACTIONS, CONTEXT, OFFERS, Service, eventually, leeway, running, settings

PROCESSES = ("serve-1", "serve-2")
#: Connections: that all of them go to one process has a probability of 2 ** -11.
CHANNELS = 12


def two(**serving: Any) -> dict[str, Any]:
    return settings(processes=2, **serving)


def spread(service: Service, **options: Any) -> LeewayClient:
    return LeewayClient(service.target, timeout_s=10.0, channels=CHANNELS, **options)


def served(service: Service) -> list[float]:
    return [service.metric(role, "leeway_requests_total", method="Decide", code="OK") for role in PROCESSES]


def test_two_processes_serve_as_one(tmp_path: Path) -> None:
    with running(tmp_path, two(http={"port": 0}, admin_port=0, health_port=0), "serve") as service:
        ids = [new_id() for _ in range(3 * CHANNELS)]
        with spread(service) as client:
            first = [client.decide("offers", CONTEXT, ACTIONS, identity) for identity in ids]
            # The process that is asked again may be another one: with the same policy it draws the same.
            assert [client.decide("offers", CONTEXT, ACTIONS, identity) for identity in reversed(ids)] == first[::-1]
        assert min(served(service)) > 0
        assert service.metric("serve", "leeway_requests_total", method="Decide", code="OK") == 2 * len(ids)
        assert service.metric("serve", "leeway_serving_processes_ready") == 2
        facts = service.facts("serve") or {}
        assert len({facts["port"], facts["http_port"], facts["health_port"], facts["admin"]}) == 4
        pids = [int((service.facts(role) or {})["pid"]) for role in PROCESSES]
        cores = sorted(os.sched_getaffinity(0))
        assert [sorted(os.sched_getaffinity(pid)) for pid in pids] == [list(part(cores, n, 2)) for n in (1, 2)]

        status = leeway("status", "--config", service.path)
        assert "offers (bandit): policy g0." in status.stdout
        assert "2 of 2 serve" in leeway("doctor", "--config", service.path).stdout

        # Also one who would share it finds the port taken.
        other = tmp_path / "other.yaml"
        other.write_text(yaml.safe_dump({**two(port=facts["port"]), "data_dir": "other"}))
        refused = leeway("serve", "--config", other)
        assert refused.returncode == 2
        assert f"serving.port: cannot listen on 127.0.0.1:{facts['port']}" in refused.stderr

        assert service.stop() == 0
        assert {decision.decision_id for decision in service.decisions()} == set(ids)
        assert service.facts("serve") is None


@pytest.mark.slow
def test_a_process_that_is_killed_costs_its_own_calls_alone(tmp_path: Path) -> None:
    acknowledged: list[str] = []
    asked: Counter[int] = Counter()
    answered: Counter[int] = Counter()
    lost: Counter[int] = Counter()
    codes: set[grpc.StatusCode] = set()
    failures: list[grpc.RpcError] = []
    done = threading.Event()
    config = two()
    # The join knows an id for twice as long: what the one that falls has not shipped comes when it was started again.
    config["decision_points"] = {"offers": {**OFFERS, "reward": {**OFFERS["reward"], "window": "15s"}}}
    with running(tmp_path, config) as service:

        def patient() -> None:
            """Retry: nothing is noticed."""
            with spread(service, retry_s=60.0) as client:
                while not done.is_set():
                    try:
                        acknowledged.append(client.decide("offers", CONTEXT, ACTIONS).decision_id)
                        client.report(acknowledged[-1], 1.0)
                    except grpc.RpcError as error:
                        failures.append(error)

        def single(number: int) -> None:
            """Have one connection and try once: only who is connected to the one that is killed notices."""
            own = open_channel(service.target, options_of(2))  # a plain client would share one with the others
            with LeewayClient("", timeout_s=10.0, retry_s=0.0, channel=own) as client:
                while not done.is_set():
                    asked[number] += 1
                    try:
                        acknowledged.append(client.decide("offers", CONTEXT, ACTIONS).decision_id)
                    except grpc.RpcError as error:
                        lost[number] += 1
                        codes.add(error.code())
                    answered[number] += 1
                    done.wait(0.05)

        threads = [threading.Thread(target=patient, daemon=True) for _ in range(2)]
        # They connect one by one, and so to either.
        threads += [threading.Thread(target=single, args=(number,), daemon=True) for number in range(CHANNELS)]
        for thread in threads:
            thread.start()
        eventually(lambda: len(answered) == CHANNELS and len(acknowledged) > 200, "decisions")
        killed = service.pid("serve-2")
        before = service.metric("serve", "leeway_requests_total", method="Decide", code="OK")
        # It stands still first: who is between two calls when it is killed would connect again and notice nothing.
        os.kill(killed, signal.SIGSTOP)
        seen = Counter(answered)
        eventually(
            lambda: all(answered[one] >= seen[one] + 3 or asked[one] > answered[one] for one in range(CHANNELS)),
            "a call of each one that it had connected to",
        )
        os.kill(killed, signal.SIGKILL)
        count = len(acknowledged)
        eventually(lambda: len(acknowledged) > count + 200, "decisions of the other one")
        eventually(lambda: (service.facts("serve-2") or {"pid": killed})["pid"] != killed, "another process")
        # What the one before had counted is not forgotten.
        assert service.metric("serve", "leeway_requests_total", method="Decide", code="OK") >= before
        assert service.metric("serve", "leeway_serving_process_restarts_total") == 1
        done.set()
        for thread in threads:
            thread.join()

        assert failures == []
        assert 0 < len(lost) < CHANNELS, "each process had some of the connections"
        assert codes == {grpc.StatusCode.UNAVAILABLE}
        # Decided by one that was killed before it could answer: in the log as well, and joined once.
        made = eventually(
            lambda: {d.decision_id for d in service.decisions()} >= set(acknowledged) and service.decisions(),
            "what was acknowledged to be in the log",
        )
        ids = {decision.decision_id for decision in made or []}
        assert len(ids) - len(set(acknowledged)) <= CHANNELS + 2
        eventually(
            lambda: (book := service.status().accounting).pending == 0 and book.feedback == len(ids),
            f"every window of {len(ids)} decisions to close",
        )
        assert service.status().learned > 0
        assert service.stop() == 0
    replayed = leeway("replay", "--config", service.path)
    assert replayed.returncode == 0, replayed.stdout
    assert ", 0 differ" in replayed.stdout


@pytest.mark.slow
def test_all_drain_at_once_and_lose_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    acknowledged: list[str] = []
    codes: list[grpc.StatusCode] = []
    with running(tmp_path, two(drain="300ms"), "serve") as service:

        def work() -> None:
            with spread(service, retry_s=0.0) as client:
                try:
                    while True:
                        acknowledged.append(client.decide("offers", CONTEXT, ACTIONS).decision_id)
                except grpc.RpcError as error:
                    codes.append(error.code())

        threads = [threading.Thread(target=work, daemon=True) for _ in range(4)]
        for thread in threads:
            thread.start()
        eventually(lambda: len(acknowledged) > 100 and min(served(service)) > 0, "some decisions of each")
        assert service.stop() == 0
        for thread in threads:
            thread.join()
        assert set(codes) <= {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED}
        logged = [decision.decision_id for decision in service.decisions()]
        assert len(set(logged)) == len(logged)
        assert set(acknowledged) <= set(logged)
        assert service.messages().count("draining") == 2


@pytest.mark.slow
def test_fewer_processes_than_before_leave_nothing_behind(tmp_path: Path) -> None:
    """All are killed in the midst of traffic, and one process goes on."""
    acknowledged: list[str] = []
    with running(tmp_path, two(), "serve") as service:

        def work() -> None:
            with spread(service, retry_s=0.0) as client:
                try:
                    while True:
                        acknowledged.append(client.decide("offers", CONTEXT, ACTIONS).decision_id)
                except grpc.RpcError:
                    return

        threads = [threading.Thread(target=work, daemon=True) for _ in range(4)]
        for thread in threads:
            thread.start()
        eventually(lambda: len(acknowledged) > 100, "some decisions")
        service.kill()
        for thread in threads:
            thread.join()
        assert set(spools(service.config)) == {1, 2}
        service.path.write_text(yaml.safe_dump(settings()))
        service.start()
        eventually(lambda: not spools(service.config), "the spools of those that are no more to be emptied")
        assert set(acknowledged) <= {decision.decision_id for decision in service.decisions()}
        assert service.stop() == 0
