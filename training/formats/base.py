"""What all formats of logs made elsewhere have in common."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import blake2b

from engine.config import DecisionPoint, NumberFeature
from engine.features import FeatureBlock
from engine.records import Feedback, Numbers, Value

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_OTHER = re.compile(r"[^a-z0-9_]")
#: Names of namespaces that stand for nothing but where features belong; the writers here use them.
_OURS = ("context", "action")
#: Vectors come in float32 from many; their sum is 1 but for its rounding.
SUM_TOLERANCE = 1e-3


class LineError(ValueError):
    """A line that is no feedback; the message says what is wrong with it."""


@dataclass(frozen=True, slots=True)
class Unusable:
    """A line that was put aside.

    Attributes
    ----------
    line : int
        Its number in the file, from 1.
    reason : str
        What is wrong with it.
    """

    line: int
    reason: str


#: What a reader yields, in the order of the file.
Read = Feedback | Unusable
#: From the lines of a file and the decision point's name to its feedback.
Reader = Callable[[Iterable[str], str], Iterator[Read]]


def put_aside(number: int, make: Callable[[], Feedback]) -> Read:
    """Return the feedback that is made of the line with this number, or why there is none."""
    try:
        return make()
    except LineError as error:
        return Unusable(number, str(error))


def feature_name(path: Sequence[str]) -> str:
    """Return the name under which a feature of nested namespaces is declared.

    >>> feature_name(["context", "basket_value"]), feature_name(["User", "Age (years)"]), feature_name(["7"])
    ('basket_value', 'user_age__years_', 'f_7')
    """
    name = _OTHER.sub("_", "_".join(path[1:] if len(path) > 1 and path[0] in _OURS else path).lower())
    return (name if name[:1].isalpha() else f"f_{name}")[:63]


def add_feature(features: dict[str, Value], path: Sequence[str], value: Value) -> None:
    """Enter a feature; raises ``LineError`` where the name is taken."""
    name = feature_name(path)
    if name in features:
        raise LineError(f"feature {name!r} ({'.'.join(path)}) stands twice; rename one of the two")
    features[name] = value


def number_value(number: float, where: str) -> Value:
    """Return a number as a feature value; raises ``LineError`` where it is not finite."""
    if not math.isfinite(number):
        raise LineError(f"{where} is {number}, no finite number")
    return Value(number=number)


def spread(chosen: int, propensity: float, count: int) -> list[float]:
    """Return the vector of a log that knows the propensity alone: the other actions share the rest alike.

    Importance weights, and what is learned, depend on the propensity of the chosen action only, which is true. What
    looks at whole vectors (support, the self-test of propensities) sees an assumption.

    >>> spread(1, 0.5, 3)
    [0.25, 0.5, 0.25]
    """
    rest = (1.0 - propensity) / (count - 1) if count > 1 else 0.0
    return [propensity if action == chosen else rest for action in range(count)]


def check_propensity(propensity: float, count: int) -> float:
    """Return a propensity that can be one; raises ``LineError`` else."""
    if not 0.0 < propensity <= 1.0 + SUM_TOLERANCE:
        raise LineError(f"the probability of the chosen action is {propensity}; it must lie in (0, 1]")
    if count == 1 and propensity < 1.0 - SUM_TOLERANCE:
        raise LineError(f"the probability of the only action is {propensity}; it must be 1")
    return min(propensity, 1.0)


def cost(reward: float) -> float:
    """Return the cost of a reward, or the reward of a cost: the sign is all there is between them."""
    return 0.0 - reward


def identity_of(number: int, text: str) -> str:
    """Return a decision id for a line that names none: that of another file's line is another one.

    >>> identity_of(3, "a") == identity_of(3, "a") != identity_of(3, "b")
    True
    """
    return f"line-{number}-{blake2b(text.encode(), digest_size=6).hexdigest()}"


def unique(ids: Sequence[str]) -> None:
    """Raise ``LineError`` where an action stands twice."""
    if len(set(ids)) < len(ids):
        twice = next(identity for identity in ids if ids.count(identity) > 1)
        raise LineError(f"action {twice!r} stands twice; actions of one decision must differ")


def parse_time(text: str) -> int:
    """Return milliseconds since 1970 of an ISO 8601 time, UTC where no zone is named; raises ``LineError``.

    >>> parse_time("2018-09-18T17:40:46.9431871Z")
    1537292446943
    """
    try:
        time = datetime.fromisoformat(text)
        moment = time if time.tzinfo else time.replace(tzinfo=UTC)
        return (moment - _EPOCH) // timedelta(milliseconds=1)
    except (ValueError, OverflowError):
        raise LineError(f"{text!r} is no time; write ISO 8601, such as 2026-01-31T12:00:00.000Z") from None


def format_time(time_ms: int) -> str:
    """Return the ISO 8601 form of milliseconds since 1970.

    >>> format_time(1537292446943)
    '2018-09-18T17:40:46.943Z'
    """
    return (_EPOCH + timedelta(milliseconds=time_ms)).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def unpacked(feedback: Feedback, point: DecisionPoint) -> Feedback:
    """Return the same feedback with every feature by name, none packed.

    Raises ``engine.errors.InvalidRequest`` where the packed numbers do not fit the decision point.
    """
    decision = feedback.decision
    if not (decision.context.packed or decision.packed_actions):
        return feedback
    copy = Feedback()
    copy.CopyFrom(feedback)
    context = FeatureBlock(point.context, reject_unknown=False)
    action = FeatureBlock(point.actions.features, reject_unknown=False)
    if decision.context.packed:
        _name(context, context.unpack(decision.context.packed, 1, "context.packed")[0], copy.decision.context.named)
        copy.decision.context.packed = b""
    if decision.packed_actions:
        rows = action.unpack(decision.packed_actions, len(decision.actions), "packed_actions")
        for candidate, row in zip(copy.decision.actions, rows, strict=True):
            _name(action, row, candidate.features)
        copy.decision.packed_actions = b""
    return copy


def _name(block: FeatureBlock, row: Sequence[float], named: Mapping[str, Value]) -> None:
    """Write a packed row into a map of named values."""
    numbers = dict(zip(block.numeric.tolist(), map(float, row), strict=True))
    for name, column in block.columns.items():
        if column.start in numbers:
            cells = [numbers[place] for place in range(column.start, column.stop)]
            value = (
                Value(number=cells[0])
                if isinstance(column.feature, NumberFeature)
                else Value(numbers=Numbers(values=cells))
            )
            named[name].CopyFrom(value)
