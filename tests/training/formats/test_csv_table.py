"""A table of one's own: each column is what it was said to be, and a row that cannot be used is named."""

from __future__ import annotations

import pytest

from engine.errors import ConfigError
from engine.records import Feedback
from training.formats import Unusable, read_csv_table

ROLES = {"action": "offer", "reward": "bought", "propensity": "uniform"}
TABLE = ["offer,bought,p,when,age,segment", "none,0,0.5,2026-01-01T00:00:00Z,31,7", "gift,1,0.25,2026-01-02,,b"]


def good(lines: list[str], columns: dict[str, str], ignored: tuple[str, ...] = ()) -> list[Feedback]:
    found = list(read_csv_table(lines, "mail", columns, ignored))
    assert not [each for each in found if isinstance(each, Unusable)], found
    return [each for each in found if isinstance(each, Feedback)]


def test_columns_are_what_was_said() -> None:
    first, second = good(TABLE, {**ROLES, "propensity": "p", "time": "when"})
    assert [action.id for action in first.decision.actions] == ["gift", "none"]
    assert (first.decision.chosen, second.decision.chosen) == (1, 0)
    assert list(first.decision.probabilities) == [0.5, 0.5]
    assert list(second.decision.probabilities) == [0.25, 0.75]
    assert (first.reward, second.reward) == (0.0, 1.0)
    assert second.decision.time_ms - first.decision.time_ms == 86_400_000
    named = first.decision.context.named
    # Text, since the second row's is one: a column has one type, whatever a single cell could be.
    assert (named["age"].number, named["segment"].text) == (31.0, "7")
    assert set(second.decision.context.named) == {"segment"}


def test_a_table_may_use_the_names_of_the_roles() -> None:
    [feedback] = good(["action,reward,propensity,decision_id", "a,0.5,1,d-7"], {})
    assert (feedback.decision.decision_id, feedback.reward) == ("d-7", 0.5)
    assert not feedback.decision.context.named


def test_all_drawn_alike() -> None:
    lines = ["offer,bought", "a,0", "b,1", "c,0"]
    assert [list(each.decision.probabilities) for each in good(lines, ROLES)] == [[pytest.approx(1 / 3)] * 3] * 3
    assert len({each.decision.decision_id for each in good(lines, ROLES)}) == 3


def test_ignored_columns_are_no_features() -> None:
    [feedback, _] = good(TABLE, ROLES, ("p", "when", "segment"))
    assert set(feedback.decision.context.named) == {"age"}


def test_a_spreadsheet_begins_with_a_mark() -> None:
    [feedback] = good(["\ufeffoffer,bought", "a,1"], ROLES)
    assert feedback.decision.actions[0].id == "a"


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("gift,maybe,0.5,2026-01-01,1,b", "bought is 'maybe', no finite number"),
        ("gift,1,0,2026-01-01,1,b", "the probability of the chosen action is 0.0"),
        ("gift,1,0.5,yesterday,1,b", "'yesterday' is no time"),
        (",1,0.5,2026-01-01,1,b", "offer is empty"),
        ("gift,1", "does not have the 6 fields"),
    ],
)
def test_a_row_that_cannot_be_used_is_named_with_its_line(row: str, reason: str) -> None:
    found = list(read_csv_table([*TABLE, row], "mail", {**ROLES, "propensity": "p", "time": "when"}))
    [aside] = [each for each in found if isinstance(each, Unusable)]
    assert (aside.line, len(found)) == (4, 3)
    assert reason in aside.reason


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({}, "no column 'action'"),
        ({"action": "offer"}, "no column 'reward'"),
        ({"action": "offer", "reward": "bought"}, "--column propensity=uniform"),
        ({**ROLES, "time": "sent"}, "--column time=sent: no such column; line 1 has: offer, bought"),
    ],
)
def test_a_column_that_is_missing_is_asked_for(columns: dict[str, str], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        list(read_csv_table(TABLE, "mail", columns))


def test_two_columns_of_one_name_are_refused() -> None:
    with pytest.raises(ConfigError, match="line 1: column 'age' stands twice"):
        list(read_csv_table(["offer,bought,age,age", "a,1,2,3"], "mail", ROLES))
