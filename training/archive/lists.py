"""Feedback of lists as a table: one row a list, and back to records.

The columns that feedback of decisions has (``training.archive.columns``) mean the same here: ``actions`` are the
candidates, ``probabilities`` the vector of the first slot, ``chosen`` the item in it. Beside them stand

``slots``, ``slot_propensities``
    Index into ``actions`` of the item in each slot, and its probability given the slots before.
``tasks``, ``slot_values``
    Names of the tasks, and the value of each slot and task, row-major [slots, tasks].
``catalogue``, ``retrieved``
    Digest of the catalogue that gave features, empty for none; whether it gave the candidates too.
``user_<field>``
    The user as the request described him: number, text, list of texts, or list of float32; null for missing.
``item_<field>``
    The same of the item in each slot, a list with one entry a slot, as the model saw it, whether the request or the
    catalogue described it. ``item_item_id`` is there if the field is declared, and holds the item's id.
``described``, ``candidate_<field>``
    Whether the request described a candidate, and of those that it did, in their order, the features: for the
    evaluation of policies that would have shown others.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate, chain
from typing import Any

import numpy as np
import pyarrow as pa

from engine.config import (
    ITEM_ID,
    CategoryField,
    HistoryField,
    NumberField,
    Recommender,
    RecommenderField,
)
from engine.errors import ConfigError, InvalidRequest
from engine.recommender.columns import Columns, read_columns
from engine.records import (
    FALLBACK_REASON_NONE,
    Action,
    Decision,
    FallbackReason,
    Features,
    Feedback,
    Numbers,
    Slate,
    Texts,
    Value,
    fallback_name,
)
from training.archive.columns import list_of

USER, ITEM, CANDIDATE = "user_", "item_", "candidate_"
_PREFIX = "FALLBACK_REASON_"

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
    pa.field("salt", pa.string()),
    pa.field("slots", list_of(pa.int32())),
    pa.field("slot_propensities", list_of(pa.float64())),
    pa.field("tasks", list_of(pa.string())),
    pa.field("slot_values", list_of(pa.float64())),
    pa.field("catalogue", pa.string()),
    pa.field("retrieved", pa.bool_()),
    pa.field("described", list_of(pa.bool_())),
]


def list_schema(recommender: Recommender) -> Any:
    """Return the Arrow schema of a recommender's feedback."""
    user = [pa.field(USER + name, _type(field)) for name, field in recommender.user.items()]
    items = [
        pa.field(prefix + name, list_of(_type(field)))
        for prefix in (ITEM, CANDIDATE)
        for name, field in recommender.item.items()
    ]
    return pa.schema(_FIELDS + user + items)


def to_list_table(recommender: Recommender, feedbacks: Sequence[Feedback]) -> Any:
    """Return feedback of lists as a ``pyarrow.Table``; raises ``InvalidRequest`` if one does not fit the fields."""
    decisions = [feedback.decision for feedback in feedbacks]
    for feedback in feedbacks:
        _check(feedback)
    columns: dict[str, Any] = {
        "decision_id": [decision.decision_id for decision in decisions],
        "time_ms": [decision.time_ms for decision in decisions],
        "policy_version": [decision.policy_version for decision in decisions],
        "fallback": [
            "" if decision.fallback == FALLBACK_REASON_NONE else fallback_name(decision.fallback)
            for decision in decisions
        ],
        "actions": [[action.id for action in decision.actions] for decision in decisions],
        "excluded": [[action.excluded for action in decision.actions] for decision in decisions],
        "probabilities": [list(decision.probabilities) for decision in decisions],
        "scores": [list(decision.scores) for decision in decisions],
        "chosen": [decision.chosen for decision in decisions],
        "propensity": [decision.probabilities[decision.chosen] for decision in decisions],
        "reward": [feedback.reward for feedback in feedbacks],
        "defaulted": [feedback.defaulted for feedback in feedbacks],
        "outcomes": [feedback.outcomes for feedback in feedbacks],
        "reward_time_ms": [feedback.reward_time_ms for feedback in feedbacks],
        "salt": [decision.salt for decision in decisions],
        "slots": [list(decision.slate.items) for decision in decisions],
        "slot_propensities": [list(decision.slate.propensities) for decision in decisions],
        "tasks": [list(feedback.tasks) for feedback in feedbacks],
        "slot_values": [list(feedback.slot_values) for feedback in feedbacks],
        "catalogue": [decision.slate.catalogue for decision in decisions],
        "retrieved": [decision.slate.retrieved for decision in decisions],
        "described": [
            [] if decision.slate.retrieved else [bool(action.features) for action in decision.actions]
            for decision in decisions
        ],
    }
    users = read_columns(
        recommender.user, [d.context.named for d in decisions], lambda _row: "user", reject_unknown=False
    )
    columns |= {USER + name: _cells(field, users[name]) for name, field in recommender.user.items()}
    shown = [_shown(decision) for decision in decisions]
    columns |= _per_list(recommender, ITEM, shown)
    described = [
        [] if decision.slate.retrieved else [action for action in decision.actions if action.features]
        for decision in decisions
    ]
    columns |= _per_list(recommender, CANDIDATE, described)
    schema = list_schema(recommender)
    arrays = [
        columns[field.name] if isinstance(columns[field.name], pa.Array) else pa.array(columns[field.name], field.type)
        for field in schema
    ]
    return pa.Table.from_arrays(arrays, schema=schema)


