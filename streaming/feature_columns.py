"""The features of many decisions at once, as monitors take them: by the schema, before any scaling."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from engine.config import DecisionPoint, Feature, NumberFeature, TextFeature
from engine.records import Decision, Value
from monitoring.rows import offered_places

Values = NDArray[np.float64] | NDArray[np.object_]
#: The features of one context or action that came by name.
Named = Mapping[str, Value]


@dataclass(frozen=True)
class ContextColumns:
    """Takes the features of one decision point out of decisions: those of the context, and of what is offered.

    A number is one column; a vector one for each component, or, where it has more than ``most_components``, for each
    of so many projections on random signs, which move when its distribution does. What is missing, or is not of its
    type, is NaN or ``None``: the decision was made under another schema.

    Features of actions are those of one of the actions that could be chosen, each with the same chance, which no policy
    moves; their columns are named as ``action price``.

    Parameters
    ----------
    point
        The decision point.
    most_components
        Columns of one vector.
    """

    point: DecisionPoint
    most_components: int

    def __call__(self, decisions: Sequence[Decision]) -> Mapping[str, Values]:
        """Return the columns by name."""
        contexts = [(decision.context.named, decision.context.packed) for decision in decisions]
        columns = _columns(self.point.context, contexts, self.most_components)
        schema = self.point.actions.features
        if schema:
            places = offered_places(decisions)
            row = 4 * _width(schema)
            offered = [
                (
                    decision.actions[place].features,
                    decision.packed_actions[place * row : (place + 1) * row],
                )
                for decision, place in zip(decisions, places, strict=True)
            ]
            found = _columns(schema, offered, self.most_components)
            columns |= {f"action {name}": values for name, values in found.items()}
        return columns


def _columns(schema: Mapping[str, Feature], rows: Sequence[tuple[Named, bytes]], most: int) -> dict[str, Values]:
    """Return the columns of rows that came by name, or packed; a row comes in one of the two forms only."""
    columns: dict[str, Values] = {}
    named = [values for values, _ in rows]
    packed = _packed([data for _, data in rows], _width(schema))
    given = [place for place, (values, data) in enumerate(rows) if values and not data]
    start = 0
    for name, feature in schema.items():
        if isinstance(feature, TextFeature):
            columns[name] = _texts(named, name)
            continue
        size = 1 if isinstance(feature, NumberFeature) else feature.size
        block = packed[:, start : start + size]
        start += size
        if isinstance(feature, NumberFeature):
            _numbers(named, given, name, block[:, 0])
            columns[name] = block[:, 0]
        else:
            _vectors(named, given, name, block)
            columns |= project(name, block, most)
    return columns


def _width(schema: Mapping[str, Feature]) -> int:
    """Return how many numbers the features are; texts are none."""
    return sum(
        1 if isinstance(feature, NumberFeature) else feature.size
        for feature in schema.values()
        if not isinstance(feature, TextFeature)
    )


def _packed(rows: Sequence[bytes], width: int) -> NDArray[np.float64]:
    """Return all numbers of the schema, shape (n, numbers); NaN where they did not come packed."""
    found = np.full((len(rows), width), np.nan)
    whole = [place for place, data in enumerate(rows) if len(data) == 4 * width]
    if whole and width:
        data = b"".join(rows[place] for place in whole)
        found[whole] = np.frombuffer(data, "<f4").reshape(len(whole), width)
    return found


def _numbers(named: Sequence[Named], given: Sequence[int], name: str, column: NDArray[np.float64]) -> None:
    """Write the numbers that came by name; ``given`` are the rows in which anything did."""
    for row in given:
        value = named[row].get(name)
        if value is not None:
            # Only a zero can be something else that was not asked for: that takes a second call.
            number = value.number
            if number or value.WhichOneof("kind") == "number":
                column[row] = number


def project(name: str, block: NDArray[np.float64], most: int) -> dict[str, Values]:
    """Return a vector's columns: its components, or ``most`` projections on random signs where it has more."""
    size = block.shape[1]
    if size <= most:
        return {f"{name}[{place}]": block[:, place] for place in range(size)}
    signs = _signs(name, size, most)
    return {f"{name}~{place}": block @ signs[:, place] for place in range(most)}


def _vectors(named: Sequence[Named], given: Sequence[int], name: str, block: NDArray[np.float64]) -> None:
    """Write the vectors that came by name."""
    for row in given:
        value = named[row].get(name)
        if value is not None and value.WhichOneof("kind") == "numbers":
            values = value.numbers.values
            if len(values) == block.shape[1]:
                block[row] = values


def _texts(named: Sequence[Named], name: str) -> NDArray[np.object_]:
    found = np.empty(len(named), object)
    for row, values in enumerate(named):
        value = values.get(name)
        if value is not None:
            text = value.text
            if text or value.WhichOneof("kind") == "text":
                found[row] = text
    return found


def _signs(name: str, size: int, count: int) -> NDArray[np.float64]:
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    signs: NDArray[np.float64] = rng.choice([-1.0, 1.0], (size, count)) / np.sqrt(size)
    return signs
