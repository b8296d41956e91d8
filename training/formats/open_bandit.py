"""Tables of the Open Bandit Dataset, and the ``bandit_feedback`` of Open Bandit Pipeline.

Saito, Aihara, Matsutani and Narita, *Open Bandit Dataset and Pipeline: Towards Realistic and Reproducible Off-Policy
Evaluation*, NeurIPS 2021 (datasets and benchmarks). A row is one item shown at one position: ``timestamp``,
``item_id``, ``position``, ``click``, ``propensity_score``, columns of the user, and an affinity of user and each item.
Every row offers the same items. The table knows the propensity alone, not the vector: see ``spread``.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from engine.errors import ConfigError
from engine.records import Action, Decision, Features, Feedback, Numbers, Value
from training.formats.base import (
    LineError,
    Read,
    Unusable,
    add_feature,
    check_propensity,
    format_time,
    identity_of,
    number_value,
    parse_time,
    put_aside,
    spread,
)

COLUMNS = ("timestamp", "item_id", "position", "click", "propensity_score")
#: One column for each item, named by its id.
AFFINITY = "user-item_affinity_"


def read_open_bandit(lines: Iterable[str], point: str, items: Sequence[str] = ()) -> Iterator[Read]:
    """Yield the feedback of each row, or why there is none.

    ``position`` becomes a text feature of the context, an affinity the feature ``affinity`` of its item, every other
    column a feature of the context: a number where it can be read as one, else a text.

    Parameters
    ----------
    lines
        Of the CSV file, its header first.
    point
        Name of the decision point.
    items
        Ids of all items; without them those with an affinity column, or else those of the file. Of a propensity
        alone nothing can be guessed: name the items if some were never shown.

    Raises
    ------
    ConfigError
        The header is none of an Open Bandit table.
    """
    rows = csv.reader(_text(lines))
    header = next(rows, [])
    missing = [column for column in COLUMNS if column not in header]
    if missing:
        raise ConfigError(f"line 1: no Open Bandit table: it lacks the columns {', '.join(missing)}")
    numbered = [
        (rows.line_num, dict(zip(header, row, strict=True)) if len(row) == len(header) else None) for row in rows
    ]
    shown = {row["item_id"] for _, row in numbered if row is not None}
    rated = [column.removeprefix(AFFINITY) for column in header if column.startswith(AFFINITY)]
    known = list(items) or (rated if shown <= set(rated) else sorted(shown, key=_order))
    for number, row in numbered:
        if row is None:
            yield Unusable(number, f"does not have the {len(header)} fields of the header")
        else:
            yield put_aside(number, lambda row=row, number=number: _feedback(row, point, number, known))  # type: ignore[misc]


def write_open_bandit(feedbacks: Iterable[Feedback]) -> Iterator[str]:
    """Yield the lines of a table, without their ends; features must be named (``unpacked``).

    A table has one set of actions for all rows and numbers them; ids that are no numbers are kept as they are, and
    Open Bandit Pipeline wants them numbered. Vectors, and features of actions but ``affinity``, have no place in it.

    Raises
    ------
    ConfigError
        The actions differ from decision to decision, or some are excluded.
    """
    everything = list(feedbacks)
    if not everything:
        return
    ids = sorted((action.id for action in everything[0].decision.actions), key=_order)
    names = sorted({name for feedback in everything for name in feedback.decision.context.named} - {"position"})
    rated = any("affinity" in action.features for f in everything for action in f.decision.actions)
    header = [*COLUMNS, *names, *(f"{AFFINITY}{identity}" for identity in ids if rated)]
    yield _row(header)
    for feedback in everything:
        decision = feedback.decision
        actions = {action.id: action for action in decision.actions}
        if sorted(actions, key=_order) != ids or any(action.excluded for action in decision.actions):
            raise ConfigError(
                f"decision {decision.decision_id!r} offers other actions than the first one: an Open Bandit table has "
                "one set for all; export dsjson"
            )
        named = decision.context.named
        position = named["position"].text if "position" in named else "1"
        yield _row(
            [
                format_time(decision.time_ms),
                decision.actions[decision.chosen].id,
                position,
                repr(feedback.reward),
                repr(decision.probabilities[decision.chosen]),
                *(_cell(named.get(name), name) for name in names),
                *(_cell(actions[identity].features.get("affinity"), "affinity") for identity in ids if rated),
            ]
        )


def to_bandit_feedback(feedbacks: Sequence[Feedback]) -> dict[str, Any]:
    """Return the dictionary that the estimators of Open Bandit Pipeline take.

    The context's numbers and vectors become the columns of ``context``, in the order of their names; texts have no
    place in it. ``pi_b`` has the whole vectors.

    Raises
    ------
    ConfigError
        The actions differ from decision to decision, or there is no feedback.
    """
    if not feedbacks:
        raise ConfigError("there is no feedback to make an Open Bandit dictionary of")
    ids = [action.id for action in feedbacks[0].decision.actions]
    for feedback in feedbacks:
        if [action.id for action in feedback.decision.actions] != ids:
            raise ConfigError(f"decision {feedback.decision.decision_id!r} offers other actions than the first one")
    decisions = [feedback.decision for feedback in feedbacks]
    names = sorted({name for d in decisions for name, value in d.context.named.items() if not value.HasField("text")})
    return {
        "n_rounds": len(feedbacks),
        "n_actions": len(ids),
        "context": np.array([_numbers(decision.context.named, names) for decision in decisions], dtype=np.float64),
        "action": np.array([decision.chosen for decision in decisions]),
        "position": None,
        "reward": np.array([feedback.reward for feedback in feedbacks]),
        "pscore": np.array([decision.probabilities[decision.chosen] for decision in decisions]),
        "pi_b": np.array([list(decision.probabilities) for decision in decisions])[:, :, None],
        "action_ids": ids,
    }


def from_bandit_feedback(bandit_feedback: Mapping[str, Any], point: str, first_ms: int = 0) -> list[Feedback]:
    """Return the feedback of Open Bandit Pipeline's dictionary, one millisecond apart.

    ``context`` becomes the vector ``x``, ``action_context`` the vector ``x`` of each action. Raises ``ConfigError``
    where a key is missing, arrays do not fit each other, or a propensity cannot be one.
    """
    try:
        count, actions = int(bandit_feedback["n_rounds"]), int(bandit_feedback["n_actions"])
        chosen = np.asarray(bandit_feedback["action"], dtype=np.int64)
        reward = np.asarray(bandit_feedback["reward"], dtype=np.float64)
        pscore = np.asarray(bandit_feedback["pscore"], dtype=np.float64)
        context = np.asarray(bandit_feedback["context"], dtype=np.float64)
    except KeyError as error:
        raise ConfigError(f"the bandit_feedback has no {error}") from None
    if not (chosen.shape == reward.shape == pscore.shape == (count,) == context.shape[:1]):
        raise ConfigError(f"action, reward, pscore and context must have n_rounds = {count} entries each")
    if count and (chosen.min() < 0 or chosen.max() >= actions):
        raise ConfigError(f"action must lie in 0 to {actions - 1}")
    vectors = bandit_feedback.get("pi_b")
    about = bandit_feedback.get("action_context")
    ids = bandit_feedback.get("action_ids") or [str(action) for action in range(actions)]
    candidates = [Action(id=ids[i], features={} if about is None else {"x": _vector(about[i])}) for i in range(actions)]
    position = bandit_feedback.get("position")
    made = []
    for i in range(count):
        try:
            propensity = check_propensity(float(pscore[i]), actions)
        except LineError as error:
            raise ConfigError(f"pscore[{i}]: {error}") from None
        place = 0 if position is None or vectors is None or np.ndim(vectors) < 3 else int(position[i])
        vector = spread(int(chosen[i]), propensity, actions) if vectors is None else _of(vectors[i], place)
        decision = Decision(
            decision_id=f"round-{i}",
            decision_point=point,
            time_ms=first_ms + i,
            context=Features(named={"x": _vector(context[i])}),
            actions=candidates,
            probabilities=vector,
            chosen=int(chosen[i]),
        )
        made.append(Feedback(decision=decision, reward=float(reward[i]), outcomes=1, reward_time_ms=first_ms + i))
    return made


def _of(vector: Any, place: int) -> list[float]:
    array = np.asarray(vector, dtype=np.float64)
    return list(map(float, array[:, place] if array.ndim == 2 else array))


def _vector(values: Any) -> Value:
    return Value(numbers=Numbers(values=np.asarray(values, dtype=np.float64).ravel()))


def _numbers(named: Mapping[str, Value], names: Sequence[str]) -> list[float]:
    row: list[float] = []
    for name in names:
        value = named.get(name, Value(number=0.0))
        row += value.numbers.values if value.HasField("numbers") else [value.number]
    return row


def _feedback(row: Mapping[str, str], point: str, number: int, items: Sequence[str]) -> Feedback:
    item = row["item_id"]
    if item not in items:
        raise LineError(f"item {item!r} is none of the {len(items)} items")
    reward, propensity = _number(row["click"], "click"), _number(row["propensity_score"], "propensity_score")
    context = {"position": Value(text=row["position"])}
    actions = [Action(id=identity) for identity in items]
    places = {identity: place for place, identity in enumerate(items)}
    for column, cell in row.items():
        if column in COLUMNS or not column or not cell:  # the published files begin with a nameless row number
            continue
        value = _value(cell, column)
        identity = column.removeprefix(AFFINITY)
        if identity != column and identity in places:
            actions[places[identity]].features["affinity"].CopyFrom(value)
        else:
            add_feature(context, [column], value)
    time_ms = parse_time(row["timestamp"])
    chosen = places[item]
    decision = Decision(
        decision_id=identity_of(number, ",".join(row.values())),
        decision_point=point,
        time_ms=time_ms,
        context=Features(named=context),
        actions=actions,
        probabilities=spread(chosen, check_propensity(propensity, len(items)), len(items)),
        chosen=chosen,
    )
    return Feedback(decision=decision, reward=reward, outcomes=1, reward_time_ms=time_ms)


def _value(cell: str, column: str) -> Value:
    try:
        number = float(cell)
    except ValueError:
        return Value(text=cell)
    return number_value(number, column)


def _number(text: str, column: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise LineError(f"{column} is {text!r:.80}, no finite number")
    return number


def _order(identity: str) -> tuple[int, str]:
    return (int(identity), "") if identity.isdecimal() else (2**62, identity)


def _cell(value: Value | None, name: str) -> str:
    if value is None:
        return ""
    match value.WhichOneof("kind"):
        case "number":
            return repr(value.number)
        case "text":
            return value.text
        case _:
            raise ConfigError(f"feature {name!r} is a list of numbers, for which an Open Bandit table has no column")


def _row(cells: Sequence[str]) -> str:
    out = io.StringIO()
    csv.writer(out, lineterminator="").writerow(cells)
    return out.getvalue()


def _text(lines: Iterable[str]) -> Iterator[str]:
    """Yield lines with an end, which the CSV reader needs for fields that go over several lines."""
    return (line if line.endswith("\n") else f"{line}\n" for line in lines)
