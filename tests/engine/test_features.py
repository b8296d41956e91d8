from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.client import value_of
from engine.config import FLOAT32_MAX, DecisionPoint
from engine.errors import InvalidRequest
from engine.features import Encoded, Encoder
from engine.hashing import text_bucket
from engine.records import Action, Features, Numbers, Value
from tests.engine.samples import MOST_ACTIONS, POINT, VOCABULARY, actions, context

ENCODER = Encoder(POINT, VOCABULARY)


class Request:
    """A request that fits ``POINT``, to be spoiled."""

    def __init__(self) -> None:
        self.context = context()
        self.actions = actions()
        self.packed_actions = b""

    def encode(self) -> Encoded:
        return ENCODER.encode(self.context, self.actions, self.packed_actions)

    def pack(self) -> None:
        """Bring the numeric features in the packed form."""
        named = self.context.named
        numbers = [named.pop("amount").number, *named.pop("taste").numbers.values]
        self.context.packed = np.array(numbers, dtype="<f4").tobytes()
        rows = [[*a.features.pop("embedding").numbers.values, a.features.pop("price").number] for a in self.actions]
        self.packed_actions = np.array(rows, dtype="<f4").tobytes()


def same_bits(one: Encoded, other: Encoded) -> bool:
    return (
        one.X.tobytes() == other.X.tobytes()
        and one.codes.tolist() == other.codes.tolist()
        and one.available.tolist() == other.available.tolist()
    )


def test_the_matrix_is_what_the_schema_says() -> None:
    encoded = Request().encode()
    country = [0.0] * 8
    country[text_bucket("country", "NL", 8)] = 1.0
    shared = [1.2, *country, 1.0, -2.0, 4.0]
    expected = []
    for place, kind in enumerate(["small", "big", "small", "big"]):
        bucket = [0.0] * 4
        bucket[text_bucket("kind", kind, 4)] = 1.0
        expected.append([*shared, 0.1 * place, -0.2, *bucket, -0.5 * (3.0 + place)])
    assert encoded.X.dtype == np.float32
    np.testing.assert_allclose(encoded.X, expected, rtol=1e-6)
    assert encoded.codes.tolist() == [1, 2, 3, 0]
    assert encoded.available.all()
    assert len(ENCODER.names) == ENCODER.width == encoded.X.shape[1]
    assert ENCODER.names[0] == "context_amount"
    assert ENCODER.names[-1] == "action_price"
    assert len(set(ENCODER.names)) == ENCODER.width


def test_text_buckets_never_change() -> None:
    # Policies on disk were learned with these columns.
    buckets = [text_bucket("country", text, 32) for text in ("NL", "DE", "", "日本", "x" * 1_000)]
    assert buckets == [1, 15, 24, 19, 3]


def test_the_order_of_the_schema_is_the_order_of_the_columns() -> None:
    one = Encoder(DecisionPoint.model_validate({"context": {"a": {"type": "number"}, "b": {"type": "number"}}}))
    other = Encoder(DecisionPoint.model_validate({"context": {"b": {"type": "number"}, "a": {"type": "number"}}}))
    features = Features(named={"a": value_of(1.0), "b": value_of(2.0)})
    assert one.encode(features, [Action(id="x")]).X.tolist() == [[1.0, 2.0]]
    assert other.encode(features, [Action(id="x")]).X.tolist() == [[2.0, 1.0]]


def test_packed_is_named() -> None:
    named, packed = Request(), Request()
    packed.pack()
    assert same_bits(named.encode(), packed.encode())


SCALES = st.sampled_from([1.0, -0.5, 0.01, 1e-30, 1e6, 0.0])
FEATURES = st.one_of(
    st.builds(lambda scale: {"type": "number", "scale": scale}, SCALES),
    st.builds(lambda size, scale: {"type": "vector", "size": size, "scale": scale}, st.integers(1, 5), SCALES),
    st.builds(lambda buckets: {"type": "text", "buckets": buckets}, st.integers(2, 9)),
)
SCHEMAS = st.lists(FEATURES, max_size=5).map(lambda features: {f"f{i}": f for i, f in enumerate(features)})
# Times the greatest scale it is still a float32; subnormal and negative zero are in it.
NUMBERS = st.floats(-1e31, 1e31)


def draw_values(data: st.DataObject, schema: dict[str, dict[str, object]]) -> tuple[dict[str, Value], list[float]]:
    """Draw a value for each feature; return the named ones, and the numbers in the order of the schema."""
    named: dict[str, Value] = {}
    numbers: list[float] = []
    for name, feature in schema.items():
        match feature["type"]:
            case "text":
                named[name] = Value(text=data.draw(st.text(max_size=5)))
            case "number":
                numbers.append(data.draw(NUMBERS))
                named[name] = Value(number=numbers[-1])
            case _:
                size = feature["size"]
                assert isinstance(size, int)
                vector = data.draw(st.lists(NUMBERS, min_size=size, max_size=size))
                named[name] = Value(numbers=Numbers(values=vector))
                numbers += vector
    return named, numbers


