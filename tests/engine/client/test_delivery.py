from __future__ import annotations

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.client.delivery import Delivery
from engine.client.messages import Refused
from engine.client.outbox import Outbox
from engine.client.testing import FakeError

LATER = Refused(14, "full", 0.5)
WRONG = Refused(3, "no such task")


class World:
    """A delivery of single letters, and what it says."""

    def __init__(self, letters: str, batch: int = 10) -> None:
        self.outbox = Outbox(None, 100)
        self.lost: list[tuple[bytes, str]] = []
        self.delivery = Delivery(self.outbox, batch, lambda data, why: self.lost.append((data, why)), lambda: 1.0)
        for letter in letters:
            self.outbox.add(letter, letter.encode())

    def waits(self) -> str:
        return "".join(key for key, _ in self.outbox.oldest(100, 1_000))


def test_what_was_taken_is_done_what_is_wrong_is_said_and_the_rest_waits() -> None:
    world = World("abcd")
    pause = world.delivery.answered(world.delivery.next(), [None, WRONG, LATER, None])
    assert world.waits() == "c"
    assert world.lost == [(b"b", "no such task")]
    assert pause == 0.5
    assert world.delivery.answered(world.delivery.next(), [None]) == 0.0
    assert world.waits() == ""


@pytest.mark.parametrize("code", [grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.UNIMPLEMENTED, grpc.StatusCode.INTERNAL])
def test_a_call_that_fails_takes_nothing_away_and_pauses_grow(code: grpc.StatusCode) -> None:
    world = World("ab")
    pauses = [world.delivery.failed(world.delivery.next(), FakeError(code, "away")) for _ in range(9)]
    assert pauses == pytest.approx([min(0.1 * 2**n, 5.0) for n in range(9)])
    assert world.waits() == "ab"
    assert world.lost == []
    assert world.delivery.trouble == f"{code.name}: away"


def test_what_is_too_large_together_goes_in_parts_and_alone_is_given_up() -> None:
    world = World("abcdefgh")
    too_large = FakeError(grpc.StatusCode.RESOURCE_EXHAUSTED, "larger than max")
    sizes: list[int] = []
    while (batch := world.delivery.next()) and len(sizes) < 4:
        sizes.append(len(batch))
        assert world.delivery.failed(batch, too_large) == 0.0
    assert sizes == [8, 4, 2, 1]
    assert world.lost == [(b"a", "RESOURCE_EXHAUSTED: larger than max")]
    world.delivery.answered(world.delivery.next(), [None])
    assert len(world.delivery.next()) == 6  # and many again afterwards


@given(
    st.lists(
        st.lists(st.sampled_from(["taken", "wrong", "later", "fails", "large"]), min_size=5, max_size=5), max_size=20
    )
)
def test_every_message_is_taken_or_said_to_be_lost_or_waits(rounds: list[list[str]]) -> None:
    world = World("abcdefghijkl", batch=5)
    taken: set[bytes] = set()
    for fate in rounds:
        batch = world.delivery.next()
        if fate[0] == "fails":
            world.delivery.failed(batch, FakeError(grpc.StatusCode.UNAVAILABLE, ""))
        elif fate[0] == "large" and batch:
            world.delivery.failed(batch, FakeError(grpc.StatusCode.RESOURCE_EXHAUSTED, ""))
        else:
            answers = [{"wrong": WRONG, "later": LATER}.get(each) for each in fate[: len(batch)]]
            taken |= {data for (_, data), answer in zip(batch, answers, strict=True) if answer is None}
            world.delivery.answered(batch, answers)
    lost = [data for data, _ in world.lost]
    waits = [letter.encode() for letter in world.waits()]
    assert sorted([*taken, *lost, *waits]) == [letter.encode() for letter in "abcdefghijkl"]
