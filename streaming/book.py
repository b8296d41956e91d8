"""The book of the join: how many decisions, outcomes and feedback there were, by decision point."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from engine.records import JoinAccounting


class Book:
    """The book of a decision point while it is written; see ``JoinAccounting``."""

    __slots__ = (
        "dead_letters", "decisions", "defaulted", "duplicate_decisions", "duplicate_outcomes", "feedback",
        "late_outcomes", "pending", "surplus_outcomes", "unactivated",
    )  # fmt: skip

    def __init__(self, record: JoinAccounting) -> None:
        self.decisions = record.decisions
        self.feedback = record.feedback
        self.defaulted = record.defaulted
        self.pending = record.pending
        self.duplicate_decisions = record.duplicate_decisions
        self.duplicate_outcomes = record.duplicate_outcomes
        self.late_outcomes = record.late_outcomes
        self.surplus_outcomes = record.surplus_outcomes
        self.dead_letters = record.dead_letters
        self.unactivated = record.unactivated

    def record(self, watermark_ms: int) -> JoinAccounting:
        """Return the book as it stands, with the time up to which windows are closed."""
        counts = {name: getattr(self, name) for name in self.__slots__}
        return JoinAccounting(watermark_ms=max(watermark_ms, 0), **counts)


def total(books: Iterable[Mapping[str, JoinAccounting]]) -> dict[str, JoinAccounting]:
    """Return the sum of the books of several partitions, by decision point, with the greatest of their watermarks."""
    sums: dict[str, JoinAccounting] = {}
    for book in books:
        for point, accounting in book.items():
            into = sums.setdefault(point, JoinAccounting())
            watermark_ms = max(into.watermark_ms, accounting.watermark_ms)
            for field, value in accounting.ListFields():
                setattr(into, field.name, getattr(into, field.name) + value)
            into.watermark_ms = watermark_ms
    return sums
