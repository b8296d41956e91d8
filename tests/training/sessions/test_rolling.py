"""Rolling statistics: equal to a count by hand, blind to the future, and bounded by the keys."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.training.sessions.sources import Row, RowSource
from training.sessions import Sessions
from training.sessions.rolling import RollingCounts, RollingSource, Statistic

WINDOWS = (1, 3)
STATISTICS = (Statistic("user", "user_id", WINDOWS), Statistic("item", "item_id", WINDOWS))

# A session has one user, and days may be left out.
ROWS = st.lists(
    st.builds(
        lambda day, session, item, label: Row(day, session, f"u{session % 3}" if session else "", item, label),
        st.sampled_from([0, 1, 2, 5, 6]), st.integers(0, 4), st.sampled_from(["a", "b", "", "c"]), st.integers(0, 1),
    ),
    min_size=1,
    max_size=40,
)  # fmt: skip


def statistics(source: RollingSource, sessions: int = 2) -> dict[int, list[list[float]]]:
    """Return all statistics of each row, by day."""
    return {day: [row for chunk in source.read(day, sessions) for row in of(chunk, source)] for day in source.days()}


def of(chunk: Sessions, source: RollingSource) -> list[list[float]]:
    user = [chunk.user[field.name][chunk.session] for field in source.user if field.kind == "statistical"]
    item = [chunk.item[field.name] for field in source.item if field.kind == "statistical"]
    return [[-1.0 if np.isnan(value) else float(value) for value in row] for row in np.column_stack([*user, *item])]


def by_hand(rows: list[Row], row: Row) -> list[float]:
    """Return the statistics of one row from all rows, as a person would; -1: missing."""
    found = []
    for key, own in (("user", row.user), ("item", row.item)):
        for window in WINDOWS:
            past = [r for r in rows if getattr(r, key) == own and row.day - window <= r.day < row.day]
            shown, labelled = len(past), sum(r.label for r in past)
            found += [shown, labelled, labelled / shown if shown else -1.0] if own else [-1.0] * 3
    return found


@settings(max_examples=80, deadline=None)
@given(ROWS, st.integers(1, 5))
def test_every_row_has_the_counts_of_the_days_before_it(rows: list[Row], sessions: int) -> None:
    source = RowSource(rows)
    found = statistics(RollingSource(source, STATISTICS), sessions)
    assert found == {day: [by_hand(rows, row) for row in source.rows if row.day == day] for day in source.days()}
    assert source.reads == list(source.days())  # one pass


@settings(max_examples=80, deadline=None)
@given(ROWS, ROWS, st.sampled_from([0, 1, 2, 5, 6]))
def test_no_later_row_changes_what_an_earlier_one_sees(rows: list[Row], others: list[Row], day: int) -> None:
    # All labels from this day on are turned, and from the next day on the rows are others altogether.
    changed = [replace(row, label=1 - row.label) if row.day == day else row for row in rows if row.day <= day]
    changed += [row for row in others if row.day > day]
    before = statistics(RollingSource(RowSource(rows), STATISTICS))
    after = statistics(RollingSource(RowSource(changed), STATISTICS)) if changed else {}
    assert {d: found for d, found in before.items() if d <= day} == {d: f for d, f in after.items() if d <= day}


def test_days_may_be_read_in_any_order_twice_and_in_part() -> None:
    rng = np.random.default_rng(0)
    rows = [
        Row(day, session, f"u{rng.integers(3)}" if place == 0 else "", f"i{rng.integers(5)}", int(rng.integers(2)))
        for day in range(8)
        for session in range(5)
        for place in range(1)
    ]
    expected = statistics(RollingSource(RowSource(rows), STATISTICS))
    source = RollingSource(RowSource(rows), STATISTICS)
    assert any(any(value > 0.0 for value in row) for row in expected[7])
    for day in (4, 4, 2, 7, 3, 4):
        next(source.read(day, 1))  # broken off
        both = source.read(day, 2), source.read(day, 3)
        found = [[row for chunk in reading for row in of(chunk, source)] for reading in both]
        assert found == [expected[day], expected[day]]


def test_memory_is_that_of_the_keys_of_the_longest_window() -> None:
    counts = RollingCounts([2], 1)
    for day in range(50):
        for _ in range(20):
            counts.add(day, np.arange(100 * day, 100 * day + 100), np.ones((100, 1)))
        assert len(counts) <= 2 * 300
    assert counts.before(50, np.array([4_950, 4_850, 4_750]))[:, 0, 0].tolist() == [20.0, 20.0, 0.0]


def test_what_cannot_be_counted_is_refused() -> None:
    with pytest.raises(ValueError, match="'itm' is no categorical item field; there are: item_id"):
        RollingSource(RowSource([]), [Statistic("item", "itm")])
    with pytest.raises(ValueError, match="different whole numbers of days"):
        RollingCounts([1, 1], 1)
    counts = RollingCounts([1], 1)
    counts.add(3, ["a"], np.ones((1, 1)))
    with pytest.raises(ValueError, match="2 comes after 3"):
        counts.before(2, ["a"])
