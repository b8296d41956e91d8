"""A table as a world: its columns are contexts, its label or reward columns say what each action would have earned."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyarrow import csv

from engine.config import DecisionPoint, NumberFeature, TextFeature, VectorFeature
from engine.errors import ConfigError
from engine.features import Encoder
from training.archive.columns import column_type
from training.archive.encoding import encode_block
from training.formats.base import feature_name
from training.simulation.world import Float32, Float64, Offer, Visits

#: More distinct labels than this are no classes.
MAX_ACTIONS = 1_000


class TableWorld:
    """Supervised data as bandit feedback: each row is a visit, and the label or the reward columns stay here.

    Parameters
    ----------
    name
        Where the table comes from.
    point
        The decision point whose context the rows were encoded under.
    actions : sequence of str, length K
        Ids of the actions.
    context : ndarray of float32, shape (n, context width)
        The encoded rows.
    reward : ndarray of float64, shape (n, K)
        What each action earns.
    ordered
        Keep the order of the rows, as where they are a stream that drifts; otherwise each seed shuffles them.
    """

    def __init__(
        self,
        name: str,
        point: DecisionPoint,
        actions: Sequence[str],
        context: Float32,
        reward: Float64,
        *,
        ordered: bool = False,
    ) -> None:
        self.name = name
        self.point = point
        self._actions = list(actions)
        self._context = context
        self._reward = reward
        self._ordered = ordered
        self.length = len(context)

    def visits(self, seed: int, count: int | None, offer: Offer) -> Visits:
        """Return a run; the table is gone through again, in another order, where ``count`` asks for more."""
        rows = self.length
        n = rows if count is None else count
        rng = np.random.default_rng([seed, 0])
        passes = -(-n // rows)
        whole = [np.arange(rows) if self._ordered else rng.permutation(rows) for _ in range(passes)]
        order = np.concatenate(whole)[:n]
        offered, masked = offer.draw(np.random.default_rng([seed, 1]), n, len(self._actions))
        reward = self._reward[order]
        width = Encoder(self.point).action.width
        return Visits(self._actions, self._context[order], width, offered, masked, reward, reward, seed)


def read_world(
    path: Path,
    label: str | None = None,
    rewards: str | None = None,
    point: DecisionPoint | None = None,
    *,
    ordered: bool = False,
) -> TableWorld:
    """Read a table.

    Parameters
    ----------
    path
        CSV, Parquet, or a NumPy archive with the matrix ``X``.
    label
        The column (or array) whose values are the actions: the right one earns 1, the others 0.
    rewards
        What the names of the reward columns begin with; the rest of such a name is the action's id. Of a NumPy
        archive: the array (n, K).
    point
        The decision point whose features the columns are; without one, every other column becomes a feature.
    ordered
        See ``TableWorld``.

    Raises
    ------
    ConfigError
        The table cannot be read, or lacks what was asked for; the message names it.
    """
    if label is not None and rewards is not None:
        raise ConfigError("--label and --rewards: a table has one of them; leave the other out")
    table = _npz(path, label, rewards) if path.suffix == ".npz" else _columns(path, label, rewards)
    columns, actions, reward = table
    _check(path, actions, reward)
    if point is None:
        features, columns = _features(columns)
        low, high = min(0.0, float(reward.min())), max(1.0, float(reward.max()))
        point = DecisionPoint.model_validate({"context": features, "reward": {"range": [low, high]}})
    elif not (point.reward.range[0] <= reward.min() and reward.max() <= point.reward.range[1]):
        raise ConfigError(
            f"{path}: rewards from {reward.min()} to {reward.max()} lie outside the declared reward.range "
            f"{list(point.reward.range)}; correct one of them"
        )
    arrays = {name: _of_type(columns, name, feature, path) for name, feature in point.context.items()}
    context = encode_block(point.context, arrays, len(reward), f"{path}: context")
    return TableWorld(path.name, point, actions, context, reward, ordered=ordered)


def _columns(path: Path, label: str | None, rewards: str | None) -> tuple[dict[str, Any], list[str], Float64]:
    try:
        table = pq.read_table(path) if path.suffix in (".parquet", ".pq") else csv.read_csv(path)
    except (OSError, pa.ArrowException) as error:
        raise ConfigError(f"{path}: cannot be read: {error}; bring CSV, Parquet (.parquet) or NumPy (.npz)") from error
    names = table.column_names
    if len(set(names)) < len(names):
        raise ConfigError(f"{path}: two columns have the same name; rename one")
    columns = {name: table[name].combine_chunks() for name in names}
    if label is not None:
        if label not in columns:
            raise ConfigError(f"--label {label}: no such column in {path}; it has: {', '.join(names)}")
        actions, reward = _one_hot(columns.pop(label).cast(pa.string()).to_pylist(), path, label)
        return columns, actions, reward
    if rewards is None:
        raise ConfigError(f"{path}: name the column with the right action (--label) or the reward columns (--rewards)")
    ours = [name for name in names if name.startswith(rewards) and name != rewards]
    try:
        taken = [columns.pop(name).cast(pa.float64()).to_numpy(zero_copy_only=False) for name in ours]
    except pa.ArrowException as error:
        raise ConfigError(f"--rewards {rewards}: a column of {path} is not numeric: {error}") from error
    reward = np.column_stack(taken) if taken else np.zeros((table.num_rows, 0))
    return columns, [name.removeprefix(rewards) for name in ours], reward


def _npz(path: Path, label: str | None, rewards: str | None) -> tuple[dict[str, Any], list[str], Float64]:
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except Exception as error:
        # Damaged bytes make the readers of zip and arrays raise almost anything.
        raise ConfigError(f"{path}: no readable NumPy archive ({error})") from error
    name = label or rewards or ("Y" if "Y" in arrays else "y")
    for needed in ("X", name):
        if needed not in arrays:
            raise ConfigError(f"{path}: has no array {needed}; it has: {', '.join(arrays) or 'none'}")
    X, y = arrays["X"], arrays[name]
    if X.ndim != 2 or X.shape[1] == 0 or not np.issubdtype(X.dtype, np.number) or len(y) != len(X):
        raise ConfigError(f"{path}: X {X.shape} must be a matrix of numbers, with one row for each of {name} {y.shape}")
    flat = pa.array(np.ascontiguousarray(X, dtype=np.float32).ravel())
    columns = {"x": pa.FixedSizeListArray.from_arrays(flat, X.shape[1])}
    if y.ndim == 1 and rewards is None:
        actions, reward = _one_hot([str(value) for value in y.tolist()], path, name)
    elif y.ndim == 2 and label is None:
        actions, reward = [f"a{action}" for action in range(y.shape[1])], y.astype(np.float64)
    else:
        raise ConfigError(f"{path}: {name} has shape {y.shape}; a label is one column, rewards are one for each action")
    return columns, actions, reward


def _one_hot(values: Sequence[str | None], path: Path, label: str) -> tuple[list[str], Float64]:
    if None in values:
        raise ConfigError(f"--label {label}: row {values.index(None) + 1} of {path} has none; drop such rows")
    actions = sorted({str(value) for value in values})
    places = {action: place for place, action in enumerate(actions)}
    if len(actions) > MAX_ACTIONS:
        raise ConfigError(
            f"--label {label}: has {len(actions)} distinct values; a label has 2 to {MAX_ACTIONS}, one for each action"
        )
    codes = np.array([places[str(value)] for value in values], dtype=np.int64)
    return actions, np.eye(len(actions))[codes] if actions else np.zeros((0, 0))


def _check(path: Path, actions: list[str], reward: Float64) -> None:
    if len(reward) == 0:
        raise ConfigError(f"{path}: has no rows")
    if len(actions) < 2:
        raise ConfigError(f"{path}: has {len(actions)} action(s); a decision needs at least two")
    if not np.isfinite(reward).all():
        row, column = np.argwhere(~np.isfinite(reward))[0]
        raise ConfigError(f"{path}: the reward of action {actions[column]!r} in row {row + 1} is no finite number")
    if "" in actions:
        raise ConfigError(f"{path}: an action has an empty name")


def _features(columns: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return a declaration for each column, and the columns by the names under which they are declared."""
    features: dict[str, Any] = {}
    renamed: dict[str, Any] = {}
    for column, values in columns.items():
        name = feature_name([column])
        if name in features:
            raise ConfigError(f"column {column!r}: another one is called {name!r} too; rename one")
        kind = values.type
        if pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind):
            spread = float(pc.stddev(values.cast(pa.float64())).as_py() or 0.0)
            features[name] = {"type": "number", "scale": 1.0 / spread if 1e-30 < spread < 1e30 else 1.0}
        elif pa.types.is_fixed_size_list(kind):
            features[name] = {"type": "vector", "size": kind.list_size}
        elif pa.types.is_list(kind):
            sizes = pc.unique(pc.list_value_length(values).drop_null()).to_pylist()
            if len(sizes) != 1 or not sizes[0]:
                raise ConfigError(f"column {column!r}: lists of {sizes} numbers; a vector has one size")
            features[name] = {"type": "vector", "size": sizes[0]}
        else:
            features[name] = {"type": "text", "buckets": 32}
        renamed[name] = values
    return features, renamed


def _of_type(
    columns: Mapping[str, Any], name: str, feature: NumberFeature | TextFeature | VectorFeature, path: Path
) -> Any:
    """Return a column as the type of its feature; a vector may also lie in columns ``name_0``, ``name_1``, ..."""
    if isinstance(feature, VectorFeature) and name not in columns:
        parts = [f"{name}_{i}" for i in range(feature.size)]
        if all(part in columns for part in parts):
            cells = [columns[part].cast(pa.float32()).to_numpy(zero_copy_only=False) for part in parts]
            flat = pa.array(np.ascontiguousarray(np.column_stack(cells)).ravel())
            return pa.FixedSizeListArray.from_arrays(flat, feature.size).cast(column_type(feature))
    if name not in columns:
        raise ConfigError(f"{path}: has no column for the feature context.{name}; it has: {', '.join(columns)}")
    try:
        values = columns[name].cast(column_type(feature))
    except pa.ArrowException as error:
        raise ConfigError(f"{path}: column {name!r} cannot be a {feature.type}: {error}") from error
    if isinstance(feature, NumberFeature):  # what is not a number counts as missing
        return pc.if_else(pc.is_nan(values), pa.scalar(None, pa.float64()), values)
    return values
