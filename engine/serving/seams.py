"""What the serving core needs from outside, as small protocols: where records go, and who is told."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future
from typing import Protocol

from engine.records import Decision, Outcome
from engine.sealed import SealedDecision


class Recorder(Protocol):
    """Takes decisions and outcomes to the log."""

    def record(self, records: Sequence[Decision | SealedDecision | Outcome]) -> Future[None]:
        """Hand over records that belong to one answer.

        The future ends when all of them are as safe as the configuration asks, or with ``LogError`` when they are not:
        then it is not known that any of them is in the log. Never blocks.
        """


class Observer(Protocol):
    """Is told what the server does, to count it."""

    def begin(self) -> None:
        """Note that a call has come."""

    def end(self, method: str, code: str) -> None:
        """Note that a call ended with a gRPC status code."""

    def decided(self, point: str, seconds: float) -> None:
        """Note how long a caller waited for one decision, the transport apart."""

    def decision(self, decision: Decision | SealedDecision) -> None:
        """Note that a decision was made and answered."""

    def sealed(self, point: str, made: Sequence[SealedDecision]) -> None:
        """Note decisions of one point, made with the same effort, each as :meth:`decision` says of one."""

    def unrecorded(self, point: str) -> None:
        """Note that a decision was answered that is not in the log."""

    def outcome(self) -> None:
        """Note that an outcome was accepted."""

    def swap(self, point: str, version: str, generation: int, learned: int, created_ms: int) -> None:
        """Note that another policy serves from now on."""

    def refused(self, method: str, reason: str) -> None:
        """Note that a call was refused because too much is asked; ``reason`` as in ``Overloaded``."""

    def turned_away(self, method: str, reason: str) -> None:
        """Note that a call came and was refused at once, as ``begin``, ``refused`` and ``end`` say of others."""

    def degraded(self, method: str, step: str) -> None:
        """Note that a call was answered with less effort because many wait; ``step``: the name of the effort."""

    def load_error(self, point: str) -> None:
        """Note that a published policy could not be loaded."""
