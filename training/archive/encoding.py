"""From the columns of the archive to the arrays of a dataset: ``engine.features.Encoder``, a whole column at a time."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from engine.config import DecisionPoint, Feature, NumberFeature, TextFeature
from engine.errors import ConfigError
from engine.features import FeatureBlock
from engine.hashing import text_bucket
from training.archive.columns import ACTION, CONTEXT, column_type
from training.dataset import Dataset

Float32 = NDArray[np.float32]


def encode(batch: Any, point: DecisionPoint, source: str) -> Dataset:
    """Return the rows of a ``pyarrow.RecordBatch`` of the archive, in their order, under today's configuration.

    A feature that the batch has no column for counts as missing; a column that is no feature any more is left out.
    The matrices equal those of ``Encoder.encode`` bit for bit.

    Parameters
    ----------
    batch
        Rows of one file of the archive.
    point
        The decision point as it is configured now.
    source
        Where the batch comes from, for the error.

    Raises
    ------
    ConfigError
        A feature was archived with another type or size than it is declared with.
    """
    arrays = encode_columns(batch, point, source)
    return Dataset(
        **arrays
        | {
            "decision_id": batch.column("decision_id").to_numpy(zero_copy_only=False),
            "policy_version": _texts(arrays["policy_version"]),
            "action_ids": _texts(arrays["action_ids"]),
        }
    )


def encode_columns(batch: Any, point: DecisionPoint, source: str) -> dict[str, Any]:
    """Return the columns of ``encode`` by name, but for the ids.

    Texts stay Arrow arrays, so that none becomes an object. Numbers may lie in the batch itself: they are only to be
    read.
    """
    actions = batch.column("actions")
    counts = actions.value_lengths().to_numpy(zero_copy_only=False).astype(np.int64)
    starts = np.concatenate([np.zeros(1, np.int64), np.cumsum(counts)])
    names = set(batch.schema.names)
    context = {name: batch.column(CONTEXT + name) if CONTEXT + name in names else None for name in point.context}
    action = {
        name: batch.column(ACTION + name).flatten() if ACTION + name in names else None
        for name in point.actions.features
    }
    return {
        "time_ms": _numbers(batch.column("time_ms"), np.int64),
        "policy_version": batch.column("policy_version"),
        "starts": starts,
        "context": encode_block(point.context, context, len(counts), f"{source}: context"),
        "action": encode_block(point.actions.features, action, int(starts[-1]), f"{source}: actions.features"),
        "action_ids": actions.flatten(),
        "available": ~_numbers(batch.column("excluded").flatten(), np.bool_),
        "probabilities": _numbers(batch.column("probabilities").flatten(), np.float64),
        "chosen": _numbers(batch.column("chosen"), np.int64),
        "reward": _numbers(batch.column("reward"), np.float64),
        "defaulted": _numbers(batch.column("defaulted"), np.bool_),
    }


def encode_block(features: dict[str, Feature], columns: dict[str, Any], rows: int, path: str) -> Float32:
    """Return the encoded and scaled columns of a group of features.

    Parameters
    ----------
    features
        The schema of the group.
    columns
        For each feature an Arrow array of ``column_type``, or ``None`` where there is none.
    rows
        Length of the arrays.
    path
        Where they come from, for the error.

    Raises
    ------
    ConfigError
        An array is of another type or size than its feature, or beyond float32 once scaled.
    """
    block = FeatureBlock(features, reject_unknown=False)
    X = np.zeros((rows, block.width), dtype=np.float32)
    for name, column in block.columns.items():
        values = columns[name]
        if values is not None:
            _check_type(column.feature, values.type, f"{path}.{name}")
            _fill(X[:, column.start : column.stop], name, column.feature, values, f"{path}.{name}")
    with np.errstate(over="ignore"):
        X *= block.scale
    if not np.isfinite(X).all():
        name = block.names[int(np.argwhere(~np.isfinite(X))[0][1])]
        raise ConfigError(f"{path}.{name}: archived values times the scale are beyond float32; correct the scale")
    return X


def columns_of(point: DecisionPoint) -> set[str]:
    """Return the names of the archive's columns that ``encode`` reads."""
    return {
        *("decision_id", "time_ms", "policy_version", "actions", "excluded", "probabilities"),
        *("chosen", "reward", "defaulted"),
        *(CONTEXT + name for name in point.context),
        *(ACTION + name for name in point.actions.features),
    }


def _fill(out: Float32, name: str, feature: Feature, values: Any, path: str) -> None:
    """Write one feature's raw values into its zeroed columns; a missing value leaves them 0."""
    present: Any = slice(None)
    given = values
    if values.null_count:
        present = np.flatnonzero(values.is_valid().to_numpy(zero_copy_only=False))
        given = values.drop_null()
    if isinstance(feature, NumberFeature):
        out[present, 0] = given.to_numpy(zero_copy_only=False)
    elif isinstance(feature, TextFeature):
        # One hash for each distinct text, however many rows have it.
        encoded = given.dictionary_encode()
        buckets = [text_bucket(name, text, feature.buckets) for text in encoded.dictionary.to_pylist()]
        out[np.arange(len(out))[present], np.array(buckets, dtype=np.intp)[encoded.indices.to_numpy()]] = 1.0
    else:
        sizes = given.value_lengths().to_numpy(zero_copy_only=False)
        if (sizes != feature.size).any():
            raise ConfigError(
                f"{path}: was archived with {sizes[sizes != feature.size][0]} numbers, but is declared with "
                f"size {feature.size} now; "
                "give the feature of the new size a new name"
            )
        out[present] = given.flatten().to_numpy(zero_copy_only=False).reshape(-1, feature.size)


def _check_type(feature: Feature, found: Any, path: str) -> None:
    if found != column_type(feature):
        was = "number" if pa.types.is_floating(found) else "text" if pa.types.is_string(found) else "vector"
        raise ConfigError(
            f"{path}: was archived as {was}, but is declared {feature.type} now; "
            "give the feature of the new type a new name"
        )


def _numbers(values: Any, kind: type[np.generic]) -> Any:
    return values.to_numpy(zero_copy_only=False).astype(kind, copy=False)


def _texts(values: Any) -> NDArray[np.object_]:
    """Return texts that repeat as an object array in which equal texts are one object."""
    encoded = values.dictionary_encode()
    distinct = np.array(encoded.dictionary.to_pylist(), dtype=np.object_)
    texts: NDArray[np.object_] = distinct[encoded.indices.to_numpy(zero_copy_only=False)]
    return texts