@given(context_schema=SCHEMAS, action_schema=SCHEMAS, count=st.integers(1, 4), data=st.data())
def test_the_two_forms_of_any_request_have_the_same_bits(
    context_schema: dict[str, dict[str, object]],
    action_schema: dict[str, dict[str, object]],
    count: int,
    data: st.DataObject,
) -> None:
    point = DecisionPoint.model_validate({"context": context_schema, "actions": {"features": action_schema}})
    encoder = Encoder(point)
    context_named, context_numbers = draw_values(data, context_schema)
    drawn = [draw_values(data, action_schema) for _ in range(count)]
    excluded = data.draw(st.lists(st.booleans(), min_size=count, max_size=count).filter(lambda flags: not all(flags)))
    named = encoder.encode(
        Features(named=context_named),
        [Action(id=f"a{i}", features=values, excluded=excluded[i]) for i, (values, _) in enumerate(drawn)],
    )
    packed = encoder.encode(
        Features(
            named={name: value for name, value in context_named.items() if value.WhichOneof("kind") == "text"},
            packed=np.array(context_numbers, dtype="<f4").tobytes(),
        ),
        [
            Action(
                id=f"a{i}",
                features={name: value for name, value in values.items() if value.WhichOneof("kind") == "text"},
                excluded=excluded[i],
            )
            for i, (values, _) in enumerate(drawn)
        ],
        np.array([numbers for _, numbers in drawn], dtype="<f4").tobytes(),
    )
    assert same_bits(named, packed)
    assert named.X.shape == (count, encoder.width)
    assert named.available.tolist() == [not flag for flag in excluded]


@given(order=st.permutations(range(4)))
def test_a_row_depends_on_its_own_action_alone(order: list[int]) -> None:
    request = Request()
    X = request.encode().X
    request.actions = [request.actions[i] for i in order]
    assert request.encode().X.tobytes() == X[order].tobytes()


def test_what_is_missing_counts_as_nothing() -> None:
    encoded = ENCODER.encode(Features(), [Action(id="north"), Action(id="east")])
    assert not encoded.X.any()


def test_a_request_without_features_in_the_schema() -> None:
    encoder = Encoder(DecisionPoint())
    assert encoder.encode(Features(), [Action(id="a"), Action(id="b")]).X.shape == (2, 0)


@pytest.mark.parametrize("packed", [b"", b"\0" * 4])
def test_ignored_unknown_features_change_nothing_and_unknown_packed_ones_are_still_refused(packed: bytes) -> None:
    encoder = Encoder(DecisionPoint.model_validate({"unknown_features": "ignore"}))
    features = Features(named={"x": value_of(1.0)}, packed=packed)
    candidates = [Action(id="a", features={"y": value_of("z")})]
    if packed:
        with pytest.raises(InvalidRequest, match=r"context\.packed"):
            encoder.encode(features, candidates)
    else:
        assert encoder.encode(features, candidates).X.shape == (1, 0)


def spoil_context(name: str, value: Value) -> Callable[[Request], None]:
    def spoil(request: Request) -> None:
        request.context.named[name].CopyFrom(value)

    return spoil


def spoil_action(name: str, value: Value) -> Callable[[Request], None]:
    def spoil(request: Request) -> None:
        request.actions[2].features[name].CopyFrom(value)

    return spoil


def set_ids(*ids: str) -> Callable[[Request], None]:
    def spoil(request: Request) -> None:
        request.actions = [Action(id=identity) for identity in ids]

    return spoil


def exclude_all(request: Request) -> None:
    for action in request.actions:
        action.excluded = True


def packed_context(data: bytes) -> Callable[[Request], None]:
    def spoil(request: Request) -> None:
        request.pack()
        request.context.packed = data

    return spoil


def packed_matrix(spoiled: Callable[[bytes], bytes]) -> Callable[[Request], None]:
    def spoil(request: Request) -> None:
        request.pack()
        request.packed_actions = spoiled(request.packed_actions)

    return spoil


def both_forms_of_context(request: Request) -> None:
    request.pack()
    request.context.named["amount"].number = 1.0


def both_forms_of_actions(request: Request) -> None:
    request.pack()
    request.actions[1].features["price"].number = 1.0


def floats(*values: float) -> bytes:
    return np.array(values, dtype="<f4").tobytes()


