"""A step of the join whose transaction is under way while the next one is read: what may go wrong there."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from types import TracebackType
from typing import Any

import pytest

from engine.config import RewardConfig
from engine.errors import LogError
from engine.records import Decision, Feedback, Outcome
from streaming.commits import Commits
from streaming.embedded import EmbeddedLog, EmbeddedTransaction
from streaming.embedded_consumer import EmbeddedConsumer
from streaming.joiner import JoinerRole, read_accounting
from streaming.log import Record, TopicPartition
from streaming.topics import DECISIONS, FEEDBACK, JOIN, OUTCOMES, topics
from streaming.wire import message_of

PARTITIONS = 2
PATIENCE_S = 30.0
POINTS = {"page": RewardConfig(window=1_000, grace=0, aggregation="sum", default=0.0)}
COUNT = 120
BATCH = 50


class FencedTransaction(EmbeddedTransaction):
    """Is refused when a partition has left its member since it took the offsets."""

    def __init__(self, log: FencedLog, writer: str) -> None:
        super().__init__(log, writer)
        self._fenced = log
        self._generation = -1

    def commit_offsets(self, offsets: Mapping[TopicPartition, int]) -> None:
        super().commit_offsets(offsets)
        self._generation = self._fenced.generation

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        log = self._fenced
        assert log.under_way.acquire(blocking=False), "one transaction at a time"
        try:
            log.began += 1
            log.before()
            if self._generation != log.generation:
                raise LogError("another member of the group")
            super().__exit__(kind, error, trace)
            log.ended += 1
        finally:
            log.under_way.release()


class FencedLog(EmbeddedLog):
    """A log that fences, and whose transactions and polls the test has its hands in.

    Attributes
    ----------
    generation : int
        Counts losses of partitions.
    began, ended : int
        Transactions that were begun, and that were committed.
    before
        Called by a transaction before it is written.
    polled
        Called by each poll of a member, before it reads, with its number.
    gone : set of int
        Partitions that are with another member.
    """

    fences = True

    def __init__(self, directory: Path) -> None:
        super().__init__(directory, fsync=False)
        self.generation = self.began = self.ended = 0
        self.under_way = threading.Lock()
        self.before: Callable[[], object] = lambda: None
        self.polled: Callable[[int], object] = lambda number: None
        self.closing: Callable[[], object] = lambda: None
        self.gone: set[int] = set()

    def transaction(self, writer: str) -> FencedTransaction:
        return FencedTransaction(self, writer)

    def consumer(self, group: str, topics: Sequence[str]) -> EmbeddedConsumer:
        return FencedConsumer(self, self._locks, group, topics)

    def lose(self, number: int) -> None:
        """Give a partition to another member."""
        self.generation += 1
        self.gone.add(number)

    def give_back(self, number: int, consumer: FencedConsumer) -> None:
        """Give a partition back, at what is committed."""
        self.gone.discard(number)
        committed = self.committed(JOIN)
        for topic in (DECISIONS, OUTCOMES):
            where = TopicPartition(topic, number)
            consumer.seek(where, committed.get(where, 0))


class FencedConsumer(EmbeddedConsumer):
    """A member that loses partitions when the test says so."""

    def __init__(self, log: FencedLog, *others: Any) -> None:
        super().__init__(log, *others)
        self._fenced = log
        self.polls = 0

    def poll(self, max_records: int = 1_000, timeout_s: float = 0.0) -> list[Record]:
        self.polls += 1
        self._fenced.polled(self.polls)
        return [r for r in super().poll(max_records, timeout_s) if r.partition not in self._fenced.gone]

    def _mine(self, positions: Mapping[TopicPartition, int]) -> dict[TopicPartition, int]:
        return {where: at for where, at in positions.items() if where.partition not in self._fenced.gone}

    def assignment(self) -> frozenset[TopicPartition]:
        return frozenset(self._mine(dict.fromkeys(super().assignment(), 0)))

    def position(self) -> dict[TopicPartition, int]:
        return self._mine(super().position())

    def lag(self) -> dict[TopicPartition, int]:
        return self._mine(super().lag())

    def close(self) -> None:
        self._fenced.closing()
        super().close()


@pytest.fixture
def log(tmp_path: Path) -> Iterator[FencedLog]:
    with closing(FencedLog(tmp_path / "log")) as log:
        log.create(topics(PARTITIONS, 10**13))
        log.append([message_of(Decision(decision_id=f"d{n}", decision_point="page", time_ms=n)) for n in range(COUNT)])
        log.append([message_of(Outcome(decision_id=f"d{n}", time_ms=n + 1, value=n)) for n in range(COUNT)])
        yield log


@pytest.fixture
def now_ms() -> list[int]:
    return [0]


@pytest.fixture
def role(log: FencedLog, now_ms: list[int]) -> JoinerRole:
    # A step takes a part of what there is: its transaction is under way when it returns.
    return JoinerRole(log, POINTS, lambda: now_ms[0], batch=BATCH)


def finish(role: JoinerRole, now_ms: list[int]) -> None:
    while role.step():
        pass
    now_ms[0] = 10_000
    while role.step():
        pass


def check(log: FencedLog) -> None:
    """Each decision has its feedback, once, with its reward; and the books say so."""
    records = [record for number in range(PARTITIONS) for record in log.read(FEEDBACK, number)]
    found = [Feedback.FromString(record.value or b"") for record in records]
    rewards = sorted((f.decision.decision_id, f.reward) for f in found)
    assert rewards == sorted((f"d{n}", float(n)) for n in range(COUNT))
    book = read_accounting(log)["page"]
    assert (book.decisions, book.feedback, book.pending, book.defaulted) == (COUNT, COUNT, 0, 0)
    assert (book.duplicate_decisions, book.duplicate_outcomes, book.dead_letters) == (0, 0, 0)


class Gate:
    """Holds a transaction up until it is opened; then it may fail.

    Attributes
    ----------
    error : Exception or None
        What it fails with.
    """

    def __init__(self) -> None:
        self._open = threading.Event()
        self.error: Exception | None = None

    def __call__(self) -> None:
        assert self._open.wait(PATIENCE_S), "nobody lets the transaction end"
        error, self.error = self.error, None
        if error is not None:
            raise error

    def open(self) -> None:
        self._open.set()


def test_the_next_records_are_read_while_a_transaction_is_under_way(
    log: FencedLog, role: JoinerRole, now_ms: list[int]
) -> None:
    log.before = gate = Gate()
    seen: list[tuple[int, int, int]] = []

    def polled(number: int) -> None:
        seen.append((number, log.began, log.ended))
        if number == 2:
            assert log.committed(JOIN) == {}
            gate.open()

    log.polled = polled
    assert role.step() == BATCH  # else the gate would have held it
    assert role.step() > 0
    assert seen[1][2] == 0
    finish(role, now_ms)
    assert role.commits == log.ended
    check(log)


def test_where_all_is_read_a_step_ends_when_it_is_committed(log: FencedLog, now_ms: list[int]) -> None:
    role = JoinerRole(log, POINTS, lambda: now_ms[0], batch=10 * COUNT)
    assert role.step() == 2 * COUNT
    assert sum(log.committed(JOIN).values()) == 2 * COUNT
    now_ms[0] = 10_000
    role.step()
    check(log)


def test_a_step_that_gets_nothing_ends_when_the_one_before_is_committed(
    log: FencedLog, role: JoinerRole, now_ms: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though more is there: of a transaction that failed one has to hear in good time."""
    log.before = gate = Gate()
    gate.error = LogError("the broker refuses")
    role.step()
    with monkeypatch.context() as patch:
        patch.setattr(FencedConsumer, "poll", lambda *_: [])
        gate.open()
        with pytest.raises(LogError, match="the broker refuses"):
            role.step()
    finish(role, now_ms)
    check(log)


