"""From the fields that a configuration declares to the fields of an encoding."""

from __future__ import annotations

from collections.abc import Mapping

from engine.config import CategoryField, HistoryField, NumberField, Recommender, RecommenderField
from engine.recommender.fields import Field
from engine.recommender.space import FieldSpace


def declared_fields(fields: Mapping[str, RecommenderField]) -> tuple[Field, ...]:
    """Return the fields of one side, in the order of the configuration.

    >>> declared_fields({"recent": HistoryField(type="history", of="item_id", length=5)})[0].codes
    'item_id'
    """
    return tuple(_field(name, field) for name, field in fields.items())


def declared_space(recommender: Recommender) -> FieldSpace:
    """Return the encoding of a recommender before any value was seen: no edges, empty vocabularies."""
    return FieldSpace(declared_fields(recommender.user), declared_fields(recommender.item))


def _field(name: str, field: RecommenderField) -> Field:
    match field:
        case NumberField():
            return Field(name, "statistical", buckets=field.buckets)
        case CategoryField():
            return Field(name, "categorical")
        case HistoryField():
            return Field(name, "sequential", length=field.length, vocabulary=field.of)
        case _:
            return Field(name, "dense", length=field.size)
