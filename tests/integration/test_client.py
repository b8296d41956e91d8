"""The client against real servers: that die in the midst of a call, hang, come back, and are several."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from engine.client import (
    AsyncClient,
    AsyncReporter,
    Candidate,
    Decided,
    Fallback,
    LeewayClient,
    Refused,
    Reporter,
    decide_request,
    report_request,
)
from engine.client.fallback import local_id
from engine.records import FALLBACK_REASON_CLIENT, Decision, Feedback
from streaming.insight import tail
from streaming.opening import open_log
from streaming.replaying import replay_log
from streaming.topics import FEEDBACK
from tests.integration.service import (
    ACTIONS,
    CONTEXT,
    OFFERS,
    Service,
    eventually,
    free_port,
    running,
    settings,
)


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with running(tmp_path_factory.mktemp("service"), settings(), "serve") as service:
        yield service


def same(answer: Decided, logged: Decision) -> None:
    """Check that a decision is in the log as it was answered."""
    assert tuple(logged.probabilities) == answer.probabilities
    assert logged.actions[logged.chosen].id == answer.action
    assert logged.probabilities[logged.chosen] == answer.propensity


def test_asyncio_gets_what_threads_get(service: Service) -> None:
    async def go() -> tuple[list[Decided], list[Decided | Refused], list[str | Refused]]:
        async with AsyncClient(service.target, timeout_s=30.0) as client:
            some = await asyncio.gather(*(client.decide("offers", CONTEXT, ACTIONS, f"async-{n}") for n in range(40)))
            batch = await client.decide_batch(
                [decide_request("offers", CONTEXT, ACTIONS), decide_request("nowhere", {}, ["a"])]
            )
            async with AsyncReporter(client) as reporter:
                for decision in some:
                    reporter.report(decision.decision_id, 1.0, point="offers", outcome_id=f"o-{decision.decision_id}")
            one = await client.report_batch(
                [report_request("async-0", 1.0), report_request("async-1", 9.0, point="offers")]
            )
            with pytest.raises(grpc.RpcError) as refused:
                await client.decide("offers", CONTEXT, [])
            assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
            return some, batch, one

    some, batch, reported = asyncio.run(go())
    with service.client() as client:
        assert [client.decide("offers", CONTEXT, ACTIONS, f"async-{n}") for n in range(40)] == some
    assert isinstance(batch[0], Decided)
    assert isinstance(batch[1], Refused)
    assert batch[1].retry_after_s is None
    assert isinstance(reported[0], str)
    assert isinstance(reported[1], Refused)
    assert {f"o-async-{n}" for n in range(40)} <= {outcome.outcome_id for outcome in service.outcomes()}


def test_a_caller_without_time_gets_an_error_in_time_and_a_retry_gets_the_answer(service: Service) -> None:
    with service.client(retry_s=30.0) as client:
        serve = service.pid("serve")
        os.kill(serve, signal.SIGSTOP)
        try:
            with pytest.raises(grpc.RpcError) as late:
                client.decide("offers", CONTEXT, ACTIONS, "hung", deadline_s=0.3)
            assert late.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        finally:
            os.kill(serve, signal.SIGCONT)
        answer = client.decide("offers", CONTEXT, ACTIONS, "hung")
    (logged,) = [decision for decision in service.decisions() if decision.decision_id == "hung"]
    same(answer, logged)


def test_a_server_that_hangs_costs_no_decision_and_what_was_answered_is_what_is_logged(service: Service) -> None:
    with LeewayClient(service.target, timeout_s=0.3, retry_s=0.0, fallback=Fallback()) as client:
        before = client.decide("offers", CONTEXT, ACTIONS, deadline_s=30.0)
        serve = service.pid("serve")
        os.kill(serve, signal.SIGSTOP)
        try:
            meanwhile = [client.decide("offers", CONTEXT, ACTIONS, f"meanwhile-{n}") for n in range(3)]
        finally:
            os.kill(serve, signal.SIGCONT)
        assert {answer.fallback for answer in meanwhile} == {"client"}
        eventually(lambda: client.hand_in(1.0) == 0, "the decisions to be handed in")
        after = client.decide("offers", CONTEXT, ACTIONS, deadline_s=30.0)
    assert (before.fallback, after.fallback) == ("none", "none")
    logged = {decision.decision_id: decision for decision in service.decisions()}
    for n, answer in enumerate(meanwhile):
        # The server may have made the decision that it was asked for, too: that one is another one.
        assert answer.decision_id == local_id(f"meanwhile-{n}")
        same(answer, logged[answer.decision_id])
        assert logged[answer.decision_id].fallback == FALLBACK_REASON_CLIENT


class Shop:
    """A product: decides and reports in threads, all the time."""

    def __init__(self, client: LeewayClient, reporter: Reporter) -> None:
        self.answers: dict[str, Decided] = {}
        self._client = client
        self._reporter = reporter
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run) for _ in range(4)]
        for thread in self._threads:
            thread.start()

    def _run(self) -> None:
        while not self._stop.wait(0.01):
            answer = self._client.decide("offers", CONTEXT, ["none", Candidate("small", {"discount": 0.1}), "large"])
            self._reporter.report(answer.decision_id, float(answer.action == "small"), point="offers")
            self.answers[answer.decision_id] = answer

    def close(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()


def outage(service: Service) -> dict[str, Decided]:
    """Let a shop go on while the server is killed and comes back; return what it was answered, by decision id."""
    with contextlib.ExitStack() as stack:
        client = stack.enter_context(LeewayClient(service.target, timeout_s=1.0, retry_s=0.1, fallback=Fallback()))
        reporter = stack.enter_context(Reporter(client))
        shop = Shop(client, reporter)
        try:
            eventually(lambda: len(shop.answers) > 50, "decisions")
            service.kill()
            eventually(lambda: sum(a.fallback == "client" for a in list(shop.answers.values())) > 20, "fallbacks")
            service.start()
            count = len(shop.answers)
            eventually(lambda: len(shop.answers) > count + 100, "more decisions")
        finally:
            shop.close()
        eventually(lambda: client.hand_in(1.0) == 0 and reporter.flush(1.0), "everything to be delivered")
    logged = {decision.decision_id: decision for decision in service.decisions()}
    assert shop.answers.keys() <= logged.keys()
    for answer in shop.answers.values():
        same(answer, logged[answer.decision_id])
    by_fallback = Counter(answer.fallback for answer in shop.answers.values())
    assert by_fallback["client"] > 20
    assert by_fallback["none"] > 50
    assert shop.answers.keys() <= {outcome.decision_id for outcome in service.outcomes()}
    return shop.answers


def test_a_server_that_is_killed_and_comes_back_costs_neither_a_decision_nor_an_outcome(tmp_path: Path) -> None:
    with running(tmp_path, settings(port=free_port()), "serve") as service:
        outage(service)
        assert service.stop() == 0
    log = open_log(service.config)
    try:
        replayed = replay_log(log, service.config.policy_dir)
    finally:
        log.close()
    assert replayed.decisions > 70
    assert replayed.examples == []


@pytest.mark.slow
def test_after_an_outage_every_decision_has_the_reward_that_was_reported(tmp_path: Path) -> None:
    # The window is longer than the outage: an outcome that comes after it would be late, as it should.
    offers = {**OFFERS, "reward": {"window": "30s", "grace": "1s", "aggregation": "first", "default": 0.5}}
    with running(tmp_path, settings({"offers": offers}, port=free_port())) as service:
        answers = outage(service)
        service.settled()
        assert service.stop() == 0
    log = open_log(service.config)
    try:
        feedback = [Feedback.FromString(value) for value in tail(log, FEEDBACK, 2**40)]
    finally:
        log.close()
    joined = {entry.decision.decision_id: entry for entry in feedback}
    assert len(joined) == len(feedback)
    for decision_id, answer in answers.items():
        assert not joined[decision_id].defaulted
        assert joined[decision_id].reward == float(answer.action == "small")


def test_what_a_dead_process_had_decided_by_itself_is_handed_in_by_the_next(service: Service, tmp_path: Path) -> None:
    nowhere = f"127.0.0.1:{free_port()}"
    kept = Fallback(path=tmp_path / "kept")
    first = LeewayClient(nowhere, retry_s=0.0, fallback=kept)
    made = [first.decide("offers", CONTEXT, ACTIONS, fallback_vector=[0.7, 0.2, 0.1]) for _ in range(5)]
    first.close(timeout_s=0.0)
    with LeewayClient(service.target, fallback=kept) as second:
        assert second.hand_in(30.0) == 0
    logged = {decision.decision_id: decision for decision in service.decisions()}
    for answer in made:
        assert answer.probabilities == (0.7, 0.2, 0.1)
        same(answer, logged[answer.decision_id])


def test_a_decision_that_does_not_fit_is_refused_and_said(
    service: Service, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    kept = Fallback(path=tmp_path / "kept")
    away = LeewayClient(f"127.0.0.1:{free_port()}", retry_s=0.0, fallback=kept)
    wrong = away.decide("offers", {"misspelt": 1.0}, ACTIONS)
    right = away.decide("offers", CONTEXT, ACTIONS)
    away.close(timeout_s=0.0)
    with LeewayClient(service.target, fallback=kept) as back:
        assert back.hand_in(30.0) == 0
    assert f"decision {wrong.decision_id} of offers" in caplog.text
    assert "misspelt" in caplog.text
    logged = {decision.decision_id for decision in service.decisions()}
    assert right.decision_id in logged
    assert wrong.decision_id not in logged


def test_calls_are_spread_over_several_servers_and_survive_the_end_of_one(service: Service, tmp_path: Path) -> None:
    with (
        running(tmp_path, settings(), "serve") as other,
        LeewayClient([service.target, other.target], timeout_s=10.0, retry_s=30.0) as client,
    ):

        def spread() -> bool:
            client.decide("offers", CONTEXT, ACTIONS, f"spread-{time.monotonic_ns()}")
            return all(
                any(decision.decision_id.startswith("spread-") for decision in each.decisions())
                for each in (service, other)
            )

        eventually(spread, "decisions at both servers")
        other.kill()
        answers = [client.decide("offers", CONTEXT, ACTIONS) for _ in range(20)]
        assert {answer.fallback for answer in answers} == {"none"}
    assert {answer.decision_id for answer in answers} <= {decision.decision_id for decision in service.decisions()}
