from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.errors import LogError
from engine.records import Decision, Outcome
from streaming.embedded import EmbeddedLog
from streaming.log import Record
from streaming.shipping import ShippingRole
from streaming.topics import DECISIONS, OUTCOMES
from streaming.wire import message_of
from tests.streaming.samples import PARTITIONS, opened


@pytest.fixture
def source(tmp_path: Path) -> Iterator[EmbeddedLog]:
    with opened(tmp_path / "source") as log:
        yield log


@pytest.fixture
def target(tmp_path: Path) -> Iterator[EmbeddedLog]:
    with opened(tmp_path / "target") as log:
        yield log


def write(log: EmbeddedLog, *numbers: int) -> None:
    for number in numbers:
        decision = Decision(decision_id=f"d{number % 7}", time_ms=number, policy_version=str(number))
        log.append([message_of(decision), message_of(Outcome(decision_id=f"d{number % 7}", time_ms=number))])


def contents(log: EmbeddedLog) -> list[Record]:
    return [record for topic in (DECISIONS, OUTCOMES) for n in range(PARTITIONS) for record in log.read(topic, n)]


def role(source: EmbeddedLog, target: EmbeddedLog) -> ShippingRole:
    return ShippingRole(source, target, [DECISIONS, OUTCOMES], batch=16)


def ship(role: ShippingRole) -> None:
    while role.step():
        pass


def test_everything_arrives_in_the_order_of_its_partition(source: EmbeddedLog, target: EmbeddedLog) -> None:
    shipping = role(source, target)
    write(source, *range(50))
    assert shipping.waiting() == 100
    ship(shipping)
    assert shipping.waiting() == 0
    assert contents(target) == contents(source)


def test_nothing_is_passed_over_while_the_target_is_away(
    source: EmbeddedLog, target: EmbeddedLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    shipping = role(source, target)
    write(source, *range(20))
    shipping.step()
    with monkeypatch.context() as patch:

        def away(_messages: object) -> None:
            raise LogError("broker away")

        patch.setattr(target, "append", away)
        for _ in range(3):
            with pytest.raises(LogError, match="broker away"):
                shipping.step()
        write(source, *range(20, 40))
    ship(shipping)
    assert contents(target) == contents(source)


def test_a_restart_goes_on_where_it_was(source: EmbeddedLog, target: EmbeddedLog) -> None:
    first = role(source, target)
    write(source, *range(30))
    first.step()
    first.close()
    second = role(source, target)
    write(source, *range(30, 40))
    ship(second)
    assert contents(target) == contents(source)


def test_a_crash_before_the_place_is_noted_sends_again_and_loses_nothing(
    source: EmbeddedLog, target: EmbeddedLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    shipping = role(source, target)
    write(source, *range(10))
    with monkeypatch.context() as patch:

        def crash() -> None:
            raise RuntimeError("killed")

        patch.setattr(shipping._consumer, "commit", crash)
        with pytest.raises(RuntimeError, match="killed"):
            shipping.step()
    shipping.close()
    ship(role(source, target))
    sent = [record.value for record in contents(target)]
    assert set(sent) == {record.value for record in contents(source)}
    assert len(sent) == 20 + 16  # the first batch twice
