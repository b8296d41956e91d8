"""dsjson: the joined log lines of Vowpal Wabbit and of the decision services around it, one JSON object a line.

A line names the chosen action first: ``a`` lists the actions, counted from 1, as they were ranked, ``p`` their
probabilities in that order, ``_label_cost`` is the negative reward. What such a line has no place for stands under
``leeway``, which Vowpal Wabbit passes over, so that a log of ours comes back as it was.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NoReturn

from google.protobuf.json_format import MessageToDict, ParseDict, ParseError

from engine.records import Action, Decision, Features, Feedback, Numbers, Value
from training.formats.base import (
    SUM_TOLERANCE,
    LineError,
    Read,
    add_feature,
    check_propensity,
    cost,
    format_time,
    number_value,
    parse_time,
    put_aside,
    spread,
    unique,
)

_OTHER_PROBLEMS = {"_outcomes": "several slots", "_label_ca": "a continuous action"}


def read_dsjson(lines: Iterable[str], point: str) -> Iterator[Read]:
    """Yield the feedback of each line that is not empty, or why there is none.

    Parameters
    ----------
    lines
        Of the file.
    point
        Name of the decision point, for lines that do not come from Leeway.

    Examples
    --------
    >>> line = '''{"_label_cost": -1, "_label_probability": 0.8, "_label_Action": 2, "_labelIndex": 1, "a": [2, 1],
    ... "p": [0.8, 0.2], "EventId": "e1", "Timestamp": "2026-01-01T00:00:00Z",
    ... "c": {"User": {"age": 30}, "_multi": [{"_tag": "x"}, {"_tag": "y"}]}}'''.replace(chr(10), " ")
    >>> [feedback] = read_dsjson([line], "offers")
    >>> feedback.reward, feedback.decision.actions[feedback.decision.chosen].id, list(feedback.decision.probabilities)
    (1.0, 'y', [0.2, 0.8])
    """
    for number, line in enumerate(lines, start=1):
        if line.strip():
            yield put_aside(number, lambda line=line: _feedback(line, point))  # type: ignore[misc]


def write_dsjson(feedbacks: Iterable[Feedback]) -> Iterator[str]:
    """Yield one line for each feedback, without its end; features must be named (``unpacked``)."""
    for feedback in feedbacks:
        yield json.dumps(_line(feedback), ensure_ascii=False, allow_nan=False)


def _feedback(line: str, point: str) -> Feedback:
    try:
        event = json.loads(line, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise LineError(f"is no JSON: {error}") from None
    if not isinstance(event, dict):
        raise LineError("is no JSON object")
    for key, what in _OTHER_PROBLEMS.items():
        if key in event:
            raise LineError(f"has {key}: it decides about {what}, and here a decision is one of several actions")
    if event.get("_skipLearn"):
        raise LineError("is marked _skipLearn: the decision was never activated, and nothing is learned from it")
    if "_label_cost" not in event:
        raise LineError("has no _label_cost: no label, no feedback")
    context = event.get("c")
    if not isinstance(context, dict) or not isinstance(context.get("_multi"), list) or not context["_multi"]:
        raise LineError("has no list of actions c._multi")
    candidates = context["_multi"]
    ranking, vector = _ranking(event, len(candidates))
    feedback = _extra(event)
    decision = feedback.decision
    decision.decision_point = decision.decision_point or point
    decision.decision_id = _text(event, "EventId")
    if "Timestamp" in event and not decision.time_ms:
        decision.time_ms = parse_time(_text(event, "Timestamp"))
    state = event.get("VWState")
    if isinstance(state, dict) and isinstance(state.get("m"), str) and not decision.policy_version:
        decision.policy_version = state["m"]
    decision.context.CopyFrom(Features(named=_features(context)))
    excluded = _excluded(event, len(candidates)) | (set(range(len(candidates))) - set(ranking))
    decision.actions.extend(_action(i, raw, i in excluded) for i, raw in enumerate(candidates))
    unique([action.id for action in decision.actions])
    if ranking[0] in excluded:
        raise LineError("the chosen action is excluded")
    probabilities = [0.0] * len(candidates)
    for place, p in zip(ranking, vector, strict=True):
        probabilities[place] = p
    decision.probabilities.extend(probabilities)
    decision.chosen = ranking[0]
    feedback.reward = cost(_number(event["_label_cost"], "_label_cost"))
    if "leeway" not in event:
        reported = event.get("o", [])
        outcomes = reported if isinstance(reported, list) else []
        # Others only say that the action was shown.
        feedback.outcomes = sum(isinstance(outcome, dict) and "v" in outcome for outcome in outcomes)
        feedback.defaulted = "o" in event and not feedback.outcomes
        feedback.reward_time_ms = decision.time_ms
    return feedback


def _no_constant(name: str) -> NoReturn:
    raise LineError(f"has {name}, which is no JSON number")


def _ranking(event: Mapping[str, Any], count: int) -> tuple[list[int], list[float]]:
    """Return the indices of the ranked actions, the chosen one first, and their probabilities."""
    ranked = event.get("a", [*dict.fromkeys([event.get("_label_Action"), *range(1, count + 1)])])
    if (
        not isinstance(ranked, list)
        or not ranked
        or not all(type(place) is int and 1 <= place <= count for place in ranked)
        or len(set(ranked)) < len(ranked)
    ):
        raise LineError(f"a is {ranked!r:.80}; it must list actions 1 to {count}, each at most once")
    for key, first in (("_label_Action", ranked[0]), ("_labelIndex", ranked[0] - 1)):
        if event.get(key, first) != first:
            raise LineError(f"{key} is {event[key]!r:.80}, but a begins with action {ranked[0]}, the chosen one")
    ranking = [place - 1 for place in ranked]
    label = None
    if "_label_probability" in event:
        label = check_propensity(_number(event["_label_probability"], "_label_probability"), count)
    if "p" not in event:
        if label is None:
            raise LineError("has neither p nor _label_probability: without a propensity it says nothing")
        return ranking, spread(0, label, len(ranking))
    raw = event["p"]
    if not isinstance(raw, list) or len(raw) != len(ranking):
        raise LineError(f"p must have {len(ranking)} entries, one for each of a")
    vector = [_number(p, "p") for p in raw]
    if min(vector) < 0.0 or abs(math.fsum(vector) - 1.0) > SUM_TOLERANCE:
        raise LineError(f"p is no probability vector: least entry {min(vector)}, sum {math.fsum(vector)}")
    check_propensity(vector[0], 1 if len(vector) == 1 else count)
    if label is not None and not math.isclose(label, vector[0], rel_tol=1e-4):
        raise LineError(f"_label_probability is {label}, but p begins with {vector[0]}")
    return ranking, vector


def _extra(event: Mapping[str, Any]) -> Feedback:
    """Return what stands under ``leeway``: the fields of a feedback that have no place elsewhere."""
    extra = event.get("leeway", {})
    if not isinstance(extra, dict):
        raise LineError("leeway is no JSON object")
    try:
        return ParseDict({key: value for key, value in extra.items() if key != "excluded"}, Feedback())
    except (ParseError, ValueError, TypeError) as error:
        raise LineError(f"leeway cannot be read: {error}") from None


def _excluded(event: Mapping[str, Any], count: int) -> set[int]:
    excluded = event.get("leeway", {}).get("excluded", [])
    if not isinstance(excluded, list) or not all(type(place) is int and 0 <= place < count for place in excluded):
        raise LineError("leeway.excluded must list indices of actions")
    return set(excluded)


def _action(index: int, raw: object, excluded: bool) -> Action:
    if not isinstance(raw, dict):
        raise LineError(f"c._multi[{index}] is no JSON object")
    tag = raw.get("_tag", str(index + 1))
    if not isinstance(tag, str) or not tag:
        raise LineError(f"c._multi[{index}]._tag is {tag!r:.80}; it must be a text, the action's id")
    return Action(id=tag, features=_features(raw), excluded=excluded)


def _features(raw: Mapping[str, Any]) -> dict[str, Value]:
    features: dict[str, Value] = {}
    _flatten(raw, [], features)
    return features


def _flatten(raw: Mapping[str, Any], path: Sequence[str], features: dict[str, Value]) -> None:
    """Enter the features of nested objects; keys that begin with _ are no features."""
    for key, value in raw.items():
        if key.startswith("_"):
            continue
        where = [*path, key]
        name = ".".join(where)
        match value:
            case None:
                pass
            case bool() | int() | float():
                add_feature(features, where, number_value(_float(value, name), name))
            case str():
                add_feature(features, where, Value(text=value))
            case dict():
                _flatten(value, where, features)
            case list() if value and all(isinstance(item, dict) for item in value):
                for item in value:
                    _flatten(item, where, features)
            case list() if all(isinstance(item, int | float) for item in value):
                numbers = [number_value(_float(item, name), name).number for item in value]
                add_feature(features, where, Value(numbers=Numbers(values=numbers)))
            case _:
                raise LineError(f"{name} is neither a number, a text, a list of numbers nor an object")


def _number(raw: object, name: str) -> float:
    if isinstance(raw, bool) or not isinstance(raw, int | float):
        raise LineError(f"{name} is {raw!r:.80}, no number")
    number = _float(raw, name)
    if not math.isfinite(number):
        raise LineError(f"{name} is {number}, no finite number")
    return number


def _float(raw: int | float, name: str) -> float:
    try:
        return float(raw)
    except OverflowError:
        raise LineError(f"{name} is beyond the range of float64") from None


def _text(event: Mapping[str, Any], key: str) -> str:
    value = event.get(key)
    if not isinstance(value, str) or not value:
        raise LineError(f"{key} is {value!r:.80}; it must be a text")
    return value


def _line(feedback: Feedback) -> dict[str, Any]:
    decision = feedback.decision
    if decision.context.packed or decision.packed_actions:
        raise ValueError(f"decision {decision.decision_id!r} has packed features; name them with `unpacked` first")
    chosen = decision.chosen
    excluded = [index for index, action in enumerate(decision.actions) if action.excluded]
    order = [chosen, *(i for i in range(len(decision.actions)) if i != chosen and i not in set(excluded))]
    outcome = {"EventId": decision.decision_id, "v": feedback.reward}
    return {
        "_label_cost": cost(feedback.reward),
        "_label_probability": decision.probabilities[chosen],
        "_label_Action": chosen + 1,
        "_labelIndex": chosen,
        "o": [] if feedback.defaulted else [outcome],
        "Timestamp": format_time(decision.time_ms),
        "Version": "1",
        "EventId": decision.decision_id,
        "a": [index + 1 for index in order],
        "c": {
            "context": _plain(decision.context.named),
            "_multi": [{"_tag": action.id, "action": _plain(action.features)} for action in decision.actions],
        },
        "p": [decision.probabilities[index] for index in order],
        "VWState": {"m": decision.policy_version},
        "leeway": {**_remainder(feedback), "excluded": excluded},
    }


def _remainder(feedback: Feedback) -> dict[str, Any]:
    """Return the fields that the line has no place for."""
    decision = feedback.decision
    rest = Feedback(
        decision=Decision(
            decision_point=decision.decision_point,
            scores=decision.scores,
            fallback=decision.fallback,
            fallback_detail=decision.fallback_detail,
            salt=decision.salt,
        ),
        defaulted=feedback.defaulted,
        outcomes=feedback.outcomes,
        reward_time_ms=feedback.reward_time_ms,
    )
    return dict(MessageToDict(rest, preserving_proto_field_name=True))


def _plain(features: Mapping[str, Value]) -> dict[str, Any]:
    plain: dict[str, Any] = {}
    for name in sorted(features):
        value = features[name]
        match value.WhichOneof("kind"):
            case "number":
                plain[name] = value.number
            case "text":
                plain[name] = value.text
            case "numbers":
                plain[name] = list(value.numbers.values)
    return plain
