"""Vowpal Wabbit's text format for contextual bandits with features by action (``--cb_adf``, ``--cb_explore_adf``).

An example is a group of lines that ends with an empty one: a line that begins with ``shared`` has the context, each
of the others an action. The chosen action's line begins with a label ``action:cost:probability``, whose first number
means nothing. A tag behind an apostrophe names the decision (on the shared line) or the action.

The format has no place for the vector, the time and the policy: see ``spread``, and ``first_ms``.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from urllib.parse import quote, unquote

from engine.records import Action, Decision, Features, Feedback, Numbers, Value
from training.formats.base import (
    LineError,
    Read,
    add_feature,
    check_propensity,
    cost,
    identity_of,
    number_value,
    put_aside,
    spread,
    unique,
)

#: Everything that has a meaning in the format (blanks, | : = ' and the % of the escape itself) is escaped.
_SAFE = "!#$&()*+,-./;<>?@[]^_{}~"


def read_cb_adf(lines: Iterable[str], point: str, first_ms: int = 0) -> Iterator[Read]:
    """Yield the feedback of each example, or why there is none, under the number of its first line.

    Parameters
    ----------
    lines
        Of the file.
    point
        Name of the decision point.
    first_ms
        Decision time of the first example; each of the following is one millisecond later.

    Examples
    --------
    >>> text = "shared 'e1 |context age:30 country=NL\\n0:-1:0.8 'x |action price:2\\n'y |action price:3"
    >>> [feedback] = read_cb_adf(text.split("\\n"), "offers")
    >>> feedback.reward, feedback.decision.actions[0].id, feedback.decision.context.named["country"].text
    (1.0, 'x', 'NL')
    """
    for count, (number, example) in enumerate(_examples(lines)):
        yield put_aside(
            number,
            lambda example=example, number=number, time_ms=first_ms + count: _feedback(  # type: ignore[misc]
                example, point, identity_of(number, "\n".join(example)), time_ms
            ),
        )


def write_cb_adf(feedbacks: Iterable[Feedback]) -> Iterator[str]:
    """Yield the lines of each feedback and an empty one; features must be named (``unpacked``).

    Excluded actions are left out.
    """
    for feedback in feedbacks:
        decision = feedback.decision
        if decision.context.packed or decision.packed_actions:
            raise ValueError(f"decision {decision.decision_id!r} has packed features; name them with `unpacked` first")
        yield f"shared '{_quote(decision.decision_id)} |context{_written(decision.context.named)}"
        for index, action in enumerate(decision.actions):
            label = (
                f"0:{cost(feedback.reward)!r}:{decision.probabilities[index]!r} " if index == decision.chosen else ""
            )
            if not action.excluded:
                yield f"{label}'{_quote(action.id)} |action{_written(action.features)}"
        yield ""


def _examples(lines: Iterable[str]) -> Iterator[tuple[int, list[str]]]:
    begin, example = 1, list[str]()
    for number, line in enumerate(lines, start=1):
        stripped = line.strip("\r\n")
        if stripped.strip():
            begin = begin if example else number
            example.append(stripped)
        elif example:
            yield begin, example
            example = []
    if example:
        yield begin, example


def _feedback(example: list[str], point: str, identity: str, time_ms: int) -> Feedback:
    context: dict[str, Value] = {}
    actions: list[Action] = []
    label: tuple[int, float, float] | None = None
    for place, line in enumerate(example):
        head, bar, body = line.partition("|")
        words, tag = _head(head, touches=bool(bar) and head[-1:] not in ("", " ", "\t"))
        if words[:1] == ["shared"]:
            if place:
                raise LineError("the shared line is not the first of its example")
            identity = tag or identity
            context = _features(bar + body)
            continue
        if words:
            if label is not None:
                raise LineError("two actions have a label; one was chosen")
            label = (len(actions), *_label(words))
        actions.append(Action(id=tag or str(len(actions) + 1), features=_features(bar + body)))
    if label is None or not actions:
        raise LineError("no action has a label action:cost:probability: no label, no feedback")
    unique([action.id for action in actions])
    chosen, price, propensity = label
    decision = Decision(
        decision_id=identity,
        decision_point=point,
        time_ms=time_ms,
        context=Features(named=context),
        actions=actions,
        probabilities=spread(chosen, check_propensity(propensity, len(actions)), len(actions)),
        chosen=chosen,
    )
    return Feedback(decision=decision, reward=cost(price), outcomes=1, reward_time_ms=time_ms)


def _head(head: str, *, touches: bool) -> tuple[list[str], str]:
    """Return the words before the first bar, and the tag: behind an apostrophe, or what touches the bar."""
    words = head.split()
    if words and (words[-1].startswith("'") or (touches and words[-1] != "shared")):
        return words[:-1], unquote(words[-1].removeprefix("'"))
    return words, ""


def _label(words: list[str]) -> tuple[float, float]:
    parts = words[0].split(":")
    if len(words) > 1 or len(parts) != 3:
        raise LineError(f"{' '.join(words)!r:.80} is no label; it must be action:cost:probability")
    price = _number(parts[1], "the cost")
    if not math.isfinite(price):
        raise LineError(f"the cost is {price}, no finite number")
    return price, _number(parts[2], "the probability")


def _features(text: str) -> dict[str, Value]:
    features: dict[str, Value] = {}
    vectors: dict[tuple[str, ...], dict[int, float]] = {}
    for part in text.split("|")[1:]:
        words = part.split()
        namespace, weight = "", 1.0
        if words and not part[:1].isspace():
            namespace, _, scale = words.pop(0).partition(":")
            weight = _number(scale, f"the weight of namespace {namespace}") if scale else 1.0
        for word in words:
            name, colon, raw = word.partition(":")
            name, equals, category = name.partition("=")
            path = [unquote(step) for step in (namespace, name) if step]
            number = weight * (_number(raw, name) if colon else 1.0)
            stem, bracket, index = name.partition("[")
            if equals:
                add_feature(features, path, Value(text=unquote(category)))
            elif bracket and index[-1:] == "]" and index[:-1].isdecimal():
                cells = vectors.setdefault((*path[:-1], unquote(stem)), {})
                cells[int(index[:-1])] = number_value(number, name).number
            else:
                add_feature(features, path, number_value(number, name))
    for vector, cells in vectors.items():
        if sorted(cells) != list(range(len(cells))):
            raise LineError(f"vector {vector[-1]!r} lacks entries: it has {sorted(cells)!s:.80}")
        numbers = Numbers(values=[cells[i] for i in range(len(cells))])
        add_feature(features, vector, Value(numbers=numbers))
    return features


def _number(text: str, where: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise LineError(f"{where} is {text!r:.80}, no number") from None


def _written(features: Mapping[str, Value]) -> str:
    words = []
    for name in sorted(features):
        value = features[name]
        match value.WhichOneof("kind"):
            case "number":
                words.append(f"{name}:{value.number!r}")
            case "text":
                words.append(f"{name}={_quote(value.text)}")
            case "numbers":
                words += [f"{name}[{i}]:{number!r}" for i, number in enumerate(value.numbers.values)]
    return "".join(f" {word}" for word in words)


def _quote(text: str) -> str:
    return quote(text, safe=_SAFE)
