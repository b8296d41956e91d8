"""What is held back of what a simulated server would refuse. No clock: the time is what the simulation says."""

from __future__ import annotations

import random
from collections import deque
from dataclasses import dataclass, field

import grpc
import pytest

from engine.client.held_back import HeldBackError
from engine.client.testing import FakeError
from engine.client.throttle import Throttle

CAPACITY = 2_000.0  # calls a second
DEADLINE_S = 0.25
#: Of what an answer costs.
REFUSAL = 0.35
STEP_S = 0.002


@dataclass
class Served:
    """What became of the calls of some seconds."""

    asked: int = 0
    held: int = 0
    answered: int = 0  # in time
    refused: int = 0


@dataclass
class Server:
    """One core: to refuse a call takes it a good part of the time of an answer, and comes first.

    Attributes
    ----------
    throttles
        Of its clients.
    heedless
        Share of the calls that come from others.
    refuses
        Share of the calls that it refuses, whatever there is to do.
    places
        How many calls may wait.
    """

    throttles: list[Throttle]
    heedless: float = 0.0
    refuses: float = 0.0
    places: int = int(0.6 * DEADLINE_S * CAPACITY)
    now_s: float = 100.0
    _chance: random.Random = field(default_factory=lambda: random.Random(7))
    _queue: deque[tuple[Throttle | None, float]] = field(default_factory=deque)
    _coming: deque[tuple[Throttle | None, float]] = field(default_factory=deque)
    _due: float = 0.0
    _left: float = 0.0

    def run(self, times: float, seconds: float, capacity: float = CAPACITY) -> Served:
        """Let so many times what it can answer be asked, for so long."""
        served = Served()
        end_s = self.now_s + seconds
        while self.now_s < end_s:
            self.now_s += STEP_S
            self._due += times * CAPACITY * STEP_S
            while self._due >= 1.0:
                self._due -= 1.0
                served.asked += 1
                self._ask(served)
            self._work(served, capacity * STEP_S)
        return served

    def _ask(self, served: Served) -> None:
        client = None if self._chance.random() < self.heedless else self._chance.choice(self.throttles)
        if client is not None and not client.admit(self.now_s):
            served.held += 1
        else:
            self._coming.append((client, self.now_s))

    def _work(self, served: Served, answers: float) -> None:
        self._left = min(self._left, 0.0) + answers
        least = 0.2 * self._left  # it answers some, whatever comes
        while self._coming and (len(self._queue) < self.places or self._left > least):
            client, sent_s = self._coming.popleft()
            if len(self._queue) < self.places and self._chance.random() >= self.refuses:
                self._queue.append((client, sent_s))
                continue
            self._left -= REFUSAL
            served.refused += 1
            if client is not None:
                client.refused(sent_s, self.now_s)
        while self._queue and self._left > 0.0:
            client, sent_s = self._queue.popleft()
            in_time = self.now_s - sent_s <= DEADLINE_S
            self._left -= 1.0 if in_time else REFUSAL
            served.answered += in_time
            if client is not None:
                (client.accepted if in_time else client.late)(sent_s, self.now_s)


@pytest.mark.parametrize("clients", [1, 8])
def test_at_three_times_what_a_server_can_answer_it_answers_nearly_as_much_as_it_can(clients: int) -> None:
    server = Server([Throttle() for _ in range(clients)])
    assert server.run(0.3, 2.0).held == 0
    loaded = server.run(3.0, 10.0)
    assert loaded.answered >= 0.9 * CAPACITY * 10.0
    assert loaded.refused <= 0.2 * CAPACITY * 10.0
    server.run(0.3, 1.0)
    after = server.run(0.3, 3.0)
    assert (after.held, after.answered) == (0, after.asked)
    assert not any(throttle.holds for throttle in server.throttles)


def test_without_it_the_same_server_answers_next_to_nothing() -> None:
    server = Server([Throttle()], heedless=1.0)
    assert server.run(3.0, 10.0).answered < 0.3 * CAPACITY * 10.0


