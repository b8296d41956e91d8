"""Feedback as a table: one row each, one column for each field and each feature.

Features keep their raw, unscaled values, so that a later configuration may scale or hash them otherwise. Numbers
that came packed stand in the same columns as named ones. A feature that did not come is null.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from engine.config import DecisionPoint, Feature, NumberFeature, TextFeature
from engine.errors import InvalidRequest
from engine.features import FeatureBlock
from engine.records import FALLBACK_REASON_NONE, MODE_ONLINE, Feedback, Value, fallback_name, mode_name

CONTEXT = "context_"
#: No feature of an action can be confused with the ids: they stand in the column ``actions``.
ACTION = "action_"
_KIND = {"number": "number", "text": "text", "vector": "numbers"}
_GREATEST_FLOAT32 = float(np.finfo(np.float32).max)


def list_of(kind: Any) -> Any:
    """Return the Arrow type of a list, with the name that Parquet gives to its entries."""
    return pa.list_(pa.field("element", kind))


_FIELDS = [
    pa.field("decision_id", pa.string()),
    pa.field("time_ms", pa.int64()),
    pa.field("policy_version", pa.string()),
    pa.field("fallback", pa.string()),
    pa.field("actions", list_of(pa.string())),
    pa.field("excluded", list_of(pa.bool_())),
    pa.field("probabilities", list_of(pa.float64())),
    pa.field("scores", list_of(pa.float64())),
    pa.field("chosen", pa.int32()),
    pa.field("propensity", pa.float64()),
    pa.field("reward", pa.float64()),
    pa.field("defaulted", pa.bool_()),
    pa.field("outcomes", pa.int32()),
    pa.field("reward_time_ms", pa.int64()),
    pa.field("mode", pa.string()),
]


def column_type(feature: Feature) -> Any:
    """Return the Arrow type of one value of a feature."""
    if isinstance(feature, NumberFeature):
        return pa.float64()
    return pa.string() if isinstance(feature, TextFeature) else list_of(pa.float32())


def schema(point: DecisionPoint) -> Any:
    """Return the Arrow schema of a decision point's feedback."""
    context = [pa.field(CONTEXT + name, column_type(feature)) for name, feature in point.context.items()]
    action = [
        pa.field(ACTION + name, list_of(column_type(feature))) for name, feature in point.actions.features.items()
    ]
    return pa.schema(_FIELDS + context + action)


def to_table(point: DecisionPoint, feedbacks: Sequence[Feedback]) -> Any:
    """Return the feedbacks as a ``pyarrow.Table`` of ``schema(point)``.

    Raises ``InvalidRequest`` naming the field if one does not fit the schema or is not consistent in itself.
    """
    decisions = [feedback.decision for feedback in feedbacks]
    context = FeatureBlock(point.context, reject_unknown=False)
    action = FeatureBlock(point.actions.features, reject_unknown=False)
    counts = np.array([_count(feedback, context, action) for feedback in feedbacks], dtype=np.int64)
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)
    actions = list(chain.from_iterable(decision.actions for decision in decisions))

    def per_action(values: Any, kind: Any) -> Any:
        return pa.ListArray.from_arrays(offsets, pa.array(values, kind))

    columns = {
        "decision_id": [decision.decision_id for decision in decisions],
        "time_ms": [decision.time_ms for decision in decisions],
        "policy_version": [decision.policy_version for decision in decisions],
        "fallback": [
            "" if decision.fallback == FALLBACK_REASON_NONE else fallback_name(decision.fallback)
            for decision in decisions
        ],
        "actions": per_action([action.id for action in actions], pa.string()),
        "excluded": per_action([action.excluded for action in actions], pa.bool_()),
        "probabilities": per_action(
            list(chain.from_iterable(decision.probabilities for decision in decisions)), pa.float64()
        ),
        "scores": [list(decision.scores) for decision in decisions],
        "chosen": [decision.chosen for decision in decisions],
        "propensity": [decision.probabilities[decision.chosen] for decision in decisions],
        "reward": [feedback.reward for feedback in feedbacks],
        "defaulted": [feedback.defaulted for feedback in feedbacks],
        "outcomes": [feedback.outcomes for feedback in feedbacks],
        "reward_time_ms": [feedback.reward_time_ms for feedback in feedbacks],
        "mode": ["" if decision.mode == MODE_ONLINE else mode_name(decision.mode) for decision in decisions],
    }
    named = [decision.context.named for decision in decisions]
    packed = [decision.context.packed for decision in decisions]
    is_packed = np.array([bool(data) for data in packed], dtype=np.bool_)
    for name, cells in _cells(context, named, b"".join(packed), is_packed, "context.features").items():
        columns[CONTEXT + name] = cells
    named = [action.features for action in actions]
    packed = [decision.packed_actions for decision in decisions]
    is_packed = np.repeat(np.array([bool(data) for data in packed], dtype=np.bool_), counts)
    for name, cells in _cells(action, named, b"".join(packed), is_packed, "actions[].features").items():
        columns[ACTION + name] = pa.ListArray.from_arrays(offsets, cells)
    return pa.table(columns, schema=schema(point))


