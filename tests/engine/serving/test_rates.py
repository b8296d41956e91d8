"""Token buckets: what a client gets, and that their number is bounded."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.api.leeway.v1 import service_pb2
from engine.config import RateConfig
from engine.errors import Overloaded
from engine.serving.rates import ClientRates, cost
from tests.engine.samples import MemoryObserver


class Rates(ClientRates):
    """With a clock that is set by hand."""

    def __init__(self, per_second: float, burst: int, clients: int = 10) -> None:
        self.now = 0.0
        super().__init__(RateConfig(per_second=per_second, burst=burst, clients=clients), clock=lambda: self.now)


@given(
    asked=st.lists(st.tuples(st.floats(0.0, 2.0), st.integers(1, 6)), max_size=60),
    per_second=st.floats(0.1, 10.0),
    burst=st.integers(1, 8),
)
def test_nobody_gets_more_than_the_rate_and_one_burst(
    asked: list[tuple[float, int]], per_second: float, burst: int
) -> None:
    rates = Rates(per_second, burst)
    given_out = 0
    for pause_s, tokens in asked:
        rates.now += pause_s
        wait_s = rates.wait_s("shop", tokens)
        if wait_s == 0.0:
            # What is more than a burst is owed, and paid before the next.
            assert given_out + min(tokens, burst) <= burst + per_second * rates.now + 1e-6
            given_out += tokens


def test_who_comes_again_when_told_is_served() -> None:
    rates = Rates(4.0, 2)
    assert [rates.wait_s("shop") for _ in range(3)] == [0.0, 0.0, 0.25]
    rates.now = 0.25
    assert rates.wait_s("shop") == 0.0
    # More than a bucket holds: when it is full, and the next pays for it.
    rates.now = 10.0
    assert rates.wait_s("shop", 10) == 0.0
    assert rates.wait_s("shop") == pytest.approx((8 + 1) / 4.0)


def test_clients_are_apart_until_there_are_too_many() -> None:
    rates = Rates(1.0, 1, clients=3)
    assert [rates.wait_s(f"c{number}") for number in range(3)] == [0.0] * 3
    # Their buckets are in use: new clients share one.
    assert rates.wait_s("c3") == 0.0
    assert rates.wait_s("c4") > 0.0
    assert rates.wait_s("c0") > 0.0
    # Full again they are forgotten.
    rates.now = 5.0
    assert [rates.wait_s(f"c{number}") for number in range(5, 8)] == [0.0] * 3


def test_a_flood_of_addresses_takes_no_memory() -> None:
    rates = Rates(1.0, 1, clients=50)
    for number in range(5_000):
        rates.now += 0.001
        rates.wait_s(f"ipv4:{number}")
    assert len(rates._buckets) <= 51


def test_a_refusal_names_client_and_rate_and_is_counted() -> None:
    observer = MemoryObserver()
    rates = ClientRates(RateConfig(per_second=2.0, burst=1), observer, clock=lambda: 0.0)
    rates.take("token shop", "Decide", service_pb2.DecideRequest())
    with pytest.raises(Overloaded, match="token shop asks for more than 2 requests a second") as refused:
        rates.take("token shop", "Decide", service_pb2.DecideRequest())
    assert (refused.value.reason, refused.value.retry_s) == ("rate_limited", 0.5)
    assert observer.refusals == [("Decide", "rate_limited")]


def test_requests_of_a_batch_count_one_by_one() -> None:
    assert cost("Decide", service_pb2.DecideRequest()) == 1
    assert cost("DecideBatch", service_pb2.DecideBatchRequest(requests=[service_pb2.DecideRequest()] * 3)) == 3
    assert cost("ReportBatch", service_pb2.ReportBatchRequest(requests=[service_pb2.ReportRequest()] * 4)) == 4
    assert cost("Record", service_pb2.RecordRequest(decisions=[service_pb2.ClientDecision()] * 2)) == 2
    assert cost("Record", service_pb2.RecordRequest()) == 1
