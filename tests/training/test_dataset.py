"""The dataset: encoding equal to the engine's bit for bit, and ragged rows that stay together."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.config import DecisionPoint
from engine.features import Encoder
from engine.records import Action, Decision, Features, Feedback
from tests.training.feedback import POINT, feedbacks, value
from training.archive.columns import to_table
from training.archive.encoding import encode
from training.dataset import Dataset

VOCABULARY = ("a2", "a0", "a5")


def through_parquet(point: DecisionPoint, rows: list[Feedback]) -> Dataset:
    """Return the dataset of feedback that was written to Parquet and read back, in pieces of three rows."""
    file = io.BytesIO()
    pq.write_table(to_table(point, rows), file)
    batches = pq.ParquetFile(file).iter_batches(batch_size=3)
    return Dataset.concatenate([encode(batch, point, "test") for batch in batches])


def dataset(count: int = 20) -> Dataset:
    return through_parquet(POINT, feedbacks(count))


# Any text that protobuf takes; "ids" would collide with a column of the archive that were named `action_ids`.
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=6)
FLOATS = st.floats(-1e30, 1e30) | st.sampled_from([0.0, -0.0, 1e-45, -1e-320, 1 / 3])
NAMES = st.sampled_from(["ids", "x", "y", "a1", "number_2"])
SCALES = st.floats(-1e6, 1e6)
FEATURES = st.one_of(
    st.fixed_dictionaries({"type": st.just("number"), "scale": SCALES}),
    st.fixed_dictionaries({"type": st.just("text"), "buckets": st.integers(2, 5)}),
    st.fixed_dictionaries({"type": st.just("vector"), "size": st.integers(1, 3), "scale": SCALES}),
)
SCHEMAS = st.dictionaries(NAMES, FEATURES, max_size=4)


def numeric_width(schema: dict[str, Any]) -> int:
    return sum(
        {"number": 1, "text": 0, "vector": feature.get("size", 0)}[feature["type"]] for feature in schema.values()
    )


@st.composite
def named_values(draw: st.DrawFn, schema: dict[str, Any], *, packed: bool) -> dict[str, Any]:
    """Draw named values for some of the features; for texts alone where numbers come packed."""
    named = {}
    for name, feature in schema.items():
        if (packed and feature["type"] != "text") or draw(st.booleans()):
            continue
        match feature["type"]:
            case "number":
                named[name] = value(draw(FLOATS))
            case "text":
                named[name] = value(draw(TEXTS))
            case "vector":
                named[name] = value(draw(st.lists(FLOATS, min_size=feature["size"], max_size=feature["size"])))
    return named


@st.composite
def packed_matrix(draw: st.DrawFn, rows: int, width: int) -> bytes:
    numbers = draw(st.lists(st.floats(-(2.0**100), 2.0**100, width=32), min_size=rows * width, max_size=rows * width))
    return np.array(numbers, dtype="<f4").tobytes()


@st.composite
def worlds(draw: st.DrawFn) -> tuple[DecisionPoint, list[Feedback]]:
    """Draw a decision point and feedback of it in which packed and named forms are mixed."""
    context, action = draw(SCHEMAS), draw(SCHEMAS)
    rows = []
    for i in range(draw(st.integers(1, 7))):
        context_packed = numeric_width(context) > 0 and draw(st.booleans())
        actions_packed = numeric_width(action) > 0 and draw(st.booleans())
        count = draw(st.integers(1, 4))
        decision = Decision(
            decision_id=f"d{i}",
            time_ms=i,
            context=Features(
                named=draw(named_values(context, packed=context_packed)),
                packed=draw(packed_matrix(1, numeric_width(context))) if context_packed else b"",
            ),
            actions=[
                Action(id=f"a{a}", features=draw(named_values(action, packed=actions_packed)), excluded=a == 1)
                for a in range(count)
            ],
            packed_actions=draw(packed_matrix(count, numeric_width(action))) if actions_packed else b"",
            probabilities=[1.0 / count] * count,
            chosen=0,
        )
        rows.append(Feedback(decision=decision))
    return DecisionPoint.model_validate({"context": context, "actions": {"features": action}}), rows


@settings(max_examples=300, deadline=None)
@given(worlds())
def test_the_encoding_equals_that_of_the_engine_bit_for_bit(world: tuple[DecisionPoint, list[Feedback]]) -> None:
    point, rows = world
    data = through_parquet(point, rows)
    encoder = Encoder(point, VOCABULARY)
    for i, row in enumerate(rows):
        decision = row.decision
        expected = encoder.encode(decision.context, decision.actions, decision.packed_actions)
        one = data.rows(slice(i, i + 1))
        assert one.pairs().dtype == np.float32
        assert one.pairs().tobytes() == expected.X.tobytes()  # bytes: 0.0 and -0.0 must agree too
        assert one.codes(VOCABULARY).tolist() == expected.codes.tolist()
        assert one.available.tolist() == expected.available.tolist()


def test_a_row_has_its_own_actions_whatever_their_number() -> None:
    rows = feedbacks(20)
    data = dataset()
    assert len(data) == 20
    assert np.diff(data.starts).tolist() == [len(row.decision.actions) for row in rows]
    assert data.chosen_actions() == [row.decision.actions[row.decision.chosen].id for row in rows]
    assert data.propensity.tolist() == [row.decision.probabilities[row.decision.chosen] for row in rows]
    assert data.action_ids.tolist() == [action.id for row in rows for action in row.decision.actions]
    assert data.available.tolist() == [not action.excluded for row in rows for action in row.decision.actions]
    assert data.reward.tolist() == [row.reward for row in rows]
    assert data.defaulted.tolist() == [row.defaulted for row in rows]
    assert data.policy_version.tolist() == [row.decision.policy_version for row in rows]


def test_the_chosen_matrix_is_the_chosen_rows_of_all_pairs() -> None:
    data = dataset()
    assert data.pairs().shape == (len(data.action_ids), data.width)
    np.testing.assert_array_equal(data.chosen_matrix(), data.pairs()[data.chosen_flat])


@pytest.mark.parametrize(
    "index",
    [slice(3, 9), slice(None, None, -2), np.array([5, 5, 0]), np.arange(20) % 3 == 0, slice(0, 0)],
    ids=["slice", "backwards", "numbers", "mask", "none"],
)
def test_rows_take_their_actions_with_them(index: Any) -> None:
    data = dataset()
    taken = data.rows(index)
    numbers = np.arange(20)[index]
    assert taken.decision_id.tolist() == data.decision_id[numbers].tolist()
    pairs = [data.pairs()[data.starts[i] : data.starts[i + 1]] for i in numbers]
    np.testing.assert_array_equal(taken.pairs(), np.concatenate([*pairs, data.pairs()[:0]]))
    probabilities = [data.probabilities[data.starts[i] : data.starts[i + 1]] for i in numbers]
    np.testing.assert_array_equal(taken.probabilities, np.concatenate([*probabilities, data.probabilities[:0]]))
    assert taken.propensity.tolist() == data.propensity[numbers].tolist()


def test_parts_put_together_are_the_whole() -> None:
    data = dataset()
    parts = [data.rows(slice(0, 7)), data.rows(slice(7, 7)), data.rows(slice(7, 20))]
    assert Dataset.concatenate(parts).digest() == data.digest()


@pytest.mark.parametrize("field", ["decision_id", "time_ms", "action_ids", "context", "action", "reward", "available"])
def test_the_digest_notices_any_change(field: str) -> None:
    data, changed = dataset(), dataset()
    assert data.digest() == changed.digest()
    array = getattr(changed, field)
    first = array.reshape(-1)
    match first[0]:
        case str():
            first[0] = "another"
        case np.bool_():
            first[0] = not first[0]
        case _:
            first[0] += 1
    assert data.digest() != changed.digest()


def test_the_digest_knows_where_a_text_ends() -> None:
    data, changed = dataset(), dataset()
    data.decision_id[:2] = ["ab", "c"]
    changed.decision_id[:2] = ["a", "bc"]
    assert data.digest() != changed.digest()