def _count(feedback: Feedback, context: FeatureBlock, action: FeatureBlock) -> int:
    """Return the number of actions of a feedback that is consistent in itself."""
    decision = feedback.decision
    count = len(decision.actions)
    if len(decision.probabilities) != count:
        raise InvalidRequest("probabilities", f"has {len(decision.probabilities)} entries for {count} actions")
    if not 0 <= decision.chosen < count:
        raise InvalidRequest("chosen", f"is {decision.chosen}, but there are {count} actions")
    if decision.context.packed:
        context.unpack(decision.context.packed, 1, "context.packed")
    if decision.packed_actions:
        action.unpack(decision.packed_actions, count, "packed_actions")
    return count


def _cells(
    block: FeatureBlock, named: Sequence[Mapping[str, Value]], packed: bytes, is_packed: NDArray[np.bool_], path: str
) -> dict[str, Any]:
    """Return for each feature of the block an Arrow array with a value or null for each row."""
    matrix = np.frombuffer(packed, dtype="<f4").reshape(np.count_nonzero(is_packed), -1) if packed else None
    rows = np.flatnonzero(~is_packed).tolist()
    cells = {}
    for name, column in block.columns.items():
        if isinstance(column.feature, TextFeature):
            found = [features.get(name) for features in named]
            _check_kind(column.feature, found, f"{path}.{name}")
            cells[name] = pa.array([None if value is None else value.text for value in found], pa.string())
            continue
        found = [named[row].get(name) for row in rows]
        _check_kind(column.feature, found, f"{path}.{name}")
        size = column.stop - column.start
        given = [value for value in found if value is not None]
        if isinstance(column.feature, NumberFeature):
            numbers = np.array([value.number for value in given])
        else:
            for value in given:
                if len(value.numbers.values) != size:
                    raise InvalidRequest(f"{path}.{name}", f"must have {size} numbers, got {len(value.numbers.values)}")
            numbers = np.array(list(chain.from_iterable(value.numbers.values for value in given)))
        if not (np.abs(numbers) <= _GREATEST_FLOAT32).all():
            raise InvalidRequest(f"{path}.{name}", "is no finite number within the range of float32")
        present = is_packed.copy()
        present[rows] = [value is not None for value in found]
        values = np.zeros((len(named), size), np.float64 if isinstance(column.feature, NumberFeature) else np.float32)
        values[present & ~is_packed] = numbers.reshape(-1, size)
        if matrix is not None:
            first = int(np.searchsorted(block.numeric, column.start))
            values[is_packed] = matrix[:, first : first + size]
        if isinstance(column.feature, NumberFeature):
            cells[name] = pa.array(values[:, 0], mask=~present)
        else:
            ends = np.concatenate([[0], np.cumsum(present * size)]).astype(np.int32)
            flat = pa.array(values[present].ravel())
            cells[name] = pa.ListArray.from_arrays(ends, flat, mask=pa.array(~present))
    return cells


def _check_kind(feature: Feature, found: Sequence[Value | None], path: str) -> None:
    kind = _KIND[feature.type]
    for value in found:
        if value is not None and value.WhichOneof("kind") != kind:
            raise InvalidRequest(path, f"is declared {feature.type}, but came as {value.WhichOneof('kind')}")
