"""A log whose transactions pass through the hands of a test."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any, Self, cast

from streaming.log import Log, Message, TopicPartition

Offsets = Mapping[TopicPartition, int]
#: Writes what a writer has put into a transaction.
Commit = Callable[[Log, str, Sequence[Message], Offsets], None]


def at_once(log: Log, writer: str, messages: Sequence[Message], offsets: Offsets) -> None:
    """Commit as it should be: all in one transaction."""
    with log.transaction(writer) as transaction:
        for message in messages:
            transaction.send(message)
        transaction.commit_offsets(offsets)


def intercepted(log: Log, commit: Commit) -> Log:
    """Return the log with another way to commit."""
    return cast(Log, _InterceptedLog(log, commit))


class _InterceptedLog:
    def __init__(self, log: Log, commit: Commit) -> None:
        self._log = log
        self._commit = commit

    def __getattr__(self, name: str) -> Any:
        return getattr(self._log, name)

    def transaction(self, writer: str) -> _InterceptedTransaction:
        return _InterceptedTransaction(lambda messages, offsets: self._commit(self._log, writer, messages, offsets))


class _InterceptedTransaction:
    def __init__(self, write: Callable[[Sequence[Message], Offsets], None]) -> None:
        self._write = write
        self._messages: list[Message] = []
        self._offsets: dict[TopicPartition, int] = {}

    def send(self, message: Message) -> None:
        self._messages.append(message)

    def commit_offsets(self, offsets: Offsets) -> None:
        self._offsets.update(offsets)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None and (self._messages or self._offsets):
            self._write(self._messages, self._offsets)
