from __future__ import annotations

from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2
from google.rpc.status_pb2 import Status
from hypothesis import given
from hypothesis import strategies as st

from engine.client.retries import Attempts, Patience
from engine.client.testing import FakeError

Code = grpc.StatusCode


class ServerError(FakeError):
    """A failure as a server words it, with a time to come again or without."""

    def __init__(self, code: grpc.StatusCode, retry_s: float | None = None) -> None:
        super().__init__(code, "no")
        self._retry_s = retry_s

    def trailing_metadata(self) -> tuple[Any, ...]:
        if self._retry_s is None:
            return (("server", "x"),)
        status = Status(code=self.code().value[0])
        delay = Duration(nanos=round(self._retry_s * 1e9) % 10**9, seconds=int(self._retry_s))
        status.details.add().Pack(error_details_pb2.RetryInfo(retry_delay=delay))
        return (("grpc-status-details-bin", status.SerializeToString()),)


def attempts(patience: Patience, chance: float = 1.0) -> Attempts:
    return Attempts(patience, 100.0, lambda: chance)


@pytest.mark.parametrize("code", [Code.UNAVAILABLE, Code.DEADLINE_EXCEEDED, Code.CANCELLED])
def test_what_passes_is_tried_again(code: grpc.StatusCode) -> None:
    assert attempts(Patience(1.0, 10.0)).pause_s(ServerError(code), 100.0) == pytest.approx(0.05)


@pytest.mark.parametrize(
    "code", sorted(set(Code) - {Code.UNAVAILABLE, Code.DEADLINE_EXCEEDED, Code.CANCELLED}, key=str)
)
def test_what_is_wrong_is_never_tried_again(code: grpc.StatusCode) -> None:
    assert attempts(Patience(1.0, 10.0)).pause_s(ServerError(code), 100.0) is None


def test_a_server_without_room_is_asked_again_when_it_says() -> None:
    assert attempts(Patience(1.0, 10.0)).pause_s(ServerError(Code.RESOURCE_EXHAUSTED, 2.5), 100.0) == 2.5
    assert attempts(Patience(1.0, 10.0)).pause_s(ServerError(Code.UNAVAILABLE, 1.0), 100.0) == 1.0
    assert attempts(Patience(1.0, 2.0)).pause_s(ServerError(Code.RESOURCE_EXHAUSTED, 2.5), 100.0) is None


def test_a_server_without_room_to_say_so_is_asked_again_too() -> None:
    """Beyond all that may wait grpcio refuses by itself, and gives no time."""
    assert attempts(Patience(1.0, 10.0)).pause_s(ServerError(Code.RESOURCE_EXHAUSTED), 100.0) is None
    crowded = FakeError(Code.RESOURCE_EXHAUSTED, "Concurrent RPC limit exceeded!")
    assert attempts(Patience(1.0, 10.0)).pause_s(crowded, 100.0) == pytest.approx(0.05)


def test_a_hint_that_cannot_be_read_is_none() -> None:
    class GarbledError(ServerError):
        def trailing_metadata(self) -> tuple[Any, ...]:
            return (("grpc-status-details-bin", b"\xff\xff"),)

    assert attempts(Patience(1.0, 10.0)).pause_s(GarbledError(Code.UNAVAILABLE), 100.0) == pytest.approx(0.05)


def test_pauses_grow_and_are_left_to_chance_in_their_upper_half() -> None:
    for chance in (0.0, 0.5, 1.0):
        one = attempts(Patience(1.0, 1_000.0), chance)
        pauses = [one.pause_s(ServerError(Code.UNAVAILABLE), 100.0) for _ in range(8)]
        ceilings = [min(0.05 * 2**n, 1.0) for n in range(8)]
        assert pauses == pytest.approx([(1.0 + chance) / 2.0 * ceiling for ceiling in ceilings])


def test_the_deadline_of_the_call_cuts_the_last_attempt_short() -> None:
    one = attempts(Patience(2.0, 10.0, deadline_s=3.0))
    assert one.timeout_s(100.0) == 2.0
    assert one.timeout_s(102.5) == pytest.approx(0.5)
    assert one.timeout_s(104.0) == 0.0


@given(
    st.floats(0.01, 5.0),
    st.floats(0.0, 5.0),
    st.none() | st.floats(0.01, 5.0),
    st.lists(st.floats(0.0, 1.0), max_size=60),
)
def test_no_attempt_goes_beyond_the_deadline_of_the_call(
    timeout_s: float, retry_s: float, deadline_s: float | None, chances: list[float]
) -> None:
    patience = Patience(timeout_s, retry_s, deadline_s)
    whole = timeout_s + retry_s if deadline_s is None else deadline_s
    chance = iter(chances)
    one = Attempts(patience, 0.0, lambda: next(chance))
    now = 0.0
    for _ in chances:
        now += one.timeout_s(now)  # every attempt takes as long as it may
        assert now <= whole + 1e-9
        pause = one.pause_s(ServerError(Code.DEADLINE_EXCEEDED), now)
        if pause is None:
            return
        now += pause
        assert now <= min(retry_s, whole) + 1e-9


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"timeout_s": 0.0}, "timeout_s is 0"),
        ({"retry_s": -1.0}, "retry_s is -1"),
        ({"deadline_s": 0.0}, "deadline_s is 0"),
    ],
)
def test_a_time_that_is_none_is_refused(wrong: dict[str, float], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Patience(**{"timeout_s": 1.0, "retry_s": 1.0, **wrong})