@pytest.mark.parametrize("step", [1, 2, 3])
def test_a_transaction_that_fails_while_the_next_records_are_read_leads_back_to_what_is_committed(
    log: FencedLog, role: JoinerRole, now_ms: list[int], step: int
) -> None:
    for _ in range(step - 1):
        role.step()
    log.before = gate = Gate()
    gate.error = LogError("the broker refuses")
    began = log.began
    role.step()
    committed = log.committed(JOIN)
    log.polled = lambda number: gate.open()
    with pytest.raises(LogError, match="the broker refuses"):
        role.step()
    assert log.began <= began + 2  # none was begun after the one that failed
    assert log.committed(JOIN) == committed or log.ended == log.began - 1
    finish(role, now_ms)
    assert role.restores == 2 * PARTITIONS
    check(log)


def test_a_step_that_fails_waits_for_the_transaction_before_it(
    log: FencedLog, role: JoinerRole, now_ms: list[int], caplog: pytest.LogCaptureFixture
) -> None:
    """Else what is committed might be asked for too early, and change afterwards."""
    for error in (None, LogError("and so is the broker")):
        log.before = gate = Gate()
        gate.error = error
        role.step()

        def polled(number: int, gate: Gate = gate) -> None:
            log.polled = lambda number: None
            threading.Timer(0.05, gate.open).start()
            raise LogError("the network is away")

        log.polled = polled
        with pytest.raises(LogError, match="the network is away"):
            role.step()
        assert log.under_way.acquire(blocking=False), "it is under way still"
        log.under_way.release()
    assert "and so is the broker" in caplog.text
    finish(role, now_ms)
    check(log)


