from __future__ import annotations

import asyncio
import logging
import math
from pathlib import Path

import grpc
import pytest
from google.protobuf.message import Message

from engine.api.leeway.v1.service_pb2 import ClientDecision, DecideRequest
from engine.client import Candidate, Choice, Decided, Fallback, decide_request
from engine.client.fallback import SALT, local_id
from engine.client.testing import AsyncFakeClient, FakeClient, FakeEngine
from engine.sampling import draw
from engine.serving.client_decision import client_decision
from tests.engine.samples import NAME, TIME_MS, make_policy, request

ACTIONS: list[Candidate | str] = ["none", Candidate("small"), Candidate("gone", excluded=True), "large"]


def ask(client: FakeClient, decision_id: str | None = None, **how: object) -> Decided:
    return client.decide("offers", {}, ACTIONS, decision_id, **how)  # type: ignore[arg-type]


def client(engine: FakeEngine, **how: object) -> FakeClient:
    return FakeClient(engine, fallback=Fallback(**how))  # type: ignore[arg-type]


def test_without_a_server_the_draw_is_uniform_true_and_handed_in() -> None:
    engine = FakeEngine()
    engine.fail()
    with client(engine) as away:
        answers = [ask(away, f"d{n}") for n in range(300)]
        for n, answer in enumerate(answers):
            assert answer.decision_id == local_id(f"d{n}") != f"d{n}"
            assert answer.fallback == "client"
            assert answer.unrecorded
            assert answer.probabilities == (1 / 3, 1 / 3, 0.0, 1 / 3)
            index = draw(answer.decision_id, SALT, answer.probabilities)
            assert answer.action == ["none", "small", "gone", "large"][index]
            assert answer.propensity == answer.probabilities[index]
        engine.recover()
        assert away.hand_in() == 0
    assert [made.request.decision_id for made in engine.handed_in] == [answer.decision_id for answer in answers]
    for made, answer in zip(engine.handed_in, answers, strict=True):
        assert tuple(made.probabilities) == answer.probabilities
        assert made.request.actions[made.chosen].id == answer.action
        assert "UNAVAILABLE" in made.detail
    counts = [sum(answer.action == name for answer in answers) for name in ("none", "small", "large")]
    assert min(counts) > 300 / 3 - 4 * math.sqrt(300 * 2 / 9)


def test_what_it_hands_in_is_what_the_engine_takes() -> None:
    engine = FakeEngine()
    engine.fail()
    with FakeClient(engine, fallback=Fallback()) as away:
        sent = request("d1")
        away._local.decide(sent, None, _unavailable(), TIME_MS)  # type: ignore[union-attr]
        ((_, data),) = away._local.outbox.oldest(1, 10_000)  # type: ignore[union-attr]
        engine.recover()
    decision = client_decision(make_policy(), ClientDecision.FromString(data), TIME_MS)
    assert decision.decision_point == NAME


def _unavailable() -> grpc.RpcError:
    engine = FakeEngine()
    engine.fail()
    try:
        FakeClient(engine).report("d", 1.0)
    except grpc.RpcError as error:
        return error
    raise AssertionError("the fake was to fail")


def test_a_vector_of_the_callers_is_drawn_from() -> None:
    engine = FakeEngine()
    engine.fail()
    with client(engine, vector=lambda request: [0.0, 0.25, 0.0, 0.75]) as away:
        assert ask(away).probabilities == (0.0, 0.25, 0.0, 0.75)
        assert ask(away, fallback_vector=[0.0, 1.0, 0.0, 0.0]).action == "small"
        engine.recover()


@pytest.mark.parametrize(
    ("vector", "words"),
    [([0.5, 0.5], "2 entries for 4"), ([0.5, 0.0, 0.5, 0.0], "excluded"), ([0.5, 0.0, 0.0, 0.4], "adds up to 0.9")],
)
def test_a_wrong_vector_is_refused_while_all_is_well(vector: list[float], words: str) -> None:
    with client(FakeEngine()) as well, pytest.raises(ValueError, match=f"fallback_vector .*{words}"):
        ask(well, fallback_vector=vector)
    with FakeClient() as without, pytest.raises(ValueError, match="client without fallback"):
        ask(without, fallback_vector=vector)


def test_a_rule_that_fails_costs_no_decision(caplog: pytest.LogCaptureFixture) -> None:
    def rule(request: DecideRequest) -> list[float]:
        raise KeyError("prices")

    engine = FakeEngine()
    engine.fail()
    with client(engine, vector=rule) as away:
        assert ask(away).probabilities == (1 / 3, 1 / 3, 0.0, 1 / 3)
        engine.recover()
    assert "KeyError" in engine.handed_in[0].detail
    assert "the draw is uniform" in caplog.text


def test_asked_again_with_the_same_id_the_answer_is_the_same_also_when_the_engine_is_back() -> None:
    engine = FakeEngine({"offers": "large"})
    engine.fail()
    with client(engine) as away:
        first = ask(away, "d1")
        assert ask(away, "d1") == first
        engine.recover()
        assert ask(away, "d1") == first
        assert ask(away, "d2").fallback == "none"
    assert [made.request.decision_id for made in engine.handed_in] == [first.decision_id]
    assert "d1" not in engine.requests


