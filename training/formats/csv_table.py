"""A CSV table of one's own: a campaign that was sent, or a test that was run, a row for each decision.

One column says which action was taken, one what came of it, one with which probability the action was drawn; the
others are the context. Every row offers the same actions, those of the file. The table knows the propensity alone, not
the vector: see ``spread``.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence

from engine.errors import ConfigError
from engine.records import Action, Decision, Features, Feedback, Value
from training.formats.base import (
    LineError,
    Read,
    Unusable,
    add_feature,
    check_propensity,
    identity_of,
    parse_time,
    put_aside,
    spread,
    unique,
)

#: What a column can be beside a feature of the context; the first three must be there.
ROLES = ("action", "reward", "propensity", "time", "decision_id", "ignore")
#: In place of a column of propensities: the action was drawn at random, each alike.
UNIFORM = "uniform"


def read_csv_table(
    lines: Iterable[str], point: str, columns: Mapping[str, str] | None = None, ignored: Sequence[str] = ()
) -> Iterator[Read]:
    """Yield the feedback of each row, or why there is none.

    A column whose cells are all numbers is a number of the context, any other one a text. Empty cells are missing.
    Without a column of times, those of the feedback are 0.

    Parameters
    ----------
    lines
        Of the CSV file, its header first.
    point
        Name of the decision point.
    columns
        Names of the columns by role (``ROLES``); a role that is not named is the column of its own name, if there is
        one. ``uniform`` for ``propensity`` says that every action was drawn with the same probability.
    ignored
        Columns to leave out: what was not known when the action was taken, or must not be used.

    Raises
    ------
    ConfigError
        A role that must be there has no column, or a named column is not in the header.

    Examples
    --------
    >>> table = ["offer,bought,age", "none,0,31", "gift,1,44"]
    >>> roles = {"action": "offer", "reward": "bought", "propensity": "uniform"}
    >>> [(each.decision.chosen, each.reward) for each in read_csv_table(table, "mail", roles)]
    [(1, 0.0), (0, 1.0)]
    """
    rows = csv.reader(line if line.endswith("\n") else f"{line}\n" for line in lines)
    header = next(rows, [])
    header = [column.removeprefix("\ufeff") for column in header]  # spreadsheets begin a file with it
    roles = _roles(header, {role: name for role, name in (columns or {}).items() if role != "ignore"}, ignored)
    numbered = [(rows.line_num, row) for row in rows if row]
    whole = [(number, dict(zip(roles.header, row, strict=True))) for number, row in numbered if len(row) == len(header)]
    by_number = dict(whole)
    actions = sorted({row[roles.action] for _, row in whole} - {""})
    numeric = {column for column in roles.context if all(_is_number(row[column]) for _, row in whole if row[column])}
    for number, _ in numbered:
        row = by_number.get(number)
        if row is None:
            yield Unusable(number, f"does not have the {len(header)} fields of the header")
        else:
            yield put_aside(number, lambda row=row, number=number: roles.feedback(row, point, number, actions, numeric))  # type: ignore[misc]


class _Roles:
    """Which column is what."""

    def __init__(self, header: Sequence[str], named: Mapping[str, str], ignored: Sequence[str]) -> None:
        self.header = header
        self.action = named["action"]
        self.reward = named["reward"]
        self.propensity = named["propensity"]
        self.time = named.get("time")
        self.identity = named.get("decision_id")
        taken = {*named.values(), *ignored}
        self.context = [column for column in header if column and column not in taken]

    def feedback(
        self, row: Mapping[str, str], point: str, number: int, actions: Sequence[str], numeric: set[str]
    ) -> Feedback:
        """Return the feedback of a row; raises ``LineError``."""
        if not row[self.action]:
            raise LineError(f"{self.action} is empty: no action was taken")
        if self.propensity == UNIFORM:
            propensity = 1.0 / len(actions)
        else:
            propensity = check_propensity(_number(row, self.propensity), len(actions))
        context: dict[str, Value] = {}
        for column in self.context:
            if cell := row[column]:
                add_feature(context, [column], Value(number=float(cell)) if column in numeric else Value(text=cell))
        chosen = actions.index(row[self.action])
        time_ms = parse_time(row[self.time]) if self.time else 0
        decision = Decision(
            decision_id=(row[self.identity] if self.identity else "") or identity_of(number, ",".join(row.values())),
            decision_point=point,
            time_ms=time_ms,
            context=Features(named=context),
            actions=[Action(id=action) for action in actions],
            probabilities=spread(chosen, propensity, len(actions)),
            chosen=chosen,
        )
        return Feedback(decision=decision, reward=_number(row, self.reward), outcomes=1, reward_time_ms=time_ms)


def _roles(header: Sequence[str], columns: Mapping[str, str], ignored: Sequence[str]) -> _Roles:
    shown = ", ".join(column for column in header if column) or "nothing"
    try:
        unique(header)
    except LineError as error:
        raise ConfigError(f"line 1: {str(error).replace('action', 'column', 1).partition(';')[0]}") from None
    for role, column in [*columns.items(), *(("ignore", column) for column in ignored)]:
        if column not in header and not (role == "propensity" and column == UNIFORM):
            raise ConfigError(f"--column {role}={column}: no such column; line 1 has: {shown}")
    named = {role: columns.get(role, role) for role in ROLES if role in columns or role in header}
    remedies = {
        "action": "the one that says which action was taken",
        "reward": "the one that says what came of it, such as 0 or 1",
        "propensity": "the one with the probability with which the action was drawn; or, if all were drawn alike, "
        f"--column propensity={UNIFORM}",
    }
    for role, remedy in remedies.items():
        if role not in named:
            raise ConfigError(
                f"line 1 has no column {role!r}; name it with --column {role}=NAME: {remedy}. It has: {shown}"
            )
    return _Roles(header, named, ignored)


def _is_number(cell: str) -> bool:
    try:
        return math.isfinite(float(cell))
    except ValueError:
        return False


def _number(row: Mapping[str, str], column: str) -> float:
    if not _is_number(row[column]):
        raise LineError(f"{column} is {row[column]!r:.80}, no finite number")
    return float(row[column])
