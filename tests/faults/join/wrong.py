"""Commits that are wrong on purpose, each in a way in which a joiner could be."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

from streaming.log import Log, Message
from streaming.topics import FEEDBACK, JOIN_STATE
from tests.faults.join.intercepted import Commit, Offsets, at_once


class Death(BaseException):
    """The process ends here."""


class Mortality:
    """Ends the process now and then, just where it is called."""

    def __init__(self, rng: random.Random, probability: float) -> None:
        self._rng = rng
        self._probability = probability
        self.deaths = 0

    def __call__(self) -> None:
        if self._rng.random() < self._probability:
            self.deaths += 1
            raise Death


#: Makes a commit that dies now and then between its steps, if it has several.
Making = Callable[[Mortality], Commit]


def right(perhaps_die: Mortality) -> Commit:
    """Commit as it should be."""
    return at_once


def offsets_first(perhaps_die: Mortality) -> Commit:
    """Commit the offsets before the records."""

    def commit(log: Log, writer: str, messages: Sequence[Message], offsets: Offsets) -> None:
        at_once(log, writer, [], offsets)
        perhaps_die()
        at_once(log, writer, messages, {})

    return commit


def offsets_last(perhaps_die: Mortality) -> Commit:
    """Commit the offsets after the records."""

    def commit(log: Log, writer: str, messages: Sequence[Message], offsets: Offsets) -> None:
        at_once(log, writer, messages, {})
        perhaps_die()
        at_once(log, writer, [], offsets)

    return commit


def state_last(perhaps_die: Mortality) -> Commit:
    """Commit the changes of state after all else."""

    def commit(log: Log, writer: str, messages: Sequence[Message], offsets: Offsets) -> None:
        at_once(log, writer, [message for message in messages if message.topic != JOIN_STATE], offsets)
        perhaps_die()
        at_once(log, writer, [message for message in messages if message.topic == JOIN_STATE], {})

    return commit


def forgetful(topic: str, every: int) -> Making:
    """Leave out one record of a topic in one of ``every`` transactions."""

    def making(perhaps_die: Mortality) -> Commit:
        transactions = 0

        def commit(log: Log, writer: str, messages: Sequence[Message], offsets: Offsets) -> None:
            nonlocal transactions
            transactions += 1
            kept = list(messages)
            first = next((message for message in messages if message.topic == topic), None)
            if transactions % every == 0 and first is not None:
                kept.remove(first)
            at_once(log, writer, kept, offsets)

        return commit

    return making


def stammering(perhaps_die: Mortality) -> Commit:
    """Send the last feedback of each transaction twice."""

    def commit(log: Log, writer: str, messages: Sequence[Message], offsets: Offsets) -> None:
        feedback = [message for message in messages if message.topic == FEEDBACK]
        at_once(log, writer, [*messages, *feedback[-1:]], offsets)

    return commit
