"""The declaration of a table of impressions: which column is what, in a YAML file that people write."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal, Self

import pydantic
import yaml
from pydantic import StringConstraints, ValidationError, model_validator

from engine.config.base import Model, Name
from engine.errors import ConfigError
from engine.recommender.fields import Field, Side
from training.sessions.rolling import Statistic

ColumnName = Annotated[str, StringConstraints(min_length=1)]


class FieldColumn(Model):
    """A field and the column that it comes from.

    Parameters
    ----------
    kind, length, vocabulary, buckets
        See ``engine.recommender.fields.Field``.
    column
        Its name in the table; default: the field's.
    separator
        Where lists come as text, as in CSV: what stands between two entries. Default: a space.
    """

    kind: Literal["statistical", "categorical", "sequential", "dense"]
    length: int = pydantic.Field(default=1, ge=1)
    vocabulary: str = ""
    buckets: int = pydantic.Field(default=50, ge=2)
    column: ColumnName | None = None
    separator: ColumnName = " "


class RollingColumns(Model):
    """Statistics that are counted from the table itself; see ``training.sessions.rolling``.

    Parameters
    ----------
    user, item
        Categorical fields of the side whose past is counted, such as ``[user_id]`` and ``[item_id]``.
    windows
        In days.
    buckets
        Of the fields that they become.
    """

    user: tuple[Name, ...] = ()
    item: tuple[Name, ...] = ()
    windows: tuple[Annotated[int, pydantic.Field(ge=1)], ...] = (1, 3, 7)
    buckets: int = pydantic.Field(default=50, ge=2)


class TableSchema(Model):
    """Everything about a table.

    Parameters
    ----------
    day
        Column with the day: a whole number, a date, or a time (days are those of UTC).
    session
        Column with the session's id.
    labels
        By task, the column with its label, 0 or 1.
    user, item
        The fields by name. A user field has one value in all rows of a session.
    rolling
        What else to count.
    """

    day: ColumnName
    session: ColumnName
    labels: Mapping[Name, ColumnName] = pydantic.Field(min_length=1)
    user: Mapping[Name, FieldColumn] = pydantic.Field(default_factory=dict)
    item: Mapping[Name, FieldColumn] = pydantic.Field(default_factory=dict)
    rolling: RollingColumns = RollingColumns()

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if twice := sorted(self.user.keys() & self.item.keys()):
            raise ValueError(f"{twice[0]!r} is a field of both sides; rename one, and name its column with column:")
        for side in ("user", "item"):
            self.fields(side)
        for side, keys in (("user", self.rolling.user), ("item", self.rolling.item)):
            known = self.user if side == "user" else self.item
            for key in keys:
                if key not in known or known[key].kind != "categorical":
                    raise ValueError(f"rolling.{side}: {key!r} is no categorical field of the {side} side")
        return self

    def columns(self, side: Side) -> Mapping[str, FieldColumn]:
        """Return the declared fields of a side."""
        return self.user if side == "user" else self.item

    def fields(self, side: Side) -> tuple[Field, ...]:
        """Return the fields of a side, without the rolling statistics."""
        return tuple(
            Field(name, declared.kind, declared.length, declared.vocabulary, declared.buckets)
            for name, declared in self.columns(side).items()
        )

    def statistics(self) -> tuple[Statistic, ...]:
        """Return what is to be counted."""
        return (
            *(Statistic("user", key, self.rolling.windows) for key in self.rolling.user),
            *(Statistic("item", key, self.rolling.windows) for key in self.rolling.item),
        )


def read_schema(path: Path) -> TableSchema:
    """Read a schema; raises ``ConfigError`` that names each setting that is wrong."""
    try:
        content = yaml.safe_load(path.read_text())
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"{path}: cannot be read as YAML: {error}") from error
    try:
        return TableSchema.model_validate(content)
    except ValidationError as error:
        problems = [
            f"{'.'.join(map(str, problem['loc'])) or 'the schema'}: {problem['msg'].removeprefix('Value error, ')}"
            for problem in error.errors()
        ]
        raise ConfigError(f"{path}: {'; '.join(problems)}; see docs/sessions.md") from None
