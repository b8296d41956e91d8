"""Feedback of lists as the monitors take it: they know decisions of one action."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from engine.config import CategoryField, HistoryField, NumberField, Recommender
from engine.records import Decision, Feedback
from streaming.feature_columns import Values, project


def watched(feedback: Feedback, reward_range: tuple[float, float] | None = None) -> Feedback:
    """Return the feedback of a list as one of its first item, with the reward of the whole list.

    The first slot is a decision like any other: its item was drawn from the logged vector. So candidates, choices and
    features are watched as they are; the reward, cut to ``reward_range`` if that is given, is the list's, and so is the
    score that it is held against: what the model expected of all items shown. Feedback of other decisions is returned
    as it is.
    """
    if not feedback.decision.HasField("slate"):
        return feedback
    copy = Feedback()
    copy.CopyFrom(feedback)
    decision = copy.decision
    scores, items = decision.scores, decision.slate.items
    if scores and max(items) < len(scores):
        expected = sum(scores[item] for item in items)
        del decision.scores[:]
        decision.scores.extend([0.0] * decision.chosen + [_cut(expected, reward_range)])
    copy.reward = _cut(copy.reward, reward_range)
    return copy


def _cut(value: float, bounds: tuple[float, float] | None) -> float:
    return value if bounds is None else min(max(value, bounds[0]), bounds[1])


@dataclass(frozen=True)
class UserColumns:
    """Takes the user's fields out of the decisions of one recommender, as monitors watch them.

    A number is one column, a category one of texts; of a history its length and its latest entry are watched; a vector
    is a column for each component, or for each of ``most_components`` projections. What is missing is NaN or ``None``.

    Parameters
    ----------
    recommender
        The recommender.
    most_components
        Columns of one vector.
    """

    recommender: Recommender
    most_components: int

    def __call__(self, decisions: Sequence[Decision]) -> Mapping[str, Values]:
        """Return the columns by name."""
        columns: dict[str, Values] = {}
        for name, field in self.recommender.user.items():
            given = [decision.context.named.get(name) for decision in decisions]
            match field:
                case NumberField():
                    columns[name] = np.array(
                        [v.number if v is not None and v.HasField("number") else np.nan for v in given], np.float64
                    )
                case CategoryField():
                    columns[name] = _objects([v.text if v is not None and v.HasField("text") else None for v in given])
                case HistoryField():
                    lists = [list(v.texts.values) if v is not None else [] for v in given]
                    columns[f"{name}.length"] = np.array([len(entries) for entries in lists], np.float64)
                    columns[f"{name}.latest"] = _objects([entries[-1] if entries else None for entries in lists])
                case _:
                    block = np.full((len(decisions), field.size), np.nan)
                    for row, value in enumerate(given):
                        if value is not None and len(value.numbers.values) == field.size:
                            block[row] = value.numbers.values
                    columns |= project(name, block, self.most_components)
        return columns


def _objects(values: Sequence[str | None]) -> Values:
    found = np.empty(len(values), object)
    found[:] = values
    return found
