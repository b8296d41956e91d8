from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from engine.errors import LogError
from engine.records import Decision, Outcome
from streaming import shipping as module
from streaming.embedded import EmbeddedLog
from streaming.log import Message
from streaming.shipping import Shipping
from streaming.spool import Spool
from streaming.topics import DECISIONS, OUTCOMES
from streaming.wire import message_of
from tests.streaming.samples import PARTITIONS, opened

#: Longer than anything that is waited for here, and never waited for in full.
LONG_S = 30.0


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RETRY_S", 0.01)
    monkeypatch.setattr(module, "LINGER_S", 0.001)


class Cluster(EmbeddedLog):
    """A cluster that can be away, or slow."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory, fsync=False)
        self.away = False
        self.wrong = ""
        self.loses_answers = False
        self.lost_answers = 0
        self.asked = threading.Event()
        self.let = threading.Event()
        self.let.set()
        self.declared = 0

    def declare(self) -> None:
        self._reach()
        if self.wrong:
            raise LogError(self.wrong)
        self.declared += 1

    def append(self, messages: Sequence[Message]) -> None:
        self.asked.set()
        assert self.let.wait(LONG_S)
        self._reach()
        super().append(messages)
        if self.loses_answers:
            self.lost_answers += 1
            raise LogError("no answer")

    def _reach(self) -> None:
        if self.away:
            raise LogError("broker away")


class World:
    """A spool, a cluster, and what ships from one to the other."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        with opened(directory / "cluster"):
            pass  # its topics
        self.cluster = Cluster(directory / "cluster" / "log")
        self.shipped = self.errors = 0

    @contextmanager
    def shipping(self, *, patience_s: float | None = None, max_bytes: int = 2**30) -> Iterator[Shipping]:
        self.spool = Spool(self.directory / "spool", max_bytes=max_bytes, fsync=False)
        shipping = Shipping(
            self.spool,
            self.cluster,
            self.cluster.declare,
            patience_s=patience_s,
            on_shipped=self._count,
            on_error=self._err,
        )
        try:
            yield shipping
        finally:
            self.cluster.let.set()
            shipping.close(0.0, threading.Event())
            self.spool.close()

    def _count(self, records: int) -> None:
        self.shipped += records

    def _err(self) -> None:
        self.errors += 1

    def arrived(self) -> list[str]:
        """Return what the cluster has, by key and in the order of each."""
        values: dict[str, list[str]] = {}
        for partition in range(PARTITIONS):
            for record in self.cluster.read(DECISIONS, partition, 0, 100_000):
                decision = Decision.FromString(record.value or b"")
                values.setdefault(decision.decision_id, []).append(decision.policy_version)
        return [f"{key}:{version}" for key in sorted(values) for version in values[key]]

    def eventually(self, look: Callable[[], bool]) -> None:
        end = time.monotonic() + LONG_S
        while not look():
            assert time.monotonic() < end, "in vain"
            time.sleep(0.002)

    def counted(self, count: Callable[[], int], before: int) -> None:
        self.eventually(lambda: count() > before)

    def drained(self) -> None:
        self.eventually(lambda: self.spool.waiting == 0)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path)
    yield world
    world.cluster.close()


def decisions(*numbers: int) -> list[Message]:
    """Return records of a few keys: their order is what must be kept."""
    return [message_of(Decision(decision_id=f"d{n % 3}", time_ms=n, policy_version=f"{n:04}")) for n in numbers]


def expected(*numbers: int) -> list[str]:
    return sorted(f"d{n % 3}:{n:04}" for n in numbers)


def once(arrived: list[str]) -> list[str]:
    """Leave out what arrived again: the join takes the first."""
    return list(dict.fromkeys(arrived))


def test_everything_goes_by_way_of_the_spool_in_the_order_of_each_key(world: World) -> None:
    with world.shipping() as shipping:
        for start in range(0, 2_000, 50):
            shipping.append(decisions(*range(start, start + 50)))
        world.drained()
    assert world.arrived() == expected(*range(2_000))
    assert world.shipped == 2_000