def to_list_feedback(batch: Any, recommender: Recommender, name: str) -> Iterator[Feedback]:
    """Yield the feedback of each row of a ``pyarrow.RecordBatch`` or table of the archive, in its order.

    What the catalogue said of the items in slots stands in ``slate.known`` again. The detail of a fallback is not
    archived. Raises ``ConfigError`` where a column is missing: the file is none of a recommender.
    """
    names = set(batch.schema.names)
    for row in batch.to_pylist():
        try:
            yield _feedback(row, recommender, name, names)
        except KeyError as error:
            raise ConfigError(f"no archive of the recommender {name!r}: it has no column {error}") from None


def _feedback(row: dict[str, Any], recommender: Recommender, name: str, names: set[str]) -> Feedback:
    retrieved = row["retrieved"]
    actions = [Action(id=identity) for identity in row["actions"]]
    for action, excluded in zip(actions, row["excluded"], strict=True):
        action.excluded = excluded
    described = [] if retrieved else [action for action, so in zip(actions, row["described"], strict=True) if so]
    _describe(described, recommender.item, CANDIDATE, row, names)
    shown = [Action(id=actions[item].id) for item in row["slots"]]
    known = (
        shown if retrieved else [s for s, item in zip(shown, row["slots"], strict=True) if not row["described"][item]]
    )
    _describe(shown, recommender.item, ITEM, row, names)
    context = {
        field_name: value
        for field_name, field in recommender.user.items()
        if USER + field_name in names and (value := _value(field, row[USER + field_name])) is not None
    }
    decision = Decision(
        decision_id=row["decision_id"],
        decision_point=name,
        time_ms=row["time_ms"],
        policy_version=row["policy_version"],
        context=Features(named=context),
        actions=actions,
        probabilities=row["probabilities"],
        chosen=row["chosen"],
        scores=row["scores"],
        fallback=FallbackReason.Value(_PREFIX + (row["fallback"] or "none").upper()),
        salt=row["salt"],
        slate=Slate(
            items=row["slots"],
            propensities=row["slot_propensities"],
            catalogue=row["catalogue"],
            retrieved=retrieved,
            known=known if row["catalogue"] else [],
        ),
    )
    return Feedback(
        decision=decision,
        reward=row["reward"],
        defaulted=row["defaulted"],
        outcomes=row["outcomes"],
        reward_time_ms=row["reward_time_ms"],
        tasks=row["tasks"],
        slot_values=row["slot_values"],
    )


def _describe(
    actions: Sequence[Action], fields: Mapping[str, RecommenderField], prefix: str, row: dict[str, Any], names: set[str]
) -> None:
    for name, field in fields.items():
        if name != ITEM_ID and prefix + name in names:
            for action, cell in zip(actions, row[prefix + name], strict=True):
                value = _value(field, cell)
                if value is not None:
                    action.features[name].CopyFrom(value)


def _value(field: RecommenderField, cell: Any) -> Value | None:
    if cell is None:
        return None
    match field:
        case NumberField():
            return Value(number=cell)
        case CategoryField():
            return Value(text=cell)
        case HistoryField():
            return Value(texts=Texts(values=cell))
        case _:
            return Value(numbers=Numbers(values=cell))


def _check(feedback: Feedback) -> None:
    """Raise ``InvalidRequest`` where a feedback is not consistent in itself."""
    decision = feedback.decision
    slate = decision.slate
    count, slots = len(decision.actions), len(slate.items)
    if not decision.HasField("slate") or not slots:
        raise InvalidRequest("slate", "is missing: this is the feedback of a decision point")
    if len(decision.probabilities) != count:
        raise InvalidRequest("probabilities", f"has {len(decision.probabilities)} entries for {count} candidates")
    if not (min(slate.items) >= 0 and max(slate.items) < count) or len(set(slate.items)) < slots:
        raise InvalidRequest("slate.items", f"{list(slate.items)} are not different ones of {count} candidates")
    if len(slate.propensities) != slots or not all(0.0 < p <= 1.0 + 1e-9 for p in slate.propensities):
        raise InvalidRequest("slate.propensities", f"{list(slate.propensities)} are not {slots} probabilities above 0")
    if len(feedback.slot_values) != slots * len(feedback.tasks):
        raise InvalidRequest("slot_values", f"has {len(feedback.slot_values)} entries for {slots} slots")


def _shown(decision: Decision) -> list[Action]:
    """Return the items in slots with their features, wherever those came from."""
    known = {action.id: action for action in decision.slate.known}
    chosen = [decision.actions[item] for item in decision.slate.items]
    return [action if action.features else known.get(action.id, action) for action in chosen]


def _per_list(recommender: Recommender, prefix: str, lists: Sequence[Sequence[Action]]) -> dict[str, Any]:
    """Return a list column for each item field, with an entry for each action of each list."""
    flat = list(chain.from_iterable(lists))
    columns: Columns = read_columns(
        recommender.item, [action.features for action in flat], lambda _row: "actions[].features", reject_unknown=False
    )
    if ITEM_ID in columns:
        columns[ITEM_ID] = [action.id for action in flat]
    offsets = pa.array(list(accumulate(map(len, lists), initial=0)), pa.int32())
    return {
        prefix + name: pa.ListArray.from_arrays(offsets, _cells(field, columns[name])).cast(list_of(_type(field)))
        for name, field in recommender.item.items()
    }


def _cells(field: RecommenderField, column: Any) -> Any:
    match field:
        case NumberField():
            return pa.array(column, pa.float64(), mask=np.isnan(column))
        case CategoryField():
            return pa.array([text or None for text in column], pa.string())
        case HistoryField():
            return pa.array([list(entries) for entries in column], list_of(pa.string()))
        case _:
            return pa.array(list(column), list_of(pa.float32()))


def _type(field: RecommenderField) -> Any:
    match field:
        case NumberField():
            return pa.float64()
        case CategoryField():
            return pa.string()
        case HistoryField():
            return list_of(pa.string())
        case _:
            return list_of(pa.float32())