@pytest.mark.parametrize(
    ("spoil", "field", "problem"),
    [
        (spoil_context("age", value_of(1.0)), "context.features.age", r"known: amount, country, taste"),
        (spoil_action("age", value_of(1.0)), "actions[2].features.age", r"known: embedding, kind, price"),
        (spoil_context("amount", value_of("1")), "context.features.amount", "must be a number, got a text"),
        (spoil_context("amount", value_of([1.0])), "context.features.amount", "got a list of numbers"),
        (spoil_context("amount", Value()), "context.features.amount", "must be a number, got nothing"),
        (spoil_context("country", value_of(1.0)), "context.features.country", "must be a text, got a number"),
        (spoil_context("country", Value()), "context.features.country", "must be a text, got nothing"),
        (spoil_context("taste", value_of(1.0)), "context.features.taste", "must be a list of numbers, got a number"),
        (spoil_context("taste", value_of([1.0, 2.0])), "context.features.taste", "must have 3 numbers, got 2"),
        (spoil_context("taste", value_of([0.0] * 4)), "context.features.taste", "must have 3 numbers, got 4"),
        (spoil_action("embedding", value_of([])), "actions[2].features.embedding", "must have 2 numbers, got 0"),
        (spoil_action("kind", value_of(0.0)), "actions[2].features.kind", "must be a text"),
        (spoil_context("amount", value_of(math.nan)), "context.features.amount", "is nan"),
        (spoil_context("amount", value_of(math.inf)), "context.features.amount", "is inf"),
        (spoil_context("taste", value_of([0.0, -math.inf, 0.0])), "context.features.taste[1]", "is -inf"),
        (spoil_action("price", value_of(math.nan)), "actions[2].features.price", "is nan"),
        (spoil_context("amount", value_of(1e39)), "context.features.amount", "within the range of float32"),
        (spoil_action("price", value_of(-1e300)), "actions[2].features.price", "within the range of float32"),
        # Fits float32, but not times its scale of 2.
        (spoil_context("taste", value_of([0.0, 3e38, 0.0])), "context.features.taste", "times its scale"),
        (set_ids(), "actions", "is empty"),
        (set_ids("a", "", "b"), "actions[1].id", "is empty"),
        (set_ids("a", "b", "a"), "actions[2].id", "'a' stands twice"),
        (exclude_all, "actions", "are all excluded"),
        (set_ids(*map(str, range(MOST_ACTIONS + 1))), "actions", "has 51 candidates, more than the 50 allowed"),
        (packed_context(floats(1, 2, 3)), "context.packed", r"1 x 4 little-endian float32 \(16 bytes\), got 12 bytes"),
        (packed_context(floats(1, 2, 3, 4) + b"\0"), "context.packed", "got 17 bytes"),
        (packed_context(floats(1, 2, math.nan, 4)), "context.packed", "feature 'taste_1' of row 0 is nan"),
        (packed_context(floats(1, 2, math.inf, 4)), "context.packed", "feature 'taste_1' of row 0 is inf"),
        (packed_matrix(lambda data: data[:-4]), "packed_actions", r"4 x 3 little-endian float32 \(48 bytes\), got 44"),
        (packed_matrix(lambda data: data + data), "packed_actions", "got 96 bytes"),
        (packed_matrix(lambda data: data[:-4] + floats(math.nan)), "packed_actions", "'price' of row 3 is nan"),
        (both_forms_of_context, "context.features.amount", "came packed too"),
        (both_forms_of_actions, "actions[1].features.price", "came packed too"),
    ],
)
def test_what_does_not_fit_is_refused_by_the_name_of_its_field(
    spoil: Callable[[Request], None], field: str, problem: str
) -> None:
    request = Request()
    spoil(request)
    with pytest.raises(InvalidRequest, match=problem) as caught:
        request.encode()
    assert caught.value.field == field
    assert str(caught.value) == f"{field}: {caught.value.problem}"


def test_a_scale_that_carries_an_action_feature_beyond_float32_names_the_action() -> None:
    point = DecisionPoint.model_validate(
        {
            "context": {"amount": {"type": "number"}},
            "actions": {"features": {"price": {"type": "number", "scale": 1e6}}},
        }
    )
    candidates = [Action(id="a"), Action(id="b", features={"price": value_of(1e38)})]
    with pytest.raises(InvalidRequest) as caught:
        Encoder(point).encode(Features(), candidates)
    assert caught.value.field == "actions[1].features.price"


def test_the_bounds_of_float32_and_of_the_number_of_actions_are_allowed() -> None:
    encoder = Encoder(DecisionPoint.model_validate({"context": {"a": {"type": "number"}}, "actions": {"max": 2}}))
    for bound in (FLOAT32_MAX, -FLOAT32_MAX, 5e-324, -0.0):
        candidates = [Action(id="x"), Action(id="y")]
        encoded = encoder.encode(Features(named={"a": value_of(bound)}), candidates)
        assert encoded.X[0, 0] == np.float32(bound)


def test_one_available_action_is_enough() -> None:
    assert ENCODER.encode(context(), actions("north", "east", "west")).available.tolist() == [False, False, True, False]