def test_keys_lie_in_the_partitions_of_the_cluster(world: World) -> None:
    with world.shipping() as shipping:
        shipping.append([message_of(Outcome(decision_id=f"o{n}", value=1.0)) for n in range(20)])
        world.drained()
    direct = [message_of(Outcome(decision_id=f"o{n}", value=1.0)) for n in range(20)]
    found = {record.key: n for n in range(PARTITIONS) for record in world.cluster.read(OUTCOMES, n)}
    assert len(set(found.values())) == PARTITIONS
    for message in direct:
        assert world.cluster.place(message).partition == found[message.key]


def test_nothing_is_lost_or_out_of_order_while_the_cluster_comes_and_goes(world: World) -> None:
    with world.shipping(patience_s=LONG_S) as shipping:
        for turn in range(30):
            world.cluster.away = turn % 5 in (1, 2)
            world.cluster.loses_answers = turn % 5 == 3
            errors, lost_answers = world.errors, world.cluster.lost_answers
            shipping.append(decisions(*range(turn * 10, turn * 10 + 10)))
            if world.cluster.away:
                world.counted(lambda: world.errors, errors)
            elif world.cluster.loses_answers:
                world.counted(lambda: world.cluster.lost_answers, lost_answers)
        world.cluster.away = world.cluster.loses_answers = False
        world.drained()
    assert once(world.arrived()) == expected(*range(300))
    assert len(world.arrived()) > 300  # what was not answered for was sent again
    assert world.errors >= 6


