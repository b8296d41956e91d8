"""Reads what a join has written, and says how it differs from what it should have written."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

from engine.records import Feedback
from streaming.dead_letters import read_letter
from streaming.joiner import read_accounting
from streaming.log import Log, Message, Record, TopicPartition
from streaming.topics import DEAD_LETTERS, DECISIONS, FEEDBACK, JOIN, LATE, OUTCOMES
from tests.faults.join.reference import Answer, Late, Letter, Row, join
from tests.faults.join.workload import END_MS, POINTS

#: Counts that belong to a decision point whatever the order was; the others are compared in total.
_BY_POINT = ("decisions", "feedback", "defaulted", "duplicate_decisions", "late_outcomes", "surplus_outcomes")
_IN_TOTAL = ("pending", "duplicate_outcomes", "dead_letters")
_SHOWN = 3


def records(log: Log, topic: str) -> Iterator[Record]:
    """Yield all records of a topic that a reader sees, partition by partition."""
    for partition in log.ends(topic):
        start = 0
        while batch := log.read(topic, partition, start, 5_000):
            yield from batch
            start = batch[-1].offset + 1


def not_as_fed(log: Log, messages: Iterable[Message]) -> list[str]:
    """Return in words how decisions and outcomes in the log differ from those that were appended."""
    fed = Counter((message.topic, message.key, message.value) for message in messages)
    kept = Counter((r.topic, r.key, r.value) for topic in (DECISIONS, OUTCOMES) for r in records(log, topic))
    return [
        *_complaint("record not in the log", (fed - kept).elements()),
        *_complaint("record that nobody sent", (kept - fed).elements()),
    ]


def expected(log: Log) -> Answer:
    """Return what the batch join makes of all decisions and outcomes that are in the log."""
    return join(records(log, DECISIONS), records(log, OUTCOMES), POINTS, END_MS)


def found(log: Log) -> Answer:
    """Return what the joiners have written, as whoever reads committed records sees it."""
    answer = Answer()
    for record in records(log, FEEDBACK):
        feedback = Feedback.FromString(record.value or b"")
        assert record.key == feedback.decision.decision_id.encode()
        row = Row(
            record.partition,
            feedback.decision.decision_id,
            feedback.decision.SerializeToString(),
            feedback.reward,
            feedback.defaulted,
            feedback.outcomes,
            feedback.reward_time_ms,
        )
        answer.feedback[row] += 1
    for record in records(log, LATE):
        answer.late[Late(record.partition, record.key, record.value, tuple(record.headers))] += 1
    for record in records(log, DEAD_LETTERS):
        letter = read_letter(record)
        where = (letter.topic, letter.original_partition, letter.original_offset)
        answer.letters[Letter(letter.reason, *where, letter.key, letter.value, letter.headers)] += 1
    for point, book in read_accounting(log).items():
        for name in _BY_POINT:
            answer.books[point][name] += getattr(book, name)
        for name in _IN_TOTAL:
            answer.books[""][name] += getattr(book, name)
    return answer


def remaining(log: Log) -> int:
    """Return how many records are still to be read, and decisions to be given their feedback."""
    committed = log.committed(JOIN)
    unread = sum(
        end - committed.get(TopicPartition(topic, number), 0)
        for topic in (DECISIONS, OUTCOMES)
        for number, end in log.ends(topic).items()
    )
    return unread + sum(book.pending for book in read_accounting(log).values())


def differences(want: Answer, have: Answer) -> list[str]:
    """Return in words what is lost, repeated or different; nothing for two equal answers."""
    wanted = {row.decision_id: row for row in want.feedback}
    times = Counter(row.decision_id for row in have.feedback.elements())
    complaints = [
        *_complaint("feedback lost", wanted.keys() - times.keys()),
        *_complaint("feedback of nothing", times.keys() - wanted.keys()),
        *_complaint("feedback repeated", [name for name, count in times.items() if count > 1]),
        *_complaint(
            "feedback different",
            [(wanted[row.decision_id], row) for row in have.feedback if row != wanted.get(row.decision_id, row)],
        ),
        *_complaint("late lost", (want.late - have.late).elements()),
        *_complaint("late too much", (have.late - want.late).elements()),
        *_complaint("dead letter lost", (want.letters - have.letters).elements()),
        *_complaint("dead letter too much", (have.letters - want.letters).elements()),
    ]
    for point in sorted(want.books.keys() | have.books.keys()):
        for name in (*_BY_POINT, *_IN_TOTAL):
            counts = want.books[point][name], have.books[point][name]
            if counts[0] != counts[1]:
                complaints.append(f"{name} of {point!r}: {counts[0]} expected, the books say {counts[1]}")
    return complaints


def _complaint(text: str, entries: Iterable[object]) -> list[str]:
    listed = sorted(map(repr, entries))
    return [f"{len(listed)} x {text}, such as {'; '.join(listed[:_SHOWN])}"] if listed else []