def test_what_is_wrong_is_raised_and_not_decided_here() -> None:
    engine = FakeEngine()
    engine.fail(grpc.StatusCode.INVALID_ARGUMENT, "actions: none")
    with client(engine) as away, pytest.raises(grpc.RpcError, match="actions: none"):
        ask(away)
    assert engine.handed_in == []


def test_beyond_the_bound_decisions_are_answered_and_flagged() -> None:
    engine = FakeEngine()
    engine.fail()
    with client(engine, most=2) as away:
        answers = [ask(away) for _ in range(3)]
        assert ["cannot keep it: 2 wait" in answer.unrecorded for answer in answers] == [False, False, True]
        engine.recover()
    assert len(engine.handed_in) == 2


def test_kept_on_disk_they_outlive_the_process(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    engine = FakeEngine()
    engine.fail()
    first = client(engine, path=tmp_path / "kept")
    made = [ask(first).decision_id for _ in range(3)]
    first.close(timeout_s=0.0)
    assert f"3 decisions that the client made by itself were not handed in; they are kept in {tmp_path}" in caplog.text
    engine.recover()
    with client(engine, path=tmp_path / "kept") as second:
        assert second.hand_in() == 0
    assert [handed.request.decision_id for handed in engine.handed_in] == made


def test_kept_in_memory_their_loss_is_said(caplog: pytest.LogCaptureFixture) -> None:
    engine = FakeEngine()
    engine.fail()
    away = client(engine)
    ask(away)
    with caplog.at_level(logging.WARNING):
        away.close(timeout_s=0.0)
    assert "1 decisions that the client made by itself were not handed in; they are lost" in caplog.text


def test_while_the_engine_is_away_each_decision_asks_once() -> None:
    class Counting(FakeEngine):
        asked = 0

        def call(self, method: str, request: Message) -> Message:
            self.asked += isinstance(request, DecideRequest)
            return super().call(method, request)

    engine = Counting()
    engine.fail()
    with FakeClient(engine, retry_s=0.2, fallback=Fallback()) as away:
        ask(away)
        assert engine.asked > 1
        engine.asked = 0
        for _ in range(5):
            ask(away)
        assert engine.asked == 5
        engine.recover()
        ask(away)
        engine.fail()
        engine.asked = 0
        ask(away)
        assert engine.asked > 1  # it was back: an outage may be a moment
        engine.recover()


def test_without_an_action_to_draw_nothing_is_decided() -> None:
    engine = FakeEngine()
    engine.fail()
    with client(engine) as away, pytest.raises(ValueError, match="at least one that is not excluded"):
        away.decide("offers", {}, [])


def test_asyncio_decides_by_itself_alike() -> None:
    engine = FakeEngine()

    async def go() -> list[Decided]:
        async with AsyncFakeClient(engine, fallback=Fallback()) as away:
            engine.fail()
            answers = [await away.decide("offers", {}, ACTIONS, f"d{n}") for n in range(20)]
            assert answers == [await away.decide("offers", {}, ACTIONS, f"d{n}") for n in range(20)]
            engine.recover()
            assert await away.hand_in() == 0
            assert (await away.decide("offers", {}, ACTIONS)).fallback == "none"
        return answers

    answers = asyncio.run(go())
    assert [made.request.decision_id for made in engine.handed_in] == [answer.decision_id for answer in answers]
    threaded = FakeEngine()
    threaded.fail()
    with client(threaded) as away:
        assert [ask(away, f"d{n}") for n in range(20)] == answers
        threaded.recover()


def test_a_request_keeps_its_own_id() -> None:
    sent = decide_request("offers", {}, ["a"], "d1")
    engine = FakeEngine()
    engine.fail()
    with client(engine) as away:
        away._local.decide(sent, None, _unavailable(), TIME_MS)  # type: ignore[union-attr]
        engine.recover()
    assert sent.decision_id == "d1"


@pytest.mark.parametrize("vector", [(), (0.2, 0.5, 0.0, 0.3)], ids=["not drawn", "drawn"])
def test_a_stated_choice_acts_also_without_a_server_and_is_handed_in(vector: tuple[float, ...]) -> None:
    engine = FakeEngine()
    engine.fail()
    with client(engine) as away:
        answers = [ask(away, f"d{n}", choice=Choice(3, vector)) for n in range(20)]
        drawn = ask(away, "d20", choice=Choice(3, vector), fallback_vector=[1.0, 0.0, 0.0, 0.0])
        engine.recover()
        assert away.hand_in() == 0
    assert {answer.action for answer in answers} == {"large"}
    assert {answer.propensity for answer in answers} == {vector[3] if vector else 1.0}
    assert drawn.action == "none"
    *stated, last = engine.handed_in
    assert {(made.chosen, made.salt) for made in stated} == {(3, "")}
    assert last.salt == SALT
    made = stated[0]
    made.request.CopyFrom(request(made.request.decision_id))
    made.request.choice.chosen = 3
    made.request.choice.probabilities.extend(vector)
    assert client_decision(make_policy(), made, TIME_MS).chosen == 3