def test_no_outcome_arrives_before_its_decision_although_there_are_few_and_the_cluster_fails(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BATCH", 20)
    arrived: list[tuple[str, bytes | None]] = []
    failing = iter([False, True, False, False, True, True] * 100)

    def append(messages: Sequence[Message]) -> None:
        if next(failing, False):
            arrived.extend((m.topic, m.key) for m in messages[: len(messages) // 2])  # a part of them had arrived
            raise LogError("the leader of a partition is away")
        arrived.extend((m.topic, m.key) for m in messages)

    monkeypatch.setattr(world.cluster, "append", append)
    world.cluster.away = True
    with world.shipping() as shipping:
        for n in range(500):
            shipping.append([message_of(Decision(decision_id=f"d{n}", time_ms=n))])
            if n % 10 == 9:
                shipping.append([message_of(Outcome(decision_id=f"d{n - 9}", time_ms=n, value=1.0))])
        world.cluster.away = False
        world.drained()
    first = {where: at for at, where in reversed(list(enumerate(arrived)))}
    outcomes = [key for topic, key in first if topic == OUTCOMES]
    assert len(outcomes) == 50
    assert all(first[DECISIONS, key] < first[OUTCOMES, key] for key in outcomes)


def test_a_cluster_in_good_health_needs_no_spool(world: World) -> None:
    with world.shipping(patience_s=LONG_S) as shipping:
        shipping.append(decisions(0))  # perhaps before the thread is ready
        world.drained()
        world.eventually(lambda: shipping._free)
        for number in range(1, 50):
            shipping.append(decisions(number))
            assert world.spool.waiting == 0
            assert len(world.arrived()) == number + 1  # it is there when append returns
            world.eventually(lambda: shipping._free)
    assert world.arrived() == expected(*range(50))


def test_a_slow_cluster_is_not_waited_for(world: World) -> None:
    with world.shipping(patience_s=0.02) as shipping:
        world.eventually(lambda: shipping._free)
        world.cluster.let.clear()
        shipping.append(decisions(0))
        assert world.cluster.asked.wait(LONG_S)
        assert (world.spool.waiting, world.errors) == (1, 0)
        shipping.append(decisions(3))  # the thread is still at the first: this one does not wait at all
        assert (world.spool.waiting, world.arrived()) == (2, [])
        world.cluster.let.set()
        world.drained()
        assert once(world.arrived()) == expected(0, 3)


def test_nothing_is_offered_to_a_cluster_that_is_still_at_the_last(world: World) -> None:
    with world.shipping(patience_s=0.02, max_bytes=1) as shipping:
        world.eventually(lambda: shipping._free)
        world.cluster.let.clear()
        for number in range(3):
            with pytest.raises(LogError, match="spool is full"):
                shipping.append(decisions(number))
        world.cluster.let.set()
        world.eventually(lambda: shipping._free)
        # It was too slow for the first; of the others it has not heard.
        assert world.arrived() == expected(0)


def test_the_cluster_may_be_away_at_the_start(world: World) -> None:
    world.cluster.away = True
    with world.shipping() as shipping:
        assert not shipping.reached(0.0)
        shipping.append(decisions(0, 1, 2))
        world.eventually(lambda: shipping.trouble is not None)
        assert (shipping.trouble, world.spool.waiting, world.cluster.declared) == ("broker away", 3, 0)
        world.cluster.away = False
        world.drained()
        assert shipping.reached(LONG_S)
        world.eventually(lambda: shipping.trouble is None)
    assert world.arrived() == expected(0, 1, 2)


def test_a_cluster_with_other_topics_gets_nothing_and_it_is_said(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    world.cluster.wrong = "topic 'decisions' exists with partitions 7, not 2"
    with world.shipping(patience_s=0.01) as shipping:
        for number in range(5):
            shipping.append(decisions(number))
        world.eventually(lambda: world.errors > 3)
        assert (world.arrived(), world.spool.waiting) == ([], 5)
        assert caplog.text.count("partitions 7, not 2") == 1  # once, not at every attempt
        world.cluster.wrong = ""
        world.drained()
    assert world.arrived() == expected(*range(5))


def test_topics_are_checked_again_when_the_cluster_was_away(world: World) -> None:
    with world.shipping() as shipping:
        assert shipping.reached(LONG_S)
        world.cluster.away = True
        shipping.append(decisions(0))
        world.eventually(lambda: shipping.trouble is not None)
        world.cluster.wrong = "another cluster"
        world.cluster.away = False
        world.eventually(lambda: shipping.trouble == "another cluster")
        assert world.arrived() == []


def test_what_stays_at_the_end_is_shipped_by_the_next_process(world: World, caplog: pytest.LogCaptureFixture) -> None:
    world.cluster.away = True
    with world.shipping() as shipping:
        shipping.append(decisions(*range(40)))
    assert "40 records stay in the spool; they are shipped after the next start" in caplog.text
    world.cluster.away = False
    with world.shipping() as shipping:
        shipping.append(decisions(*range(40, 50)))
        world.drained()
    assert world.arrived() == expected(*range(50))


def test_the_end_ships_what_it_can(world: World) -> None:
    world.cluster.let.clear()
    with world.shipping() as shipping:
        shipping.append(decisions(*range(40)))
        threading.Timer(0.05, world.cluster.let.set).start()
        shipping.close(LONG_S, threading.Event())
        assert world.spool.waiting == 0
    assert world.arrived() == expected(*range(40))


def test_the_end_in_a_hurry_does_not_wait(world: World) -> None:
    world.cluster.let.clear()
    with world.shipping() as shipping:
        shipping.append(decisions(0))
        hurry = threading.Event()
        hurry.set()
        shipping.close(LONG_S, hurry)
        assert world.spool.waiting == 1


def test_a_full_spool_says_so_and_what_it_has_still_arrives(world: World) -> None:
    world.cluster.away = True
    sent = 0
    with world.shipping(max_bytes=2**19) as shipping:
        with pytest.raises(LogError, match=r"spool is full.*log\.spool_max_bytes"):  # noqa: PT012
            while True:
                shipping.append(decisions(*range(sent, sent + 100)))
                sent += 100
        world.cluster.away = False
        world.drained()
        world.eventually(lambda: shipping._free)
        shipping.append(decisions(*range(sent, sent + 100)))
        world.drained()
    assert world.arrived() == expected(*range(sent + 100))


def test_a_surprise_does_not_end_the_thread(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    with world.shipping(patience_s=LONG_S) as shipping:
        world.eventually(lambda: shipping._free)
        with monkeypatch.context() as patch:
            patch.setattr(world.cluster, "append", lambda _: 1 / 0)
            shipping.append(decisions(0))
            world.eventually(lambda: shipping.trouble is not None)
        world.drained()
    assert world.arrived() == expected(0)
