"""The fake that users test their own code with."""

from __future__ import annotations

import asyncio

import grpc
import pytest

from engine.client import Decided, Refused, decide_request
from engine.client.testing import AsyncFakeClient, FakeClient, FakeEngine


def test_it_decides_as_it_is_told_and_remembers() -> None:
    engine = FakeEngine({"one": "b", "vector": [0.0, 0.5, 0.5], "rule": lambda request: [0.0, 0.0, 1.0]})
    with FakeClient(engine) as client:
        one = client.decide("one", {"age": 3}, ["a", "b"], "d1")
        assert (one.action, one.propensity, one.probabilities) == ("b", 1.0, (0.0, 1.0))
        assert {client.decide("vector", {}, ["a", "b", "c"]).action for _ in range(60)} == {"b", "c"}
        assert client.decide("rule", {}, ["a", "b", "c"]).action == "c"
        assert {client.decide("other", {}, ["a", "b"]).action for _ in range(60)} == {"a", "b"}
        assert client.decide("one", {}, ["a", "b"], "d1") == one
    assert engine.requests["d1"].context.named["age"].number == 3  # type: ignore[union-attr]
    assert len(engine.requests) == 122


def test_a_test_with_ids_of_its_own_always_gets_the_same() -> None:
    first, second = (
        [FakeClient().decide("offers", {}, ["a", "b", "c"], f"d{n}").action for n in range(30)] for _ in range(2)
    )
    assert first == second
    assert len(set(first)) == 3


def test_a_decision_without_outcome_and_an_outcome_without_decision_are_told() -> None:
    with FakeClient() as client:
        kept, forgotten = client.decide("offers", {}, ["a"]), client.decide("offers", {}, ["a"])
        client.report(kept.decision_id, 1.0)
        with pytest.raises(AssertionError, match=f"1 decisions: {forgotten.decision_id}"):
            client.engine.assert_all_reported()
        client.report(forgotten.decision_id, 0.0, outcome_id="o")
        client.report(forgotten.decision_id, 0.0, outcome_id="o")
        client.engine.assert_all_reported()
        assert len(client.engine.outcomes) == 2
        client.report("misspelt", 1.0)
        with pytest.raises(AssertionError, match="no decision that was made: misspelt"):
            client.engine.assert_all_reported()


def test_lists_are_those_that_were_given_or_drawn_from_the_candidates() -> None:
    engine = FakeEngine(recommends={"shop": ["i3", "i1", "i2"]})
    with FakeClient(engine) as client:
        given = client.recommend("shop", {"recent": ["i9"]}, k=2, exclude=["i3"])
        assert [item.id for item in given.items] == ["i1", "i2"]
        drawn = client.recommend("other", {}, ["a", "b", "c"])
        assert sorted(item.id for item in drawn.items) == ["a", "b", "c"]
        assert [item.propensity for item in drawn.items] == [1 / 3, 1 / 2, 1.0]
        with pytest.raises(grpc.RpcError, match="give it recommends"):
            client.recommend("other", {})


def test_batches_fail_one_by_one() -> None:
    with FakeClient(FakeEngine({"offers": "a"})) as client:
        good, bad = client.decide_batch([decide_request("offers", {}, ["a"]), decide_request("offers", {}, ["b"])])
        assert isinstance(good, Decided)
        assert isinstance(bad, Refused)
        assert bad.retry_after_s is None


def test_it_fails_when_told_to() -> None:
    with FakeClient() as client:
        client.engine.fail(grpc.StatusCode.INTERNAL, "broken")
        with pytest.raises(grpc.RpcError, match="INTERNAL: broken") as failed:
            client.decide("offers", {}, ["a"])
        assert failed.value.code() is grpc.StatusCode.INTERNAL
        client.engine.recover()
        assert client.decide("offers", {}, ["a"]).action == "a"


def test_asyncio_and_threads_share_an_engine() -> None:
    engine = FakeEngine()

    async def go() -> Decided:
        async with AsyncFakeClient(engine) as client:
            answer = await client.decide("offers", {}, ["a", "b"], "d1")
            await client.report_batch([])
            await client.report(answer.decision_id, 1.0)
            return answer

    assert asyncio.run(go()) == FakeClient(engine).decide("offers", {}, ["a", "b"], "d1")
    engine.assert_all_reported()