@pytest.mark.parametrize("back", ["in the same step", "in the next step"])
@pytest.mark.parametrize("decided", ["refused", "committed before"])
def test_a_partition_that_leaves_while_its_transaction_is_under_way(
    log: FencedLog, role: JoinerRole, now_ms: list[int], back: str, decided: str
) -> None:
    role.step()
    log.before = gate = Gate()
    role.step()
    (consumer,) = (c for c in [role._consumer] if isinstance(c, FencedConsumer))
    first = consumer.polls + 1

    def polled(number: int) -> None:
        if number == first:
            if decided == "committed before":
                gate.open()
                with log.under_way:  # who takes over waits for it
                    pass
            log.lose(1)
        elif number == first + (1 if back == "in the same step" else 2):
            gate.open()
            with log.under_way:
                pass
            log.give_back(1, consumer)

    log.polled = polled
    failures: list[str] = []
    for _ in range(6):
        try:
            role.step()
        except LogError as error:
            failures.append(str(error))
        gate.open()
    assert failures == (["another member of the group"] if decided == "refused" else [])
    finish(role, now_ms)
    check(log)


@pytest.mark.parametrize("error", [None, LogError("the broker is away")])
def test_closing_waits_for_what_is_under_way(
    log: FencedLog, role: JoinerRole, now_ms: list[int], error: LogError | None
) -> None:
    log.before = gate = Gate()
    gate.error = error
    role.step()
    left: list[bool] = []
    log.closing = lambda: left.append(log.under_way.locked())
    threading.Timer(0.05, gate.open).start()
    if error is None:
        role.close()
        assert log.ended == 1
    else:
        with pytest.raises(LogError, match="the broker is away"):
            role.close()
        assert log.ended == 0
    assert left == [False]  # it has left the group, and not before
    log.before, log.closing = lambda: None, lambda: None
    finish(JoinerRole(log, POINTS, lambda: now_ms[0], batch=BATCH), now_ms)
    check(log)


def test_a_log_that_does_not_fence_is_written_before_the_step_ends() -> None:
    commits, threads = Commits(overlap=False), []
    commits.begin(lambda: threads.append(threading.current_thread()))
    assert threads == [threading.current_thread()]


def test_nothing_is_committed_after_a_commit_that_failed() -> None:
    commits, done = Commits(overlap=True), []

    def fail() -> None:
        raise LogError("refused")

    commits.begin(fail)
    with pytest.raises(LogError, match="refused"):
        commits.begin(lambda: done.append(1))
    commits.finish()
    assert done == []