def test_many_clients_that_ask_seldom_hold_back_too() -> None:
    server = Server([Throttle() for _ in range(100)])  # 60 calls a second each
    assert server.run(3.0, 10.0).answered >= 0.7 * CAPACITY * 10.0
    server.run(0.3, 2.0)
    after = server.run(0.3, 3.0)
    assert after.held <= 0.02 * after.asked


def test_when_a_server_is_itself_again_all_is_sent_within_two_seconds() -> None:
    server = Server([Throttle() for _ in range(4)])
    server.run(0.9, 2.0)
    assert server.run(0.9, 5.0, capacity=0.2 * CAPACITY).held > 0
    server.run(0.9, 2.0)
    after = server.run(0.9, 3.0)
    assert after.held == 0
    assert after.answered == pytest.approx(after.asked, rel=0.01)


def test_nothing_is_held_back_while_a_server_has_room() -> None:
    server = Server([Throttle() for _ in range(3)])
    assert [server.run(times, 1.0).held for times in (0.1, 0.9, 0.05, 0.95)] == [0] * 4


def test_nothing_is_held_back_while_most_is_accepted() -> None:
    server = Server([Throttle()], refuses=0.3)
    assert server.run(0.5, 5.0).held == 0


def test_calls_that_are_late_alone_hold_nothing_back() -> None:
    """A deadline that is too short says nothing of a server's room."""
    throttle = Throttle()
    for number in range(5_000):
        at = number / 500.0
        assert throttle.admit(at)
        (throttle.late if number % 10 else throttle.accepted)(at, at)


def test_a_few_refusals_hold_nothing_back() -> None:
    throttle = Throttle()
    for number in range(9):
        assert throttle.admit(number / 10.0)
        throttle.refused(number / 10.0, number / 10.0)
    assert not throttle.holds


def test_where_it_does_not_help_it_is_given_up() -> None:
    """As many are refused, whatever is sent: others fill the server, or another one is crowded."""
    server = Server([Throttle()], refuses=0.5)
    assert server.run(0.3, 3.0).held > 0
    server.run(0.3, 3.0)
    assert server.run(0.3, 5.0).held == 0
    later = server.run(0.3, 200.0)  # it is tried now and then
    assert 0 < later.held < 0.1 * later.asked


def test_what_was_sent_before_a_cut_is_no_reason_for_another() -> None:
    throttle = Throttle()
    for number in range(300):
        throttle.refused(number / 1_000.0, number / 1_000.0)
    assert throttle.holds
    sent = _sent(throttle, 0.3, 0.5)
    for number in range(300):  # as late as these answers are
        throttle.late(0.2, 0.5 + number / 1_000.0)
    assert _sent(throttle, 0.8, 1.0) >= 0.9 * sent


def _sent(throttle: Throttle, begin_s: float, end_s: float) -> int:
    return sum(throttle.admit(begin_s + number / 10_000.0) for number in range(round((end_s - begin_s) * 10_000)))


@pytest.mark.parametrize(
    ("error", "counts"),
    [
        (HeldBackError(), True),  # which says what a server says
        (FakeError(grpc.StatusCode.RESOURCE_EXHAUSTED, "Concurrent RPC limit exceeded!"), True),
        (FakeError(grpc.StatusCode.RESOURCE_EXHAUSTED, "the message is too large"), False),
        (FakeError(grpc.StatusCode.UNAVAILABLE, "away"), False),
        (FakeError(grpc.StatusCode.CANCELLED, "the server ends"), False),
        (FakeError(grpc.StatusCode.INVALID_ARGUMENT, "no such action"), False),
    ],
)
def test_a_server_without_room_is_told_from_other_failures(error: grpc.RpcError, counts: bool) -> None:
    throttle = Throttle()
    for number in range(1_000):
        throttle.failed(error, number / 1_000.0, number / 1_000.0)
    assert throttle.holds is counts
