"""From the columns of the archive back to feedback records: the way of ``to_table`` in reverse."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from engine.errors import ConfigError
from engine.records import (
    Action,
    Decision,
    FallbackReason,
    Features,
    Feedback,
    Mode,
    Numbers,
    Value,
)
from training.archive.columns import ACTION, CONTEXT

_PREFIX, _MODE_PREFIX = "FALLBACK_REASON_", "MODE_"


def to_feedback(batch: Any, point: str) -> Iterator[Feedback]:
    """Yield the feedback of each row of a ``pyarrow.RecordBatch`` or table of the archive, in its order.

    All features come named; those that came packed have float32 precision. The salt and the detail of a fallback are
    not archived.

    Parameters
    ----------
    batch
        Rows with the columns of ``training.archive.columns.schema``.
    point
        The decision point's name.

    Raises
    ------
    ConfigError
        A column is missing: the file is none of an archive.
    """
    names = batch.schema.names
    for row in batch.to_pylist():
        try:
            yield _feedback(row, point, names)
        except KeyError as error:
            raise ConfigError(f"no file of an archive: it has no column {error}") from None


def _feedback(row: dict[str, Any], point: str, names: list[str]) -> Feedback:
    context = {
        name.removeprefix(CONTEXT): _value(row[name])
        for name in names
        if name.startswith(CONTEXT) and row[name] is not None
    }
    actions = [
        Action(id=identity, excluded=excluded)
        for identity, excluded in zip(row["actions"], row["excluded"], strict=True)
    ]
    for name in names:
        if name.startswith(ACTION) and row[name] is not None:
            for action, cell in zip(actions, row[name], strict=True):
                if cell is not None:
                    action.features[name.removeprefix(ACTION)].CopyFrom(_value(cell))
    decision = Decision(
        decision_id=row["decision_id"],
        decision_point=point,
        time_ms=row["time_ms"],
        policy_version=row["policy_version"],
        context=Features(named=context),
        actions=actions,
        probabilities=row["probabilities"],
        chosen=row["chosen"],
        scores=row["scores"],
        fallback=FallbackReason.Value(_PREFIX + (row["fallback"] or "none").upper()),
        # Files of before there were modes have no such column.
        mode=Mode.Value(_MODE_PREFIX + (row.get("mode") or "online").upper()),
    )
    return Feedback(
        decision=decision,
        reward=row["reward"],
        defaulted=row["defaulted"],
        outcomes=row["outcomes"],
        reward_time_ms=row["reward_time_ms"],
    )


def _value(cell: Any) -> Value:
    if isinstance(cell, str):
        return Value(text=cell)
    return Value(numbers=Numbers(values=cell)) if isinstance(cell, list) else Value(number=cell)
